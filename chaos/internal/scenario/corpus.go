package scenario

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// rejectHalf makes dead letters of half of a corpus.
var rejectHalf = worker.Fault{Kind: worker.Reject, Every: 2}

// kafkaCorpus is F1: every record reaches the sink or the dead letters as it was, byte by byte. Half are rejected, so that both are
// looked at.
func kafkaCorpus(ctx context.Context, env *Env) (*Outcome, error) {
	kafka, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	settings := map[string]string{"max.message.bytes": "12582912", "message.timestamp.before.max.ms": "9223372036854775807"}
	bench, err := newKafkaBenchOn(ctx, env, kafka, 4, settings)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	n := env.N(1_000, 300)
	if err := load.KafkaCorpus(ctx, kafka.Direct(), bench.dir, bench.name, n, env.Rand("corpus"), &bench.sent); err != nil {
		return nil, err
	}
	all, err := corpusRun(ctx, bench.bench, n, bench.config(1000), bench.awaitDrained, bench.finish)
	if err != nil {
		return all, err
	}
	bench.close()
	limited, err := newKafkaBenchOn(ctx, env, kafka, 4, map[string]string{"max.message.bytes": "18000000"})
	if err != nil {
		return all, err
	}
	defer limited.close()
	over, err := load.KafkaLimits(ctx, kafka.Direct(), limited.dir, limited.name, &limited.sent)
	if err != nil {
		return all, err
	}
	return limitsRun(ctx, all, limited.bench, over, limited.config(1000), limited.awaitDrained, limited.finish)
}

// rabbitCorpus is F4.
func rabbitCorpus(ctx context.Context, env *Env) (*Outcome, error) {
	bench, err := newRabbitBench(env, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	n := env.N(500, 200)
	if err := load.RabbitCorpus(ctx, bench.rig.Direct(), bench.dir, bench.name, n, env.Rand("corpus"), &bench.sent); err != nil {
		return nil, err
	}
	all, err := corpusRun(ctx, bench.bench, n, bench.config(200), bench.awaitDrained, bench.finish)
	if err != nil {
		return all, err
	}
	bench.abandon()
	limited, err := newRabbitBench(env, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return all, err
	}
	defer limited.abandon()
	over, err := load.RabbitLimits(ctx, limited.rig.Direct(), limited.dir, limited.name, &limited.sent)
	if err != nil {
		return all, err
	}
	return limitsRun(ctx, all, limited.bench, over, limited.config(200), limited.awaitDrained, limited.finish)
}

// limitsRun has the limits at their defaults: what is at one reaches the handler, and what is over one is a reference among the dead
// letters, which tells the sum of the payload.
func limitsRun(ctx context.Context, all *Outcome, b *bench, over []string, cfg worker.Config, drained func(context.Context, time.Duration) error,
	finish func(context.Context, check.Rules) (*Outcome, error)) (*Outcome, error) {
	b.corpus, b.deadly, b.loose = true, true, true
	cfg.Corpus = true
	if _, err := b.startAll(ctx, 1, cfg); err != nil {
		return all, err
	}
	if err := drained(ctx, time.Minute); err != nil {
		return all, err
	}
	outcome, err := finish(ctx, check.Rules{})
	if err != nil {
		return all, err
	}
	wrong, err := wronglyDead(b.dir, worker.Fault{IDs: over})
	if err != nil {
		return all, err
	}
	outcome.Must(len(wrong) == 0, "limits: %d messages whose fate is not the planned one: %.300q", len(wrong), wrong)
	changed, err := changedDead(b.dir)
	if err != nil {
		return all, err
	}
	outcome.Must(len(changed) == 0, "limits: %d references do not tell what they refer to: %.300q", len(changed), changed)
	outcome.Note("default limits: %d messages, %d over a limit, as many references", outcome.Results[0].Acked, len(over))
	all.add(outcome)
	return all, nil
}

func corpusRun(ctx context.Context, b *bench, n int, cfg worker.Config, drained func(context.Context, time.Duration) error,
	finish func(context.Context, check.Rules) (*Outcome, error)) (*Outcome, error) {
	b.corpus, b.deadly, b.loose = true, true, true
	cfg.Corpus, cfg.NoLimits, cfg.Faults = true, true, []worker.Fault{rejectHalf}
	if _, err := b.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(b.dir, rejectHalf)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "%d messages whose fate is not the planned one: %.300q", len(wrong), wrong)
	changed, err := changedDead(b.dir)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(changed) == 0, "%d dead letters differ from what was sent: %.300q", len(changed), changed)
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d messages came twice", outcome.Total(check.Duplicates))
	outcome.Note("%d messages, %d dead letters", n, outcome.Results[0].Dead)
	return outcome, nil
}

// changedDead are the dead letters whose sum is not the one that was sent.
func changedDead(dir string) (changed []string, err error) {
	evidence, err := check.Read(dir)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, entry := range evidence.Produced {
		sums[entry.ID] = entry.Sum
	}
	for _, entry := range evidence.Dead {
		if sums[entry.ID] != entry.Sum {
			changed = append(changed, entry.ID)
		}
	}
	return changed, nil
}
