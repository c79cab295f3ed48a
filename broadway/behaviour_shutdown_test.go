package broadway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// B-086: Abort stops at once, settles nothing, and Run says so.
func TestAbortSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPipe(t, broadway.Config{Batchers: []broadway.BatcherConfig{{Size: 10, Timeout: -1}}})
		p.source.Push(numbers(1, 4)...)
		synctest.Wait()
		start := time.Now()
		p.pipeline.Abort()
		if err := <-p.over; !errors.Is(err, broadway.ErrAborted) {
			t.Errorf("Run returned %v", err)
		}
		if calls := p.source.Acks.Calls(); len(calls) != 0 || time.Since(start) > 0 {
			t.Errorf("after %v: calls %v", time.Since(start), calls)
		}
		if p.source.Closes() != 1 {
			t.Errorf("the source was closed %d times", p.source.Closes())
		}
	})
}

// B-087: Run returns when everything is down: the last acknowledgement comes
// before the source is closed, and Close before Run returns.
func TestRunReturnsWhenEverythingIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPipe(t, broadway.Config{Batchers: []broadway.BatcherConfig{{Size: 10, Timeout: -1}}})
		closed := -1
		p.source.Acks.Next = ackFunc(func() { closed = p.source.Closes() })
		p.reports.Next = func(context.Context, *broadway.Batch) error {
			time.Sleep(5 * time.Second)
			return nil
		}
		p.source.Push(numbers(1, 3)...)
		synctest.Wait()
		start := time.Now()
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if time.Since(start) != 5*time.Second || closed != 0 || p.source.Closes() != 1 || !p.source.Drained() {
			t.Errorf("down after %v; closed %d times before the last ack, %d in all", time.Since(start), closed, p.source.Closes())
		}
		wantResults(t, p.settled(3), "1:succeeded 2:succeeded 3:succeeded")
	})
}

type ackFunc func()

func (f ackFunc) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	f()
	return nil
}

// B-088: what waits in an open batch when the pipeline stops is one batch, and is
// acknowledged before Run returns.
func TestAnOpenBatchIsReportedBeforeRunReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPipe(t, broadway.Config{
			Processor: handing(func(*broadway.Message) {}),
			Batchers:  []broadway.BatcherConfig{{Size: 10, Timeout: -1}},
		})
		p.source.Push(numbers(1, 4)...)
		synctest.Wait()
		if n := len(p.reports.Batches()); n > 0 {
			t.Fatalf("%d batches before the stop", n)
		}
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := p.batches(1); !slices.Equal(got, []string{"default[1 2 3 4] drain"}) {
			t.Errorf("batches %v", got)
		}
		wantResults(t, p.settled(4), "1:succeeded 2:succeeded 3:succeeded 4:succeeded")
	})
}

// B-088, the other half: what waits at a source that is not asked stays there.
func TestNothingIsFetchedByTheStop(t *testing.T) {
	behaviour(t, broadway.Config{}, func(t *testing.T, p *pipe) {
		if err := p.pipeline.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.source.Push(numbers(1, 4)...)
		synctest.Wait()
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if left, calls := p.source.Waiting(), p.source.Acks.Calls(); left != 4 || len(calls) != 0 {
			t.Errorf("%d messages are left, calls %v", left, calls)
		}
	})
}

// A finite source: Run returns by itself, with everything settled.
func TestAFiniteSourceEndsThePipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPipe(t, broadway.Config{Batchers: []broadway.BatcherConfig{{Size: 3, Timeout: -1}}})
		p.source.Push(numbers(1, 7)...)
		p.source.End()
		if err := <-p.over; err != nil {
			t.Errorf("Run: %v", err)
		}
		if s := p.pipeline.Stats(); s.Succeeded != 7 || s.Unsettled != 0 || s.State != broadway.StateStopped {
			t.Errorf("stats %+v", s)
		}
	})
}

// B-008 … B-013: what is not said has the defaults that are documented.
func TestDefaultsAreThoseThatAreDocumented(t *testing.T) {
	report := func(context.Context, *broadway.Batch) error { return nil }
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{broadwaytest.NewProducer(broadway.Traits{})},
		Processor: broadway.ProcessorConfig{Handler: nothing},
		Batchers:  []broadway.BatcherConfig{{Name: "b1", Reporter: report}, {Name: "b2", Reporter: report}},
	})
	for _, s := range p.Topology() {
		want := 1
		if s.Kind == "processor" {
			want = p.Stats().Processor.Concurrency
		}
		if s.Concurrency != want {
			t.Errorf("%s %s has a concurrency of %d", s.Kind, s.Name, s.Concurrency)
		}
	}
	concurrency := p.Stats().Processor.Concurrency
	want := concurrency*broadway.DefaultMaxDemand + 2*2*broadway.DefaultBatchSize
	if s := p.Stats(); concurrency%2 != 0 || s.MaxUnsettled != want || s.MaxUnsettledBytes != broadway.DefaultMaxUnsettledBytes {
		t.Errorf("concurrency %d, bounds %d and %d", concurrency, s.MaxUnsettled, s.MaxUnsettledBytes)
	}
}

// B-009 … B-013, B-098 … B-100: the topology lists every stage with its
// concurrency, batchers in the order of their definition.
func TestTheTopologyListsEveryStage(t *testing.T) {
	report := func(context.Context, *broadway.Batch) error { return nil }
	source := func(name string) broadway.Producer { return broadwaytest.NewProducer(broadway.Traits{Name: name}) }
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{source("orders"), source("returns"), source("orders")},
		Processor: broadway.ProcessorConfig{Handler: nothing, Concurrency: 13},
		Batchers: []broadway.BatcherConfig{
			{Name: "z", Reporter: report, Concurrency: 2}, {Name: "a", Reporter: report, Concurrency: 3},
		},
	})
	var kinds, batchers []string
	for _, s := range p.Topology() {
		kinds = append(kinds, s.Kind)
		switch {
		case s.Kind == "processor" && s.Concurrency != 13:
			t.Errorf("the pool has a concurrency of %d", s.Concurrency)
		case s.Kind == "reporter":
			batchers = append(batchers, s.Name)
			if want := map[string]int{"z": 2, "a": 3}[s.Name]; s.Concurrency != want {
				t.Errorf("the reporters of %s have a concurrency of %d", s.Name, s.Concurrency)
			}
		}
	}
	if got := strings.Join(kinds, " "); got != "producer producer producer processor batcher reporter batcher reporter" {
		t.Errorf("stages %s", got)
	}
	if !slices.Equal(batchers, []string{"z", "a"}) {
		t.Errorf("batchers %v", batchers)
	}
}

// B-099: without batchers there are none.
func TestATopologyWithoutBatchersHasNone(t *testing.T) {
	p := build(t, broadway.Config{
		Producers: []broadway.Producer{broadwaytest.NewProducer(broadway.Traits{})},
		Processor: broadway.ProcessorConfig{Handler: nothing},
	})
	if n := len(p.Topology()); n != 2 {
		t.Errorf("%d stages: %+v", n, p.Topology())
	}
}

// B-106: the state tells where the pipeline stands in its life.
func TestTheStateFollowsTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := broadwaytest.NewProducer(broadway.Traits{})
		unblock := source.BlockConnect()
		held := make(chan struct{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
				<-held
				return nil
			}},
		})
		want := func(state broadway.State) {
			t.Helper()
			synctest.Wait()
			if s := p.Stats(); s.State != state {
				t.Errorf("the pipeline is %v, want %v", s.State, state)
			}
		}
		want(broadway.StateNew)
		ctx, stop := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- p.Run(ctx) }()
		want(broadway.StateConnecting)
		unblock()
		want(broadway.StateRunning)
		source.Push("1")
		if err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(broadway.StatePaused)
		if err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(broadway.StateRunning)
		stop()
		want(broadway.StateDraining)
		close(held)
		if err := <-over; err != nil {
			t.Errorf("Run: %v", err)
		}
		want(broadway.StateStopped)
	})
}
