package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

var errAway = errors.New("away")

// downstream may be down, and counts who asks then.
type downstream struct {
	down  atomic.Bool
	calls atomic.Int64 // while it is down

	mu       sync.Mutex // protects following fields
	attempts map[string][]int
	order    []string
}

func (d *downstream) ask(m *broadway.Message) error {
	d.mu.Lock()
	if d.attempts == nil {
		d.attempts = map[string][]int{}
	}
	d.attempts[string(m.Payload)] = append(d.attempts[string(m.Payload)], m.Attempt)
	d.mu.Unlock()
	if d.down.Load() {
		d.calls.Add(1)
		return broadway.Unavailable(errAway)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order = append(d.order, string(m.Payload))
	return nil
}

func (d *downstream) handle(_ context.Context, m *broadway.Message) error { return d.ask(m) }

func (d *downstream) report(_ context.Context, b *broadway.Batch) error {
	for _, m := range b.Messages {
		if err := d.ask(m); err != nil {
			return err
		}
	}
	return nil
}

func (d *downstream) wantFirstAttempts(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for payload, list := range d.attempts {
		if slices.Max(list) != 1 {
			t.Errorf("%s was handled with the attempts %v", payload, list)
		}
	}
}

// counting is a slog.Handler that counts lines.
type counting struct{ lines *atomic.Int64 }

func (c counting) Enabled(context.Context, slog.Level) bool { return true }
func (c counting) Handle(context.Context, slog.Record) error {
	c.lines.Add(1)
	return nil
}
func (c counting) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c counting) WithGroup(string) slog.Handler      { return c }

// An outage of ten minutes, met by the processors or by the reporters, with order
// and without: fetching stops at the bound, nothing is dead-lettered, no attempt is
// counted, what the outage is asked grows with the backoff only, the log has two
// lines; and all succeeds afterwards, each key in order.
func TestAnOutageStopsItsStage(t *testing.T) {
	for _, stage := range []string{"processor", "default"} {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s ordered=%v", stage, ordered), func(t *testing.T) { outage(t, stage, ordered) })
		}
	}
}

func outage(t *testing.T, stage string, ordered bool) {
	synctest.Test(t, func(t *testing.T) {
		const total = 500
		var lines atomic.Int64
		d := &downstream{}
		source := broadwaytest.NewProducer(broadway.Traits{})
		observer := &broadwaytest.ObserverRecorder{}
		cfg := broadway.Config{
			Producers:    []broadway.Producer{source},
			Processor:    broadway.ProcessorConfig{Concurrency: 3, MaxDemand: 5, Handler: nothing},
			Batchers:     []broadway.BatcherConfig{{Size: 10, Concurrency: 2, Timeout: 100 * time.Millisecond}},
			Failure:      broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second}},
			MaxUnsettled: 100,
			Logger:       slog.New(counting{&lines}),
			Observer:     observer,
		}
		if ordered {
			cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(number(m) % 7) }
		}
		cfg.Batchers[0].Reporter = reportNothing
		if stage == "processor" {
			cfg.Processor.Handler = d.handle
		} else {
			cfg.Batchers[0].Reporter = d.report
		}
		p := build(t, cfg)
		stop := background(t, p)
		for n := range 50 {
			source.Push(fmt.Sprintf("m%d", n))
		}
		time.Sleep(time.Second)
		d.down.Store(true)
		for n := 50; n < total; n++ {
			source.Push(fmt.Sprintf("m%d", n))
		}
		start := time.Now()
		time.Sleep(time.Minute)
		fetched := p.Stats().Fetched
		time.Sleep(9 * time.Minute)
		st := p.Stats()
		circuit := st.Processor.Circuit
		if stage != "processor" {
			circuit = st.Batchers[0].Circuit
		}
		// A message that is tried is in its handler, and not queued: so that once, when only so
		// many wait that this one counts, the sources may be asked meanwhile.
		if st.Fetched > fetched+3*5 || st.Fetched > 150 || st.Succeeded != 50 || st.Failed+st.DeadLettered+st.Released+st.Retried != 0 {
			t.Errorf("in the outage: %+v", st)
		}
		if circuit.State == broadway.CircuitClosed || circuit.Since.Sub(start) > time.Second || !errors.Is(circuit.Err, errAway) ||
			!errors.Is(st.Err, errAway) || !strings.Contains(st.WaitingFor, stage) {
			t.Errorf("circuit %+v, err %v, waiting for %q", circuit, st.Err, st.WaitingFor)
		}
		// 100 ms, 200 ms, … 10 s: some 70 tries in ten minutes, and those of all that
		// were at work when it opened.
		if calls := d.calls.Load(); calls > 90 || lines.Load() != 1 {
			t.Errorf("%d calls, %d lines logged", calls, lines.Load())
		}
		d.down.Store(false)
		time.Sleep(15 * time.Second)
		if st := p.Stats(); st.Succeeded != total || st.Err != nil || lines.Load() != 2 {
			t.Errorf("15 s after it: %+v; %d lines", st, lines.Load())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		d.wantFirstAttempts(t)
		if ordered {
			wantKeysInOrder(t, d.order, 7)
		}
		events := observer.Circuits()
		if events[0].State != broadway.CircuitOpen || events[0].Stage != stage || events[len(events)-1].State != broadway.CircuitClosed {
			t.Errorf("told of %+v", events)
		}
	})
}

// wantKeysInOrder wants the numbers of each of so many keys to rise.
func wantKeysInOrder(t *testing.T, payloads []string, keys int) {
	t.Helper()
	last := map[int]int{}
	for _, payload := range payloads {
		var n int
		if _, err := fmt.Sscanf(payload, "m%d", &n); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[n%keys]; ok && before >= n {
			t.Errorf("%d after %d", n, before)
		}
		last[n%keys] = n
	}
}

// A half-open circuit of a batcher tries the oldest message, in a batch of its own;
// one that fails otherwise decides nothing, and what waits keeps its order.
func TestACircuitIsTriedByOneMessage(t *testing.T) {
	var got []string
	errs := map[string][]error{
		"1":  {broadway.Unavailable(errAway), broadway.Unavailable(errAway), broadway.Reject(errNo)},
		"2":  {broadway.Unavailable(errAway)},
		"11": {},
	}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, PartitionBy: func(*broadway.Message) uint64 { return 1 }},
		Batchers: []broadway.BatcherConfig{{Size: 4, Reporter: func(_ context.Context, b *broadway.Batch) error {
			var members []string
			var failed error
			for _, m := range b.Messages {
				members = append(members, string(m.Payload))
				if list := errs[string(m.Payload)]; failed == nil && len(list) > 0 {
					failed, errs[string(m.Payload)] = list[0], list[1:]
				}
			}
			got = append(got, strings.Join(members, " "))
			return failed
		}}},
		Failure: broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Second, Jitter: -1}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 8)...)
		start := time.Now()
		wantResults(t, p.settled(8), "1:failed 2:succeeded 3:succeeded 4:succeeded 5:succeeded 6:succeeded 7:succeeded 8:succeeded")
		want := []string{"1 2 3 4", "1", "1", "2", "2", "3 4", "5 6 7 8"}
		if !slices.Equal(got, want) {
			t.Errorf("reported %q, want %q", got, want)
		}
		// 1 s; 2 s after the second outage; 2 s after the rejection, which says
		// nothing; 4 s after the third.
		if d := time.Since(start); d != 9*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// Members that a batch error fails as unavailable keep their place and attempt; the
// others are what it says.
func TestMembersThatFoundAnOutageKeepTheirPlace(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		var got []string
		first := true
		cfg := broadway.Config{
			Batchers: []broadway.BatcherConfig{{Size: 6, Timeout: time.Minute, Reporter: func(_ context.Context, b *broadway.Batch) error {
				for _, m := range b.Messages {
					got = append(got, fmt.Sprintf("%s/%d", m.Payload, m.Attempt))
				}
				if !first {
					return nil
				}
				first = false
				e := new(broadway.BatchError)
				e.Fail(b.Messages[1], broadway.Unavailable(errAway))
				e.Fail(b.Messages[2], broadway.Reject(errNo))
				e.Fail(b.Messages[3], errNo) // of the same key as 1 with order: waits behind it
				e.Fail(b.Messages[5], broadway.Unavailable(errAway))
				return e
			}}},
			Processor: broadway.ProcessorConfig{Concurrency: 1},
			Failure:   broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Second, Jitter: -1}},
		}
		if ordered {
			cfg.Processor.PartitionBy = func(*broadway.Message) uint64 { return 1 }
		}
		behaviour(t, cfg, func(t *testing.T, p *pipe) {
			p.source.Push(numbers(1, 6)...)
			wantResults(t, p.settled(6), "1:succeeded 2:succeeded 3:failed 4:succeeded 5:succeeded 6:succeeded")
			want := []string{"1/1", "2/1", "3/1", "4/1", "5/1", "6/1", "2/1", "6/1", "4/2"}
			if ordered {
				want = []string{"1/1", "2/1", "3/1", "4/1", "5/1", "6/1", "2/1", "4/2", "6/1"}
			}
			if !slices.Equal(got, want) {
				t.Errorf("ordered %v: reported %v, want %v", ordered, got, want)
			}
		})
	}
}

// With several batchers, one whose circuit is open leaves the others their pace;
// with order, as far as the bound goes.
func TestAnOpenCircuitLeavesTheOtherBatchersTheirPace(t *testing.T) {
	d := &downstream{}
	var n atomic.Int64
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 10, Handler: func(_ context.Context, m *broadway.Message) error {
			m.Batcher = parity(m)
			return nil
		}},
		Batchers: []broadway.BatcherConfig{
			{Name: "odd", Size: 10, Timeout: 10 * time.Millisecond, Reporter: d.report},
			{Name: "even", Size: 10, Timeout: 10 * time.Millisecond, Reporter: func(_ context.Context, b *broadway.Batch) error {
				n.Add(int64(len(b.Messages)))
				return nil
			}},
		},
		MaxUnsettled: 100,
		Failure:      broadway.FailurePolicy{Backoff: broadway.Backoff{Max: time.Second}},
	}, func(t *testing.T, p *pipe) {
		d.down.Store(true)
		p.source.Push(numbers(1, 200)...)
		time.Sleep(5 * time.Second)
		if n.Load() != 100 {
			t.Errorf("%d of 100 even ones were reported", n.Load())
		}
		st := p.pipeline.Stats()
		if st.Batchers[0].Held > st.Batchers[0].Bound || st.Batchers[0].Circuit.State == broadway.CircuitClosed || st.Batchers[1].Circuit.State != broadway.CircuitClosed {
			t.Errorf("%+v", st.Batchers)
		}
		d.down.Store(false)
		time.Sleep(5 * time.Second)
		if st := p.pipeline.Stats(); st.Unsettled != 0 || st.Succeeded+st.Released != 200 || st.Err != nil {
			t.Errorf("afterwards %+v", st)
		}
	})
}

// A drain with an open circuit ends by its deadline and gives back what waits.
func TestADrainWithAnOpenCircuitGivesBack(t *testing.T) {
	for _, stage := range []string{"processor", "default"} {
		for _, ordered := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d := &downstream{}
				d.down.Store(true)
				cfg := broadway.Config{
					Processor:    broadway.ProcessorConfig{Concurrency: 2},
					Batchers:     []broadway.BatcherConfig{{Size: 3, Timeout: -1}},
					DrainTimeout: 10 * time.Second,
				}
				if ordered {
					cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(len(m.Payload)) }
				}
				if stage == "processor" {
					cfg.Processor.Handler = d.handle
				} else {
					cfg.Batchers[0].Reporter = d.report
				}
				p := startPipe(t, cfg)
				p.source.Push(numbers(1, 20)...)
				time.Sleep(time.Minute)
				start := time.Now()
				if err := p.stop(); !errors.Is(err, broadway.ErrDrainTimeout) || strings.Contains(err.Error(), "did not return") {
					t.Errorf("err: %v", err)
				}
				if took := time.Since(start); took != 8*time.Second {
					t.Errorf("the drain took %v", took)
				}
				if st := p.pipeline.Stats(); st.Unsettled != 0 || st.Released != st.Fetched {
					t.Errorf("%s ordered %v: %+v", stage, ordered, st)
				}
				d.wantFirstAttempts(t)
			})
		}
	}
}

// Messages that an open circuit holds are given back when their reference drains.
func TestARefThatDrainsLeavesAnOpenCircuit(t *testing.T) {
	for _, stage := range []string{"processor", "default"} {
		for _, ordered := range []bool{false, true} {
			d := &downstream{}
			d.down.Store(true)
			cfg := broadway.Config{
				Processor: broadway.ProcessorConfig{Concurrency: 2},
				Batchers:  []broadway.BatcherConfig{{Size: 3, Timeout: time.Second}},
				Failure:   broadway.FailurePolicy{Backoff: broadway.Backoff{Initial: time.Hour, Max: time.Hour}},
			}
			if ordered {
				cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(len(m.Payload)) }
			}
			if stage == "processor" {
				cfg.Processor.Handler = d.handle
			} else {
				cfg.Batchers[0].Reporter = d.report
			}
			behaviour(t, cfg, func(t *testing.T, p *pipe) {
				p.source.Push(numbers(1, 15)...)
				time.Sleep(time.Minute)
				before := p.source.NewRef(0)
				p.source.Push(numbers(16, 18)...)
				start := time.Now()
				before.Drain()
				if err := before.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("%s ordered %v: waited %v for what no handler holds", stage, ordered, took)
				}
				d.down.Store(false)
				time.Sleep(3 * time.Hour)
				if st := p.pipeline.Stats(); st.Released != 15 || st.Succeeded != 3 {
					t.Errorf("%s ordered %v: %+v", stage, ordered, st)
				}
			})
		}
	}
}

// FailurePolicy.Unavailable opens the circuit by what it says of plain errors, also
// of time-outs; a panic of its own says no.
func TestAClassifierOpensTheCircuit(t *testing.T) {
	tries := 0
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Timeout: time.Second, Handler: func(ctx context.Context, m *broadway.Message) error {
			tries++
			switch {
			case tries == 1:
				return errAway
			case tries == 2:
				<-ctx.Done()
				return nil
			case string(m.Payload) == "panics":
				return errNo
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{MaxAttempts: 1, Backoff: broadway.Backoff{Initial: time.Second, Jitter: -1}, Unavailable: func(err error) bool {
			if errors.Is(err, errNo) {
				panic("unsure")
			}
			return errors.Is(err, errAway) || errors.Is(err, broadway.ErrHandlerTimeout)
		}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1")
		wantResults(t, p.settled(1), "1:succeeded")
		if tries != 3 {
			t.Errorf("%d tries", tries)
		}
		p.source.Push("panics")
		if got := p.settled(2)["panics"]; got.Result != broadwaytest.Failed {
			t.Errorf("%v", got.Result)
		}
	})
}

// A downstream that answers every try and nothing else is asked ever more seldom,
// and is not logged more than once a second.
func TestAFlappingDownstreamIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines, calls atomic.Int64
		source := broadwaytest.NewProducer(broadway.Traits{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(context.Context, *broadway.Message) error {
				if calls.Add(1)%5 == 0 {
					return nil
				}
				return broadway.Unavailable(errAway)
			}},
			Failure: broadway.FailurePolicy{Backoff: broadway.Backoff{Initial: time.Millisecond, Max: time.Second}},
			Logger:  slog.New(counting{&lines}),
		})
		for range 100_000 {
			source.Push("x")
		}
		stop := background(t, p)
		time.Sleep(time.Minute)
		if calls.Load() > 600 || lines.Load() > 122 {
			t.Errorf("%d calls and %d lines in a minute", calls.Load(), lines.Load())
		}
		_ = stop()
	})
}
