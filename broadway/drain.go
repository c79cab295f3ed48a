package broadway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// minTail is the least of the drain that is kept for acknowledging and closing.
const minTail = 2 * time.Second

// drain owns the goroutines behind the producers, and ends them in order:
//
//	no more Fetch → producers stop their inflow → the pool empties → open
//	batches are closed → reporters return → dead letters are confirmed → all
//	is acknowledged → stages end → producers close
type drain struct {
	p             *Pipeline
	stopWorking   context.CancelCauseFunc
	stopLettering context.CancelCauseFunc
	stopSettling  context.CancelCauseFunc
	stop          chan struct{} // closed when nothing is unsettled, or time is up
	stages        sync.WaitGroup
	settlers      sync.WaitGroup
}

// start starts every stage behind the producers.
func (d *drain) start(working, lettering, settling context.Context) {
	p := d.p
	for _, s := range p.sources {
		d.settlers.Go(func() { s.settler.run(settling, d.stop, d.settlers.Go) })
	}
	if p.deadLetters != nil {
		d.settlers.Go(func() { p.deadLetters.run(lettering, d.stop) })
	}
	for _, b := range p.batchers {
		d.stages.Go(func() { b.run(d.stop) })
		b.crew.start(working, b.cfg.Concurrency)
	}
	d.stages.Go(func() { p.parker.run(d.stop) })
	d.stages.Go(func() { p.watch(working, d.stop) })
	p.pool.start(working)
}

// run drains after the last Fetch has returned. Without a cause to hurry, every
// source being done, it takes the time that it takes.
func (d *drain) run(settling context.Context) error {
	p := d.p
	d.drainProducers(settling)
	stuck := p.ledger.empty(settling)
	close(d.stop)
	close(p.pool.stop)
	for _, c := range p.crews() {
		c.end()
	}
	d.wait(settling)
	closing := d.closeProducers()
	return p.outcome(stuck, closing)
}

// startClock starts the drain's deadlines, the handlers', the dead letters', and
// that of everything, when ctx ends. It returns what stops them.
func (d *drain) startClock(ctx context.Context) (stop func()) {
	var mu sync.Mutex
	var timers []*time.Timer
	stopped := false
	unwatch := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		total := d.p.cfg.DrainTimeout
		handlers := total - min(max(total/5, minTail), total/2)
		by := time.Now().Add(handlers)
		d.p.parker.hurry(func(r retry) bool { return r.due.After(by) })
		tail := total - handlers
		timers = append(timers, time.AfterFunc(handlers, d.cutHandlers),
			time.AfterFunc(handlers/2, d.p.flush), // should no worker ever rest
			time.AfterFunc(handlers+min(tail/4, time.Second), d.disown),
			// In the middle of the tail, so that what is not confirmed is given back in time.
			time.AfterFunc((handlers+total)/2, func() { d.stopLettering(ErrDrainTimeout) }),
			time.AfterFunc(total, func() { d.stopSettling(ErrDrainTimeout) }))
	})
	return func() {
		unwatch()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		for _, t := range timers {
			t.Stop()
		}
	}
}

// cutHandlers ends the handlers' part of the drain: their contexts end, and what
// nobody holds is released.
func (d *drain) cutHandlers() {
	d.p.cut.Store(true)
	d.stopWorking(ErrDrainTimeout)
	d.p.sweep(nil)
	d.p.parker.hurry(func(retry) bool { return true })
	d.p.pool.circuit.hurry(func(*Message) bool { return true })
	d.p.nudge()
}

// disown gives back what is still held by handlers, which ignored the end of their
// context: a moment after that, so that there is time left to tell the sources.
func (d *drain) disown() {
	p := d.p
	if p.aborted.Load() {
		return
	}
	// Who gives back what a replacement finds has nothing to wait for.
	over, cancel := context.WithCancelCause(context.Background())
	cancel(ErrDrainTimeout)
	for _, c := range p.crews() {
		c.disown(over, func(given []Handling) {
			p.mu.Lock()
			p.disowned = append(p.disowned, given...)
			p.mu.Unlock()
			for _, h := range given {
				p.log().Error("handler does not return: its work is given back", "stage", h.Stage, "id", h.ID,
					"messages", h.Messages, "age", time.Since(h.Since))
			}
		})
	}
}

// drainProducers stops the inflow of sources that push.
func (d *drain) drainProducers(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range d.p.sources {
		if drainer, ok := s.producer.(Drainer); ok {
			wg.Go(func() {
				if err := drainer.Drain(ctx); err != nil {
					d.p.log().Error("draining failed", "producer", s.name, "err", err)
				}
			})
		}
	}
	wg.Wait()
}

// wait waits for the stages, but not for handlers that ignore the end of their
// context: they cannot be ended, and what they return counts for nothing. So
// it is with a Fetch that ignores the end of its context; nothing else is left.
//
// Calls of acknowledgers and dead letterers, whose context has ended by then, get
// a moment to return: a producer is closed after its last Ack.
func (d *drain) wait(ctx context.Context) {
	handlers := ctx
	moment, cancel := context.WithTimeout(context.WithoutCancel(ctx), minTail)
	defer cancel()
	if d.p.aborted.Load() {
		handlers = moment
	}
	groups := []*sync.WaitGroup{&d.stages}
	for _, c := range d.p.crews() {
		groups = append(groups, &c.wg)
	}
	waitFor(handlers, groups...)
	if ctx.Err() == nil {
		moment = ctx
	}
	waitFor(moment, &d.settlers)
}

// waitFor waits for groups, one after the other, or until ctx ends.
func waitFor(ctx context.Context, groups ...*sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, g := range groups {
			g.Wait()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// closeProducers closes all producers.
func (d *drain) closeProducers() error {
	errs := make([]error, len(d.p.sources))
	var wg sync.WaitGroup
	for i, s := range d.p.sources {
		wg.Go(func() {
			if err := s.producer.Close(); err != nil {
				errs[i] = fmt.Errorf("producer %s: close: %w", s.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// outcome is what Run returns.
func (p *Pipeline) outcome(stuck, closing error) error {
	p.mu.Lock()
	cause, disowned := p.cause, p.disowned
	p.mu.Unlock()
	errs := []error{cause}
	left := p.ledger.unsettled()
	if cut := p.count.cut.Load(); !p.aborted.Load() && (stuck != nil || cut > 0) {
		err := fmt.Errorf("%w: %d messages were given back unfinished, %d are still held by handlers", ErrDrainTimeout, cut, left)
		if len(disowned) > 0 {
			err = fmt.Errorf("%w; %s", err, named(disowned))
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, closing)...)
}

// named says which handlers do not return: the first three of them.
func named(list []Handling) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d handlers did not return:", len(list))
	for i, h := range list {
		if i == 3 {
			b.WriteString(", …")
			break
		}
		fmt.Fprintf(&b, " %s of %s (%d messages) since %s", h.ID, h.Stage, h.Messages, h.Since.Format(time.RFC3339))
	}
	return b.String()
}
