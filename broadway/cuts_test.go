package broadway_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// shared is a source of a world whose messages count as slabs.
type shared struct{ like }

func (s shared) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	messages, err := s.like.Fetch(ctx, d)
	if s.pool != nil {
		return messages, err // they are slabs already, and used again as long as they are whole
	}
	for i := 0; i < len(messages); i += 5 {
		messages[i].BeginSlab()
	}
	return messages, err
}

// trouble is what a world meets from outside.
type trouble struct {
	retryStuck   bool
	goexit       bool
	cuts, pauses []int // milliseconds before each
}

func drawTrouble(t *rapid.T, w *world) trouble {
	return trouble{
		retryStuck: w.stuck && rapid.Bool().Draw(t, "retry stuck"),
		goexit:     rapid.Bool().Draw(t, "goexit"),
		cuts:       rapid.SliceOfN(rapid.IntRange(0, 200), 0, 4).Draw(t, "cuts"),
		pauses:     rapid.SliceOfN(rapid.IntRange(0, 100), 0, 3).Draw(t, "pauses"),
	}
}

// apply puts trouble into the world's config.
func (x trouble) apply(w *world) {
	w.cfg.Processor.RetryStuck = x.retryStuck
	for i := range w.cfg.Batchers {
		w.cfg.Batchers[i].RetryStuck = x.retryStuck
	}
	handle := w.cfg.Processor.Handler
	w.cfg.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
		if x.goexit && number(m)%29 == 0 && m.Attempt == 1 && !m.Redelivered {
			runtime.Goexit()
		}
		return handle(ctx, m)
	}
}

// make cuts and pauses, one after the other.
func (x trouble) make(t *testing.T, p *broadway.Pipeline, producers []*memory.Producer) {
	for i, after := range x.cuts {
		time.Sleep(time.Duration(after) * time.Millisecond)
		producers[i%len(producers)].Cut()
	}
	for _, after := range x.pauses {
		time.Sleep(time.Duration(after) * time.Millisecond)
		if err := p.Pause(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Duration(after) * time.Millisecond)
		if err := p.Resume(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// excuse forgets what follows from handlers that still run though their messages are
// not theirs any more, as after a cut or a time-out.
func (x trouble) excuse(w *world) {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := x.retryStuck || len(x.cuts) > 0
	w.faults = slices.DeleteFunc(w.faults, func(fault string) bool {
		return late && (strings.Contains(fault, "is tried again while") || strings.Contains(fault, " after ") || strings.Contains(fault, "is reported before"))
	})
}

// keepAsking asks p how it does all the time, also while it is in the middle of something,
// until the returned function is called.
func keepAsking(p *broadway.Pipeline) (stop func()) {
	ticker, done := time.NewTicker(500*time.Microsecond), make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				_ = p.Stats()
			case <-done:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
	}
}

// TestAnyPipelineOutlastsTroubleFromOutside: sources that are cut and come back,
// pauses, brokers that take back what is not acknowledged in time, handlers that end
// their goroutine or are given up while they run. Every message settles once, and
// nothing is left.
func TestAnyPipelineOutlastsTroubleFromOutside(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		x := drawTrouble(rt, w)
		x.apply(w)
		synctest.Test(t, func(t *testing.T) {
			w.fill(t)
			w.start = time.Now()
			var producers []*memory.Producer
			w.cfg.Producers = nil
			for i, q := range w.queues {
				p := memory.New(memory.Config{Queue: q})
				producers = append(producers, p)
				w.cfg.Producers = append(w.cfg.Producers, shared{w.source(i, p)})
			}
			p, err := broadway.New(w.cfg)
			if err != nil {
				rt.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			over := make(chan error, 1)
			go func() { over <- p.Run(ctx) }()
			defer keepAsking(p)()
			x.make(t, p, producers)
			if err := <-over; err != nil || ctx.Err() != nil {
				rt.Errorf("no progress: %v; %+v", err, p.Stats())
			}
			time.Sleep(2 * time.Second) // for handlers that were given up
			x.excuse(w)
			w.check(rt, p)
		})
	})
}
