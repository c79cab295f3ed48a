package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// storm is a pipeline in real time whose handlers and reporters fail in every way
// while it is paused, resumed and cut off from its source.
type storm struct {
	t       *testing.T
	total   int
	keys    int
	ordered bool
	lets    bool // go of what stuck handlers have
	queue   *memory.Queue
	running sync.Map      // keys that a handler is at
	hanging atomic.Int64  // handlers and reporters that return at the end only
	end     chan struct{} // lets them

	mu      sync.Mutex // protects following field
	settled map[string]int
}

// TestAStormLosesNothing is for the race detector above all: everything that may
// happen at any time happens at once, and still each message is settled once, and
// no two messages of a key are handled at the same time, unless it is let go of. Some handlers return long
// after their time-out and, where they are let go of, a few not before the end.
func TestAStormLosesNothing(t *testing.T) {
	for _, kind := range []struct{ ordered, lets bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("ordered=%v,retry_stuck=%v", kind.ordered, kind.lets), func(t *testing.T) {
			s := &storm{
				t: t, total: 5_000, keys: 50, ordered: kind.ordered, lets: kind.lets,
				settled: map[string]int{}, end: make(chan struct{}),
			}
			s.queue = memory.NewQueue(memory.QueueConfig{
				Partitions: 4, Capacity: s.total, RedeliverAfter: time.Millisecond, Settled: s.settle,
			})
			if err := s.queue.Push(t.Context(), payloads(s.total)...); err != nil {
				t.Fatal(err)
			}
			s.queue.CloseInput()
			source := like{Producer: memory.New(memory.Config{Queue: s.queue}), pool: new(broadway.MessagePool[memory.Metadata])}
			p := build(t, s.config(source))
			done := make(chan error, 1)
			go func() { done <- p.Run(t.Context()) }()
			s.rage(p, source.Producer, done)
			s.check(p)
			if s.lets && s.hanging.Load() == 0 {
				t.Error("no handler hung until the end")
			}
		})
	}
}

func (s *storm) config(source broadway.Producer) broadway.Config {
	cfg := broadway.Config{
		Producers:    []broadway.Producer{source},
		Processor:    broadway.ProcessorConfig{Concurrency: 6, MaxDemand: 20, Timeout: 5 * time.Millisecond, Handler: s.handle},
		Failure:      broadway.FailurePolicy{MaxAttempts: 5, Backoff: broadway.Backoff{Initial: 100 * time.Microsecond, Max: time.Millisecond}},
		Logger:       slog.New(slog.DiscardHandler),
		MaxUnsettled: 500,
	}
	cfg.Processor.RetryStuck = s.lets
	if s.ordered {
		cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(number(m) % s.keys) }
	}
	for i, timeout := range []time.Duration{-1, 5 * time.Millisecond} {
		cfg.Batchers = append(cfg.Batchers, broadway.BatcherConfig{
			Name: fmt.Sprint("b", i), Size: 20, Timeout: timeout, Concurrency: 2,
			ReportTimeout: 20 * time.Millisecond, Reporter: s.report, RetryStuck: s.lets,
		})
	}
	return cfg
}

func (s *storm) handle(ctx context.Context, m *broadway.Message) error {
	if key := number(m) % s.keys; s.ordered && !s.lets {
		if _, twice := s.running.LoadOrStore(key, true); twice {
			s.t.Errorf("two messages of key %d are handled at once", key)
		}
		defer s.running.Delete(key)
	}
	if rand.IntN(500) == 0 {
		s.outlive()
		return errors.New("late")
	}
	m.Batcher = fmt.Sprint("b", number(m)%2)
	m.BatchKey = fmt.Sprint(number(m) % s.keys % 3)
	return fate(ctx, 100)
}

func (s *storm) report(ctx context.Context, b *broadway.Batch) error {
	if rand.IntN(100) == 0 {
		s.outlive()
	}
	failures := new(broadway.BatchError)
	for _, m := range b.Messages {
		if rand.IntN(50) == 0 {
			failures.Fail(m, errors.New("one"))
		}
	}
	return errors.Join(fate(ctx, 200), failures.Err())
}

// outlive returns when the time-out and its grace are over; once, where that is let go
// of, at the end.
func (s *storm) outlive() {
	if s.lets && s.hanging.Add(1) <= 1 {
		<-s.end
		return
	}
	<-time.After(50 * time.Millisecond)
}

// fate fails in one of six ways, each of them once in so many calls.
func fate(ctx context.Context, once int) error {
	switch rand.IntN(once) {
	case 0:
		return errors.New("plain")
	case 1:
		panic("panic")
	case 2:
		runtime.Goexit()
	case 3:
		return broadway.Retry(errors.New("at once"), 0)
	case 4:
		return broadway.Unavailable(errors.New("away"))
	case 5:
		<-ctx.Done()
	}
	return nil
}

func (s *storm) settle(o memory.Outcome, m *broadway.Message) {
	if o == memory.Released {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled[string(m.Payload)]++
}

// rage pauses and resumes p, and cuts its session while half of the messages are
// still to come, until it is done.
func (s *storm) rage(p *broadway.Pipeline, source *memory.Producer, done <-chan error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	defer close(s.end)
	hang := time.After(2 * time.Minute)
	for n := 0; ; n++ {
		var err error
		select {
		case err := <-done:
			if err != nil {
				s.t.Error(err)
			}
			return
		case <-tick.C:
			switch n % 4 {
			case 0:
				err = p.Pause(s.t.Context())
			case 1:
				err = p.Resume(s.t.Context())
			case 2:
				if p.Stats().Fetched < int64(s.total/2) {
					source.Cut()
				}
			}
		case <-hang:
			s.t.Fatalf("no end: %+v", p.Stats())
		}
		if err != nil {
			s.t.Error(err)
		}
	}
}

func (s *storm) check(p *broadway.Pipeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.settled) != s.total || s.queue.Len() != 0 {
		s.t.Errorf("%d of %d settled, %d left", len(s.settled), s.total, s.queue.Len())
	}
	for id, n := range s.settled {
		if n != 1 {
			s.t.Errorf("%s was settled %d times", id, n)
		}
	}
	if st := p.Stats(); st.Unsettled != 0 || st.UnsettledBytes != 0 || st.Batchers[0].Held+st.Batchers[1].Held != 0 {
		s.t.Errorf("credit was not returned: %+v", st)
	}
}
