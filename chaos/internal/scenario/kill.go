package scenario

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
)

// killKafka is A1: three processes of a group, killed while they hold messages.
func killKafka(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, partitions, window = 3, 8, 1000
	bench, err := newKafkaBench(ctx, env, partitions)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	n, kills := env.N(200_000, 5_000), env.Times(20, 3)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := bench.config(window)
	cfg.Delay = pace(n, kills, processes*cfg.Concurrency)
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	killer := &killer{bench: bench.bench, workers: workers, cfg: cfg, random: env.Rand("kills"), least: 100, total: n}
	if err := killer.run(ctx, kills); err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: kills * window})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, %d processes, %d kills, each of a process that held at least %d", n, processes, len(killer.held), lowest(killer.held))
	return outcome, nil
}

// killRabbitMQ is A2: two processes on one queue, killed while they hold messages.
func killRabbitMQ(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, prefetch = 2, 200
	bench, err := newRabbitBench(env, nil)
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	n, kills := env.N(200_000, 5_000), env.Times(10, 3)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := bench.config(prefetch)
	cfg.Delay = pace(n, kills, processes*cfg.Concurrency)
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	killer := &killer{bench: bench.bench, workers: workers, cfg: cfg, random: env.Rand("kills"), least: 100, total: n}
	if err := killer.run(ctx, kills); err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: kills * prefetch})
	if err != nil {
		return nil, err
	}
	unmarked, err := unmarkedRepeats(bench.dir)
	if err != nil {
		return nil, err
	}
	outcome.Must(unmarked == 0, "%d repeats were not marked redelivered", unmarked)
	outcome.Note("%d messages, %d processes, %d kills, each of a process that held at least %d", n, processes, len(killer.held), lowest(killer.held))
	return outcome, nil
}

// pace is how long a handling must take for n messages to last over so many faults, two seconds each.
func pace(n, faults, workers int) time.Duration {
	return max(time.Millisecond, time.Duration(faults*workers)*2*time.Second/time.Duration(n))
}
