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
	"github.com/gobroadway/gobroadway/producers/memory"
)

// told is a slog.Handler that tells a function of each line, without a lock.
type told func(string)

func (f told) Enabled(context.Context, slog.Level) bool { return true }
func (f told) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f told) WithGroup(string) slog.Handler            { return f }
func (f told) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}

// A handler may return between the moment when it is given up and that when its message
// is given back.
func TestAHandlerThatReturnsWhileItIsGivenUp(t *testing.T) {
	for name, by := range map[string]func(*broadway.Message) uint64{"ordered": byPartition, "unordered": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				returns := make(chan struct{})
				log := slog.New(told(func(line string) {
					if strings.Contains(line, "its work is given back") {
						close(returns)
						time.Sleep(time.Millisecond) // its worker has gone to rest by then
					}
				}))
				p := build(t, broadway.Config{
					Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(1)})}, Logger: log,
					Processor: broadway.ProcessorConfig{PartitionBy: by, Handler: func(context.Context, *broadway.Message) error {
						<-returns
						return nil
					}},
				})
				stop := background(t, p)
				time.Sleep(time.Second)
				err := stop()
				if st := p.Stats(); !errors.Is(err, broadway.ErrDrainTimeout) || st.Released != 1 || st.Unsettled != 0 || st.SettledTwice != 0 {
					t.Errorf("Run: %v; %+v", err, st)
				}
			})
		})
	}
}

// While there is always more to do than can be done, a message behind a slow one waits
// for a moment, and not for the slow one: nor if that one never returns.
func TestASlowMessageDelaysNoOtherThoughThereIsAlwaysMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fetch = 400
		var made, oldest atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{generate(endless, &made, 1)}, MaxUnsettled: 4 * fetch,
			Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: fetch / 2, MinDemand: fetch / 4, Handler: func(ctx context.Context, m *broadway.Message) error {
				if m.Seq() == 0 {
					<-ctx.Done()
					return ctx.Err()
				}
				if m.Seq() < fetch {
					oldest.Add(1)
				}
				time.Sleep(time.Millisecond)
				return nil
			}},
		})
		stop := background(t, p)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := oldest.Load(); n != fetch-1 || p.Stats().Fetched < 3*fetch {
			t.Errorf("%d of %d that came with a slow message were handled, while %d came", n, fetch-1, p.Stats().Fetched)
		}
		_ = stop()
	})
}

// reserving is a source with a prefetch.
type reserving struct {
	*memory.Producer
	n int
}

func (r reserving) Describe(limits broadway.Limits) broadway.Traits {
	t := r.Producer.Describe(limits)
	t.Prefetch = r.n
	return t
}

// A source whose prefetch is small is asked though another one keeps the queue from
// falling below half of the low mark.
func TestASmallPrefetchIsAskedBesideABusySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made, small atomic.Int64
		one := reserving{generate(endless, &small, 1), 8}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{generate(endless, &made, 1), one}, MaxUnsettled: 2000,
			Processor: broadway.ProcessorConfig{Concurrency: 10, MaxDemand: 100, MinDemand: 50, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(time.Millisecond)
				return nil
			}},
		})
		stop := background(t, p)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := small.Load(); n < 100 {
			t.Errorf("%d messages were asked of the source with a prefetch of 8, and %d of the other", n, made.Load())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Credit that is free is asked for though less than a quarter of the demand: once the
// queue is nearly empty, also while no worker rests and nothing settles.
func TestALittleCreditIsAskedForBeforeTheQueueIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{generate(endless, &made, 1)}, MaxUnsettled: 44,
			Processor: broadway.ProcessorConfig{Concurrency: 4, MaxDemand: 10, MinDemand: 8, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(time.Second)
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 44, Timeout: -1, Reporter: reportNothing}},
		})
		stop := background(t, p)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := made.Load(); n != 44 {
			t.Errorf("%d messages were asked for: %s", n, p.Stats().WaitingFor)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// What waits for a circuit to close is no work for some time: the little credit that is
// left is asked for, and open batches close once there is none.
func TestWhatWaitsForACircuitKeepsNoBatchOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made, reported atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{generate(endless, &made, 1)}, MaxUnsettled: 22, Logger: quiet,
			Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 20, MinDemand: 16, Handler: func(_ context.Context, m *broadway.Message) error {
				if m.Seq() >= 8 {
					return broadway.Unavailable(errFail)
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 22, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
				reported.Add(int64(len(b.Messages)))
				return nil
			}}},
			DrainTimeout: 10 * time.Second,
		})
		stop := background(t, p)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := reported.Load(); n != 8 {
			t.Errorf("%d messages were reported; %+v", n, p.Stats())
		}
		_ = stop()
	})
}
