package memory_test

import (
	"context"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// BenchmarkMemoryQueue pushes 100 messages, fetches them and settles them, as a pipeline does.
func BenchmarkMemoryQueue(b *testing.B) {
	ctx, payloads := b.Context(), make([][]byte, 100)
	for i := range payloads {
		payloads[i] = make([]byte, 200)
	}
	var ops []micro.Op
	for _, c := range []struct {
		name   string
		settle func(p *memory.Producer, messages []*broadway.Message) error
	}{
		{"100-in-order", func(p *memory.Producer, messages []*broadway.Message) error {
			return p.Ack(ctx, messages[0].Ref(), messages, nil)
		}},
		{"100-one-by-one-backwards", func(p *memory.Producer, messages []*broadway.Message) error {
			for i := len(messages) - 1; i >= 0; i-- {
				if err := p.Ack(ctx, messages[i].Ref(), messages[i:i+1], nil); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		queue := memory.NewQueue(memory.QueueConfig{})
		p := memory.New(memory.Config{Queue: queue})
		ops = append(ops, micro.Op{Name: c.name, Run: func() { circulate(ctx, queue, p, payloads, c.settle) }})
	}
	micro.Benchmark(b, ops)
}

func circulate(ctx context.Context, queue *memory.Queue, p *memory.Producer, payloads [][]byte,
	settle func(*memory.Producer, []*broadway.Message) error) {
	if err := queue.Push(ctx, payloads...); err != nil {
		panic(err)
	}
	messages, err := p.Fetch(ctx, broadway.Demand{Messages: len(payloads), Bytes: 1 << 20})
	if err != nil || len(messages) != len(payloads) {
		panic(err)
	}
	if err := settle(p, messages); err != nil {
		panic(err)
	}
	messages[0].Ref().Untake(len(messages)) // what a pipeline does once Ack has returned
}
