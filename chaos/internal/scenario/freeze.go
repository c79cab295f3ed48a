package scenario

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
)

// frozen is A4: a process stands still for longer than its broker waits for it, and goes on as if nothing had been. What it holds is
// somebody else's by then.
func frozen(ctx context.Context, env *Env) (*Outcome, error) { return bothAtOnce(ctx, env, frozenOnce) }

func frozenOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n, times := env.N(60_000, 6_000), env.Times(10, 2)
	length := 9 * time.Second // over the session time-out of 6 s, and over two heartbeats
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	if cfg.Rabbit != nil {
		source := *cfg.Rabbit
		source.Heartbeat = 2 * time.Second // the broker gives up after two of them
		cfg.Rabbit = &source
	}
	// For the load to last: while one stands still the other goes on.
	cfg.Delay = time.Duration(times) * (length + 2*time.Second) * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	random := env.Rand("freezes " + run.kind)
	for i := range times {
		if err := run.afterShare(ctx, n, (float64(i)+0.1+0.3*random.Float64())/float64(times+1)); err != nil {
			return nil, err
		}
		if err := run.freeze(ctx, workers[random.IntN(processes)], length); err != nil {
			return nil, err
		}
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	fenced, stale := run.total("fenced"), run.total("stale")
	outcome, err := run.finish(ctx, check.Rules{Duplicates: times * run.bound, Stale: times * run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Must(run.kind == "kafka" || run.total("sessions") > processes, "no session was lost")
	outcome.Note("%d messages, %d times SIGSTOP for %v: %d generations fenced, %d settles came too late", n, times, length, fenced, stale)
	return outcome, nil
}

// queueSurgery is C1: the queue is deleted under its consumers, and declared again a little later.
func queueSurgery(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, kind := range []string{"classic", "quorum"} {
		outcome, err := queueSurgeryOnce(ctx, env, amqp.Table{"x-queue-type": kind})
		if err != nil {
			return all, fmt.Errorf("%s: %w", kind, err)
		}
		for i, note := range outcome.Notes {
			outcome.Notes[i] = kind + ": " + note
		}
		all.add(outcome)
	}
	return all, nil
}

func queueSurgeryOnce(ctx context.Context, env *Env, arguments amqp.Table) (*Outcome, error) {
	const processes, prefetch = 2, 200
	bench, err := newRabbitBench(env, arguments)
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	n, times := env.N(10_000, 500), env.Times(10, 2)
	cfg := bench.config(prefetch)
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	var slowest time.Duration
	for i := range times + 1 {
		spec := load.Spec{Dir: bench.dir, Run: fmt.Sprintf("%s-%d", bench.name, i), Source: bench.name, Messages: n}
		if err := load.RabbitMQ(ctx, bench.rig.Direct(), spec, &bench.sent); err != nil {
			return nil, err
		}
		if err := bench.awaitDrained(ctx, time.Minute); err != nil {
			return nil, err
		}
		if i == times {
			break
		}
		err := bench.journal.during(ledger.Fault{Kind: "queue deleted"}, func() error {
			if err := bench.rig.DeleteQueue(bench.name); err != nil {
				return err
			}
			err := poll(ctx, 20*time.Second, "the workers say that the queue is not there", func() (bool, error) {
				return workers[0].Last().Err != "" && workers[1].Last().Err != "", nil
			})
			if err != nil {
				return err
			}
			return bench.rig.CreateQueue(bench.name, arguments)
		})
		if err != nil {
			return nil, err
		}
		began := time.Now()
		err = poll(ctx, time.Minute, "the workers consume again", func() (bool, error) {
			return workers[0].Last().Err == "" && workers[1].Last().Err == "", nil
		})
		if err != nil {
			return nil, err
		}
		slowest = max(slowest, time.Since(began))
	}
	sessions := bench.total("sessions")
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	outcome.Must(sessions == int64(processes*(times+1)), "%d sessions of %d processes over %d deletions", sessions, processes, times)
	outcome.Note("%d deletions, %d messages after each: all consume %.1f s after the queue is there again, at the latest", times, n, slowest.Seconds())
	return outcome, nil
}
