package inproc

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
)

// source makes messages as they are asked for, each fetch's in one slab, and counts what is acknowledged.
type source struct {
	ref  *broadway.AckRef
	at   int
	end  int
	done atomic.Int64
}

func newSource(n int) *source {
	s := &source{end: n}
	s.ref = broadway.NewAckRef(s, nil, 0)
	return s
}

// slabMessages is how many messages share a slab: what the Kafka producer has.
const slabMessages = 128

// Fetch makes what is asked for, at most a slab.
func (s *source) Fetch(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.at == s.end {
		return nil, io.EOF
	}
	n := s.ref.Take(min(d.Messages, s.end-s.at, max(int(d.Bytes/measure.Payload), 1)))
	made := make([]broadway.Message, n)
	messages := make([]*broadway.Message, n)
	for from := 0; from < n; from += slabMessages {
		k := min(slabMessages, n-from)
		slab := measure.Slab(s.at, k)
		for i := range k {
			m := &made[from+i]
			m.Init(s.ref, int64(s.at+i), slab[i*measure.Payload:(i+1)*measure.Payload])
			messages[from+i] = m
		}
		made[from].BeginSlab()
		s.at += k
	}
	return messages, nil
}

// Ack counts.
func (s *source) Ack(_ context.Context, _ *broadway.AckRef, ok, _ []*broadway.Message) error {
	s.done.Add(int64(len(ok)))
	return nil
}

// Close does nothing.
func (s *source) Close() error { return nil }

// shape is what differs between pipelines.
type shape struct {
	workers, demand int
	partitionBy     func(*broadway.Message) uint64
}

// pipeline is this project.
func pipeline(s shape) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		from := newSource(in.Messages)
		out, err := ours.Run(ctx, in, broadway.Config{
			Producers: []broadway.Producer{from},
			Processor: broadway.ProcessorConfig{Concurrency: s.workers, MaxDemand: s.demand, PartitionBy: s.partitionBy},
		}, 0)
		out.Messages = int(from.done.Load())
		return out, err
	}
}
