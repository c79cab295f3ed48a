package broadway

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// deadLetterBatch is how many messages one call of a DeadLetterer gets at most.
const deadLetterBatch = 100

// deadLetters is the stage that publishes failed messages elsewhere before they
// are settled. What is not confirmed is tried again, without end: until then the
// message is unsettled, and its credit is not free.
type deadLetters struct {
	p   *Pipeline
	to  DeadLetterer
	box mailbox

	mu  sync.Mutex // protects following field
	err error      // of the last call
}

func newDeadLetters(p *Pipeline) *deadLetters {
	d := &deadLetters{p: p, to: p.cfg.Failure.DeadLetter}
	d.box.init()
	return d
}

func (d *deadLetters) put(m *Message) { d.box.post(m) }

// run publishes until stop is closed. When ctx ends, what is left is released.
func (d *deadLetters) run(ctx context.Context, stop <-chan struct{}) {
	var pending []*Message
	tried, failures := 0, 0 // of pending since the last wait; waits in a row
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for m := d.box.pop(); m != nil; m = d.box.pop() {
			pending = append(pending, m)
		}
		if ctx.Err() != nil {
			d.p.release(pending...)
			pending = nil
		}
		wait := time.Hour
		if len(pending) > 0 {
			var refused int
			pending, refused = d.publish(ctx, pending)
			if tried += refused; tried < len(pending) || len(pending) == 0 {
				failures = 0
				continue
			}
			tried = 0
			failures++
			wait = d.p.cfg.ReconnectBackoff.Delay(failures, rand.Float64())
		}
		if len(pending) == 0 && !d.box.rest() {
			continue
		}
		timer.Reset(wait)
		if !d.sleep(ctx, timer, stop, len(pending) == 0) {
			return
		}
	}
}

// sleep waits for the timer, or for a message when none is pending.
func (d *deadLetters) sleep(ctx context.Context, timer *time.Timer, stop <-chan struct{}, empty bool) bool {
	defer d.box.asleep.Store(false)
	over := ctx.Done()
	wake := d.box.wake
	if empty {
		over = nil
	} else {
		wake = nil
	}
	select {
	case <-wake:
	case <-timer.C:
	case <-over:
	case <-stop:
		return false
	}
	return true
}

// publish publishes the first of pending, settles what is confirmed, and returns
// the rest, and how many at its end were not confirmed.
func (d *deadLetters) publish(ctx context.Context, pending []*Message) ([]*Message, int) {
	batch := pending[:min(len(pending), deadLetterBatch)]
	err := d.call(ctx, batch)
	d.report(err)
	outcome, broken := outcomes(batch, err)
	if broken != nil {
		outcome, _ = outcomes(batch, broken)
	}
	var left []*Message // to the end of the line: others may be confirmed
	for i, m := range batch {
		if outcome != nil && outcome[i] != nil {
			left = append(left, m)
		} else {
			d.p.settle(m, stateDeadLettered)
		}
	}
	return append(slices.Clone(pending[len(batch):]), left...), len(left)
}

func (d *deadLetters) call(ctx context.Context, batch []*Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return d.to.DeadLetter(ctx, batch)
}

func (d *deadLetters) report(err error) {
	d.mu.Lock()
	first := err != nil && d.err == nil
	d.err = err
	d.mu.Unlock()
	if first {
		d.p.log().Error("dead letters are not confirmed, their messages stay unsettled", "err", err)
	}
}

func (d *deadLetters) health() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		return nil
	}
	return errors.Join(errors.New("broadway: dead letters are not confirmed"), d.err)
}
