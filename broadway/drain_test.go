package broadway_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// TestACleanDrainFinishesWhatWasFetched cancels while handlers run and a batch is
// half full: all of it is reported and acknowledged, and nothing more is fetched.
func TestACleanDrainFinishesWhatWasFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made, reported atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		source := generate(endless, &made, 1)
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Concurrency: 3, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(time.Second)
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 1000, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
				if b.Trigger != broadway.TriggerDrain {
					t.Errorf("trigger %v", b.Trigger)
				}
				reported.Add(int64(len(b.Messages)))
				return nil
			}}},
		})
		time.AfterFunc(1500*time.Millisecond, cancel)
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
		st := p.Stats()
		if st.Fetched != st.Succeeded || reported.Load() != st.Fetched || st.Released != 0 {
			t.Errorf("reported %d, stats %+v", reported.Load(), st)
		}
		if c := source.Counts(); c.Succeeded != st.Fetched {
			t.Errorf("source %+v", c)
		}
	})
}

// TestADrainEndsAtItsDeadline has a handler that heeds its context, one that does
// not, and messages that wait: Run returns before DrainTimeout, names the handler
// that did not, and gives back what it holds.
func TestADrainEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		source := memory.New(memory.Config{Payloads: payloads(50)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: func(ctx context.Context, m *broadway.Message) error {
				if number(m) == 0 {
					<-stuck
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}},
			DrainTimeout: 10 * time.Second,
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := p.Run(ctx)
		if !errors.Is(err, broadway.ErrDrainTimeout) || !strings.Contains(err.Error(), "memory/1 of processor") {
			t.Errorf("err: %v", err)
		}
		if d := time.Since(start); d != 9500*time.Millisecond {
			t.Errorf("Run took %v", d)
		}
		st := p.Stats()
		if st.Unsettled != 0 || st.Succeeded+st.Failed != 0 || st.Released != st.Fetched {
			t.Errorf("stats %+v", st)
		}
		close(stuck) // its late result must do no harm
		synctest.Wait()
		if st := p.Stats(); st.Succeeded != 0 || st.Late != 1 || st.Released != st.Fetched {
			t.Errorf("a late result was counted: %+v", st)
		}
	})
}

func TestAbortStopsNowAndSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := memory.New(memory.Config{Payloads: payloads(50)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: func(ctx context.Context, _ *broadway.Message) error {
				<-ctx.Done()
				return nil
			}},
		})
		time.AfterFunc(time.Second, p.Abort)
		start := time.Now()
		if err := p.Run(t.Context()); !errors.Is(err, broadway.ErrAborted) || errors.Is(err, broadway.ErrDrainTimeout) {
			t.Errorf("err: %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Run took %v", d)
		}
		if c := source.Counts(); c.Settled() != 0 {
			t.Errorf("source %+v", c)
		}
	})
}

// TestPauseStopsFetchingOnly pauses amid work: queued work is finished, the open
// batch is flushed though it has no timer, and nothing comes until Resume.
func TestPauseStopsFetchingOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := memory.New(memory.Config{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: nothing},
			Batchers:  []broadway.BatcherConfig{{Timeout: -1, Reporter: func(context.Context, *broadway.Batch) error { return nil }}},
		})
		stop := background(t, p)
		push := func(n int) {
			if err := source.Push(t.Context(), payloads(n)...); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		push(7)
		if st := p.Stats(); st.Unsettled != 7 || st.State != broadway.StateRunning {
			t.Errorf("before: %+v", st)
		}
		if err := p.Pause(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if st := p.Stats(); st.Succeeded != 7 || st.State != broadway.StatePaused || st.WaitingFor != "resume" {
			t.Errorf("paused: %+v", st)
		}
		push(5)
		if st := p.Stats(); st.Fetched != 7 {
			t.Errorf("fetched while paused: %+v", st)
		}
		if err := p.Resume(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if st := p.Stats(); st.Fetched != 12 {
			t.Errorf("resumed: %+v", st)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestARefThatDrainsIsGivenUpQuickly revokes a partition whose messages are
// queued, in a handler, in an open batch and parked.
func TestARefThatDrainsIsGivenUpQuickly(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			source := memory.New(memory.Config{})
			cfg := broadway.Config{
				Producers: []broadway.Producer{source},
				Logger:    slog.New(slog.DiscardHandler),
				Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 20, Handler: func(_ context.Context, m *broadway.Message) error {
					switch number(m) {
					case 1: // parked for longer than anybody waits
						return broadway.Retry(errors.New("later"), time.Hour)
					case 5:
						time.Sleep(time.Second)
					}
					return nil
				}},
				Batchers: []broadway.BatcherConfig{{Timeout: -1, Reporter: func(context.Context, *broadway.Batch) error { return nil }}},
			}
			if ordered {
				cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(number(m) % 5) }
			}
			ctx, cancel := context.WithCancel(t.Context())
			var seen atomic.Pointer[broadway.AckRef]
			handler := cfg.Processor.Handler
			cfg.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
				seen.Store(m.Ref())
				return handler(ctx, m)
			}
			p := build(t, cfg)
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			for _, part := range [][][]byte{payloads(10)[:2], payloads(10)[2:]} {
				synctest.Wait()
				if err := source.Push(t.Context(), part...); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(500 * time.Millisecond) // number 0 is in the open batch, 1 is parked, 5 is in its handler
			start, ref := time.Now(), seen.Load()
			ref.Drain()
			if err := ref.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != 500*time.Millisecond {
				t.Errorf("the reference was waited for %v", d)
			}
			if n := ref.Take(1); n != 0 {
				t.Error("a draining reference took a message")
			}
			synctest.Wait()
			if st := p.Stats(); st.Succeeded+st.Released != 10 || st.Succeeded < 2 || st.Released < 2 || st.Retried != 1 {
				t.Errorf("ordered %v: %+v", ordered, st)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A drain closes open batches when a worker rests, as what is queued may join them:
// at half of the handlers' time it waits no longer.
func TestADrainReportsOpenBatchesThoughEveryWorkerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Logger: quiet, DrainTimeout: 10 * time.Second,
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: holdMessage},
			Batchers:  []broadway.BatcherConfig{{Size: 10, Timeout: -1, Reporter: reportNothing}},
		})
		src.Push("a", "b", "1!")
		stop := background(t, p)
		time.Sleep(time.Minute)
		if err := stop(); !errors.Is(err, broadway.ErrDrainTimeout) {
			t.Errorf("Run: %v", err)
		}
		if got := outcome(src, broadwaytest.Succeeded); got != "1! a b" && got != "a b" {
			t.Errorf("%q were acknowledged", got)
		}
	})
}
