package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

const (
	// latencyPartitions is how many the topic has.
	latencyPartitions = 8
	// latencyKeys is how many keys its records have: a multiple of the partitions, so that each key stays in one.
	latencyKeys = 10_000
	// longPoll is how long a broker may wait for a first byte. It answers as soon as there is one, so that this delays nothing.
	longPoll = 250 * time.Millisecond
	// markTime is for Watermill's subscriber, which marks an offset some time after its message was acknowledged, and does not say when: what
	// is not marked when it closes is not committed.
	markTime = 200 * time.Millisecond
)

// consumer consumes until all messages of a round are settled.
type consumer func(context.Context, measure.Input, *measure.Latency) error

func latency(rate int) measure.Workload {
	w := measure.Workload{
		Name:  fmt.Sprintf("latency-kafka-%d", rate),
		Title: fmt.Sprintf("Kafka latency, %d a second, no batcher", rate),
		Does: "A producer in the same process writes a message whenever one is due, to 8 partitions in turn, and a group reads them. Each counts from when it was due until its " +
			"offset is settled: the acknowledger has returned (this project), the offset is handed to a committer that commits each second (all others). Everybody asks brokers for 1 byte at " +
			"least, which is everybody's default and what their documents advise for latency, so that a long poll ends with the first message; and nobody lingers. The difference to a raw client " +
			"is what a framework adds; the rest is the broker's, the producer's, and the machine's.",
		Messages: 10 * rate, Least: max(rate, 2000), Rounds: 5,
		Needs: measure.Needs{Kafka: true, Partitions: latencyPartitions, Empty: true},
		Systems: []measure.System{
			{Name: self, Run: late(rate, oursLate(true))},
			{Name: perKey, Run: late(rate, oursLate(false))},
			{Name: franzPoll, Version: franzVersion, Run: late(rate, franzLate)},
			{Name: goReader, Version: kafkaGoVersion, Run: late(rate, readerLate)},
			{Name: watermillSub, Version: watermillVersion, Run: late(rate, watermillLate)},
		},
	}
	if rate < 10_000 {
		return w
	}
	for _, ours := range []string{self, perKey} {
		for _, raw := range []string{franzPoll, goReader} {
			w.Targets = append(w.Targets,
				measure.Target{System: ours, Peer: raw, Measure: "p50", Difference: true, AtMost: 0.2},
				measure.Target{System: ours, Peer: raw, Measure: "p99", Difference: true, AtMost: 1})
		}
	}
	return w
}

// late measures c at a rate.
func late(rate int, c consumer) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		client, err := kgo.NewClient(kgo.SeedBrokers(in.Kafka), kgo.DefaultProduceTopic(in.Topic),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			return measure.Output{}, err
		}
		defer client.Close()
		var failed atomic.Pointer[error]
		l := measure.NewLatency(in.Messages, rate, 1)
		return l.Run(ctx, func(i int) error {
			record := &kgo.Record{
				Partition: int32(i % latencyPartitions), Key: fmt.Appendf(nil, "key-%d", i%latencyKeys), Value: measure.Slab(i, 1),
			}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
				}
			})
			if err := failed.Load(); err != nil {
				return *err
			}
			return nil
		}, func(ctx context.Context) error { return c(ctx, in, l) })
	}
}

// franzLate is franz-go's poll loop; what is marked is committed each second.
func franzLate(ctx context.Context, in measure.Input, l *measure.Latency) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(in.Kafka), kgo.ConsumeTopics(in.Topic), kgo.ConsumerGroup(in.Group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMinBytes(1), kgo.FetchMaxWait(longPoll),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	for n := 0; n < in.Messages; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			number := measure.Read(r.Value)
			client.MarkCommitRecords(r)
			l.Settle(number, time.Now())
			n++
		})
	}
	return client.CommitMarkedOffsets(ctx)
}

// readerLate is kafka-go's Reader, which commits each second.
func readerLate(ctx context.Context, in measure.Input, l *measure.Latency) error {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{in.Kafka}, Topic: in.Topic, GroupID: in.Group, StartOffset: kafka.FirstOffset,
		MinBytes: 1, MaxBytes: 8 << 20, QueueCapacity: 1000, MaxWait: longPoll, CommitInterval: time.Second,
	})
	for range in.Messages {
		m, err := r.FetchMessage(ctx)
		if err != nil {
			return errors.Join(err, r.Close())
		}
		number := measure.Read(m.Value)
		if err := r.CommitMessages(ctx, m); err != nil {
			return errors.Join(err, r.Close())
		}
		l.Settle(number, time.Now())
	}
	return r.Close()
}

// watermillLate is Watermill's subscriber. A message counts once it is acknowledged; its offset is marked a little later.
func watermillLate(ctx context.Context, in measure.Input, l *measure.Latency) error {
	cfg := wm.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.MaxWaitTime = longPoll
	subscriber, err := wm.NewSubscriber(wm.SubscriberConfig{
		Brokers: []string{in.Kafka}, Unmarshaler: wm.DefaultMarshaler{}, ConsumerGroup: in.Group, OverwriteSaramaConfig: cfg,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	messages, err := subscriber.Subscribe(ctx, in.Topic)
	if err != nil {
		return err
	}
	for range in.Messages {
		m, ok := <-messages
		if !ok {
			return errors.Join(errors.New("the subscriber has ended"), subscriber.Close())
		}
		number := measure.Read(m.Payload)
		m.Ack()
		l.Settle(number, time.Now())
	}
	<-time.After(markTime)
	return subscriber.Close()
}
