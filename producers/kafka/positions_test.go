package kafka_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// pipeline is a minimal one over a source.
func pipeline(source *kafka.Producer, out *sink) broadway.Config {
	return broadway.Config{
		Producers: []broadway.Producer{source},
		Processor: broadway.ProcessorConfig{Handler: out.handle},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPartition},
	}
}

func TestStartsWhereItIsTold(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for name, c := range map[string]struct {
			start kafka.Start
			want  string
		}{
			"earliest":          {kafka.Earliest(), "old-0 old-1 old-2 new"},
			"latest":            {kafka.Latest(), "new"},
			"a time":            {kafka.At(noon.Add(90 * time.Second)), "old-2 new"},
			"a time after all":  {kafka.At(noon.Add(time.Hour)), "new"},
			"a time before all": {kafka.At(noon.Add(-time.Hour)), "old-0 old-1 old-2 new"},
			"the time of a one": {kafka.At(noon.Add(time.Minute)), "old-1 old-2 new"},
		} {
			t.Run(name, func(t *testing.T) {
				topic := b.Topic(t, 1)
				for i := range 3 {
					b.Produce(t, topic, brokers.Record{Value: fmt.Appendf(nil, "old-%d", i), Time: noon.Add(time.Duration(i) * time.Minute)})
				}
				cfg := config(t, b, topic)
				cfg.StartAt = c.start
				source, out := kafka.NewProducer(cfg), newSink()
				r := run(t, pipeline(source, out))
				eventually(t, "the position is known", func() error {
					if len(source.Lag()) == 0 {
						return errors.New("no lag yet")
					}
					return nil
				})
				b.Produce(t, topic, brokers.Record{Value: []byte("new"), Time: noon.Add(2 * time.Minute)})
				want := strings.Fields(c.want)
				eventually(t, "messages", out.has(len(want)))
				r.stop(t)
				if got := out.payloads(); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
			})
		}
	})
}

// TestALatestStartIsCommittedAtOnce: a restart before the first message must not
// skip what came meanwhile.
func TestALatestStartIsCommittedAtOnce(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1)
		b.Produce(t, topic, numbered("old", 5, 1, 1)...)
		cfg := config(t, b, topic)
		cfg.StartAt = kafka.Latest()
		r := run(t, pipeline(kafka.NewProducer(cfg), newSink()))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)

		b.Produce(t, topic, numbered("new", 5, 1, 1)...)
		out := newSink()
		r = run(t, pipeline(kafka.NewProducer(cfg), out))
		eventually(t, "what came meanwhile", out.has(5))
		r.stop(t)
	})
}

// TestPositionsThatDoNotExist: retention has overtaken the group by 40 offsets.
func TestPositionsThatDoNotExist(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for _, policy := range []kafka.OutOfRange{kafka.Fail, kafka.ResumeEarliest, kafka.ResumeLatest} {
			t.Run(policy.String(), func(t *testing.T) {
				topic := b.Topic(t, 1)
				cfg := config(t, b, topic)
				cfg.OutOfRange = policy
				b.Produce(t, topic, numbered("m", 10, 1, 1)...)
				consumes(t, cfg, 10)
				b.Produce(t, topic, numbered("n", 90, 1, 1)...)
				b.DeleteRecords(t, topic, 0, 50)

				source, out := kafka.NewProducer(cfg), newSink()
				r := run(t, pipeline(source, out))
				switch policy {
				case kafka.Fail:
					<-r.done
					for _, want := range []string{topic + "/0", "10", "50", "100"} {
						if r.err == nil || !strings.Contains(r.err.Error(), want) {
							t.Errorf("Run: %v, want it to name %s", r.err, want)
						}
					}
					if got := b.CommittedOffsets(t, cfg.Group, topic)[0]; got != 10 {
						t.Errorf("committed %d, want 10 still", got)
					}
					return
				case kafka.ResumeEarliest:
					eventually(t, "what is left", out.has(50))
				case kafka.ResumeLatest:
					eventually(t, "healthy", func() error {
						if source.Stats().OutOfRange == 0 {
							return errors.New("not yet out of range")
						}
						return nil
					})
					b.Produce(t, topic, numbered("later", 3, 1, 1)...)
					eventually(t, "what came later", out.has(3))
				}
				r.stop(t)
				want := map[kafka.OutOfRange]int64{kafka.ResumeEarliest: 40, kafka.ResumeLatest: 90}[policy]
				if s := source.Stats(); s.SkippedOffsets != want || s.OutOfRange != 1 {
					t.Errorf("skipped %d in %d times, want %d at once", s.SkippedOffsets, s.OutOfRange, want)
				}
				if err := committedToEnd(t, b, cfg.Group, topic)(); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestEveryCodecArrives(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 2)
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			b.ProduceWith(t, topic, brokers.ProduceOptions{Compression: codec}, numbered(codec, 200, 7, 2)...)
		}
		cfg := config(t, b, topic)
		consumes(t, cfg, 1000)
		if err := committedToEnd(t, b, cfg.Group, topic)(); err != nil {
			t.Error(err)
		}
	})
}

// TestTransactions: control records are never handed out, aborted messages only
// when they are asked for, and neither leaves a lag behind.
func TestTransactions(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for isolation, want := range map[kafka.Isolation]int{kafka.ReadUncommitted: 110, kafka.ReadCommitted: 60} {
			t.Run(fmt.Sprint(isolation), func(t *testing.T) {
				topic := b.Topic(t, 2)
				for i := range 5 {
					b.ProduceWith(t, topic, brokers.ProduceOptions{Transaction: brokers.Commit}, numbered(fmt.Sprintf("committed-%d", i), 10, 10, 2)...)
					b.ProduceWith(t, topic, brokers.ProduceOptions{Transaction: brokers.Abort, Compression: "zstd"}, numbered(fmt.Sprintf("aborted-%d", i), 10, 10, 2)...)
				}
				b.Produce(t, topic, numbered("plain", 10, 10, 2)...)
				b.ProduceWith(t, topic, brokers.ProduceOptions{Transaction: brokers.Abort}, brokers.Record{Value: []byte("aborted-6-0")}, brokers.Record{Value: []byte("aborted-6-1"), Partition: 1})
				want := want
				if isolation == kafka.ReadUncommitted {
					want += 2
				}
				cfg := config(t, b, topic)
				cfg.Isolation = isolation
				source, out := kafka.NewProducer(cfg), newSink()
				r := run(t, pipeline(source, out))
				eventually(t, "messages", out.has(want))
				eventually(t, "no lag", func() error {
					for _, lag := range source.Lag() {
						if lag.Messages != 0 {
							return fmt.Errorf("lag %+v", lag)
						}
					}
					return nil
				})
				eventually(t, "committed over the markers", committedToEnd(t, b, cfg.Group, topic))
				r.stop(t)
				for _, payload := range out.payloads() {
					aborted := strings.HasPrefix(payload, "aborted")
					if !aborted && !strings.HasPrefix(payload, "committed") && !strings.HasPrefix(payload, "plain") || aborted && isolation == kafka.ReadCommitted {
						t.Errorf("%q was handed out", payload)
					}
				}
			})
		}
	})
}

// TestCompactedTopics: gaps are not waited for, and tombstones are nil.
func TestCompactedTopics(t *testing.T) {
	f := newFake(t)
	if err := f.CreateTopic("c", 1, map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": "0"}); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		f.produce(t, "c", fmt.Sprint(round), 0, 10, 1)
	}
	f.Compact()
	cfg := f.config(t, "c")
	source, out := kafka.NewProducer(cfg), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "committed to the end", f.wantCommitted("c", 50))
	r.stop(t)
	if got := out.distinct(); got < 10 || got >= 50 {
		t.Errorf("%d values, want those that compaction left", got)
	}
}

// TestMessagesLargerThanAnyLimitPass: a batch is larger than MaxPartitionBytes and
// MaxBytes, and its neighbours come too.
func TestMessagesLargerThanAnyLimitPass(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 2, "max.message.bytes=4000000")
		for p := range 2 {
			for i := range 3 {
				b.Produce(t, topic, brokers.Record{Partition: p, Value: fmt.Appendf(nil, "%d/%d", p, i)})
				b.Produce(t, topic, brokers.Record{Partition: p, Value: fmt.Appendf(nil, "%d/%d/%900000d", p, i, 0)})
			}
		}
		cfg := config(t, b, topic)
		cfg.MaxBytes, cfg.MaxPartitionBytes = 5000, 5000
		source, out := kafka.NewProducer(cfg), newSink()
		p := pipeline(source, out)
		p.MaxUnsettledBytes = 10_000
		r := run(t, p)
		eventually(t, "all", out.has(12))
		r.stop(t)
	})
}
