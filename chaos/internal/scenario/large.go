package scenario

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// Lots of E4, which begin the ids' last part.
const (
	lotRounds = "-rounds" // go back and forth
	lotWhole  = "-whole"  // are large, and fit
	lotHuge   = "-huge"   // do not fit as dead letters
)

// sizes are how large the messages of a lot are: on Kafka by the topic's limit, on RabbitMQ by the pipeline's.
func sizes(kind string) map[string]int {
	const topicLimit, pipelineLimit = 1_048_588, 16 << 20 // defaults
	if kind == "kafka" {
		return map[string]int{lotRounds: 256, lotWhole: topicLimit * 99 / 100, lotHuge: topicLimit - 200}
	}
	return map[string]int{lotRounds: 256, lotWhole: pipelineLimit * 99 / 100, lotHuge: pipelineLimit + 1}
}

// largeDeadLetters is E4.
func largeDeadLetters(ctx context.Context, env *Env) (*Outcome, error) {
	return onBoth(ctx, env, largeDeadLettersOnce)
}

func largeDeadLettersOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const rounds, few = 50, 4
	n, many := env.N(20_000, 1_000), env.N(20, 10) // each error of 5 MB is kept until its message is settled
	run.deadly = true
	for lot, size := range sizes(run.kind) {
		messages := few
		if lot == lotRounds {
			messages = many
		}
		if err := run.produce(ctx, load.Spec{Messages: messages, Lot: lot, Size: size, Keys: 2}); err != nil {
			return nil, err
		}
	}
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.MaxAttempts, cfg.Backoff, cfg.Concurrency = 3, 20*time.Millisecond, 2
	cfg.Faults = []worker.Fault{
		{Kind: worker.Reject, Part: lotRounds, Text: 5 << 20}, {Kind: worker.Error, Part: lotWhole}, {Kind: worker.Error, Part: lotHuge},
	}
	if _, err := run.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the letters do not come back"))
	defer cancel()
	sizes, err := run.shovel(limited, many, rounds)
	if err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	least, most := extent(sizes)
	outcome.Must(most-least <= 16, "the headers that were added have %d to %d bytes over %d rounds", least, most, rounds) // offsets have more digits in the end
	outcome.Note("%d letters, %d times back and forth: headers of %d to %d bytes", many, rounds, least, most)
	return outcome, judgeLetters(outcome, run, few)
}

// shovel puts the letters of a lot back, so many rounds.
func (e *either) shovel(ctx context.Context, n, rounds int) (load.Rounds, error) {
	of := func(id string) bool { return strings.Contains(id, lotRounds) }
	if e.kind == "kafka" {
		return load.ShovelKafka(ctx, e.direct, e.dead, e.name, n, rounds, of)
	}
	return load.ShovelRabbitMQ(ctx, e.direct, e.dead, e.name, n, rounds, of)
}

func extent(all load.Rounds) (least, most int) {
	for _, sizes := range all {
		for _, n := range sizes {
			if least == 0 || n < least {
				least = n
			}
			most = max(most, n)
		}
	}
	return least, most
}

// judgeLetters looks at each dead letter: whose it is, what it was given, and whether a reference tells the right hash.
func judgeLetters(outcome *Outcome, run *either, few int) error {
	const addedMost, reasonMost, attemptsMost = 4 << 10, 1 << 10, 5
	evidence, err := check.Read(run.dir)
	if err != nil {
		return err
	}
	produced := map[string]ledger.Produced{}
	for _, entry := range evidence.Produced {
		produced[entry.ID] = entry
	}
	references := map[string]int{}
	added := 0
	for _, letter := range evidence.Dead {
		added = max(added, letter.Added)
		outcome.Must(letter.Added <= addedMost && len(letter.Reason) <= reasonMost, "%s was given headers of %d bytes, its reason of %d", letter.ID, letter.Added, len(letter.Reason))
		outcome.Must(letter.Attempts <= attemptsMost, "%s was tried %d times", letter.ID, letter.Attempts)
		if letter.Reference == "" {
			continue
		}
		lot := lotOf(letter.ID)
		references[lot]++
		entry := produced[letter.ID]
		sum := sha256.Sum256(load.Body(entry.ID, entry.Key, entry.KeySeq, sizes(run.kind)[lot]))
		outcome.Must(letter.Reference == hex.EncodeToString(sum[:]), "the reference to %s has another hash", letter.ID)
	}
	outcome.Must(len(references) == 1 && references[lotHuge] == few, "references: %v instead of %d to the %s ones", references, few, lotHuge)
	outcome.Must(outcome.PeakRSS <= 512<<20, "%d MiB resident", outcome.PeakRSS>>20)
	outcome.Note("%d dead letters, %d of them references; added headers of at most %d bytes; at most %d MiB resident",
		len(evidence.Dead), references[lotHuge], added, outcome.PeakRSS>>20)
	return nil
}

func lotOf(id string) string {
	for _, lot := range []string{lotRounds, lotWhole, lotHuge} {
		if strings.Contains(id, lot) {
			return lot
		}
	}
	return ""
}

const lotLarge = "-large"

// largeRecords is F2: records of 10 MB where a response of 1 MB is asked for.
func largeRecords(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, variant := range []func(context.Context, *Env, *kafkaBench, worker.Config) (*Outcome, error){largeDelivered, largeLimited, largeRefused} {
		outcome, err := largeRecordsOnce(ctx, env, variant)
		if err != nil {
			return all, err
		}
		all.add(outcome)
	}
	return all, nil
}

func largeRecordsOnce(ctx context.Context, env *Env, variant func(context.Context, *Env, *kafkaBench, worker.Config) (*Outcome, error)) (*Outcome, error) {
	kafka, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	bench, err := newKafkaBenchOn(ctx, env, kafka, 4, map[string]string{"max.message.bytes": "12582912"})
	if err != nil {
		return nil, err
	}
	defer bench.close()
	small := load.Spec{Messages: env.N(20_000, 2_000), Lot: "-before"}
	large := load.Spec{Messages: 2, Lot: lotLarge, Size: load.Huge, Keys: 1, Producers: 1}
	after := small
	after.Lot = "-after"
	for _, spec := range []load.Spec{small, large, after} {
		if err := bench.produce(ctx, spec); err != nil {
			return nil, err
		}
	}
	cfg := bench.config(1000)
	cfg.Kafka.MaxBytes = 1 << 20
	return variant(ctx, env, bench, cfg)
}

// largeDelivered has no limit but that of a response.
func largeDelivered(ctx context.Context, _ *Env, bench *kafkaBench, cfg worker.Config) (*Outcome, error) {
	began := time.Now()
	if _, err := bench.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	took := time.Since(began)
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, two of 10 MB, responses of 1 MB: all delivered in %.1f s", outcome.Results[0].Acked, took.Seconds())
	return outcome, nil
}

// largeLimited allows messages of 1 MB: larger ones become references.
func largeLimited(ctx context.Context, _ *Env, bench *kafkaBench, cfg worker.Config) (*Outcome, error) {
	cfg.MaxPayload = 1 << 20
	bench.deadly = true
	if _, err := bench.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(bench.dir, worker.Fault{Part: lotLarge})
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "fates that are not the planned ones: %.300q", wrong)
	outcome.Note("with a message limit of 1 MB: %d references among the dead letters", outcome.Results[0].Dead)
	return outcome, nil
}

// largeRefused accepts no batch over 1 MB: its partition stops and says so, until a process with another limit comes.
func largeRefused(ctx context.Context, env *Env, bench *kafkaBench, cfg worker.Config) (*Outcome, error) {
	raised := cfg
	kafka := *cfg.Kafka
	kafka.MaxBatchBytes = 1 << 20
	cfg.Kafka = &kafka
	workers, err := bench.startAll(ctx, 1, cfg)
	if err != nil {
		return nil, err
	}
	stopped, err := bench.stoppedAt()
	if err != nil {
		return nil, err
	}
	err = poll(ctx, time.Minute, "the other partitions are through, and the worker's health names the one that is not", func() (bool, error) {
		positions, err := bench.rig.Positions(ctx, bench.name, bench.name)
		for _, at := range positions {
			if at.Partition != int(stopped.Partition) && at.Committed != at.End || at.Partition == int(stopped.Partition) && at.Committed != stopped.Offset {
				return false, err
			}
		}
		return strings.Contains(workers[0].Last().Err, fmt.Sprintf("%s/%d", bench.name, stopped.Partition)), err
	})
	if err != nil {
		return nil, err
	}
	health := workers[0].Last()
	if _, err := workers[0].Terminate(30 * time.Second); err != nil {
		return nil, err
	}
	if _, err := bench.start("w0", raised); err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	outcome.Must(health.Stats["skipped_offsets"] == 0, "%d offsets were skipped", health.Stats["skipped_offsets"])
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d messages came twice", outcome.Total(check.Duplicates))
	outcome.Note("with batches of at most 1 MB: %s; everything was delivered once the limit was raised", health.Err)
	return outcome, nil
}

// stoppedAt is where the first large record lies.
func (k *kafkaBench) stoppedAt() (ledger.Produced, error) {
	all, _, err := ledger.Read[ledger.Produced](k.dir, ledger.KindProduced)
	if err != nil {
		return ledger.Produced{}, err
	}
	at := slices.IndexFunc(all, func(p ledger.Produced) bool { return p.State == ledger.Acked && strings.Contains(p.ID, lotLarge) })
	if at < 0 {
		return ledger.Produced{}, errors.New("no large record")
	}
	return all[at], nil
}
