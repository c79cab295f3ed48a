package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// source is the other side of the producers of one queue.
type source struct {
	queue *memory.Queue
	last  *memory.Producer
}

func (s *source) Produce(ctx context.Context, payloads ...[]byte) error {
	return s.queue.Push(ctx, payloads...)
}

func (s *source) Open(testing.TB) broadway.Producer {
	s.last = memory.New(memory.Config{Queue: s.queue})
	return s.last
}

func (s *source) Left(context.Context) (int, error)      { return s.queue.Len(), nil }
func (s *source) HandedOut(context.Context) (int, error) { return s.queue.Unsettled(), nil }
func (s *source) Settles(context.Context) (int, error)   { return int(s.queue.Counts().Settled()), nil }

func (s *source) Cut(context.Context) error {
	s.last.Cut()
	return nil
}

func (s *source) Finish(context.Context) error {
	s.queue.CloseInput()
	return nil
}

func TestConformance(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			newSource := func(testing.TB) broadwaytest.Source {
				return &source{queue: memory.NewQueue(memory.QueueConfig{Partitions: partitions})}
			}
			features := broadwaytest.Features{Virtual: true, Finite: true}
			broadwaytest.TestProducer(t, features, newSource)
			broadwaytest.TestAcknowledger(t, features, newSource)
		})
	}
}
