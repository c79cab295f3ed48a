package broadway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Handling is one call of a handler or a reporter that runs.
type Handling struct {
	// Stage is "processor", or the name of a batcher.
	Stage string
	// ID is that of the message, of a batch's first member; Messages is how many
	// there are.
	ID       string
	Messages int
	// Since is when it began, to the tenth of a second.
	Since time.Time
}

// desk is where one goroutine of a stage handles.
type desk struct {
	owner deskOwner
	slot  atomic.Pointer[handling] // maybe ended; or nil
	// cancel ends the context of the handling that runs; nil when that has a
	// time-out of its own.
	cancel atomic.Pointer[context.CancelCauseFunc]
	left   atomic.Bool // the goroutine is not waited for any more
}

// deskOwner is a worker or a reporter.
type deskOwner interface {
	// run does the work of the goroutine.
	run(ctx context.Context)
	// stuck is told that h, which is the owner's, does not return.
	stuck(h *handling)
	// takeOver deals with what h handles, which was disowned: it has timed out,
	// or is given back. open says that its lane was let go before.
	takeOver(ctx context.Context, h *handling, release, open bool)
}

// crew is the goroutines of one stage that call handlers. A handler that ignores
// its context cannot be ended: its goroutine is left to it, and another one takes
// its place, as long as not more than max are stuck.
type crew struct {
	p       *Pipeline
	stage   string
	timeout time.Duration
	max     int  // stuck handlers that are replaced
	retry   bool // what is stuck is tried again at once
	circuit *circuit
	fresh   func() *desk // of a new worker, or reporter
	wg      sync.WaitGroup

	mu    sync.Mutex // protects following fields
	desks []*desk
	stuck []*handling
	want  int  // goroutines that should be there to handle
	live  int  // those that are, and are not stuck
	over  bool // nobody is hired any more
}

// stuckGrace is how long after its time-out a handler may take to return.
func stuckGrace(timeout time.Duration) time.Duration {
	return min(max(timeout, 10*time.Millisecond), 600*time.Millisecond)
}

// hire starts one more goroutine. c.mu is held.
func (c *crew) hire(ctx context.Context) {
	if c.over {
		return
	}
	d := c.fresh()
	c.live++
	c.desks = append(c.desks, d)
	c.wg.Add(1)
	go func() {
		defer d.leave(c)
		d.owner.run(ctx)
	}()
}

// leave says, once, that d's goroutine is not waited for any more.
func (d *desk) leave(c *crew) {
	if d.left.CompareAndSwap(false, true) {
		c.wg.Done()
	}
}

// start hires n goroutines.
func (c *crew) start(ctx context.Context, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = n
	for range n {
		c.hire(ctx)
	}
}

// succeed hires one in the place of old, whose goroutine ends: its handler called
// runtime.Goexit, or was disowned.
func (c *crew) succeed(ctx context.Context, old *desk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(old)
	c.live--
	c.hire(ctx)
}

// end says that nobody is hired any more: all may be waited for, but those whose
// handler does not return though its message was dealt with.
func (c *crew) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, d := range c.desks {
		if h := d.slot.Load(); h != nil && h.at().phase() == phaseDisowned {
			d.leave(c)
		}
	}
}

func (c *crew) removeLocked(d *desk) {
	for i, other := range c.desks {
		if other == d {
			c.desks = append(c.desks[:i:i], c.desks[i+1:]...)
			return
		}
	}
}

// look ends handlings that take longer than the time-out, and finds those that do
// not return. tick is by how much the clock that they began by may be behind.
func (c *crew) look(ctx context.Context, now time.Time, tick time.Duration) {
	if c.timeout <= 0 {
		return
	}
	expired := c.p.clock.nanos(now.Add(-c.timeout - tick))
	lost := expired - int64(stuckGrace(c.timeout))
	var found []seat
	var pictures []Handling
	c.mu.Lock()
	for _, d := range c.desks {
		h := d.slot.Load()
		if h == nil {
			continue
		}
		was, began := d.expire(h, expired)
		if was.phase() == phaseTimedOut && began <= lost && c.loseLocked(ctx, h, was) {
			found = append(found, seat{d: d, h: h})
			// Its worker cannot settle anything before it has the lock: see back.
			pictures = append(pictures, h.named(c))
		}
	}
	c.mu.Unlock()
	for i, s := range found {
		c.report(pictures[i], now, false)
		c.weigh() // first: a batcher must not hand out a batch that nobody is there for
		s.d.owner.stuck(s.h)
		if !c.retry {
			continue
		}
		if was, ok := s.h.disown(); ok {
			s.d.owner.takeOver(ctx, s.h, false, was.open())
		}
	}
}

// seat is a handling, and where it is.
type seat struct {
	d    *desk
	h    *handling
	open bool // its lane was let go
}

// weigh stops the stage while more handlers are stuck than are replaced.
func (c *crew) weigh() {
	c.circuit.halt(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.stuck) > c.max
	})
}

// expire makes h fail if it still runs since a time or longer. It says where h stood
// before, and when that began.
//
//  1. The stand is read.
//  2. The beginning is read: that of the stand's turn, or of a later one.
//  3. The change is made only if h still stands there: then it is that turn's.
func (d *desk) expire(h *handling, since int64) (was stand, began int64) {
	was = h.at()
	began = h.began.Load()
	// cancel is read before the change, and the worker makes a new context only after
	// it has seen that: so it belongs to the handling that is changed.
	cancel := d.cancel.Load()
	if began <= since && was.phase() == phaseRuns && h.move(was, phaseTimedOut) && cancel != nil {
		(*cancel)(ErrHandlerTimeout)
	}
	return was, began
}

// loseLocked makes h stuck, if it is still where it stood, and hires a replacement.
//
// It holds c.mu, so that the worker whose handler returns in between finds itself
// among the stuck: (1) h is made stuck; (2) the worker sees that and calls back;
// (3) h is added; (4) back has the lock.
func (c *crew) loseLocked(ctx context.Context, h *handling, was stand) bool {
	if !h.move(was, phaseStuck) {
		return false
	}
	c.stuck = append(c.stuck, h)
	c.live--
	if len(c.stuck) <= c.max {
		c.hire(ctx)
	}
	return true
}

// back is called by the goroutine of d when a handler has returned that was stuck
// or disowned: h is not begun again. True says that it is not needed any more.
func (c *crew) back(d *desk, h *handling) bool {
	c.mu.Lock()
	for i, other := range c.stuck {
		if other == h {
			c.stuck = append(c.stuck[:i:i], c.stuck[i+1:]...)
			break
		}
	}
	ends := c.live >= c.want || c.over || d.left.Load()
	if ends {
		c.removeLocked(d)
	} else {
		c.live++
	}
	c.mu.Unlock()
	c.p.count.late.Add(1)
	c.report(h.named(c), time.Now(), true)
	c.weigh()
	return ends
}

// disown gives back what handlers hold that do not return, though the drain's time
// for them is over: their goroutines are not waited for. tell is told of them first.
func (c *crew) disown(ctx context.Context, tell func([]Handling)) {
	var found []seat
	var given []Handling
	c.mu.Lock()
	for _, d := range c.desks {
		h := d.slot.Load()
		if h == nil {
			continue
		}
		was, ok := h.disown()
		if !ok {
			continue
		}
		found, given = append(found, seat{d, h, was.open()}), append(given, h.named(c))
		c.live--
		if len(found) == 1 {
			c.hire(ctx) // somebody has to give back what waits, were all stuck
		}
	}
	c.mu.Unlock()
	tell(given)
	for _, s := range found {
		s.d.owner.takeOver(ctx, s.h, true, s.open)
		s.d.leave(c)
	}
}

// disown says whether this call disowned h, and where it stood before.
func (h *handling) disown() (was stand, ok bool) {
	for was = h.at(); was.runs(); was = h.at() {
		if h.move(was, phaseDisowned) {
			return was, true
		}
	}
	return was, false
}

// slow gives the handlings that run since a time or longer, and may have begun
// another turn by now.
func (c *crew) slow(before time.Time) (found []*handling) {
	since := c.p.clock.nanos(before)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		if h := d.slot.Load(); h != nil && h.at().runs() && h.began.Load() <= since {
			found = append(found, h)
		}
	}
	return found
}

// report tells of a handler that does not return, or has returned after all.
func (c *crew) report(h Handling, now time.Time, returned bool) {
	e := StuckEvent{Pipeline: c.p.cfg.Name, Handling: h, Returned: returned}
	e.Age = now.Sub(e.Since)
	if returned {
		c.p.log().Info("handler returned after all", "stage", c.stage, "id", e.ID, "age", e.Age)
	} else {
		c.p.log().Error("handler does not return", "stage", c.stage, "id", e.ID, "messages", e.Messages, "age", e.Age)
	}
	if o, ok := c.p.cfg.Observer.(StuckObserver); ok {
		o.Stuck(e)
	}
}

// running counts those that handle and are not stuck, and finds the oldest; and
// gives those that are stuck.
func (c *crew) running() (busy int, oldest, lost []Handling) {
	var first *handling
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		h := d.slot.Load()
		if h == nil || !h.at().working() {
			continue
		}
		busy++
		if first == nil || h.began.Load() < first.began.Load() {
			first = h
		}
	}
	if first != nil {
		if h, ok := first.picture(c); ok {
			oldest = []Handling{h}
		}
	}
	for _, h := range c.stuck {
		if h, ok := h.picture(c); ok {
			lost = append(lost, h)
		}
	}
	return busy, oldest, lost
}

// stuckLong is how long a handler may be stuck before the pipeline is unhealthy
// because of it, though it was replaced: what it holds keeps others from being
// settled for good, on a source that settles by position.
const stuckLong = time.Minute

// health is why the crew is unhealthy, nil when it is not.
func (c *crew) health() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.stuck) == 0 {
		return nil
	}
	h, ok := c.stuck[0].picture(c)
	age := time.Since(h.Since)
	if !ok || len(c.stuck) <= c.max && age < stuckLong {
		return nil
	}
	return fmt.Errorf("broadway: %d handlers of %s do not return, the first is that of %s since %s",
		len(c.stuck), c.stage, h.ID, h.Since.Format(time.RFC3339))
}
