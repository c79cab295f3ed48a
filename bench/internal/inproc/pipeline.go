package inproc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
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

// pipeline is this project: metrics, panic guard and contexts as they always are.
func pipeline(s shape) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		from := newSource(in.Messages)
		m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
		if err != nil {
			return measure.Output{}, err
		}
		var sum atomic.Uint64
		cfg := broadway.Config{
			Producers: []broadway.Producer{from},
			Processor: broadway.ProcessorConfig{Concurrency: s.workers, MaxDemand: s.demand, PartitionBy: s.partitionBy, Handler: handle},
			Batchers:  []broadway.BatcherConfig{{Size: batchSize, Reporter: add(&sum)}},
			Observer:  m.Observer(),
			Logger:    slog.New(slog.DiscardHandler),
		}
		p, err := broadway.New(cfg)
		if err != nil {
			return measure.Output{}, err
		}
		start := time.Now()
		if err := p.Run(ctx); err != nil {
			return measure.Output{}, err
		}
		return measure.Output{Messages: int(from.done.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, nil
	}
}

// errBroken is what a message that is not whole fails with: it is dropped, and missed in the sum.
var errBroken = errors.New("the message is not whole")

// handle reads the message.
func handle(_ context.Context, m *broadway.Message) error {
	if measure.Read(m.Payload) == 0 {
		return broadway.Reject(errBroken)
	}
	return nil
}

// add is a reporter that sums what its messages hold.
func add(sum *atomic.Uint64) broadway.Reporter {
	return func(_ context.Context, b *broadway.Batch) error {
		part := uint64(0)
		for _, m := range b.Messages {
			part += measure.Number(m.Payload)
		}
		sum.Add(part)
		return nil
	}
}
