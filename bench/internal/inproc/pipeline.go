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
	pool broadway.MessagePool[struct{}]
	at   int
	end  int
	size int // of a message
	done atomic.Int64
}

func newSource(n int) *source {
	s := &source{end: n, size: measure.Payload}
	s.ref = broadway.NewAckRef(s, nil, 0)
	return s
}

// slabMessages and slabBytes are how many messages share a slab at most: what the Kafka producer has.
const (
	slabMessages = 128
	slabBytes    = 64 << 10
)

// Fetch makes what is asked for, at most a slab.
func (s *source) Fetch(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.at == s.end {
		return nil, io.EOF
	}
	fit := int(d.Bytes) / s.size
	if fit == 0 {
		return nil, broadway.NeedBytes(int64(s.size))
	}
	n := s.ref.Take(min(d.Messages, s.end-s.at, fit))
	shared := max(min(slabMessages, slabBytes/s.size), 1)
	messages := make([]*broadway.Message, 0, n)
	for n > 0 {
		k := min(shared, n)
		slab := measure.SlabOf(s.at, k, s.size)
		made, _ := s.pool.Get(k)
		for i, m := range made {
			m.Init(s.ref, int64(s.at+i), slab[i*s.size:(i+1)*s.size])
		}
		messages = append(messages, made...)
		s.at += k
		n -= k
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
	batch           int // messages of a batch, 0 meaning 100
	size            int // bytes of a message, 0 meaning those of all others
	partitionBy     func(*broadway.Message) uint64
}

// pipeline is this project.
func pipeline(s shape) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		from := newSource(in.Messages)
		cfg := broadway.Config{
			Producers: []broadway.Producer{from},
			Processor: broadway.ProcessorConfig{Concurrency: s.workers, MaxDemand: s.demand, PartitionBy: s.partitionBy},
		}
		if s.batch > 0 {
			cfg.Batchers = []broadway.BatcherConfig{{Size: s.batch}}
		}
		if s.size > 0 {
			from.size, cfg.Processor.Handler = s.size, ours.Handler(s.size, 0)
		}
		out, err := ours.Run(ctx, in, cfg, 0)
		out.Messages = int(from.done.Load())
		return out, err
	}
}
