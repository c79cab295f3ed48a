package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// Messages of a key are handled one after the other and in order, however slow and stuck their handlers are, and how they fail; and all
// are, though many keys share a lane.
func TestOrderOfKeysWhateverIsSlow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 150).Draw(rt, "n")
		keys := rapid.IntRange(1, 100).Draw(rt, "keys")
		workers := rapid.IntRange(1, 3).Draw(rt, "workers")
		fails := rapid.SliceOfN(rapid.IntRange(0, 2), n, n).Draw(rt, "fails")
		slow := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 150, 201, 350, 900}), n, n).Draw(rt, "slow, in ms")
		timeout := rapid.SampledFrom([]time.Duration{0, 180 * time.Millisecond, 500 * time.Millisecond}).Draw(rt, "timeout")
		stop := rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 2 * time.Second}).Draw(rt, "abort after")
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			in, done := map[int]bool{}, map[int]int{}
			handle := func(_ context.Context, m *broadway.Message) error {
				i := number(m)
				mu.Lock()
				if in[i%keys] {
					rt.Errorf("%d is handled beside another of its key", i)
				}
				if last, ok := done[i%keys]; ok && i < last {
					rt.Errorf("%d is handled after %d", i, last)
				}
				in[i%keys] = true
				mu.Unlock()
				time.Sleep(time.Duration(slow[i]) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				in[i%keys], done[i%keys] = false, i
				if m.Attempt <= fails[i] {
					return errFail
				}
				return nil
			}
			p := build(t, broadway.Config{
				Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(n)})},
				Processor: broadway.ProcessorConfig{
					Concurrency: workers, MaxDemand: 100, Handler: handle, Timeout: timeout, PartitionBy: func(m *broadway.Message) uint64 { return uint64(number(m) % keys) },
				},
				Failure:      broadway.FailurePolicy{MaxAttempts: 3, Action: broadway.ActionDrop, Backoff: broadway.Backoff{Initial: 20 * time.Millisecond, Max: 20 * time.Millisecond}},
				MaxUnsettled: 4000, DrainTimeout: time.Minute,
			})
			if stop > 0 {
				time.AfterFunc(stop, p.Abort)
			}
			err := p.Run(t.Context())
			time.Sleep(time.Minute) // handlers that are not waited for
			if st := p.Stats(); stop == 0 && (err != nil || st.Succeeded+st.Failed != int64(n) || st.SettledTwice != 0) {
				rt.Errorf("%v: %+v", err, st)
			}
		})
	})
}

// a later message of a key is never reported successfully before an earlier one, whatever fails how often.
func TestOrderOfKeysWhateverFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "n")
		keys := rapid.IntRange(1, 4).Draw(rt, "keys")
		size := rapid.IntRange(1, 8).Draw(rt, "size")
		fails := rapid.SliceOfN(rapid.IntRange(0, 3), n, n).Draw(rt, "fails")
		synctest.Test(t, func(t *testing.T) {
			done := map[int]int{}
			var order []int
			src := memory.New(memory.Config{Payloads: payloads(n)})
			p := build(t, broadway.Config{
				Producers: []broadway.Producer{src},
				Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 50, PartitionBy: func(m *broadway.Message) uint64 { return uint64(number(m) % keys) }, Handler: nothing},
				Batchers: []broadway.BatcherConfig{{Size: size, Timeout: time.Millisecond, Reporter: func(_ context.Context, b *broadway.Batch) error {
					time.Sleep(10 * time.Millisecond)
					be := new(broadway.BatchError)
					bad := map[int]bool{}
					for _, m := range b.Messages {
						i := number(m)
						if m.Attempt <= fails[i] || bad[i%keys] {
							be.Fail(m, errFail)
							bad[i%keys] = true
							continue
						}
						order = append(order, i)
						if last, ok := done[i%keys]; ok && i < last {
							rt.Errorf("%d reported after %d (keys %d): %v", i, last, keys, order)
						}
						done[i%keys] = i
					}
					return be.Err()
				}}},
				Failure:      broadway.FailurePolicy{MaxAttempts: 100, Backoff: broadway.Backoff{Initial: 20 * time.Millisecond, Max: 20 * time.Millisecond, Jitter: -1}},
				MaxUnsettled: 4000,
			})
			if err := p.Run(t.Context()); err != nil {
				rt.Error(err)
			}
		})
	})
}

// the minimal interleaving.
func TestRetriedMembersKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Key 0: a b c d e; key 1: x y, before b' in its batch.
		src := broadwaytest.NewProducer(broadway.Traits{})
		var order []string
		fails := map[string]int{"a": 1, "b": 3, "c": 1}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 50, PartitionBy: func(m *broadway.Message) uint64 { return uint64(m.Payload[0] / 'x') }, Handler: nothing},
			Batchers: []broadway.BatcherConfig{{Size: 3, Timeout: 100 * time.Millisecond, Reporter: func(_ context.Context, b *broadway.Batch) error {
				time.Sleep(10 * time.Millisecond)
				be := new(broadway.BatchError)
				for _, m := range b.Messages {
					if m.Attempt <= fails[string(m.Payload)] {
						be.Fail(m, errFail)
					} else if m.Payload[0] < 'x' {
						order = append(order, string(m.Payload))
					}
				}
				return be.Err()
			}}},
			Failure:      broadway.FailurePolicy{MaxAttempts: 100, Backoff: broadway.Backoff{Initial: 50 * time.Millisecond, Max: 50 * time.Millisecond, Jitter: -1}},
			MaxUnsettled: 100,
		})
		stop := background(t, p)
		src.Push("a", "b", "c") // 10 ms: all fail; a is the trial, back at 60 ms, in a batch closed by its timer at 160 ms
		time.Sleep(30 * time.Millisecond)
		src.Push("d", "e")                 // aside
		time.Sleep(135 * time.Millisecond) // 165 ms: a is being reported, until 170 ms
		src.Push("x", "y")                 // open
		time.Sleep(time.Second)
		_ = stop()
		if s := strings.Join(order, ""); s != "abcde" {
			t.Errorf("order %s", s)
		}
	})
}

// Abort while a timed-out message stops the pipeline.
func TestAnAbortStaysTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(1)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Timeout: time.Second, Handler: func(ctx context.Context, _ *broadway.Message) error {
				<-ctx.Done()
				time.Sleep(500 * time.Millisecond)
				return ctx.Err()
			}},
			Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: broadway.ActionStopPipeline},
		})
		time.AfterFunc(1200*time.Millisecond, p.Abort)
		if err := p.Run(t.Context()); !errors.Is(err, broadway.ErrAborted) {
			t.Errorf("err: %v", err)
		}
	})
}

// a limit that is lowered.
func TestALoweredLimitRelievesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		src.NewRef(100)
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: nothing},
			Batchers: []broadway.BatcherConfig{{Timeout: -1, Reporter: reportNothing}},
		})
		stop := background(t, p)
		for range 10 {
			src.Push("x")
		}
		synctest.Wait()
		t.Logf("before %+v", p.Stats())
		src.Ref().SetLimit(5)
		for range 10 {
			src.Push("x")
		}
		time.Sleep(time.Second)
		if st := p.Stats(); st.Succeeded == 0 {
			t.Errorf("at its limit: %+v", st)
		}
		_ = stop()
	})
}

// order and hand-back.
func TestOrderAndHandBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 60
		src := memory.New(memory.Config{Payloads: payloads(n)})
		var order []int
		start := time.Now()
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 20, PartitionBy: func(*broadway.Message) uint64 { return 1 }, Handler: func(_ context.Context, m *broadway.Message) error { m.Batcher = "a"; return nil }},
			Batchers: []broadway.BatcherConfig{
				{Name: "a", Size: 5, Reporter: func(_ context.Context, b *broadway.Batch) error {
					for _, m := range b.Messages {
						order = append(order, number(m))
					}
					if time.Since(start) < time.Second {
						time.Sleep(330 * time.Millisecond)
					}
					return nil
				}},
				{Name: "b", Size: 5, Reporter: reportNothing}},
			MaxUnsettled: 40,
		})
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		for i := 1; i < len(order); i++ {
			if order[i] < order[i-1] {
				t.Errorf("reported in the order %v", order)
				break
			}
		}
	})
}

// oneShot returns ten messages one by one.

type oneShot struct {
	ref *broadway.AckRef
	n   int
}

func (p *oneShot) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if p.n < 10 {
		p.n++
		p.ref.Take(1)
		return []*broadway.Message{broadway.NewMessage(p.ref, int64(p.n), []byte("x"))}, nil
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
func (p *oneShot) Close() error { return nil }

// Close while an Ack runs.
type slowAck struct {
	running atomic.Int32
	late    atomic.Bool
}

func (a *slowAck) Ack(ctx context.Context, _ *broadway.AckRef, _, _ []*broadway.Message) error {
	a.running.Add(1)
	defer a.running.Add(-1)
	<-ctx.Done()
	time.Sleep(100 * time.Millisecond)
	return ctx.Err()
}

type closeWatch struct {
	oneShot
	a *slowAck
}

func (p *closeWatch) Close() error {
	if p.a.running.Load() > 0 {
		p.a.late.Store(true)
	}
	return nil
}
func TestCloseWaitsForTheLastAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slowAck{}
		src := &closeWatch{a: a}
		src.ref = broadway.NewAckRef(a, nil, 0)
		p := build(t, broadway.Config{Producers: []broadway.Producer{src}, Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: nothing}, DrainTimeout: 10 * time.Second})
		stop := background(t, p)
		time.Sleep(time.Second)
		_ = stop()
		if a.late.Load() {
			t.Error("the producer was closed while Ack ran, which had heeded its context")
		}
		time.Sleep(time.Second)
	})
}

// an open batch while a handler is stuck in a drain.
func TestAnOpenBatchBesideAStuckHandlerIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(memory.Config{Payloads: payloads(10)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(ctx context.Context, m *broadway.Message) error {
				if number(m) == 9 {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}},
			Batchers:     []broadway.BatcherConfig{{Timeout: -1, Reporter: reportNothing}},
			DrainTimeout: 10 * time.Second,
		})
		stop := background(t, p)
		time.Sleep(time.Second)
		_ = stop()
		if st := p.Stats(); st.Succeeded != 9 {
			t.Errorf("succeeded %d of the 9 that could be reported at any time of the drain, released %d", st.Succeeded, st.Released)
		}
	})
}

// with an empty queue any free credit is asked for.
func TestAskWhileWorkersAreBusy(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			src := broadwaytest.NewProducer(broadway.Traits{})
			p := build(t, broadway.Config{Producers: []broadway.Producer{src}, Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 1, Handler: func(ctx context.Context, _ *broadway.Message) error { <-ctx.Done(); return nil }}, MaxUnsettled: 10, DrainTimeout: time.Second})
			src.Push("a", "b")
			stop := background(t, p)
			time.Sleep(time.Minute)
			if st := p.Stats(); st.Processor.Queued == 0 && st.Producers[0].Asked == 0 {
				t.Errorf("queue empty, unsettled %d of 10, not asked; asks %v", st.Unsettled, src.Asks())
			}
			_ = stop()
		})
		if t.Failed() {
			return
		}
	}
}

// batch sizes beside a blocked partition.
func TestABlockedPartitionLeavesBatchesTheirSize(t *testing.T) {
	sizes := map[bool]float64{}
	for _, blocked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var made, batches, messages, pressed atomic.Int64
			p := build(t, broadway.Config{
				Producers: []broadway.Producer{memory.New(memory.Config{QueueConfig: memory.QueueConfig{Partitions: 8}, Next: func(int) ([]byte, error) { return fmt.Appendf(nil, "m%d", made.Add(1)-1), nil }})},
				Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
					time.Sleep(time.Duration(number(m)%7) * time.Millisecond)
					m.BatchKey = fmt.Sprint(m.Metadata.(*memory.Metadata).Partition)
					return nil
				}},
				Batchers: []broadway.BatcherConfig{{Size: 20, Concurrency: 100, Reporter: func(ctx context.Context, b *broadway.Batch) error {
					if blocked && b.Key == "3" {
						<-ctx.Done()
						return ctx.Err()
					}
					batches.Add(1)
					messages.Add(int64(len(b.Messages)))
					if b.Trigger == broadway.TriggerPressure {
						pressed.Add(1)
					}
					return nil
				}}},
				MaxUnsettled: 800, DrainTimeout: time.Second,
			})
			stop := background(t, p)
			time.Sleep(20 * time.Second)
			sizes[blocked] = float64(messages.Load()) / float64(batches.Load())
			t.Logf("blocked %v: %d batches of %.1f, %d by pressure, %d messages", blocked, batches.Load(), sizes[blocked], pressed.Load(), messages.Load())
			_ = stop()
		})
	}
	if sizes[true] < sizes[false]/2 {
		t.Errorf("mean batch %.1f without, %.1f with a blocked partition", sizes[false], sizes[true])
	}
}

// crash runs a pipeline in a child process.
func crash(t *testing.T, cfg func(*broadway.Config)) {
	if os.Getenv("BW_CRASH") == t.Name() {
		c := broadway.Config{Logger: quiet, Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(3)})}, Processor: broadway.ProcessorConfig{Handler: nothing},
			Batchers: []broadway.BatcherConfig{{Size: 1, Reporter: reportNothing}}, DrainTimeout: 4 * time.Second}
		cfg(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_ = build(t, c).Run(ctx)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "BW_CRASH="+t.Name())
	if out, err := child.CombinedOutput(); err != nil && strings.Contains(string(out), "panic:") {
		t.Errorf("the process died: %.200s", out[strings.Index(string(out), "panic:"):])
	}
}
func TestATypedNilBatchErrorIsSuccess(t *testing.T) {
	crash(t, func(c *broadway.Config) {
		c.Batchers[0].Reporter = func(context.Context, *broadway.Batch) error { var e *broadway.BatchError; return e }
	})
}
func TestAPanicOfKeyByFailsTheMessage(t *testing.T) {
	crash(t, func(c *broadway.Config) { c.Batchers[0].KeyBy = func(m *broadway.Message) string { panic("boom") } })
}
func TestAPanicOfPartitionByFailsTheMessage(t *testing.T) {
	crash(t, func(c *broadway.Config) { c.Processor.PartitionBy = func(m *broadway.Message) uint64 { panic("boom") } })
}

type relPanic struct{}

func (relPanic) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	return errFail
}
func (relPanic) Release(context.Context, *broadway.AckRef, []*broadway.Message) error { panic("boom") }
func TestAPanicOfReleaseIsContained(t *testing.T) {
	crash(t, func(c *broadway.Config) {
		c.Producers = []broadway.Producer{&oneShot{ref: broadway.NewAckRef(&relPanic{}, nil, 0)}}
	})
}

type fetchPanic struct{ oneShot }

func (fetchPanic) Fetch(context.Context, broadway.Demand) ([]*broadway.Message, error) { panic("boom") }
func TestAPanicOfFetchIsAnError(t *testing.T) {
	crash(t, func(c *broadway.Config) { c.Producers = []broadway.Producer{&fetchPanic{}} })
}
