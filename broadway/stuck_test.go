package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// hanging is a handler that does not return for payloads with a "!", the first time
// that it gets them, before the test lets it.
type hanging struct {
	handledBy
	mu  sync.Mutex // protects following field
	out map[string]chan struct{}
}

func (h *hanging) wait(m *broadway.Message) {
	h.add(m)
	payload := string(m.Payload)
	if !strings.Contains(payload, "!") {
		return
	}
	h.mu.Lock()
	if h.out == nil {
		h.out = map[string]chan struct{}{}
	}
	c, again := h.out[payload]
	if !again {
		c = make(chan struct{})
		h.out[payload] = c
	}
	h.mu.Unlock()
	if !again {
		<-c
		m.Value = "late" // a handler that is given up may still write
	}
}

func (h *hanging) handle(_ context.Context, m *broadway.Message) error {
	h.wait(m)
	return nil
}

func (h *hanging) report(_ context.Context, b *broadway.Batch) error {
	for _, m := range b.Messages {
		h.wait(m)
	}
	return nil
}

func (h *hanging) let(payload string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.out[payload])
}

// A handler that ignores its time-out is named no later than a second after it, to
// all who can be told, and its worker is replaced: the others go on. Its message is
// not tried again before it returns, whatever that is.
func TestAHandlerThatDoesNotReturnIsReplaced(t *testing.T) {
	for _, timeout := range []time.Duration{20 * time.Millisecond, time.Second, 20 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			h := &hanging{}
			behaviour(t, broadway.Config{
				Processor: broadway.ProcessorConfig{Concurrency: 1, Timeout: timeout, Handler: h.handle},
				Failure:   broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}},
			}, func(t *testing.T, p *pipe) {
				p.source.Push("!", "a", "b")
				time.Sleep(timeout + time.Second)
				synctest.Wait()
				if got := h.all(); !slices.Equal(got, []string{"!", "a", "b"}) {
					t.Errorf("handled %v", got)
				}
				st := p.pipeline.Stats()
				if len(st.Stuck) != 1 || st.Stuck[0].Stage != "processor" || st.Stuck[0].ID == "" || st.Processor.Busy != 0 || st.Err != nil {
					t.Errorf("stuck %+v, busy %d, err %v", st.Stuck, st.Processor.Busy, st.Err)
				}
				events := p.observer.Stucks()
				if len(events) != 1 || events[0].Returned || events[0].Age > timeout+time.Second || events[0].ID != st.Stuck[0].ID {
					t.Errorf("told of %+v", events)
				}
				time.Sleep(2 * time.Minute)
				if st := p.pipeline.Stats(); st.Unsettled != 1 || st.Err == nil || len(h.all()) != 3 {
					t.Errorf("later: %d unsettled, handled %v, err %v", st.Unsettled, h.all(), st.Err)
				}
				h.let("!")
				wantResults(t, p.settled(3), "!:succeeded a:succeeded b:succeeded")
				synctest.Wait()
				if got := h.all(); !slices.Equal(got, []string{"!", "a", "b", "!"}) {
					t.Errorf("handled %v", got)
				}
				if st := p.pipeline.Stats(); len(st.Stuck) != 0 || st.Late != 1 || st.Err != nil || st.SettledTwice != 0 {
					t.Errorf("at the end %+v", st)
				}
				if events := p.observer.Stucks(); len(events) != 2 || !events[1].Returned {
					t.Errorf("told of %+v", events)
				}
			})
		})
	}
}

// With order, the key is not opened before the handler returns; with RetryStuck it is
// at once.
func TestAStuckHandlerKeepsItsKey(t *testing.T) {
	for _, retry := range []bool{false, true} {
		t.Run(fmt.Sprintf("retry=%v", retry), func(t *testing.T) {
			h := &hanging{}
			behaviour(t, broadway.Config{
				Processor: broadway.ProcessorConfig{Concurrency: 2, Timeout: time.Second, RetryStuck: retry, Handler: h.handle,
					PartitionBy: func(m *broadway.Message) uint64 { return uint64(m.Payload[0]) }},
				Batchers: []broadway.BatcherConfig{{Size: 100, Timeout: time.Second}},
				Failure:  broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}},
			}, func(t *testing.T, p *pipe) {
				p.source.PushItems(broadwaytest.Item{Payload: []byte("a!"), Value: "own"})
				p.source.Push("a1", "b1", "a2", "b2")
				time.Sleep(10 * time.Second)
				synctest.Wait()
				got := h.all()
				if !retry {
					wantSet(t, got, "a!", "b1", "b2")
				}
				if retry {
					key := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s[0] != 'a' })
					if want := []string{"a!", "a!", "a1", "a2"}; !slices.Equal(key, want) {
						t.Errorf("handled %v of the key, want %v", key, want)
					}
					p.settled(5)
				}
				h.let("a!")
				settled := p.settled(5)
				wantResults(t, settled, "a!:succeeded a1:succeeded a2:succeeded b1:succeeded b2:succeeded")
				if retry && settled["a!"].Value != "own" {
					t.Errorf("the retry has the value %v, of the handler that was given up", settled["a!"].Value)
				}
				synctest.Wait()
				if st := p.pipeline.Stats(); st.SettledTwice != 0 || st.Late != 1 || len(st.Stuck) != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// A slow handler keeps its key from being handled, and no other: though some of a
// thousand keys share its lane. What it returns in the end is its message's outcome,
// and what waited for its key comes next, in order.
func TestASlowHandlerKeepsItsKeyOnly(t *testing.T) {
	const keys = 1000
	for name, c := range map[string]struct {
		end     func() error
		outcome string
	}{
		"it succeeds":      {func() error { return nil }, "succeeded"},
		"it fails":         {func() error { return broadway.Reject(errors.New("no")) }, "failed"},
		"it exits":         {func() error { runtime.Goexit(); return nil }, "failed"},
		"it panics":        {func() error { panic("no") }, "failed"},
		"it is tried anew": {nil, "succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			var handled handledBy
			var slow chan struct{}
			handle := func(_ context.Context, m *broadway.Message) error {
				handled.add(m)
				if string(m.Payload) != "0 first" {
					return nil
				}
				<-slow
				if c.end != nil {
					return c.end()
				}
				if m.Attempt == 1 {
					return errors.New("once")
				}
				return nil
			}
			attempts := 1
			if c.end == nil {
				attempts = 2
			}
			behaviour(t, broadway.Config{
				MaxUnsettled: 2*keys + 2,
				Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: keys, Handler: handle, PartitionBy: func(m *broadway.Message) uint64 {
					key, _, _ := strings.Cut(string(m.Payload), " ")
					n, _ := strconv.ParseUint(key, 10, 64)
					return n
				}},
				Failure: broadway.FailurePolicy{MaxAttempts: attempts, Action: broadway.ActionDrop, Backoff: broadway.Backoff{Initial: time.Second}},
			}, func(t *testing.T, p *pipe) {
				slow = make(chan struct{}) // of its bubble
				p.source.Push("0 first", "0 second")
				synctest.Wait()
				for key := 1; key < keys; key++ {
					p.source.Push(fmt.Sprintf("%d first", key), fmt.Sprintf("%d second", key))
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := len(handled.all()); got != 2*keys-1 {
					t.Errorf("%d messages were handled beside the slow one, want %d", got-1, 2*keys-2)
				}
				close(slow)
				settled := p.settled(2 * keys)
				if o := settled["0 first"].Result.String(); o != c.outcome {
					t.Errorf("the slow one has %s", o)
				}
				last := map[string]string{}
				for _, payload := range handled.all() {
					key, which, _ := strings.Cut(payload, " ")
					if which == "first" && last[key] == "second" {
						t.Errorf("key %s is handled out of order", key)
					}
					last[key] = which
				}
			})
		})
	}
}

// A message that is given up after its last attempt, with RetryStuck, settles while
// its handler runs, and what that returns does no harm: it may even exit.
func TestAStuckMessageIsGivenUpWithRetryStuck(t *testing.T) {
	letters := &letterer{}
	for _, ordered := range []bool{false, true} {
		release := make(chan struct{})
		cfg := broadway.Config{
			Processor: broadway.ProcessorConfig{Concurrency: 2, Timeout: time.Second, RetryStuck: true, MaxStuck: 3,
				Handler: func(_ context.Context, m *broadway.Message) error {
					if string(m.Payload) == "poison" {
						<-release
						m.Value = "late"
						runtime.Goexit()
					}
					return nil
				}},
			Failure: broadway.FailurePolicy{MaxAttempts: 3, Backoff: broadway.Backoff{Initial: time.Millisecond},
				Action: broadway.ActionDeadLetter, DeadLetter: letters},
		}
		if ordered {
			cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(len(m.Payload)) }
		}
		synctest.Test(t, func(t *testing.T) {
			letters, release = &letterer{}, make(chan struct{})
			cfg.Failure.DeadLetter = letters
			p := startPipe(t, cfg)
			p.source.Push("poison", "1", "2")
			wantResults(t, p.settled(3), "poison:dead-lettered 1:succeeded 2:succeeded")
			l := letters.Letters()
			if len(l) != 1 || l[0].Attempt != 3 || !errors.Is(l[0].Err, broadway.ErrHandlerTimeout) {
				t.Errorf("dead letters %+v", l)
			}
			synctest.Wait()
			if st := p.pipeline.Stats(); len(st.Stuck) != 3 || st.Processor.Circuit.State != broadway.CircuitClosed {
				t.Errorf("stuck %+v", st.Stuck)
			}
			close(release)
			synctest.Wait()
			p.source.Push("3", "4", "5")
			p.settled(6)
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			if st := p.pipeline.Stats(); st.Late != 3 || st.SettledTwice != 0 || st.Unsettled != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Once more handlers are stuck than are replaced, nothing is handled and the
// pipeline is unhealthy, until one returns.
func TestTooManyStuckHandlersStopTheStage(t *testing.T) {
	for _, most := range []int{-1, 1, 3} {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d ordered=%v", most, ordered), func(t *testing.T) {
				h := &hanging{}
				cfg := broadway.Config{
					Processor: broadway.ProcessorConfig{Concurrency: 2, Timeout: time.Second, MaxStuck: most, Handler: h.handle},
					Failure:   broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}},
				}
				if ordered {
					cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(m.Payload[0]) }
				}
				behaviour(t, cfg, func(t *testing.T, p *pipe) {
					n := max(most, 0) + 1
					for i := range n {
						p.source.Push(fmt.Sprintf("%d!", i))
						time.Sleep(3 * time.Second)
					}
					p.source.Push("x", "y")
					time.Sleep(10 * time.Second)
					synctest.Wait()
					st := p.pipeline.Stats()
					if got := h.all(); len(got) != n || len(st.Stuck) != n || st.Err == nil {
						t.Errorf("handled %v, stuck %d, err %v", got, len(st.Stuck), st.Err)
					}
					h.let("0!")
					p.settled(3)
					synctest.Wait()
					if st := p.pipeline.Stats(); len(st.Stuck) != n-1 || st.Succeeded != 3 {
						t.Errorf("%d stuck, %d succeeded", len(st.Stuck), st.Succeeded)
					}
					for i := 1; i < n; i++ {
						h.let(fmt.Sprintf("%d!", i))
					}
					p.settled(n + 2)
					// As many work as before.
					p.source.Push("p!", "q!")
					time.Sleep(500 * time.Millisecond)
					if st := p.pipeline.Stats(); st.Processor.Busy != 2 || st.Err != nil {
						t.Errorf("%d of 2 workers are busy; err %v", st.Processor.Busy, st.Err)
					}
					h.let("p!")
					h.let("q!")
				})
			})
		}
	}
}

// A drain with stuck handlers, with and without a time-out, in the pool and in a
// batcher, ends in time: what they hold is given back and named, and what they
// return afterwards counts for nothing.
func TestADrainGivesBackWhatStuckHandlersHold(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second} {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v ordered=%v", timeout, ordered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := &hanging{}
					cfg := broadway.Config{
						Processor: broadway.ProcessorConfig{Concurrency: 1, MaxStuck: -1, Timeout: timeout, Handler: func(_ context.Context, m *broadway.Message) error {
							if m.Payload[0] == 'p' {
								h.wait(m)
							}
							return nil
						}},
						Batchers:     []broadway.BatcherConfig{{Size: 1, ReportTimeout: timeout, MaxStuck: -1, Reporter: h.report}},
						DrainTimeout: 10 * time.Second,
					}
					if ordered {
						cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return 1 }
					}
					p := startPipe(t, cfg)
					p.source.Push("r!", "1")
					time.Sleep(3 * time.Second)
					p.source.Push("p!", "2")
					time.Sleep(3 * time.Second)
					start := time.Now()
					err := p.stop()
					if !errors.Is(err, broadway.ErrDrainTimeout) || !strings.Contains(err.Error(), "2 handlers did not return") {
						t.Errorf("err: %v", err)
					}
					if d := time.Since(start); d > 9*time.Second {
						t.Errorf("the drain took %v", d)
					}
					wantResults(t, p.settled(4), "r!:released 1:released p!:released 2:released")
					h.let("r!")
					h.let("p!")
					synctest.Wait()
					if st := p.pipeline.Stats(); st.Unsettled != 0 || st.Released != 4 || st.SettledTwice != 0 || st.Late != 2 {
						t.Errorf("%+v", st)
					}
				})
			})
		}
	}
}

// Without a time-out Stats names the handling that has run for longest.
func TestStatsNameTheOldestHandling(t *testing.T) {
	h := &hanging{}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: h.handle},
	}, func(t *testing.T, p *pipe) {
		var began atomic.Int64
		began.Store(time.Now().UnixNano())
		p.source.Push("1!")
		time.Sleep(time.Hour)
		p.source.Push("2!")
		time.Sleep(time.Minute)
		oldest := p.pipeline.Stats().Processor.Oldest
		if len(oldest) != 1 || oldest[0].Since.UnixNano() != began.Load() || !strings.HasSuffix(oldest[0].ID, "/0") {
			t.Errorf("oldest %+v", oldest)
		}
		h.let("1!")
		h.let("2!")
	})
}

// A source that is done ends the pipeline though a handler was let go of that does not
// return: everything is settled.
func TestRunEndsThoughAHandlerRunsThatWasLetGoOf(t *testing.T) {
	for _, stage := range []string{"processor", "reporter"} {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, h := broadwaytest.NewProducer(broadway.Traits{}), &hanging{}
				src.Push("a", "b!", "c")
				src.End()
				cfg := broadway.Config{Producers: []broadway.Producer{src}, Logger: quiet}
				if stage == "processor" {
					cfg.Processor = broadway.ProcessorConfig{Concurrency: 2, Handler: h.handle, Timeout: time.Second, RetryStuck: true}
				} else {
					cfg.Processor = broadway.ProcessorConfig{Concurrency: 2, Handler: nothing}
					cfg.Batchers = []broadway.BatcherConfig{{Size: 1, Reporter: h.report, ReportTimeout: time.Second, RetryStuck: true}}
				}
				start, p := time.Now(), build(t, cfg)
				if err := p.Run(t.Context()); err != nil || time.Since(start) > 10*time.Second {
					t.Errorf("Run: %v after %v", err, time.Since(start))
				}
				if st := p.Stats(); st.Succeeded != 3 || st.Unsettled != 0 {
					t.Errorf("%+v", st)
				}
				close(h.out["b!"])
				synctest.Wait()
			})
		})
	}
}
