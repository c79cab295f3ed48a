package broadway_test

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
)

// supply is a source of messages that share slabs, as they come from a broker, and counts what is acknowledged.
type supply struct {
	ref     *broadway.AckRef
	pool    broadway.MessagePool[struct{}]
	payload []byte
	at, end int
	done    atomic.Int64
}

func newSupply(n int) *supply {
	s := &supply{payload: make([]byte, 200), end: n}
	s.ref = broadway.NewAckRef(s, nil, 0)
	return s
}

// Fetch makes what is asked for, at most a slab.
func (s *supply) Fetch(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.at == s.end {
		return nil, io.EOF
	}
	n := s.ref.Take(min(d.Messages, s.end-s.at, 128, max(int(d.Bytes)/len(s.payload), 1)))
	messages, _ := s.pool.Get(n)
	for i, m := range messages {
		m.Init(s.ref, int64(s.at+i), s.payload)
	}
	s.at += n
	return messages, nil
}

// Ack counts.
func (s *supply) Ack(_ context.Context, _ *broadway.AckRef, ok, _ []*broadway.Message) error {
	s.done.Add(int64(len(ok)))
	return nil
}

// Close does nothing.
func (s *supply) Close() error { return nil }

// flow runs n messages through a pipeline with batches of 100.
func flow(t testing.TB, n int, partitionBy func(*broadway.Message) uint64) {
	t.Helper()
	source := newSupply(n)
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source},
		Processor: broadway.ProcessorConfig{
			Concurrency: 2, MaxDemand: 500, PartitionBy: partitionBy,
			Handler: func(context.Context, *broadway.Message) error { return nil },
		},
		Batchers: []broadway.BatcherConfig{{Size: 100, Reporter: reportNothing}},
		Logger:   quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil || source.done.Load() != int64(n) {
		t.Fatalf("%d of %d messages were acknowledged, %v", source.done.Load(), n, err)
	}
}

// thousand are a thousand keys.
func thousand(m *broadway.Message) uint64 { return uint64(m.Seq()) % 1000 }

// BenchmarkPipeline is the whole of it, in process: starting and ending a pipeline is shared by 20,000 messages.
func BenchmarkPipeline(b *testing.B) {
	const n = 20_000
	for _, c := range []struct {
		name        string
		partitionBy func(*broadway.Message) uint64
	}{{"20000-messages", nil}, {"20000-messages-of-1000-keys", thousand}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				flow(b, n, c.partitionBy)
			}
		})
	}
}

// BenchmarkStartAndStop is a pipeline of one message: what Run itself costs.
func BenchmarkStartAndStop(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		flow(b, 1, nil)
	}
}

// TestAllocationsPerMessage holds what a message costs once the pipeline runs: of a long run and a short one the difference. What is
// once per fetch, visit of a worker, batch and settling is shared by many, so it is far below one; how many
// share it is up to the scheduler, so the number is not exact.
func TestAllocationsPerMessage(t *testing.T) {
	const short, long = 5_000, 25_000
	for _, c := range []struct {
		name        string
		partitionBy func(*broadway.Message) uint64
		most        float64
	}{{"unordered", nil, 0.25}, {"of 1,000 keys", thousand, 0.25}} {
		base := testing.AllocsPerRun(1, func() { flow(t, short, c.partitionBy) })
		all := testing.AllocsPerRun(1, func() { flow(t, long, c.partitionBy) })
		if each := (all - base) / (long - short); each > c.most {
			t.Errorf("%s: %.3f allocations a message, want at most %v", c.name, each, c.most)
		} else {
			t.Logf("%s: %.3f allocations a message", c.name, each)
		}
	}
}
