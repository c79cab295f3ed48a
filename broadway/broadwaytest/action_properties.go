package broadwaytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// tooOften is how often a message must not come again; then it succeeds, so that
// a source that brings it again at once does so not for ever.
const tooOften = 10

// errRefused is why the handlers of the suite fail a message.
var errRefused = errors.New("broadwaytest: refused")

// flow is a real pipeline on the producer under test. Its handler remembers what
// it was given, and fails what fail says.
type flow struct {
	*sourceCheck
	fail func(text string, handlings int) bool

	mu      sync.Mutex // protects following fields
	handled []string
	changed chan struct{} // closed at the next handling
}

// runFlow runs cfg on a fresh producer until what was handled satisfies done, or
// the time is up, and then for as long as linger says; then it drains. It gives
// what was handled, in order.
func (s *sourceCheck) runFlow(cfg broadway.Config, fail func(string, int) bool, done func([]string) bool, linger time.Duration) []string {
	s.Helper()
	f := &flow{sourceCheck: s, fail: fail, changed: make(chan struct{})}
	producer := s.Open(s.TB)
	cfg.Producers = []broadway.Producer{producer}
	cfg.Processor = broadway.ProcessorConfig{Handler: f.handle, Concurrency: 2, Unordered: true}
	cfg.Failure.MaxAttempts = 1
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.DrainTimeout = s.Timeout
	p, err := broadway.New(cfg)
	if err != nil {
		s.Fatalf("no pipeline can be made: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	if !f.await(done) {
		s.Errorf("in time, these came only: %q", f.all())
	}
	<-time.After(linger)
	stop()
	select {
	case err := <-over:
		if err != nil {
			s.Errorf("Run: %v", err)
		}
	case <-time.After(2 * s.Timeout):
		_ = producer.Close() // a last means to end it
		s.Fatalf("Run does not return")
	}
	return f.all()
}

func (f *flow) handle(_ context.Context, m *broadway.Message) error {
	text := string(m.Payload)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handled = append(f.handled, text)
	close(f.changed)
	f.changed = make(chan struct{})
	n := 0
	for _, h := range f.handled {
		if h == text {
			n++
		}
	}
	if f.fail(text, n) {
		return broadway.Reject(errRefused)
	}
	return nil
}

func (f *flow) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.handled)
}

func (f *flow) await(done func([]string) bool) bool {
	timeout := time.After(f.Timeout)
	for {
		f.mu.Lock()
		satisfied, changed := done(f.handled), f.changed
		f.mu.Unlock()
		if satisfied {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// times is how often text is in all.
func times(all []string, text string) int {
	n := 0
	for _, t := range all {
		if t == text {
			n++
		}
	}
	return n
}

func failureActions(k *check) {
	for _, action := range []struct {
		action broadway.Action
		check  func(*check)
	}{
		{broadway.ActionDrop, dropSettles},
		{broadway.ActionReject, rejectSettles},
		{broadway.ActionRequeue, requeueDeliversAgain},
		{broadway.ActionRequeueOnce, requeueOnceDeliversTwice},
		{broadway.ActionStopPartition, stopPartitionLeavesItUnsettled},
	} {
		if action.action == broadway.ActionDrop || k.traits().Actions.Has(action.action) {
			k.Logf("action %s", action.action)
			action.check(k)
		}
	}
}

// traits are those of a producer of a fresh source.
func (k *check) traits() broadway.Traits {
	p := k.source().Open(k.TB)
	d, ok := p.(broadway.Describer)
	if !ok {
		return broadway.Traits{}
	}
	t := d.Describe(broadway.Limits{MaxUnsettled: unsettled, MaxUnsettledBytes: plenty, Share: unsettled})
	if err := p.Close(); err != nil {
		k.Errorf("Close of a producer that was never connected: %v", err)
	}
	return t
}

// failing is a Config whose messages fail by action.
func failing(action broadway.Action) broadway.Config {
	return broadway.Config{
		Name:    fmt.Sprintf("conformance-%s", action),
		Failure: broadway.FailurePolicy{Action: action},
	}
}

// failsGone runs a pipeline that fails one of five messages for good, by action,
// and wants it to be handled so many times and then to be gone.
func failsGone(k *check, action broadway.Action, handlings int) {
	s := k.source()
	want := s.produce(5)
	handled := s.runFlow(failing(action), func(text string, handlings int) bool { return text == want[1] && handlings < tooOften },
		func(handled []string) bool { return len(handled) >= len(want)+handlings-1 }, k.Quiet)
	if n := times(handled, want[1]); n != handlings {
		k.Errorf("%s: the failed message was handled %d times, want %d", action, n, handlings)
	}
	s.wantLeft(0)
	s.open().wantNothing()
}

func dropSettles(k *check)   { failsGone(k, broadway.ActionDrop, 1) }
func rejectSettles(k *check) { failsGone(k, broadway.ActionReject, 1) }

func requeueOnceDeliversTwice(k *check) {
	if k.UnmarkedRedelivery {
		return // how would it know?
	}
	failsGone(k, broadway.ActionRequeueOnce, 2)
}

func requeueDeliversAgain(k *check) {
	s := k.source()
	want := s.produce(5)
	s.runFlow(failing(broadway.ActionRequeue),
		func(text string, handlings int) bool { return text == want[1] && handlings < 4 },
		func(handled []string) bool { return times(handled, want[1]) >= 4 && len(handled) >= 8 }, 0)
	s.wantLeft(0)
}

// stopPartitionLeavesItUnsettled wants the failed message to come again to the
// next producer, and what comes after it in its partition not to be lost.
func stopPartitionLeavesItUnsettled(k *check) {
	s := k.source()
	want := s.produce(20)
	handled := s.runFlow(failing(broadway.ActionStopPartition),
		func(text string, handlings int) bool { return text == want[0] && handlings < tooOften },
		func(handled []string) bool { return times(handled, want[0]) >= 1 }, k.Quiet)
	if n := times(handled, want[0]); n != 1 {
		k.Errorf("stop_partition: the failed message was handled %d times", n)
	}
	var settled []string
	for _, text := range handled {
		if text != want[0] {
			settled = append(settled, text)
		}
	}
	c := s.open()
	rest := without(want, settled)
	again := texts(c.try(len(rest), k.Timeout))
	k.wantSame("delivered after stop_partition", again, rest, k.Cumulative)
}
