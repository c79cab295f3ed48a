package kafka

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
)

// franz is franz-go's poll loop, or a goroutine for each partition of a poll, with its defaults (a MiB of a partition) or others.
func franz(goroutines bool, sleep time.Duration, opts ...kgo.Opt) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(in.Kafka), kgo.ConsumeTopics(in.Topic), kgo.ConsumerGroup(in.Group),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit()}, opts...)...)
		if err != nil {
			return measure.Output{}, err
		}
		defer client.Close()
		var t tally
		for t.messages() < in.Messages {
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				return measure.Output{}, err
			}
			t.franz(fetches, goroutines, sleep)
		}
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			return measure.Output{}, err
		}
		return t.output(start), nil
	}
}

func (t *tally) franz(fetches kgo.Fetches, goroutines bool, sleep time.Duration) {
	var partitions sync.WaitGroup
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		read := func() {
			sum := uint64(0)
			for _, r := range p.Records {
				sum += measure.Read(r.Value)
				if sleep > 0 {
					time.Sleep(sleep)
				}
			}
			t.add(len(p.Records), sum)
		}
		if goroutines {
			partitions.Go(read)
			return
		}
		read()
	})
	partitions.Wait()
}

// reader is kafka-go's Reader in a group, committing each second what it is told in batches.
func reader(sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{in.Kafka}, Topic: in.Topic, GroupID: in.Group, StartOffset: kafka.FirstOffset,
			MaxBytes: 8 << 20, QueueCapacity: 1000, MaxWait: 250 * time.Millisecond, CommitInterval: commitEvery,
		})
		var t tally
		batch := make([]kafka.Message, 0, ours.BatchSize)
		for n := 1; n <= in.Messages; n++ {
			m, err := r.FetchMessage(ctx)
			if err != nil {
				return measure.Output{}, errors.Join(err, r.Close())
			}
			t.add(1, measure.Read(m.Value))
			if sleep > 0 {
				time.Sleep(sleep)
			}
			if batch = append(batch, m); len(batch) < cap(batch) && n < in.Messages {
				continue
			}
			if err := r.CommitMessages(ctx, batch...); err != nil {
				return measure.Output{}, errors.Join(err, r.Close())
			}
			batch = batch[:0]
		}
		out := t.output(start)
		return out, r.Close()
	}
}

// connBytes is what a Conn fetches at once. With less, more of it is the rest of a record batch, which is fetched and read again.
const connBytes = 4 << 20

// connections is kafka-go's Conn: a connection for each partition, batches, no group and no commit.
func connections(ctx context.Context, in measure.Input) (measure.Output, error) {
	start := time.Now()
	conn, err := kafka.DialContext(ctx, "tcp", in.Kafka)
	if err != nil {
		return measure.Output{}, err
	}
	partitions, err := conn.ReadPartitions(in.Topic)
	if err := errors.Join(err, conn.Close()); err != nil {
		return measure.Output{}, err
	}
	var t tally
	errs := make([]error, len(partitions))
	var all sync.WaitGroup
	for i, p := range partitions {
		all.Go(func() { errs[i] = t.connection(ctx, in, p.ID) })
	}
	all.Wait()
	return t.output(start), errors.Join(errs...)
}

func (t *tally) connection(ctx context.Context, in measure.Input, partition int) (err error) {
	conn, err := kafka.DialLeader(ctx, "tcp", in.Kafka, in.Topic, partition)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	end, err := conn.ReadLastOffset()
	if err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	for at := int64(0); at < end; {
		batch := conn.ReadBatchWith(kafka.ReadBatchConfig{MinBytes: 1, MaxBytes: connBytes, MaxWait: 250 * time.Millisecond})
		n, sum := 0, uint64(0)
		for {
			size, err := batch.Read(buffer)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					return errors.Join(err, batch.Close())
				}
				break
			}
			if batch.Offset() <= at {
				continue // the head of a record batch that begins before what was asked for
			}
			sum += measure.Read(buffer[:size])
			n++
		}
		at = batch.Offset()
		if err := batch.Close(); err != nil {
			return err
		}
		t.add(n, sum)
	}
	return nil
}

// saramaGroup is Sarama's consumer group: a goroutine for each partition, committing each second. Larger buffers and fetches than its
// defaults were not faster.
func saramaGroup(ctx context.Context, in measure.Input) (measure.Output, error) {
	start := time.Now()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	group, err := sarama.NewConsumerGroup([]string{in.Kafka}, in.Group, cfg)
	if err != nil {
		return measure.Output{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &saramaHandler{want: in.Messages, done: cancel}
	err = group.Consume(ctx, []string{in.Topic}, h)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	out := h.tally.output(start) // Cleanup has committed
	return out, errors.Join(err, group.Close())
}

type saramaHandler struct {
	tally tally
	want  int
	done  func()
}

// Setup does nothing.
func (h *saramaHandler) Setup(sarama.ConsumerGroupSession) error { return nil }

// Cleanup commits.
func (h *saramaHandler) Cleanup(s sarama.ConsumerGroupSession) error {
	s.Commit()
	return nil
}

// ConsumeClaim reads one partition. It tells the others what it has read whenever nothing waits for it.
func (h *saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	messages, n, sum := claim.Messages(), 0, uint64(0)
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			sum += measure.Read(m.Value)
			n++
			s.MarkMessage(m, "")
			if len(messages) > 0 {
				continue
			}
			if h.tally.add(n, sum) == h.want {
				h.done()
			}
			n, sum = 0, 0
		case <-s.Context().Done():
			return nil
		}
	}
}

// tally counts what was read, from any goroutine.
type tally struct {
	count atomic.Int64
	sum   atomic.Uint64
}

// add returns how many there are.
func (t *tally) add(n int, sum uint64) int {
	t.sum.Add(sum)
	return int(t.count.Add(int64(n)))
}

func (t *tally) messages() int { return int(t.count.Load()) }

func (t *tally) output(start time.Time) measure.Output {
	return measure.Output{Messages: t.messages(), Sum: t.sum.Load(), Elapsed: time.Since(start)}
}
