package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// stops is A6: SIGTERM under load, with batches half full; then with a handler that never returns; then twice.
func stops(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, kind := range []string{"kafka", "rabbitmq"} {
		for _, variant := range []func(context.Context, *Env, *either) (*Outcome, error){cleanStops, stuckStop, secondTerm} {
			if err := all.try(ctx, env, kind, variant); err != nil {
				return all, fmt.Errorf("%s: %w", kind, err)
			}
		}
	}
	return all, nil
}

// batched is a worker whose batches take long to fill.
func (e *either) batched() worker.Config {
	const size, bound = 500, 1200
	cfg := e.config
	cfg.Batch = &worker.Batch{Size: size, Timeout: 2 * time.Second, Concurrency: 1}
	cfg.MaxUnsettled = bound
	if cfg.Kafka != nil {
		kafka := *cfg.Kafka
		kafka.Window = bound
		cfg.Kafka = &kafka
	} else {
		rabbit := *cfg.Rabbit
		rabbit.Prefetch = bound
		cfg.Rabbit = &rabbit
	}
	return cfg
}

func cleanStops(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n, times := env.N(100_000, 6_000), env.Times(20, 4)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.batched()
	cfg.Delay = pace(n, times, processes*cfg.Concurrency)
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	random := env.Rand("terms " + run.kind)
	var missed []string
	var slowest time.Duration
	for i := range times {
		if err := run.afterShare(ctx, n, (float64(i)+random.Float64())/float64(times+1)); err != nil {
			return nil, err
		}
		victim := random.IntN(processes)
		p := workers[victim]
		if err := awaitReady(ctx, p); err != nil {
			return nil, err
		}
		began := time.Now()
		var code int
		err := run.journal.during(ledger.Fault{Kind: "SIGTERM", Target: p.Name, Clean: true}, func() (err error) {
			code, err = p.Terminate(cfg.DrainTimeout + 10*time.Second)
			return err
		})
		if err != nil {
			missed = append(missed, err.Error())
		} else if code != worker.ExitClean {
			missed = append(missed, fmt.Sprintf("stop %d: exit code %d", i+1, code))
		}
		slowest = max(slowest, time.Since(began))
		if workers[victim], err = run.start(fmt.Sprintf("w%d", victim), cfg); err != nil {
			return nil, err
		}
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	outcome.Missed = append(outcome.Missed, missed...)
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d duplicates after clean stops", outcome.Total(check.Duplicates))
	outcome.Note("%d messages, %d stops, the slowest %.1f s (drain time-out %v)", n, times, slowest.Seconds(), cfg.DrainTimeout)
	return outcome, nil
}

// stuck is a load of which one message's handler never returns, and a worker that holds it.
func (e *either) stuck(ctx context.Context, n int) (*rig.Process, string, worker.Config, error) {
	if err := e.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, "", worker.Config{}, err
	}
	cfg := e.config
	cfg.DrainTimeout = 4 * time.Second
	free := cfg
	id := load.ID(e.name, 0, n/8)
	cfg.Faults = []worker.Fault{{Kind: worker.Hang, IDs: []string{id}, For: time.Hour}}
	p, err := e.start("w0", cfg)
	if err != nil {
		return nil, id, free, err
	}
	err = poll(ctx, time.Minute, "only the stuck message and those behind it are left", func() (bool, error) {
		last := p.Last()
		return last.Handled > int64(n/4) && last.Stats["busy"] >= 1, nil
	})
	return p, id, free, err
}

// stuckStop stops a worker with a handler that never returns.
func stuckStop(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	n := env.N(4_000, 800)
	p, id, cfg, err := run.stuck(ctx, n)
	if err != nil {
		return nil, err
	}
	var code int
	began := time.Now()
	fault := run.journal.begin(ledger.Fault{Kind: "SIGTERM with a stuck handler", Target: p.Name})
	code, err = p.Terminate(cfg.DrainTimeout + 15*time.Second)
	if err = errors.Join(err, run.journal.end(fault)); err != nil {
		return nil, err
	}
	took := time.Since(began)
	named, err := names(run, p, id)
	if err != nil {
		return nil, err
	}
	outcome, err := run.recover(ctx, cfg)
	if err != nil {
		return nil, err
	}
	outcome.Must(code == worker.ExitDrain, "stuck handler: exit code %d instead of %d", code, worker.ExitDrain)
	outcome.Must(named, "stuck handler: the log does not name the message")
	outcome.Note("a stuck handler: exit code %d %.1f s after SIGTERM, drain time-out %v", code, took.Seconds(), cfg.DrainTimeout)
	return outcome, nil
}

// secondTerm sends SIGTERM twice to a worker with a handler that never returns.
func secondTerm(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	p, _, cfg, err := run.stuck(ctx, env.N(4_000, 800))
	if err != nil {
		return nil, err
	}
	fault := run.journal.begin(ledger.Fault{Kind: "two SIGTERM", Target: p.Name})
	if err := errors.Join(p.Signal(syscall.SIGTERM), sleep(ctx, 300*time.Millisecond)); err != nil {
		return nil, err
	}
	began := time.Now()
	code, err := p.Terminate(10 * time.Second)
	took := time.Since(began)
	if err = errors.Join(err, run.journal.end(fault)); err != nil {
		return nil, err
	}
	outcome, err := run.recover(ctx, cfg)
	if err != nil {
		return nil, err
	}
	outcome.Must(code == worker.ExitAborted, "second SIGTERM: exit code %d instead of %d", code, worker.ExitAborted)
	outcome.Note("a second SIGTERM: exit after %.2f s", took.Seconds())
	return outcome, nil
}

// recover lets a worker without faults finish the load, and checks.
func (e *either) recover(ctx context.Context, cfg worker.Config) (*Outcome, error) {
	if _, err := e.start("w1", cfg); err != nil {
		return nil, err
	}
	if err := e.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	return e.finish(ctx, check.Rules{Duplicates: e.bound})
}

// names says whether a worker's log names a message: by its place in the topic, or its id.
func names(run *either, p *rig.Process, id string) (bool, error) {
	log, err := os.ReadFile(run.logOf(p))
	if err != nil {
		return false, err
	}
	all, _, err := ledger.Read[ledger.Produced](run.dir, ledger.KindProduced)
	if err != nil {
		return false, err
	}
	for _, entry := range all {
		if entry.ID == id && entry.State == ledger.Acked {
			place := fmt.Sprintf("%s/%d/%d", entry.Source, entry.Partition, entry.Offset)
			return strings.Contains(string(log), place) || strings.Contains(string(log), id), nil
		}
	}
	return false, nil
}
