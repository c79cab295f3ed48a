package broadway_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// generate makes up to n payloads, in so many partitions, and counts them.
func generate(n int64, made *atomic.Int64, partitions int) *memory.Producer {
	return memory.New(memory.Config{
		QueueConfig: memory.QueueConfig{Partitions: partitions},
		Next: func(int) ([]byte, error) {
			i := made.Add(1) - 1
			if i >= n {
				return nil, io.EOF
			}
			return fmt.Appendf(nil, "m%d", i), nil
		},
	})
}

// endless is more than any test takes.
const endless = 1 << 40

// await waits until done is closed; a test that hangs is ended by its time-out.
func await(t *testing.T, p *broadway.Pipeline, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("no progress: %+v", p.Stats())
	}
}

// background runs p until the test stops it, and returns what stops it.
func background(t *testing.T, p *broadway.Pipeline) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func build(t *testing.T, cfg broadway.Config) *broadway.Pipeline {
	t.Helper()
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nothing(context.Context, *broadway.Message) error { return nil }

func TestFetchingStopsAtTheBoundWhenAReporterBlocksForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int64
		p := build(t, broadway.Config{
			Producers:    []broadway.Producer{generate(endless, &made, 1)},
			Processor:    broadway.ProcessorConfig{Handler: nothing, Concurrency: 4},
			Batchers:     []broadway.BatcherConfig{{Size: 10, Reporter: func(ctx context.Context, _ *broadway.Batch) error { <-ctx.Done(); return ctx.Err() }}},
			MaxUnsettled: 500,
		})
		stop := background(t, p)
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if st := p.Stats(); made.Load() != 500 || st.Unsettled != 500 || st.WaitingFor == "" {
			t.Errorf("made %d, stats %+v", made.Load(), st)
		}
		if err := stop(); err == nil {
			t.Error("a drain that could not finish was reported as clean")
		}
		if st := p.Stats(); st.Succeeded != 0 || st.Released != 500 {
			t.Errorf("after the drain: %+v", st)
		}
	})
}

// TestASlowMessageDelaysNoOther has one message of 1 s among 10,000, first in the
// queue: every other one has been reported before virtual time moves.
func TestASlowMessageDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		start := time.Now()
		var mu sync.Mutex
		reported := map[int]time.Duration{}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(n)})},
			Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(ctx context.Context, m *broadway.Message) error {
				if number(m) == 5 {
					time.Sleep(time.Second)
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 1, Reporter: func(_ context.Context, b *broadway.Batch) error {
				mu.Lock()
				defer mu.Unlock()
				for _, m := range b.Messages {
					reported[number(m)] = time.Since(start)
				}
				return nil
			}}},
		})
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, d := range reported {
			if i != 5 && d != 0 {
				t.Errorf("message %d was reported after %v", i, d)
			}
		}
		if len(reported) != n || reported[5] != time.Second {
			t.Errorf("%d reported, the slow one after %v", len(reported), reported[5])
		}
	})
}

// TestManyKeysFlowWithoutATimer has 400 batch keys, more than the bound can fill
// batches of 100 of: the fullest open batch is flushed, again and again.
func TestManyKeysFlowWithoutATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		var made, pressed atomic.Int64
		p := run(t, broadway.Config{
			Producers: []broadway.Producer{generate(n, &made, 1)},
			Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
				m.BatchKey = fmt.Sprint(number(m) * 7919 % 400)
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 100, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
				if b.Trigger == broadway.TriggerPressure {
					pressed.Add(1)
				}
				return nil
			}}},
			MaxUnsettled: 1000,
		})
		if st := p.Stats(); st.Succeeded != n {
			t.Errorf("stats: %+v", st)
		}
		if pressed.Load() == 0 {
			t.Error("nothing was flushed by pressure")
		}
	})
}

// TestABlockedBatcherLeavesTheOthersTheirPace blocks one batcher of three for
// ever: the others go on, far beyond the bound. What the blocked one has no room
// for is given back to the source, again and again.
func TestABlockedBatcherLeavesTheOthersTheirPace(t *testing.T) {
	const n = 3_000
	var made atomic.Int64
	done := newGoal(n, "b0", "b2")
	cfg := broadway.Config{
		Producers: []broadway.Producer{generate(endless, &made, 1)},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			m.Batcher = fmt.Sprint("b", number(m)%3)
			return nil
		}},
		MaxUnsettled: 300,
		DrainTimeout: time.Second,
	}
	for i := range 3 {
		cfg.Batchers = append(cfg.Batchers, broadway.BatcherConfig{
			Name: fmt.Sprint("b", i), Size: 10,
			Reporter: func(ctx context.Context, b *broadway.Batch) error {
				if i == 1 {
					<-ctx.Done()
					return ctx.Err()
				}
				done.add(b.Batcher, len(b.Messages))
				return nil
			},
		})
	}
	p := build(t, cfg)
	stop := background(t, p)
	await(t, p, done.reached)
	// Its share of 150, and what was on its way when it was found to be blocked.
	if b := p.Stats().Batchers[1]; b.Held == 0 || b.HighestHeld > 150+80 {
		t.Errorf("the blocked batcher: %+v", b)
	}
	if err := stop(); err == nil {
		t.Error("a blocked reporter was reported as a clean drain")
	}
}

// goal is reached when each of its names was counted n times.
type goal struct {
	mu      sync.Mutex
	left    map[string]int
	reached chan struct{}
}

func newGoal(n int, names ...string) *goal {
	g := &goal{left: map[string]int{}, reached: make(chan struct{})}
	for _, name := range names {
		g.left[name] = n
	}
	return g
}

func (g *goal) add(name string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.left[name]; !ok {
		return
	}
	if g.left[name] -= n; g.left[name] <= 0 {
		delete(g.left, name)
		if len(g.left) == 0 {
			close(g.reached)
		}
	}
}

// TestABlockedPartitionLeavesTheOthersTheirPace blocks every message of one
// partition of eight, in the reporter: the others flow.
func TestABlockedPartitionLeavesTheOthersTheirPace(t *testing.T) {
	const n = 5_000
	var made atomic.Int64
	done := newGoal(n, "0", "1", "2", "4", "5", "6", "7")
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{generate(endless, &made, 8)},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			m.BatchKey = fmt.Sprint(m.Metadata.(*memory.Metadata).Partition)
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 5, Concurrency: 100, Reporter: func(ctx context.Context, b *broadway.Batch) error {
			if b.Key == "3" {
				<-ctx.Done()
				return ctx.Err()
			}
			done.add(b.Key, len(b.Messages))
			return nil
		}}},
		MaxUnsettled: 400,
		DrainTimeout: time.Second,
	})
	stop := background(t, p)
	await(t, p, done.reached)
	if err := stop(); err == nil {
		t.Error("a blocked reporter was reported as a clean drain")
	}
}

// TestMessagesOfOneKeyAreReportedInOrderThoughTheyFail retries members in
// batches: whatever fails, the first handlings of a key stay in order, and a
// later one is not reported before an earlier one has succeeded.
func TestMessagesOfOneKeyAreReportedInOrderThoughTheyFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, keys = 2000, 10
		var mu sync.Mutex
		done := map[int]int{} // by key: the highest that succeeded
		source := memory.New(memory.Config{Payloads: payloads(n)})
		run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{
				Concurrency: 4,
				PartitionBy: func(m *broadway.Message) uint64 { return uint64(number(m) % keys) },
				Handler: func(_ context.Context, m *broadway.Message) error {
					if number(m)%23 == 0 && m.Attempt == 1 {
						return io.ErrUnexpectedEOF
					}
					return nil
				},
			},
			Batchers: []broadway.BatcherConfig{{Size: 7, Concurrency: 3, Timeout: 10 * time.Millisecond, Reporter: func(_ context.Context, b *broadway.Batch) error {
				failures := new(broadway.BatchError)
				failed := map[int]bool{}
				for _, m := range b.Messages {
					i := number(m)
					if i%31 == 0 && m.Attempt < 3 {
						failures.Fail(m, io.ErrUnexpectedEOF)
						failed[i%keys] = true
						continue
					}
					if failed[i%keys] {
						failures.Fail(m, io.ErrUnexpectedEOF) // as a database would refuse it
						continue
					}
					mu.Lock()
					if last, ok := done[i%keys]; ok && i < last {
						t.Errorf("%d was reported after %d", i, last)
					}
					done[i%keys] = i
					mu.Unlock()
				}
				return failures.Err()
			}}},
			Failure:      broadway.FailurePolicy{MaxAttempts: 10},
			MaxUnsettled: 1000,
		})
		if c := source.Counts(); c.Succeeded != n {
			t.Errorf("source: %+v", c)
		}
	})
}
