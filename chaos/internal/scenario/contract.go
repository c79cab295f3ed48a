package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// brokenBatches is E5: reporters that fail members, break the contract of *BatchError, panic half-way, or fail as a whole.
func brokenBatches(ctx context.Context, env *Env) (*Outcome, error) {
	all, err := onBoth(ctx, env, brokenBatchesOnce)
	if err != nil {
		return all, err
	}
	return all, all.try(ctx, env, "kafka", failedBatches)
}

func brokenBatchesOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const size = 100
	run.deadly = true
	n := env.N(100_000, 10_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.batched()
	cfg.Batch = &worker.Batch{Size: size, Timeout: 200 * time.Millisecond, Concurrency: 2}
	cfg.MaxAttempts, cfg.Backoff = 10, 50*time.Millisecond                            // an innocent message may be in several batches that fail as a whole
	rejected := worker.Fault{Kind: worker.Reject, Reporter: true, Every: 14, Rest: 3} // about seven of a batch
	each := uint32(max(n/10, 2500))                                                   // about ten batches are struck by each of these
	cfg.Faults = []worker.Fault{
		rejected,
		{Kind: worker.Twice, Reporter: true, Every: each, Rest: 1, Times: 1},
		{Kind: worker.Alien, Reporter: true, Every: each, Rest: 2, Times: 1},
		{Kind: worker.Half, Reporter: true, Every: each, Rest: 3, Times: 1},
		{Kind: worker.Whole, Reporter: true, Every: each, Rest: 4, Times: 1},
	}
	fault := run.journal.begin(ledger.Fault{Kind: "broken batches"})
	if _, err := run.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	if err := run.journal.end(fault); err != nil {
		return nil, err
	}
	twice := run.total("settled_twice")
	struck, err := strikes(run, cfg.Faults)
	if err != nil {
		return nil, err
	}
	// Half of each batch that panicked was written, and comes again.
	outcome, err := run.finish(ctx, check.Rules{Duplicates: struck[worker.Half] * size / 2})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(run.dir, rejected)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "%d ids dead-lettered that were not rejected, or rejected and not dead-lettered: %.200q", len(wrong), wrong)
	outcome.Must(twice == 0, "%d messages were settled twice", twice)
	outcome.Note("%d messages in batches of %d: %d members rejected; batches struck: %d named one twice, %d an alien, %d panicked half-way, %d failed",
		n, size, struck[worker.Reject], struck[worker.Twice], struck[worker.Alien], struck[worker.Half], struck[worker.Whole])
	return outcome, nil
}

// failedBatches is E5's question about order: batches that fail, in part, half-way or as a whole, and keep to the contract.
func failedBatches(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const size = 100
	run.deadly = true
	n := env.N(20_000, 3_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.batched()
	cfg.Batch = &worker.Batch{Size: size, Timeout: 200 * time.Millisecond, Concurrency: 2}
	cfg.MaxAttempts, cfg.Backoff = 10, 50*time.Millisecond
	cfg.MaxUnsettled, cfg.Kafka.Window = 4000, 4000 // a quarter may wait for another attempt: beyond it partitions stop
	rejected := worker.Fault{Kind: worker.Reject, Reporter: true, Every: 14, Rest: 3}
	cfg.Faults = []worker.Fault{
		rejected,
		{Kind: worker.Half, Reporter: true, Every: 1000, Rest: 1, Times: 1},
		{Kind: worker.Whole, Reporter: true, Every: 1000, Rest: 2, Times: 1},
	}
	fault := run.journal.begin(ledger.Fault{Kind: "failed batches"})
	if _, err := run.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := errors.Join(run.drained(ctx, 3*time.Minute), run.journal.end(fault)); err != nil {
		return nil, err
	}
	released := run.total("released")
	struck, err := strikes(run, cfg.Faults)
	if err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: struck[worker.Half] * size / 2})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(run.dir, rejected)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "%d ids dead-lettered that were not rejected, or rejected and not dead-lettered: %.200q", len(wrong), wrong)
	outcome.Note("%d messages in order: %d members rejected; %d batches panicked half-way, %d failed; %d messages given back",
		n, struck[worker.Reject], struck[worker.Half], struck[worker.Whole], released)
	return outcome, nil
}

// strikes counts the ids that each kind of fault is planned for.
func strikes(run *either, faults []worker.Fault) (map[string]int, error) {
	all, _, err := ledger.Read[ledger.Produced](run.dir, ledger.KindProduced)
	counts := map[string]int{}
	for _, entry := range all {
		for _, fault := range faults {
			if entry.State == ledger.Acked && fault.Strikes(entry.ID) {
				counts[fault.Kind]++
			}
		}
	}
	return counts, err
}

// wronglyDead are the ids whose fate differs from the plan: those that one of the faults strikes, and no others, are dead letters, each
// once, and have no success.
func wronglyDead(dir string, planned ...worker.Fault) (wrong []string, err error) {
	evidence, err := check.Read(dir)
	if err != nil {
		return nil, err
	}
	dead, done := map[string]int{}, map[string]bool{}
	for _, entry := range evidence.Dead {
		dead[entry.ID]++
	}
	for _, entry := range evidence.Sink {
		done[entry.ID] = done[entry.ID] || entry.Stage == ledger.Success
	}
	for _, entry := range evidence.Produced {
		if entry.State != ledger.Acked {
			continue
		}
		struck := slices.ContainsFunc(planned, func(f worker.Fault) bool { return f.Strikes(entry.ID) })
		if struck != (dead[entry.ID] == 1) || struck == done[entry.ID] {
			wrong = append(wrong, fmt.Sprintf("%s (dead letters: %d, success: %v)", entry.ID, dead[entry.ID], done[entry.ID]))
		}
	}
	return wrong, nil
}
