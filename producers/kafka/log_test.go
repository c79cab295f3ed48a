package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestARealCleanerLeavesGapsAndTombstones: positions go over what compaction took,
// the last value of each key comes, and a tombstone is nil where an empty value is
// not.
func TestARealCleanerLeavesGapsAndTombstones(t *testing.T) {
	b := brokers.Exclusive(t).Kafka("log.cleaner.backoff.ms=200")
	topic := b.Topic(t, 1, "cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01", "segment.bytes=1048576", "max.compaction.lag.ms=1000",
		"delete.retention.ms=3600000", "min.compaction.lag.ms=0")
	const keys, rounds = 100, 20
	for round := range rounds {
		records := make([]brokers.Record, keys)
		for k := range records {
			records[k] = brokers.Record{Key: fmt.Appendf(nil, "k%d", k), Value: fmt.Appendf(nil, "%d-%d-%01000d", k, round, 0)}
			if round == rounds-1 && k%10 == 0 {
				records[k].Value = nil
			}
			if round == rounds-1 && k%10 == 1 {
				records[k].Value = []byte{}
			}
		}
		b.Produce(t, topic, records...)
	}
	eventually(t, "the cleaner has run", func() error {
		// It leaves the active segment alone: this rolls it.
		b.Produce(t, topic, brokers.Record{Key: []byte("roll"), Value: fmt.Appendf(nil, "%0500000d", time.Now().UnixNano())})
		if n, all := len(b.Records(t, topic)), b.EndOffsets(t, topic)[0]; int64(n) > all/2 {
			return fmt.Errorf("%d records are left of %d", n, all)
		}
		return nil
	})
	cfg := config(t, b.KafkaBroker, topic)
	source := kafka.NewProducer(cfg)
	last := map[string]*string{} // nil for a tombstone
	p := pipeline(source, newSink())
	p.Processor.Concurrency = 1
	p.Processor.Handler = func(_ context.Context, m *broadway.Message) error {
		key := string(m.Metadata.(*kafka.Metadata).Key)
		if last[key] = nil; m.Payload != nil {
			value := string(m.Payload)
			last[key] = &value
		}
		return nil
	}
	r := run(t, p)
	eventually(t, "committed over the gaps", committedToEnd(t, b.KafkaBroker, cfg.Group, topic))
	eventually(t, "no lag", noLag(source))
	r.stop(t)
	for k := range keys {
		value, told := last[fmt.Sprint("k", k)]
		switch {
		case !told:
			t.Errorf("key %d did not come", k)
		case k%10 == 0 && value != nil, k%10 != 0 && value == nil:
			t.Errorf("key %d ends with nil: %v", k, value == nil)
		case k%10 == 1 && *value != "", k%10 > 1 && !strings.HasPrefix(*value, fmt.Sprintf("%d-%d-", k, rounds-1)):
			t.Errorf("key %d ends with %.20q", k, *value)
		}
	}
}

// noLag says whether nothing is left of what is known.
func noLag(source *kafka.Producer) func() error {
	return func() error {
		lags := source.Lag()
		if len(lags) == 0 {
			return errors.New("no lag is known")
		}
		for _, lag := range lags {
			if lag.Messages != 0 {
				return fmt.Errorf("lag %+v", lag)
			}
		}
		return nil
	}
}

// TestAnOpenTransactionIsNotOvertaken: read_committed waits before it, and goes on
// with what its end says, though it is the coordinator that ends it.
func TestAnOpenTransactionIsNotOvertaken(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for name, timeOut := range map[string]bool{"committed": false, "timed out": true} {
			t.Run(name, func(t *testing.T) {
				topic := b.Topic(t, 1)
				b.Produce(t, topic, numbered("before", 10, 1, 1)...)
				limit := time.Minute
				if timeOut {
					limit = time.Second
				}
				open := openTransaction(t, b, topic, limit)
				b.Produce(t, topic, numbered("after", 10, 1, 1)...)
				cfg := config(t, b, topic)
				cfg.Isolation = kafka.ReadCommitted
				source, out := kafka.NewProducer(cfg), newSink()
				r := run(t, pipeline(source, out))
				want := 20
				if !timeOut {
					eventually(t, "what is stable", out.has(10))
					open.commit(t)
					want = 30
				}
				eventually(t, "all that counts", out.has(want))
				eventually(t, "committed over the markers", committedToEnd(t, b, cfg.Group, topic))
				eventually(t, "no lag", noLag(source))
				r.stop(t)
				if n := out.duplicates(); n != 0 {
					t.Errorf("%d messages came twice", n)
				}
			})
		}
	})
}

// transaction is one that is open, with ten records.
type transaction struct{ client *kgo.Client }

func openTransaction(t *testing.T, b *brokers.KafkaBroker, topic string, limit time.Duration) transaction {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.TransactionalID(b.Group(t)), kgo.TransactionTimeout(limit), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "open-%d", i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return transaction{client}
}

func (o transaction) commit(t *testing.T) {
	t.Helper()
	if err := o.client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}
