package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// contained is A5: handlers and reporters that panic, exit, fail and hang.
func contained(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, kind := range []string{"kafka", "rabbitmq"} {
		for _, variant := range []func(context.Context, *Env, *either) (*Outcome, error){containedHandlers, containedReporters} {
			if err := all.try(ctx, env, kind, variant); err != nil {
				return all, fmt.Errorf("%s: %w", kind, err)
			}
		}
	}
	return all, nil
}

// waysToFail are how user code ends without success and returns at once.
func waysToFail() []string {
	return []string{worker.Panic, worker.PanicNil, worker.Goexit, worker.Error}
}

// hangs is a fault that strikes a few ids once, at even distances: the time that all of them take together is what matters.
func hangs(run *either, n, times int, length time.Duration) worker.Fault {
	fault := worker.Fault{Kind: worker.Hang, Times: 1, For: length}
	for i := range times {
		fault.IDs = append(fault.IDs, load.ID(run.name, 0, (i+1)*n/2/(times+1)))
	}
	return fault
}

// containedHandlers makes about one handling in a hundred end in each way: for half of the ids always, so that they are dead letters,
// for the others once.
func containedHandlers(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	run.deadly = true
	n := env.N(100_000, 4_000)
	var always, faults []worker.Fault
	for i, kind := range waysToFail() {
		always = append(always, worker.Fault{Kind: kind, Every: 800, Rest: uint32(i)})
		faults = append(faults, worker.Fault{Kind: kind, Every: 800, Rest: uint32(400 + i), Times: 1})
	}
	hang := hangs(run, n, env.Times(20, 4), env.For(30*time.Second, 4*time.Second))
	faults = append(append(faults, hang), always...)
	cfg := run.config
	cfg.Delay, cfg.Timeout, cfg.Faults, cfg.Backoff = time.Millisecond, time.Second, faults, 50*time.Millisecond
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	outcome, err := run.containedBy(ctx, n, cfg, hang, check.Rules{}) // nothing was written before it was struck: no repeats
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(run.dir, always...)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "handlers: %d ids dead-lettered that did not always fail, or always failing and not dead-lettered: %.200q", len(wrong), wrong)
	return outcome, nil
}

// containedReporters strikes batches once each, and some members always.
func containedReporters(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const size = 20
	run.deadly, run.loose = true, true // a reporter that hung writes what comes after in its batch
	n := env.N(100_000, 4_000)
	rejected := worker.Fault{Kind: worker.Error, Reporter: true, Every: 200, Rest: 0}
	hang := hangs(run, n, env.Times(10, 2), env.For(30*time.Second, 4*time.Second))
	hang.Reporter = true
	faults := []worker.Fault{rejected, hang, {Kind: worker.Alien, Reporter: true, Every: 1000, Rest: 501, Times: 1}}
	for i, kind := range waysToFail()[:3] {
		faults = append(faults, worker.Fault{Kind: kind, Reporter: true, Every: 1000, Rest: uint32(502 + i), Times: 1})
	}
	cfg := run.batched()
	cfg.Batch = &worker.Batch{Size: size, Timeout: 100 * time.Millisecond, Concurrency: 2, ReportTimeout: time.Second}
	// A batch fails as a whole when its reporter panics: an innocent member may be in several such.
	cfg.MaxAttempts, cfg.Faults, cfg.Backoff = 8, faults, 50*time.Millisecond
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	struck, err := strikes(run, faults)
	if err != nil {
		return nil, err
	}
	cut := struck[worker.Panic] + struck[worker.PanicNil] + struck[worker.Goexit] + struck[worker.Hang]
	// What of a batch was written before it was struck comes again.
	outcome, err := run.containedBy(ctx, n, cfg, hang, check.Rules{Duplicates: cut * (size - 1)})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(run.dir, rejected)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "reporters: %d ids dead-lettered that did not always fail, or always failing and not dead-lettered: %.200q", len(wrong), wrong)
	return outcome, nil
}

// containedBy runs one worker to the end of the load, and looks at how it is afterwards.
func (e *either) containedBy(ctx context.Context, n int, cfg worker.Config, hang worker.Fault, rules check.Rules) (*Outcome, error) {
	fault := e.journal.begin(ledger.Fault{Kind: "user code does not succeed"})
	workers, err := e.startAll(ctx, 1, cfg)
	if err != nil {
		return nil, err
	}
	p := workers[0]
	if err := e.afterShare(ctx, n, 0.5); err != nil {
		return nil, err
	}
	before := p.Last().Goroutines // all connections are open by then
	limit := 2*time.Minute + time.Duration(len(hang.IDs))*hang.For
	if err := errors.Join(e.drained(ctx, limit), e.journal.end(fault)); err != nil {
		return nil, err
	}
	rest := fmt.Sprintf("at rest as many goroutines as before (%d), and none stuck", before)
	err = poll(ctx, 10*time.Second, rest, func() (bool, error) {
		last := p.Last()
		return last.Stats["stuck"] == 0 && last.Goroutines <= before+5, fmt.Errorf("%d goroutines, %d stuck", last.Goroutines, last.Stats["stuck"])
	})
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	last := p.Last()
	outcome, failure := e.finish(ctx, rules)
	if failure != nil {
		return nil, failure
	}
	outcome.Must(err == nil, "%v", err)
	outcome.Must(last.Stats["settled_twice"] == 0, "%d messages were settled twice", last.Stats["settled_twice"])
	outcome.Must(last.Stats["late"] >= int64(len(hang.IDs)), "%d handlings returned late, %d were made to", last.Stats["late"], len(hang.IDs))
	struck, err := strikes(e, cfg.Faults)
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages; struck: %v, the hangs for %v each; %d handled again; %d goroutines before, %d at rest",
		n, struck, hang.For, last.Stats["retried"], before, last.Goroutines)
	return outcome, nil
}
