package broadway

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// deadLetterBatch is how many messages one call of a DeadLetterer gets at most.
	deadLetterBatch = 100
	// deadLetterCauses is how many different reasons are logged, until every
	// dead letter is confirmed again.
	deadLetterCauses = 16
)

// deadLetters is the stage that publishes failed messages elsewhere before they
// are settled. What is not confirmed is tried again, without end: until then the
// message is unsettled, and its credit is not free.
//
// What was refused has a goroutine of its own, so that what comes meanwhile does
// not wait for calls that may last until their time-out.
type deadLetters struct {
	p       *Pipeline
	to      DeadLetterer
	box     mailbox      // for the first try
	refused mailbox      // for all others
	waiting atomic.Int64 // refused, and neither confirmed nor released since

	mu     sync.Mutex // protects following fields
	err    error      // of the last call that did not confirm everything
	logged map[string]bool
}

func newDeadLetters(p *Pipeline) *deadLetters {
	d := &deadLetters{p: p, to: p.cfg.Failure.DeadLetter}
	d.box.init()
	d.refused.init()
	return d
}

// put takes over m. How long it waits is the other side's affair: it must not keep
// what it shares with others.
func (d *deadLetters) put(m *Message) { d.box.post(d.p.apart(m)) }

// run publishes until stop is closed. When ctx ends, what is left is released.
func (d *deadLetters) run(ctx context.Context, stop <-chan struct{}) {
	var again sync.WaitGroup
	again.Go(func() { d.runAgain(ctx, stop) })
	d.runFirst(ctx, stop)
	again.Wait()
	// (1) A call of runFirst is refused. (2) Time is up, and runAgain ends. (3)
	// runFirst posts what was refused.
	d.abandon(take(&d.refused, nil))
}

// runFirst publishes what comes.
func (d *deadLetters) runFirst(ctx context.Context, stop <-chan struct{}) {
	for {
		batch := take(&d.box, nil)
		if len(batch) == 0 {
			if d.box.rest() {
				select {
				case <-d.box.wake:
				case <-stop:
					return
				}
				d.box.asleep.Store(false)
			}
			continue
		}
		left, _ := d.publish(ctx, batch)
		d.waiting.Add(int64(len(left)))
		for _, m := range left {
			d.refused.post(m)
		}
	}
}

// take appends what is in box, up to a batch.
func take(box *mailbox, to []*Message) []*Message {
	for n := 0; n < deadLetterBatch; n++ {
		m := box.pop()
		if m == nil {
			break
		}
		to = append(to, m)
	}
	return to
}

// runAgain publishes what was refused: all of it, then a pause, and again.
func (d *deadLetters) runAgain(ctx context.Context, stop <-chan struct{}) {
	var line []*Message // those that were tried last are at its end
	failures, size := 0, deadLetterBatch
	var due time.Time
	for {
		line = d.keep(ctx, take(&d.refused, line))
		if len(line) == 0 {
			failures, size = 0, deadLetterBatch
		} else if failures == 0 {
			failures, due = 1, d.later(1)
		}
		over, come := d.pause(ctx, stop, len(line) > 0, due)
		if over {
			d.abandon(line) // unless ctx has ended there is none
			return
		}
		if come {
			continue
		}
		progress := false
		for n := len(line); n > 0; {
			batch := line[:min(n, size)]
			n -= len(batch)
			left, alike := d.publish(ctx, batch)
			d.gone(len(batch) - len(left))
			line = append(line[len(batch):len(line):len(line)], left...)
			switch {
			case len(left) < len(batch):
				progress, size = true, min(2*size, deadLetterBatch)
			case alike: // it may be the fault of one
				size = max(len(batch)/2, 1)
			}
		}
		failures++
		if progress {
			failures = 1
		}
		due = d.later(failures)
	}
}

// later is when to try again after so many failures in a row.
func (d *deadLetters) later(failures int) time.Time {
	return time.Now().Add(d.p.cfg.ReconnectBackoff.Delay(failures, rand.Float64()))
}

// gone tells that n fewer wait.
func (d *deadLetters) gone(n int) {
	if d.waiting.Add(-int64(n)) > 0 {
		return
	}
	d.mu.Lock()
	d.logged = nil
	d.mu.Unlock()
}

// keep releases those that cannot be settled any longer, or shall not wait.
func (d *deadLetters) keep(ctx context.Context, line []*Message) []*Message {
	kept := line[:0]
	for _, m := range line {
		if ctx.Err() != nil || m.withdrawn() {
			d.abandon([]*Message{m})
		} else {
			kept = append(kept, m)
		}
	}
	clear(line[len(kept):])
	return kept
}

// abandon releases messages that were refused.
func (d *deadLetters) abandon(messages []*Message) {
	if len(messages) > 0 {
		d.p.release(messages...)
		d.gone(len(messages))
	}
}

// pause waits until the line is due, if there is one, or until more has come, or
// it is over.
func (d *deadLetters) pause(ctx context.Context, stop <-chan struct{}, line bool, at time.Time) (over, come bool) {
	if !d.refused.rest() {
		return false, true
	}
	defer d.refused.asleep.Store(false)
	var due <-chan time.Time
	cut := ctx.Done()
	if line {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	} else {
		cut = nil
	}
	select {
	case <-d.refused.wake:
		return false, true
	case <-cut:
		return false, true
	case <-due:
		return false, false
	case <-stop:
		return true, false
	}
}

// nudge makes the stage look whose reference drains.
func (d *deadLetters) nudge() { d.refused.nudge() }

// publish makes one call, settles what it confirms, and returns the rest. alike
// says that the error was about all of them, and may be the fault of one.
func (d *deadLetters) publish(ctx context.Context, batch []*Message) (left []*Message, alike bool) {
	if ctx.Err() != nil {
		d.p.release(batch...)
		return nil, false
	}
	err := d.call(ctx, batch)
	outcome, broken := outcomes(batch, err)
	if broken != nil {
		err = broken
	}
	_, named := asBatchError(err)
	for i, m := range batch {
		if outcome != nil && outcome[i] != nil {
			d.report(outcome[i])
			left = append(left, m)
		} else {
			d.p.settle(m, stateDeadLettered)
		}
	}
	return left, !named
}

// call makes a call on a goroutine of its own, that a DeadLetterer may end.
func (d *deadLetters) call(ctx context.Context, batch []*Message) error {
	result := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
			result <- err
		}()
		err = d.to.DeadLetter(ctx, batch)
	}()
	return <-result
}

// report keeps err for the health, and logs it once.
func (d *deadLetters) report(err error) {
	d.mu.Lock()
	d.err = err
	text := err.Error()
	text = text[:min(len(text), 200)]
	first := !d.logged[text] && len(d.logged) < deadLetterCauses
	if first {
		if d.logged == nil {
			d.logged = map[string]bool{}
		}
		d.logged[text] = true
	}
	d.mu.Unlock()
	if first {
		d.p.log().Error("dead letters are not confirmed, their messages stay unsettled", "err", err)
	}
}

// unable is why nothing can be published now, as far as who publishes tells.
func (d *deadLetters) unable() error {
	if h, ok := d.to.(HealthChecker); ok {
		return h.Health()
	}
	return nil
}

// health is why messages wait to be published again.
func (d *deadLetters) health() error {
	if d.waiting.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(errors.New("broadway: dead letters are not confirmed"), d.err)
}
