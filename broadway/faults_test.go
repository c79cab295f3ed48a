package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// ordered; one slow key must not stop the others.
func TestASlowKeyStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made, other atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{memory.New(memory.Config{Next: func(int) ([]byte, error) { return fmt.Appendf(nil, "m%d", made.Add(1)-1), nil }})},
			Processor: broadway.ProcessorConfig{Concurrency: 4,
				PartitionBy: func(m *broadway.Message) uint64 { return uint64(min(number(m)%100, 10)) }, // 10: 90 %
				Handler: func(ctx context.Context, m *broadway.Message) error {
					if number(m)%100 == 0 {
						select {
						case <-ctx.Done():
						case <-time.After(time.Hour):
						}
						return nil
					}
					time.Sleep(time.Millisecond)
					other.Add(1)
					return nil
				}},
			MaxUnsettled: 1000,
		})
		stop := background(t, p)
		time.Sleep(time.Minute)
		a := other.Load()
		time.Sleep(time.Minute)
		if b := other.Load(); b == a {
			t.Errorf("nothing moved in a minute: handled %d; %+v", b, p.Stats())
		}
		_ = stop()
	})
}

// an idle producer that asked first starves the other.
func TestAnIdleProducerStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := broadwaytest.NewProducer(broadway.Traits{Name: "idle"})
		busy := broadwaytest.NewProducer(broadway.Traits{Name: "busy"})
		unblock := busy.BlockConnect()
		p := build(t, broadway.Config{
			Producers:    []broadway.Producer{idle, busy},
			Processor:    broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 10, Handler: nothing},
			MaxUnsettled: 20,
		})
		stop := background(t, p)
		synctest.Wait()
		unblock()
		for range 100 {
			busy.Push("x")
		}
		time.Sleep(time.Hour)
		if st := p.Stats(); st.Succeeded != 100 {
			t.Errorf("%d of 100; idle asks %v, busy asks %v; waiting for %q", st.Succeeded, idle.Asks(), busy.Asks(), st.WaitingFor)
		}
		_ = stop()
	})
}

// an oversize message never passes while another producer idles in Fetch.
func TestALargeMessagePassesBesideAnIdleProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := broadwaytest.NewProducer(broadway.Traits{Name: "idle"})
		busy := broadwaytest.NewProducer(broadway.Traits{Name: "busy"})
		p := build(t, broadway.Config{
			Producers:         []broadway.Producer{idle, busy},
			Processor:         broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 10, Handler: nothing},
			MaxUnsettled:      100,
			MaxUnsettledBytes: 1000,
		})
		busy.PushItems(broadwaytest.Item{Payload: []byte("big"), Size: 2000})
		stop := background(t, p)
		time.Sleep(time.Hour)
		if st := p.Stats(); st.Succeeded != 1 {
			t.Errorf("not passed; waiting for %q idle asks %v busy asks %v", st.WaitingFor, idle.Asks(), busy.Asks())
		}
		_ = stop()
	})
}

// a message of a draining reference that fails afterwards is parked for its whole backoff.
func TestAFailureAfterDrainIsNotParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(time.Second)
				return broadway.Retry(errFail, time.Hour)
			}},
			MaxUnsettled: 100,
		})
		src.Push("x")
		stop := background(t, p)
		time.Sleep(500 * time.Millisecond)
		ref, start := src.Ref(), time.Now()
		ref.Drain()
		_ = ref.Wait(t.Context())
		if d := time.Since(start); d != 500*time.Millisecond {
			t.Errorf("waited %v", d)
		}
		_ = stop()
	})
}

// messages fetched around Drain are not swept.
type drainInFetch struct {
	broadwaytest.Producer
	ref   *broadway.AckRef
	other *broadway.AckRef
	n     int
	acks  broadwaytest.AckRecorder
}

func (p *drainInFetch) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	p.n++
	switch p.n {
	case 1: // occupies the only worker
		p.other.Take(1)
		return []*broadway.Message{broadway.NewMessage(p.other, 1, []byte("slow"))}, nil
	case 2: // binds ref
		p.ref.Take(1)
		return []*broadway.Message{broadway.NewMessage(p.ref, 1, []byte("a"))}, nil
	case 3:
		p.ref.Take(1)
		p.ref.Drain() // as a rebalance would, concurrently
		return []*broadway.Message{broadway.NewMessage(p.ref, 2, []byte("b"))}, nil
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
func (p *drainInFetch) Close() error { return nil }

func TestADrainBetweenTakeAndReturnIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &drainInFetch{}
		src.ref, src.other = broadway.NewAckRef(&src.acks, nil, 0), broadway.NewAckRef(&src.acks, nil, 0)
		var prod broadway.Producer = struct{ broadway.Producer }{src}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{prod},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
				if string(m.Payload) == "slow" {
					time.Sleep(5 * time.Second)
				}
				return nil
			}},
			MaxUnsettled: 100,
		})
		stop := background(t, p)
		time.Sleep(time.Second)
		start := time.Now()
		_ = src.ref.Wait(t.Context())
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v for messages that no handler holds", d)
		}
		_ = stop()
	})
}

// handler cancelled before its Timeout has passed.
func TestATimeOutNeverComesEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(2)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Timeout: time.Second, Handler: func(ctx context.Context, m *broadway.Message) error {
				if number(m) == 0 {
					time.Sleep(190 * time.Millisecond)
					return nil
				}
				start := time.Now()
				select {
				case <-ctx.Done():
					t.Errorf("cancelled after %v", time.Since(start))
				case <-time.After(950 * time.Millisecond):
				}
				return nil
			}},
		})
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if st := p.Stats(); st.Succeeded != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// order of retried members.
func TestOrderOfRetriedMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var done []int
		src := memory.New(memory.Config{Payloads: payloads(40)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 100, PartitionBy: func(*broadway.Message) uint64 { return 1 }, Handler: nothing},
			Batchers: []broadway.BatcherConfig{{Size: 40, Reporter: func(_ context.Context, b *broadway.Batch) error {
				be := new(broadway.BatchError)
				for _, m := range b.Messages {
					if m.Attempt == 1 {
						be.Fail(m, errFail)
						continue
					}
					mu.Lock()
					done = append(done, number(m))
					mu.Unlock()
				}
				return be.Err()
			}}},
			MaxUnsettled: 1000,
		})
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		for i, n := range done {
			if i != n {
				t.Errorf("order %v", done)
				break
			}
		}
	})
}

// However many messages fail, and more of them than may wait at once: each has all of its
// attempts, none is given back, and the bound holds.
func TestHoweverManyFailEachHasItsAttempts(t *testing.T) {
	const total, bound, attempts = 500, 40, 3
	sources := map[string]func() broadway.Producer{
		"a source with partitions": func() broadway.Producer { return memory.New(memory.Config{Payloads: payloads(total)}) },
		"a source without": func() broadway.Producer {
			src := broadwaytest.NewProducer(broadway.Traits{})
			for _, payload := range payloads(total) {
				src.Push(string(payload))
			}
			src.End()
			return src
		},
	}
	for name, source := range sources {
		for _, stage := range []string{"processor", "reporter"} {
			t.Run(name+", "+stage, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex // protects following field
					handlings := map[string]int{}
					fail := func(m *broadway.Message) error {
						mu.Lock()
						defer mu.Unlock()
						handlings[string(m.Payload)]++
						return errFail
					}
					cfg := broadway.Config{
						Producers: []broadway.Producer{source()}, MaxUnsettled: bound, Logger: quiet,
						Processor: broadway.ProcessorConfig{Concurrency: 4, MaxDemand: 10, Handler: func(_ context.Context, m *broadway.Message) error { return fail(m) }},
						Failure:   broadway.FailurePolicy{MaxAttempts: attempts, Action: broadway.ActionDrop},
					}
					if stage == "reporter" {
						cfg.Processor.Handler = nothing
						cfg.Batchers = []broadway.BatcherConfig{{Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error {
							for _, m := range b.Messages {
								_ = fail(m)
							}
							return errFail
						}}}
					}
					p := build(t, cfg)
					err := p.Run(t.Context())
					if st := p.Stats(); err != nil || st.Released > 0 || st.Failed != total || st.HighestUnsettled > bound {
						t.Errorf("Run: %v; %+v", err, st)
					}
					for payload, n := range handlings {
						if n != attempts {
							t.Errorf("%q was handled %d times", payload, n)
						}
					}
					if len(handlings) != total {
						t.Errorf("%d messages were handled", len(handlings))
					}
				})
			})
		}
	}
}

// EOF and a requeued message.
func TestWhatIsRequeuedAtTheEndIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(1)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
				if m.Redelivered {
					return nil
				}
				return errFail
			}},
			Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: broadway.ActionRequeueOnce},
		})
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if n := src.Queue().Len(); n != 0 {
			t.Errorf("Run returned nil, and %d messages wait in the source: %+v", n, src.Counts())
		}
	})
}

// EOF and a session that was cut.
func TestWhatIsCutAtTheEndIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(3)})
		var once sync.Once
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
				once.Do(func() { time.Sleep(time.Second); src.Cut() })
				return nil
			}},
		})
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if n := src.Queue().Len(); n != 0 {
			t.Errorf("Run returned nil, and %d messages wait in the source: %+v", n, src.Counts())
		}
	})
}

// an error of Fetch stays the health of an idle source.
func TestAnOldErrorIsNotTheHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		src.FailFetch(errFail)
		p := build(t, broadway.Config{Producers: []broadway.Producer{src}, Processor: broadway.ProcessorConfig{Handler: nothing}})
		stop := background(t, p)
		time.Sleep(time.Hour)
		if st := p.Stats(); st.Err != nil {
			t.Errorf("an hour after the only failure, Fetch waiting: %v; waiting for %q", st.Err, st.WaitingFor)
		}
		_ = stop()
	})
}

// batches that wait behind a stuck reporter are released at the handlers' deadline,
// and its own a moment later.
func TestClosedBatchesBehindAStuckReporterAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		src := memory.New(memory.Config{Payloads: payloads(30)})
		p := build(t, broadway.Config{
			Producers:    []broadway.Producer{src},
			Processor:    broadway.ProcessorConfig{Concurrency: 1, Handler: nothing},
			Batchers:     []broadway.BatcherConfig{{Size: 10, Reporter: func(context.Context, *broadway.Batch) error { <-stuck; return nil }}},
			DrainTimeout: 10 * time.Second,
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := p.Run(ctx)
		if st := p.Stats(); st.Released != 30 || !errors.Is(err, broadway.ErrDrainTimeout) {
			t.Errorf("released %d of 30: %v", st.Released, err)
		}
		close(stuck)
	})
}

// a message that times out when the drain's deadline comes is parked.
func TestATimeOutAtTheDeadlineIsNotParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(1)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Timeout: 8500 * time.Millisecond, Handler: func(ctx context.Context, m *broadway.Message) error {
				<-ctx.Done()                       // at 8.5 s
				time.Sleep(500 * time.Millisecond) // cleans up; meanwhile the cut
				return ctx.Err()
			}},
			Failure:      broadway.FailurePolicy{Backoff: broadway.Backoff{Initial: time.Minute, Max: time.Minute}},
			DrainTimeout: 10 * time.Second,
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(700*time.Millisecond, cancel) // cut at 8.7 s
		start := time.Now()
		err := p.Run(ctx)
		if st := p.Stats(); st.Released != 1 {
			t.Errorf("after %v: released %d: %v", time.Since(start), st.Released, err)
		}
	})
}

// unavailable backs off.
func TestUnavailableBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(1)})
		n := 0
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(ctx context.Context, m *broadway.Message) error { n++; return broadway.Unavailable(errFail) }},
		})
		stop := background(t, p)
		time.Sleep(time.Hour)
		_ = stop()
		if n > 400 {
			t.Errorf("%d attempts in an hour: the wait stays at its initial 100 ms (Max is 10 s)", n)
		}
	})
}

// A Max below the default Initial bounds it.
func TestBackoffMaxBoundsTheDefaultInitial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(1)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error { return errFail }},
			Failure:   broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Max: 10 * time.Millisecond}},
		})
		start := time.Now()
		_ = p.Run(t.Context())
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("a wait of %v with Max 10 ms", d)
		}
	})
}

// One message of 612 bytes with its overhead fills a bound of 500: nothing more is asked for.
func TestWaitingForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		for range 10 {
			src.PushItems(broadwaytest.Item{Payload: []byte("x"), Size: 100})
		}
		p := build(t, broadway.Config{
			Producers:         []broadway.Producer{src},
			Processor:         broadway.ProcessorConfig{Concurrency: 1, Handler: nothing},
			Batchers:          []broadway.BatcherConfig{{Reporter: func(ctx context.Context, _ *broadway.Batch) error { <-ctx.Done(); return ctx.Err() }, Size: 5, Concurrency: 1}},
			MaxUnsettledBytes: 500,
			DrainTimeout:      10 * time.Second,
		})
		stop := background(t, p)
		time.Sleep(time.Minute)
		if st := p.Stats(); st.WaitingFor != "1 unsettled messages to settle" {
			t.Errorf("WaitingFor %q, unsettled bytes %d of %d, reporting %d", st.WaitingFor, st.UnsettledBytes, st.MaxUnsettledBytes, st.Batchers[0].Reporting)
		}
		_ = stop()
	})
}
