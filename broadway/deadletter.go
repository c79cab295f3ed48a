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
//
// What was refused waits, all of it together; what comes meanwhile is tried at
// once, before it.
func (d *deadLetters) run(ctx context.Context, stop <-chan struct{}) {
	var pending []*Message
	refused, failures := 0, 0 // the end of pending that waits; waits in a row
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		pending = append(d.fresh(), pending...)
		if ctx.Err() != nil {
			d.p.release(pending...)
			pending, refused = nil, 0
		}
		if len(pending) > refused {
			pending, refused = d.publish(ctx, pending, refused)
			switch {
			case len(pending) == 0:
				failures = 0
			case len(pending) == refused:
				failures++
				timer.Reset(d.p.cfg.ReconnectBackoff.Delay(failures, rand.Float64()))
			}
			continue
		}
		if !d.box.rest() {
			continue
		}
		again, ok := d.sleep(ctx, timer, stop, len(pending) == 0)
		if !ok {
			return
		}
		if again {
			refused = 0
		}
	}
}

// fresh takes what has come.
func (d *deadLetters) fresh() (messages []*Message) {
	for m := d.box.pop(); m != nil; m = d.box.pop() {
		messages = append(messages, m)
	}
	return messages
}

// sleep waits for a message, or for the time to try again; ok is false when the
// stage ends.
func (d *deadLetters) sleep(ctx context.Context, timer *time.Timer, stop <-chan struct{}, empty bool) (again, ok bool) {
	defer d.box.asleep.Store(false)
	over := ctx.Done()
	if empty {
		over = nil
	}
	select {
	case <-d.box.wake:
		return false, true
	case <-timer.C:
		return true, true
	case <-over:
		return true, true
	case <-stop:
		return false, false
	}
}

// publish publishes the first of pending, but for the refused ones at its end,
// settles what is confirmed, and returns the rest, and how many at its end are
// refused by now.
func (d *deadLetters) publish(ctx context.Context, pending []*Message, refused int) ([]*Message, int) {
	batch := pending[:min(len(pending)-refused, deadLetterBatch)]
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
	return append(slices.Clone(pending[len(batch):]), left...), refused + len(left)
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
