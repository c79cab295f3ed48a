package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// lostPlaces is B8: what a group has not read is deleted, or where it stands is forgotten.
func lostPlaces(ctx context.Context, env *Env) (*Outcome, error) {
	return eachOnKafka(ctx, env, 1, overtakenStopped, overtakenRunning, offsetsRemoved)
}

// begin lets a worker read the first n messages of a load, ends it, and sends the others, up to total.
func (k *kafkaBench) begin(ctx context.Context, n, total int) error {
	const producers, keys = 2, 100
	if err := k.produce(ctx, load.Spec{Messages: n, Producers: producers, Keys: keys}); err != nil {
		return err
	}
	p, err := k.start("first", k.config(1000))
	if err != nil {
		return err
	}
	if err := k.awaitDrained(ctx, time.Minute); err != nil {
		return err
	}
	if code, err := p.Terminate(30 * time.Second); err != nil || code != worker.ExitClean {
		return fmt.Errorf("the first worker ends with code %d: %w", code, err)
	}
	return k.produce(ctx, load.Spec{Messages: total - n, First: n / producers, Producers: producers, Keys: keys})
}

// cut deletes the records of the one partition below an offset, and writes down which of them nobody has read.
func (k *kafkaBench) cut(ctx context.Context, read, before int64) error {
	return k.journal.during(ledger.Fault{Kind: "records are deleted", Clean: true}, func() error {
		if err := k.rig.DeleteRecords(ctx, k.name, 0, before); err != nil {
			return err
		}
		return load.Gaps(k.dir, ledger.Gap{Source: k.name, First: read, Next: before, Why: ledger.Deleted})
	})
}

// overtakenStopped deletes what a stopped group has not read: the policy "fail" names it and commits nothing, "earliest" goes on and
// counts it.
func overtakenStopped(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	total := k.env.N(50_000, 5_000) / 10 * 10
	read, before := int64(total/5), int64(total/5*2)
	if err := k.begin(ctx, int(read), total); err != nil {
		return nil, err
	}
	if err := k.cut(ctx, read, before); err != nil {
		return nil, err
	}
	cfg := k.config(1000)
	cfg.Kafka.OutOfRange = "fail"
	var commits atomic.Int64
	k.watch(func(_ rig.Conn, event wire.Event) {
		if event.Kind == wire.Commit {
			commits.Add(1)
		}
	})
	p, err := k.start("fails", cfg)
	if err != nil {
		return nil, err
	}
	if err := poll(ctx, 30*time.Second, "the worker stops by itself", func() (bool, error) { return p.Ended(), nil }); err != nil {
		return nil, err
	}
	k.watch(nil)
	log, err := os.ReadFile(k.logOf(p))
	if err != nil {
		return nil, err
	}
	at, err := k.rig.Positions(ctx, k.name, k.name)
	if err != nil {
		return nil, err
	}
	cfg.Kafka.OutOfRange = "earliest"
	if _, err := k.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	skipped, times := k.total("skipped_offsets"), k.total("out_of_range")
	outcome, err := k.finish(ctx, check.Rules{Skipped: before - read})
	if err != nil {
		return nil, err
	}
	outcome.Must(p.ExitCode() == worker.ExitFailed, "fail: exit code %d instead of %d", p.ExitCode(), worker.ExitFailed)
	for _, want := range []string{k.name + "/0", fmt.Sprint(read), fmt.Sprint(before)} {
		outcome.Must(strings.Contains(string(log), want), "fail: the log does not name %s", want)
	}
	outcome.Must(commits.Load() == 0 && at[0].Committed == read, "fail: %d commits, and the group stands at %d instead of %d", commits.Load(), at[0].Committed, read)
	outcome.Must(skipped == before-read, "earliest: %d offsets skipped, told %d", before-read, skipped)
	outcome.Note("a stopped group at %d of %d, deleted up to %d: fail names them, exit code %d; earliest tells of %d skipped offsets, out of range %d times",
		read, total, before, p.ExitCode(), skipped, times)
	return outcome, nil
}

// overtakenRunning deletes what a group that runs has neither read nor fetched.
func overtakenRunning(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	total := k.env.N(50_000, 5_000)
	if err := k.produce(ctx, load.Spec{Messages: total}); err != nil {
		return nil, err
	}
	cfg := k.config(200)
	cfg.Delay = pace(total, 5, cfg.Concurrency)
	cfg.Kafka.OutOfRange = "earliest"
	if _, err := k.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := k.afterShare(ctx, total, 0.2); err != nil {
		return nil, err
	}
	before := int64(total) * 7 / 10
	if err := k.cut(ctx, 0, before); err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	skipped := k.total("skipped_offsets")
	outcome, err := k.finish(ctx, check.Rules{Skipped: skipped})
	if err != nil {
		return nil, err
	}
	outcome.Must(skipped > 0, "running: nothing was skipped though %d records of %d were deleted", before, total)
	outcome.Note("a running group, deleted up to %d of %d: told of %d skipped offsets, the checker finds %d", before, total, skipped, outcome.Total(check.Skipped))
	return outcome, nil
}

// offsetsRemoved removes what a stopped group has committed: it begins at the start.
func offsetsRemoved(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	total := k.env.N(50_000, 5_000) / 10 * 10
	read := total / 5
	if err := k.begin(ctx, read, total); err != nil {
		return nil, err
	}
	fault := k.journal.begin(ledger.Fault{Kind: "committed offsets are removed"})
	if err := k.rig.DeleteOffsets(ctx, k.name, k.name, k.partitions); err != nil {
		return nil, err
	}
	if _, err := k.startAll(ctx, 1, k.config(1000)); err != nil {
		return nil, err
	}
	if err := errors.Join(k.awaitDrained(ctx, time.Minute), k.journal.end(fault)); err != nil {
		return nil, err
	}
	outcome, err := k.finish(ctx, check.Rules{Duplicates: read, Rewound: []int64{fault.From}})
	if err != nil {
		return nil, err
	}
	again := outcome.Total(check.Duplicates)
	outcome.Must(again == read, "removed: %d messages came again, %d had been read", again, read)
	outcome.Note("committed offsets removed at %d of %d: all from the start, %d again", read, total, again)
	return outcome, nil
}

// compacted is B9.
func compacted(ctx context.Context, env *Env) (*Outcome, error) {
	kafka, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	k, err := newKafkaBenchOn(ctx, env, kafka, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": "0",
		"max.compaction.lag.ms": "1000", "delete.retention.ms": "3600000",
	})
	if err != nil {
		return nil, err
	}
	defer k.close()
	k.corpus = true
	n := env.N(100_000, 12_000)
	spec := load.Spec{Dir: k.dir, Run: k.name, Source: k.name, Messages: n, Keys: max(100, n/100)}
	if err := load.Compacted(ctx, kafka.Direct(), spec, &k.sent); err != nil {
		return nil, err
	}
	var left log
	err = poll(ctx, time.Minute, "the cleaner has been there", func() (bool, error) {
		if err := load.Put(ctx, kafka.Direct(), spec, &k.sent); err != nil { // it leaves the last segment alone: this rolls it
			return false, err
		}
		left, err = k.readLog(ctx)
		return err == nil && len(left.keys) <= n/2, errors.Join(err, fmt.Errorf("%d records are left", len(left.keys)))
	})
	if err != nil {
		return nil, err
	}
	cfg := k.config(1000)
	cfg.Corpus = true
	began := time.Now()
	if _, err := k.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, 30*time.Second); err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := k.readLog(ctx) // the cleaner may have been there once more
	if err != nil {
		return nil, err
	}
	if err := load.Gaps(k.dir, after.gaps(k.name)...); err != nil {
		return nil, err
	}
	outcome, err := k.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	seen, err := successes(k.dir)
	if err != nil {
		return nil, err
	}
	tombstones, gone, last := 0, 0, map[string]int64{}
	for _, o := range seen {
		key, known := left.keys[o.Offset]
		if !known {
			gone++
			continue
		}
		last[key] = o.Offset
		if left.tombstones[o.Offset] {
			tombstones++
		}
	}
	wrong := 0
	for key, offset := range left.newest {
		if last[key] != offset {
			wrong++
		}
	}
	outcome.Must(gone == 0, "%d records were seen that the cleaner had taken before", gone)
	outcome.Must(wrong == 0, "%d keys do not end with their last value", wrong)
	outcome.Must(tombstones > 0 && tombstones >= len(after.tombstones) && tombstones <= len(left.tombstones), "%d tombstones seen, %d of a direct reader", tombstones, len(left.tombstones))
	outcome.Note("%d puts on %d keys, %d left by the cleaner, %d of them tombstones; %d seen, %d tombstones, no lag after %.1f s",
		n, spec.Keys, len(left.keys), len(left.tombstones), len(seen), tombstones, took.Seconds())
	return outcome, nil
}

// log is what a direct reader finds in a partition.
type log struct {
	keys       map[int64]string // by offset
	newest     map[string]int64
	tombstones map[int64]bool
	end        int64
}

func (k *kafkaBench) readLog(ctx context.Context) (log, error) {
	found := log{keys: map[int64]string{}, newest: map[string]int64{}, tombstones: map[int64]bool{}}
	at, err := k.rig.Positions(ctx, k.name, k.name)
	if err != nil {
		return found, err
	}
	found.end = at[0].End
	err = load.ReadKafka(ctx, k.rig.Direct(), k.name, map[int32]int64{0: at[0].Start}, map[int32]int64{0: at[0].End}, func(r *kgo.Record) error {
		found.keys[r.Offset], found.newest[string(r.Key)] = string(r.Key), r.Offset
		if r.Value == nil {
			found.tombstones[r.Offset] = true
		}
		return nil
	})
	return found, err
}

// gaps are the offsets that are not there.
func (l log) gaps(source string) (gaps []ledger.Gap) {
	first := int64(0)
	for offset := int64(0); offset <= l.end; offset++ {
		if _, there := l.keys[offset]; !there && offset < l.end {
			continue
		}
		if offset > first {
			gaps = append(gaps, ledger.Gap{Source: source, First: first, Next: offset, Why: ledger.Compacted})
		}
		first = offset + 1
	}
	return gaps
}

// transactions is B10: committed ones, aborted ones between them, and one that stays open until the broker aborts it.
func transactions(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, committed := range []bool{true, false} {
		outcome, err := transactionsOnce(ctx, env, committed)
		if err != nil {
			return all, err
		}
		all.add(outcome)
	}
	return all, nil
}

func transactionsOnce(ctx context.Context, env *Env, committed bool) (*Outcome, error) {
	const partitions, producers, size, open = 4, 3, 50, 30
	k, err := newKafkaBench(ctx, env, partitions)
	if err != nil {
		return nil, err
	}
	defer k.close()
	const unit = producers * size * 3 // whole transactions, a third of each producer's aborted
	n := (env.N(15_000, 1_800) + unit - 1) / unit * unit
	spec := load.Spec{Dir: k.dir, Run: k.name, Source: k.name, Messages: n, Producers: producers, Keys: 99}
	if err := load.Open(ctx, k.rig.Direct(), spec, open, 2*time.Second, committed, &k.sent); err != nil {
		return nil, err
	}
	spec.First = open
	if err := load.Transactions(ctx, k.rig.Direct(), spec, size, committed, &k.sent); err != nil {
		return nil, err
	}
	cfg := k.config(1000)
	cfg.Kafka.ReadCommitted = committed
	if _, err := k.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, time.Minute); err != nil { // to the very end: a marker stands there
		return nil, err
	}
	outcome, err := k.finish(ctx, check.Rules{Committed: committed})
	if err != nil {
		return nil, err
	}
	want, isolation := n+open, "read_uncommitted"
	if committed {
		want, isolation = n/3*2, "read_committed"
	}
	seen := outcome.Results[0].Observations
	outcome.Must(seen == want && outcome.Total(check.Duplicates) == 0, "%s: %d messages instead of %d, %d of them again", isolation, seen, want, outcome.Total(check.Duplicates))
	outcome.Note("%s: %d transactions of %d, a third aborted, and one of %d that timed out: %d messages, no marker, no lag", isolation, n/size, size, open, seen)
	return outcome, nil
}
