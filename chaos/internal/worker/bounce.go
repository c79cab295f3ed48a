package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// bounces counts starts and stops.
type bounces struct {
	done, failed, slowest atomic.Int64
	left                  atomic.Int64 // goroutines more than before, after the last stop
}

// bounce starts and stops all members, each in a goroutine of its own, so many times. They are stopped at any moment: before they are
// connected, and while they handle messages.
func (w *worker) bounce(ctx context.Context, times int) {
	before := runtime.NumGoroutine()
	var bouncing sync.WaitGroup
	for i := range w.cfg.Members {
		bouncing.Go(func() {
			for range times {
				if ctx.Err() != nil {
					return
				}
				if err := w.bounceOnce(ctx, i); err != nil {
					w.bounces.failed.Add(1)
					fmt.Fprintln(os.Stderr, "bounce:", err)
				}
				w.bounces.done.Add(1)
			}
		})
	}
	bouncing.Wait()
	left := runtime.NumGoroutine() - before
	for deadline := time.Now().Add(5 * time.Second); left > 0 && time.Now().Before(deadline); left = runtime.NumGoroutine() - before {
		runtime.Gosched()
	}
	w.bounces.left.Store(int64(left))
}

func (w *worker) bounceOnce(parent context.Context, i int) error {
	m, err := newMember(w.cfg, fmt.Sprintf("%s-%d", w.cfg.Name, i), w.sink)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(parent)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	if err := wait(parent, time.Duration(rand.IntN(400))*time.Millisecond); err != nil {
		stop()
		return errors.Join(<-ended, err)
	}
	began := time.Now()
	stop()
	err = <-ended
	took := time.Since(began).Milliseconds()
	for slowest := w.bounces.slowest.Load(); took > slowest && !w.bounces.slowest.CompareAndSwap(slowest, took); {
		slowest = w.bounces.slowest.Load()
	}
	w.mu.Lock()
	addCounts(w.past, pipelineCounts(m.pipeline.Stats()), m.counts())
	w.mu.Unlock()
	if errors.Is(err, broadway.ErrAborted) {
		return nil
	}
	return err
}
