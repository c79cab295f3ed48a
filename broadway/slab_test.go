package broadway_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// slabs is a finite source whose messages of 1 KiB share arrays of up to 64.
type slabs struct {
	left  int // slabs
	every time.Duration
	ref   *broadway.AckRef
	seq   int64
}

type noopAcker struct{}

func (noopAcker) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	return nil
}

func (s *slabs) Fetch(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.left == 0 {
		return nil, io.EOF
	}
	time.Sleep(s.every)
	const size = 1024
	if d.Bytes < size {
		return nil, broadway.NeedBytes(size)
	}
	if s.ref == nil {
		s.ref = broadway.NewAckRef(noopAcker{}, nil, 0)
	}
	s.left--
	n := s.ref.Take(min(d.Messages, int(d.Bytes/size), 64))
	array, all := make([]byte, n*size), make([]broadway.Message, n)
	messages := make([]*broadway.Message, n)
	for i := range all {
		payload := array[i*size : (i+1)*size : (i+1)*size]
		binary.BigEndian.PutUint64(payload, uint64(i))
		all[i].Init(s.ref, s.seq, payload)
		s.seq++
		messages[i] = &all[i]
	}
	all[0].BeginSlab()
	return messages, nil
}

func (*slabs) Close() error { return nil }

// first says whether m came first in its slab.
func first(m *broadway.Message) bool { return binary.BigEndian.Uint64(m.Payload) == 0 }

// inUse is what live objects take, after a collection.
func inUse() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// TestParkedMessagesLeaveTheirSlabs: one message of each of 400 slabs waits for an
// hour. Within a bound of 64 slabs all others pass, and the heap stays small.
func TestParkedMessagesLeaveTheirSlabs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, bound = 400, 4 << 20
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{&slabs{left: n}},
			Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 64, Handler: func(_ context.Context, m *broadway.Message) error {
				if first(m) && m.Attempt == 1 {
					return broadway.Retry(errFail, time.Hour)
				}
				return nil
			}},
			MaxUnsettled: 4 * n, MaxUnsettledBytes: bound,
		})
		before := inUse()
		stop := background(t, p)
		time.Sleep(time.Minute)
		st, after := p.Stats(), inUse()
		if st.Unsettled != n || st.Processor.Parked != n {
			t.Errorf("%d succeeded, %d unsettled, %d parked; waiting for %q", st.Succeeded, st.Unsettled, st.Processor.Parked, st.WaitingFor)
		}
		if want := int64(n * (1024 + broadway.MessageOverhead)); st.UnsettledBytes != want || st.HighestUnsettledBytes > bound {
			t.Errorf("%d bytes unsettled, %d at most: want %d and at most %d", st.UnsettledBytes, st.HighestUnsettledBytes, want, bound)
		}
		if grown := after - before; grown > bound {
			t.Errorf("the heap has grown by %d bytes for %d that are unsettled", grown, st.UnsettledBytes)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestMessagesInOpenBatchesLeaveTheirSlabs: a batch that fills with one message of
// each slab, and waits for hours, keeps its members only.
func TestMessagesInOpenBatchesLeaveTheirSlabs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, bound = 400, 4 << 20
		var rare atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{&slabs{left: n, every: 100 * time.Millisecond}},
			Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 64, Handler: func(_ context.Context, m *broadway.Message) error {
				if m.BatchKey = "common"; first(m) {
					m.BatchKey = "rare"
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: n, Timeout: -1, Policy: eager{}, Reporter: func(_ context.Context, b *broadway.Batch) error {
				if b.Key != "rare" {
					return nil
				}
				for i, m := range b.Messages {
					if !first(m) || len(m.Payload) != 1024 {
						t.Errorf("member %d is %d, and has %d bytes", i, m.Seq(), len(m.Payload))
					}
				}
				rare.Add(int64(len(b.Messages)))
				return nil
			}}},
			MaxUnsettled: 4 * n, MaxUnsettledBytes: bound,
		})
		before := inUse()
		stop := background(t, p)
		time.Sleep((n - 1) * 100 * time.Millisecond)
		if st := p.Stats(); st.Unsettled < n/2 || rare.Load() != 0 || st.HighestUnsettledBytes > bound {
			t.Errorf("%d unsettled, %d reported of those that wait; waiting for %q", st.Unsettled, rare.Load(), st.WaitingFor)
		}
		if grown := inUse() - before; grown > bound {
			t.Errorf("the heap has grown by %d bytes for a batch of %d", grown, n*1024)
		}
		if err := stop(); err != nil || rare.Load() != n {
			t.Errorf("%d members reported, %v", rare.Load(), err)
		}
	})
}

// eager is a policy that closes a batch once it holds a message that is not the
// first of its slab.
type eager struct{}

func (eager) Open(time.Time) broadway.BatchState { return eager{} }
func (eager) Fits(*broadway.Message) bool        { return true }
func (eager) Add(m *broadway.Message) bool       { return !first(m) }
func (eager) Deadline() time.Time                { return time.Time{} }

// TestMemoryIsBoundedInBytes: a reporter that blocks in front of messages of 1 MB
// holds no more of them than the bound of 64 MiB, however many it may count.
func TestMemoryIsBoundedInBytes(t *testing.T) {
	const size, bound = 1_000_000, 64 << 20
	enough := make(chan struct{})
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Next: func(int) ([]byte, error) { return make([]byte, size), nil }})},
		Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: nothing},
		Batchers: []broadway.BatcherConfig{{Size: 10, Reporter: func(ctx context.Context, _ *broadway.Batch) error {
			<-ctx.Done()
			return ctx.Err()
		}}},
		MaxUnsettled: 1000, MaxUnsettledBytes: bound, DrainTimeout: time.Second,
	})
	before := inUse()
	stop := background(t, p)
	go func() {
		defer close(enough)
		for p.Stats().UnsettledBytes < bound-size-broadway.MessageOverhead {
			runtime.Gosched()
		}
	}()
	<-enough
	grown, st := inUse()-before, p.Stats()
	if grown > bound+bound/16 || grown < bound/2 || st.UnsettledBytes > bound {
		t.Errorf("the heap has grown by %d bytes with %d unsettled", grown, st.UnsettledBytes)
	}
	_ = stop() // cannot be clean
}

// TestWhatHasSettledIsNotKept: of messages that came together one stays in its
// handler, and the payloads of the others can be collected.
func TestWhatHasSettledIsNotKept(t *testing.T) {
	const size, n = 1 << 20, 40
	held, free := make(chan struct{}), make(chan struct{})
	before := inUse()
	payloads := make([][]byte, n)
	for i := range payloads {
		payloads[i] = make([]byte, size)
	}
	queue := memory.NewQueue(memory.QueueConfig{})
	if err := queue.Push(t.Context(), payloads...); err != nil {
		t.Fatal(err)
	}
	queue.CloseInput()
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Queue: queue})},
		Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: n, Handler: func(_ context.Context, m *broadway.Message) error {
			if m.Seq() == 3 {
				close(held)
				<-free
			}
			return nil
		}},
		MaxUnsettled: n,
	})
	stop := background(t, p)
	<-held
	for p.Stats().Unsettled > 1 {
		runtime.Gosched()
	}
	if grown := inUse() - before; grown > n*size/4 {
		t.Errorf("the heap has grown by %d bytes for one message of %d", grown, size)
	}
	close(free)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The errors of messages that have settled are let go of, too: they may be large.
func TestErrorsOfWhatHasSettledAreNotKept(t *testing.T) {
	const size, n = 1 << 20, 40
	held, free := make(chan struct{}), make(chan struct{})
	before := inUse()
	queue := memory.NewQueue(memory.QueueConfig{})
	if err := queue.Push(t.Context(), make([][]byte, n)...); err != nil {
		t.Fatal(err)
	}
	queue.CloseInput()
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Queue: queue})},
		Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: n, Handler: func(_ context.Context, m *broadway.Message) error {
			if m.Seq() == 3 {
				close(held)
				<-free
				return nil
			}
			return broadway.Reject(errors.New(strings.Repeat("x", size)))
		}},
		MaxUnsettled: n,
		Failure:      broadway.FailurePolicy{Action: broadway.ActionDrop},
		Logger:       slog.New(slog.DiscardHandler),
	})
	stop := background(t, p)
	<-held
	for p.Stats().Unsettled > 1 {
		runtime.Gosched()
	}
	if grown := inUse() - before; grown > n*size/4 {
		t.Errorf("the heap has grown by %d bytes for one message, whose neighbours' errors have %d each", grown, size)
	}
	close(free)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestWhatAnOutageHeldIsNotKept: messages that a circuit has held, and that have
// settled since, are not kept for the sake of one beside them that stays.
func TestWhatAnOutageHeldIsNotKept(t *testing.T) {
	const size, n = 1 << 20, 40
	held, free := make(chan struct{}), make(chan struct{})
	before := inUse()
	payloads := make([][]byte, n)
	for i := range payloads {
		payloads[i] = make([]byte, size)
	}
	queue := memory.NewQueue(memory.QueueConfig{})
	if err := queue.Push(t.Context(), payloads...); err != nil {
		t.Fatal(err)
	}
	queue.CloseInput()
	var failed atomic.Int64
	all := make(chan struct{})
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Queue: queue})},
		Processor: broadway.ProcessorConfig{Concurrency: n, MaxDemand: n, Handler: func(_ context.Context, m *broadway.Message) error {
			switch first := failed.Add(1); {
			case first < n:
				<-all
				return broadway.Unavailable(errFail)
			case first == n:
				close(all)
				close(held)
				<-free
			}
			return nil
		}},
		MaxUnsettled: n, Failure: broadway.FailurePolicy{Backoff: broadway.Backoff{Initial: time.Millisecond}},
	})
	stop := background(t, p)
	<-held
	for p.Stats().Unsettled > 1 {
		runtime.Gosched()
	}
	if grown := inUse() - before; grown > n*size/4 {
		t.Errorf("the heap has grown by %d bytes for one message of %d", grown, size)
	}
	close(free)
	if err := stop(); err != nil {
		t.Error(err)
	}
}
