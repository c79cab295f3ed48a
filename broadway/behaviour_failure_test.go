package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// once is a policy without retries.
func once(a broadway.Action, letters broadway.DeadLetterer) broadway.FailurePolicy {
	return broadway.FailurePolicy{MaxAttempts: 1, Action: a, DeadLetter: letters}
}

// letterer is a DeadLetterer of which a bubble makes the insides.
type letterer struct {
	broadwaytest.DeadLetterRecorder
}

// B-056, B-066: a reporter fails some of its batch: exactly they get the policy's
// action, in their order; the others are acknowledged.
func TestAReporterFailsMembers(t *testing.T) {
	letters := &letterer{}
	behaviour(t, broadway.Config{
		Processor: handing(func(*broadway.Message) {}),
		Batchers:  []broadway.BatcherConfig{{Size: 4}},
		Failure:   once(broadway.ActionDeadLetter, letters),
	}, func(t *testing.T, p *pipe) {
		p.reports.Next = func(_ context.Context, b *broadway.Batch) error {
			failures := new(broadway.BatchError)
			for _, m := range b.Messages[2:] {
				failures.Fail(m, fmt.Errorf("no %s", m.Payload))
			}
			return failures.Err()
		}
		p.source.Push(numbers(1, 4)...)
		got := p.settled(4)
		wantResults(t, got, "1:succeeded 2:succeeded 3:dead-lettered 4:dead-lettered")
		if got["3"].Err.Error() != "no 3" || got["4"].Err.Error() != "no 4" {
			t.Errorf("failed with %v and %v", got["3"].Err, got["4"].Err)
		}
		var order []string
		for _, l := range letters.Letters() {
			order = append(order, l.Payload)
		}
		if !slices.Equal(order, []string{"3", "4"}) {
			t.Errorf("dead letters %v", order)
		}
	})
}

// B-063: what its handler fails is what is dead-lettered, with what the handler
// made of it, and why.
func TestAFailedMessageIsDeadLettered(t *testing.T) {
	letters := &letterer{}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			m.Value = "changed " + string(m.Payload)
			if odd(m) {
				return broadway.Reject(errNo)
			}
			return nil
		}},
		Failure: once(broadway.ActionDeadLetter, letters),
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1", "2")
		wantResults(t, p.settled(2), "1:dead-lettered 2:succeeded")
		l := letters.Letters()
		if len(l) != 1 || l[0].Payload != "1" || l[0].Value != "changed 1" || !errors.Is(l[0].Err, errNo) || l[0].Action != broadway.ActionDeadLetter {
			t.Errorf("dead letters %+v", l)
		}
	})
}

// B-067, B-082: a reporter that panics, or that fails as a whole, fails its whole
// batch, in order; the next batch is reported.
func TestAReporterFailsItsWholeBatch(t *testing.T) {
	for name, fail := range map[string]func() error{
		"panics":  func() error { panic("oops") },
		"fails":   func() error { return errNo },
		"exits":   func() error { runtime.Goexit(); return nil },
		"rejects": func() error { return broadway.Reject(errNo) },
	} {
		t.Run(name, func(t *testing.T) {
			letters := &letterer{}
			behaviour(t, broadway.Config{
				Processor: handing(func(*broadway.Message) {}),
				Batchers:  []broadway.BatcherConfig{{Size: 4}},
				Failure:   once(broadway.ActionDeadLetter, letters),
			}, func(t *testing.T, p *pipe) {
				p.reports.Next = func(_ context.Context, b *broadway.Batch) error {
					if string(b.Messages[0].Payload) == "1" {
						return fail()
					}
					return nil
				}
				p.source.Push(numbers(1, 4)...)
				p.settled(4)
				p.source.Push(numbers(5, 8)...)
				got := p.settled(8)
				wantResults(t, got, "1:dead-lettered 2:dead-lettered 3:dead-lettered 4:dead-lettered "+
					"5:succeeded 6:succeeded 7:succeeded 8:succeeded")
				var order []string
				for _, l := range letters.Letters() {
					order = append(order, l.Payload)
				}
				if !slices.Equal(order, numbers(1, 4)) {
					t.Errorf("dead letters %v", order)
				}
				var pe *broadway.PanicError
				err := got["3"].Err
				if name == "panics" && !errors.As(err, &pe) || name == "exits" && !errors.Is(err, broadway.ErrGoexit) ||
					(name == "fails" || name == "rejects") && !errors.Is(err, errNo) {
					t.Errorf("3 failed with %v", err)
				}
			})
		})
	}
}

// B-068: a dead-letterer that panics, or fails, confirms nothing: its messages
// stay unsettled, and are tried until it works.
func TestDeadLettersAreTriedUntilConfirmed(t *testing.T) {
	panics := 2
	letters := &letterer{}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: failing("1", broadway.Reject(errNo))},
		Failure: once(broadway.ActionDeadLetter, deadLetterFunc(func(ctx context.Context, m []*broadway.Message) error {
			if panics--; panics >= 0 {
				panic("oops")
			}
			return letters.DeadLetter(ctx, m)
		})),
	}, func(t *testing.T, p *pipe) {
		letters.Fail(errNo, errNo)
		p.source.Push("1")
		synctest.Wait()
		s := p.pipeline.Stats()
		if s.Unsettled != 1 || s.Err == nil || len(p.source.Acks.Calls()) != 0 {
			t.Errorf("before it is confirmed: %d unsettled, unhealthy because of %v, calls %v", s.Unsettled, s.Err, p.source.Acks.Calls())
		}
		wantResults(t, p.settled(1), "1:dead-lettered")
		synctest.Wait()
		if len(letters.Letters()) != 1 || p.pipeline.Stats().Err != nil {
			t.Errorf("%d dead letters, unhealthy because of %v", len(letters.Letters()), p.pipeline.Stats().Err)
		}
	})
}

type deadLetterFunc func(context.Context, []*broadway.Message) error

func (f deadLetterFunc) DeadLetter(ctx context.Context, m []*broadway.Message) error {
	return f(ctx, m)
}

// B-069 … B-071: the observer is told of what fails: by a worker, by a reporter,
// and as it settles.
func TestTheObserverIsToldOfFailures(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: failing("2", errNo)},
		Batchers:  []broadway.BatcherConfig{{Size: 2}},
		Failure:   broadway.FailurePolicy{MaxAttempts: 2},
	}, func(t *testing.T, p *pipe) {
		p.reports.Next = func(_ context.Context, b *broadway.Batch) error {
			failures := new(broadway.BatchError)
			failures.Fail(b.Messages[1], broadway.Reject(errNo))
			return failures.Err()
		}
		p.source.Push("1", "2", "3")
		wantResults(t, p.settled(3), "1:succeeded 2:failed 3:failed")
		synctest.Wait()
		succeeded, failed := 0, 0
		for _, h := range p.observer.Handles() {
			succeeded += h.Succeeded
			failed += h.Failed
		}
		if succeeded != 2 || failed != 2 {
			t.Errorf("told of %d successful handlings and %d failed, want 2 and 2", succeeded, failed)
		}
		r := p.observer.Reports()
		if len(r) != 1 || r[0].Messages != 2 || r[0].Failed != 1 || r[0].Batcher != "default" || r[0].Trigger != broadway.TriggerSize {
			t.Errorf("told of the reports %+v", r)
		}
		retries := p.observer.Retries()
		if len(retries) != 1 || retries[0].Stage != "processor" || retries[0].Payload != "2" || !errors.Is(retries[0].Err, errNo) {
			t.Errorf("told of the retries %+v", retries)
		}
		if total := p.observer.Total(); total.Succeeded != 1 || total.Failed != 2 {
			t.Errorf("told of %+v settled", total)
		}
	})
}

// B-084: an acknowledger that fails, panics or ends its goroutine releases its group; the next one
// is acknowledged.
func TestABadAcknowledgerLosesItsGroupOnly(t *testing.T) {
	for name, fail := range map[string]func() error{
		"fails":  func() error { return errNo },
		"panics": func() error { panic("oops") },
		"exits":  func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			acks := &flakyAcker{fail: fail}
			behaviour(t, broadway.Config{
				Processor: handing(func(*broadway.Message) {}),
				Batchers:  []broadway.BatcherConfig{{Size: 2}},
			}, func(t *testing.T, p *pipe) {
				p.source.Acks.Next = acks
				p.source.Push("1", "2")
				p.settled(2)
				synctest.Wait()
				p.source.Push("3", "4")
				p.settled(4)
				synctest.Wait()
				total := p.observer.Total()
				if total.Succeeded != 4-len(acks.failed) || total.Released != len(acks.failed) || len(acks.failed) == 0 {
					t.Errorf("settled %+v, of which %v were not acknowledged", total, acks.failed)
				}
				if slices.Contains(acks.acked, "1") && slices.Contains(acks.acked, "2") || !slices.Contains(acks.acked, "4") {
					t.Errorf("acknowledged %v", acks.acked)
				}
				if s := p.pipeline.Stats(); s.Unsettled != 0 {
					t.Errorf("%d messages keep their credit", s.Unsettled)
				}
			})
		})
	}
}

// flakyAcker fails its first call.
type flakyAcker struct {
	fail          func() error
	calls         int
	acked, failed []string
}

func (a *flakyAcker) Ack(_ context.Context, _ *broadway.AckRef, ok, failed []*broadway.Message) error {
	a.calls++
	list := &a.acked
	if a.calls == 1 {
		list = &a.failed
	}
	for _, m := range slices.Concat(ok, failed) {
		*list = append(*list, string(m.Payload))
	}
	if a.calls == 1 {
		return a.fail()
	}
	return nil
}

// A failed message is tried again with backoff, and keeps what its handler made
// of it when a later stage failed; a retry occupies no worker.
func TestRetriesResumeWhereTheyFailed(t *testing.T) {
	handled := &handledBy{}
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) {
			handled.add(m)
			m.Value = "made once"
		}),
		Batchers: []broadway.BatcherConfig{{Size: 1}},
		Failure: broadway.FailurePolicy{
			MaxAttempts: 3, Backoff: broadway.Backoff{Initial: time.Second, Max: time.Minute, Factor: 3, Jitter: -1},
		},
	}, func(t *testing.T, p *pipe) {
		p.reports.Fail(errNo, errNo)
		start := time.Now()
		p.source.Push("1")
		got := p.settled(1)
		if waited := time.Since(start); waited != 4*time.Second {
			t.Errorf("settled after %v, want 1 s + 3 s", waited)
		}
		wantResults(t, got, "1:succeeded")
		for i, b := range p.reports.Batches() {
			if b.Attempts[0] != i+1 || b.Values[0] != "made once" {
				t.Errorf("report %d has attempt %d and value %v", i, b.Attempts[0], b.Values[0])
			}
		}
		if n := len(p.reports.Batches()); n != 3 || len(handled.all()) != 1 {
			t.Errorf("reported %d times, handled %d times", n, len(handled.all()))
		}
	})
}

// Advice of a handler's error: Reject ends the attempts, Retry sets the wait, and
// Unavailable does not count, but backs off all the same.
func TestErrorsCarryAdvice(t *testing.T) {
	var attempts []int
	var errs []error
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			attempts = append(attempts, m.Attempt)
			if len(errs) == 0 {
				return nil
			}
			err := errs[0]
			errs = errs[1:]
			return err
		}},
		Failure: broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond, Jitter: -1}},
	}, func(t *testing.T, p *pipe) {
		for i, c := range []struct {
			errs     []error
			want     string
			attempts []int
			waited   time.Duration
		}{
			{[]error{broadway.Reject(errNo)}, "failed", []int{1}, 0},
			{[]error{broadway.Retry(errNo, time.Minute)}, "succeeded", []int{1, 2}, time.Minute},
			{[]error{broadway.Retry(errNo, time.Minute), errNo}, "failed", []int{1, 2}, time.Minute},
			{[]error{broadway.Unavailable(errNo), broadway.Unavailable(errNo), broadway.Unavailable(errNo)}, "succeeded", []int{1, 1, 1, 1}, 7 * time.Millisecond},
			{[]error{fmt.Errorf("wrapped: %w", broadway.Reject(errNo))}, "failed", []int{1}, 0},
		} {
			attempts, errs = nil, c.errs
			start := time.Now()
			p.source.Push(fmt.Sprint(i))
			got := p.settled(i + 1)[fmt.Sprint(i)]
			if got.Result.String() != c.want || !slices.Equal(attempts, c.attempts) || time.Since(start) != c.waited {
				t.Errorf("%v: %v after %v, attempts %v", c.errs, got.Result, time.Since(start), attempts)
			}
		}
	})
}

// A batch error that breaks its contract fails all of its batch: each member has its
// attempts, and then what the policy says.
func TestABatchErrorThatBreaksItsContractFailsAll(t *testing.T) {
	foreign := broadway.NewMessage(nil, 0, nil)
	for name, spoil := range map[string]func(*broadway.BatchError, *broadway.Batch){
		"names one twice": func(e *broadway.BatchError, b *broadway.Batch) { e.Fail(b.Messages[0], errNo) },
		"names a foreign": func(e *broadway.BatchError, _ *broadway.Batch) { e.Fail(foreign, errNo) },
	} {
		t.Run(name, func(t *testing.T) {
			behaviour(t, broadway.Config{
				Batchers: []broadway.BatcherConfig{{Size: 4}},
			}, func(t *testing.T, p *pipe) {
				p.reports.Next = func(_ context.Context, b *broadway.Batch) error {
					e := new(broadway.BatchError)
					e.Fail(b.Messages[0], errNo)
					spoil(e, b)
					return e
				}
				p.source.Push(numbers(1, 4)...)
				for _, got := range p.settled(4) {
					if !errors.Is(got.Err, broadway.ErrBatchContract) {
						t.Errorf("%q failed with %v", got.Payload, got.Err)
					}
				}
				synctest.Wait()
				if total := p.observer.Total(); total.Failed != 4 || total.Succeeded+total.Released != 0 || p.pipeline.Stats().Retried != 8 {
					t.Errorf("settled %+v, want all failed after three attempts", total)
				}
			})
		})
	}
}
