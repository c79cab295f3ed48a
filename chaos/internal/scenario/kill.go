package scenario

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
)

// killKafka is A1: three processes of a group, killed while they hold messages.
func killKafka(ctx context.Context, env *Env) (*Outcome, error) {
	run, err := newEither(ctx, env, "kafka")
	if err != nil {
		return nil, err
	}
	defer run.close()
	return killed(ctx, env, run, 3, env.Times(20, 3))
}

// killRabbitMQ is A2: two processes on one classic queue, killed while they hold messages.
func killRabbitMQ(ctx context.Context, env *Env) (*Outcome, error) {
	run, err := rabbitEither(env, nil)
	if err != nil {
		return nil, err
	}
	defer run.close()
	outcome, err := killed(ctx, env, run, 2, env.Times(10, 3))
	if err != nil {
		return nil, err
	}
	unmarked, err := unmarkedRepeats(run.dir)
	if err != nil {
		return nil, err
	}
	outcome.Must(unmarked == 0, "%d repeats were not marked redelivered", unmarked)
	return outcome, nil
}

// killed kills processes of run while they hold messages, and counts.
func killed(ctx context.Context, env *Env, run *either, processes, kills int) (*Outcome, error) {
	n := env.N(200_000, 5_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay = pace(n, kills, processes*cfg.Concurrency)
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	killer := &killer{bench: run.bench, workers: workers, cfg: cfg, random: env.Rand("kills"), least: 100, total: n}
	if err := killer.run(ctx, kills); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: kills * run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, %d processes, %d kills, each of a process that held at least %d", n, processes, len(killer.held), lowest(killer.held))
	return outcome, nil
}

// pace is how long a handling must take for n messages to last over so many faults, two seconds each.
func pace(n, faults, workers int) time.Duration {
	return max(time.Millisecond, time.Duration(faults*workers)*2*time.Second/time.Duration(n))
}
