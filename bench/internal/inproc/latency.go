package inproc

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
)

// lastBatch is how long a batch waits to be full, which at these rates only the last one does.
const lastBatch = 20 * time.Millisecond

func latency() measure.Workload {
	const rate = 10_000
	const tens = ", in tens"
	return measure.Workload{
		Name: "latency-inprocess", Title: "In process, 10,000 a second",
		Does: "A message is due every 100 us, or ten every millisecond (\"in tens\", as timers that count in milliseconds make them), and counts from then until it " +
			"is acknowledged. No batcher, or batches of 10, which take a millisecond to fill. The channel is one goroutine to another. Elixir's Broadway reached " +
			"0.058 ms (p50) and 0.136 ms (p99) on such a machine without batcher, from emit to ack.",
		Messages: 100_000, Least: 5_000, Rounds: 5,
		Systems: []measure.System{
			{Name: "a channel", Run: bareLatency(rate, 1)},
			{Name: self, Run: pipelineLatency(rate, 1, 0)},
			{Name: self + ", batches of 10", Run: pipelineLatency(rate, 1, 10)},
			{Name: "a channel" + tens, Run: bareLatency(rate, 10)},
			{Name: self + tens, Run: pipelineLatency(rate, 10, 0)},
			{Name: self + ", batches of 10" + tens, Run: pipelineLatency(rate, 10, 10)},
		},
	}
}

// bareLatency is a channel between two goroutines.
func bareLatency(rate, burst int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		l := measure.NewLatency(in.Messages, rate, burst)
		made := make(chan int, in.Messages)
		return l.Run(ctx, func(i int) error {
			made <- i
			return nil
		}, func(ctx context.Context) error {
			for range in.Messages {
				select {
				case i := <-made:
					l.Settle(measure.Read(measure.Slab(i, 1)), time.Now())
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return nil
		})
	}
}

// pipelineLatency is this project, with its defaults; with batches of batch when above 0.
func pipelineLatency(rate, burst, batch int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		l := measure.NewLatency(in.Messages, rate, burst)
		from := &live{made: make(chan int, in.Messages), latency: l}
		from.ref = broadway.NewAckRef(from, nil, 0)
		cfg := broadway.Config{
			Producers: []broadway.Producer{from},
			Processor: broadway.ProcessorConfig{Handler: ours.Handler(measure.Payload, 0)},
		}
		if batch > 0 {
			cfg.Batchers = []broadway.BatcherConfig{{Size: batch, Timeout: lastBatch, Reporter: func(context.Context, *broadway.Batch) error { return nil }}}
		}
		return l.Run(ctx, func(i int) error {
			from.made <- i
			return nil
		}, func(ctx context.Context) error { return ours.Until(ctx, cfg, l.Done()) })
	}
}

// live is a source of messages that are made elsewhere, which it never holds up: made has room for all.
type live struct {
	ref     *broadway.AckRef
	made    chan int
	latency *measure.Latency
}

// Fetch waits for a message, and takes those that have gathered behind it.
func (s *live) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if d.Bytes < measure.Payload {
		return nil, broadway.NeedBytes(measure.Payload)
	}
	var messages []*broadway.Message
	select {
	case i := <-s.made:
		messages = append(messages, s.message(i))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for len(messages) < d.Messages && int64(len(messages)+1)*measure.Payload <= d.Bytes {
		select {
		case i := <-s.made:
			messages = append(messages, s.message(i))
		default:
			return messages, nil
		}
	}
	return messages, nil
}

func (s *live) message(i int) *broadway.Message {
	s.ref.Take(1)
	return broadway.NewMessage(s.ref, int64(i), measure.Slab(i, 1))
}

// Ack tells that messages are settled.
func (s *live) Ack(_ context.Context, _ *broadway.AckRef, ok, _ []*broadway.Message) error {
	now := time.Now()
	for _, m := range ok {
		s.latency.Settle(uint64(m.Seq())+1, now)
	}
	return nil
}

// Close does nothing.
func (s *live) Close() error { return nil }
