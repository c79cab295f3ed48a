package kafka

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// commitEvery is how often those commit that are not told.
const commitEvery = time.Second

// generations is kafka-go's ConsumerGroup: a goroutine and a Conn for each partition of a generation, which commits each second and at
// its end.
func generations(sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
			ID: in.Group, Brokers: []string{in.Kafka}, Topics: []string{in.Topic}, StartOffset: kafka.FirstOffset,
		})
		if err != nil {
			return measure.Output{}, err
		}
		generation, err := group.Next(ctx)
		if err != nil {
			return measure.Output{}, errors.Join(err, group.Close())
		}
		var t tally
		assigned := generation.Assignments[in.Topic]
		errs := make([]error, len(assigned))
		var all sync.WaitGroup
		for i, a := range assigned {
			all.Add(1)
			generation.Start(func(ctx context.Context) {
				defer all.Done()
				errs[i] = t.assigned(ctx, in, generation, a.ID, sleep)
			})
		}
		all.Wait()
		out := t.output(start)
		return out, errors.Join(append(errs, group.Close())...)
	}
}

// assigned reads a partition from its start to what is its end now. Each message is one of its own, which may be handed on.
func (t *tally) assigned(ctx context.Context, in measure.Input, g *kafka.Generation, partition int, sleep time.Duration) (err error) {
	conn, err := kafka.DialLeader(ctx, "tcp", in.Kafka, in.Topic, partition)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	at, end, err := conn.ReadOffsets()
	if err != nil {
		return err
	}
	if _, err := conn.Seek(at, kafka.SeekAbsolute); err != nil {
		return err
	}
	committed := time.Now()
	for at < end {
		if at, err = t.fetched(conn, at, sleep); err != nil {
			return err
		}
		if at < end && time.Since(committed) < commitEvery {
			continue
		}
		if err := g.CommitOffsets(map[string]map[int]int64{in.Topic: {partition: at}}); err != nil {
			return err
		}
		committed = time.Now()
	}
	return nil
}

// fetched handles one fetch, and returns where the next begins.
func (t *tally) fetched(conn *kafka.Conn, at int64, sleep time.Duration) (int64, error) {
	batch := conn.ReadBatchWith(kafka.ReadBatchConfig{MinBytes: 1, MaxBytes: connBytes, MaxWait: 250 * time.Millisecond})
	n, sum := 0, uint64(0)
	for {
		m, err := batch.ReadMessage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return at, errors.Join(err, batch.Close())
		}
		if m.Offset < at {
			continue // the head of a record batch that begins before what was asked for
		}
		sum += measure.Read(m.Value)
		n++
		if sleep > 0 {
			time.Sleep(sleep)
		}
		at = m.Offset + 1
	}
	t.add(n, sum)
	return at, batch.Close()
}
