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

// handling is a call of a handler, for its watchdog. What is not atomic is written
// before it is put into a desk's slot, and never again, but for told.
type handling struct {
	phase atomic.Uint32
	trial bool       // it decides whether the stage's circuit closes
	began int64      // nanoseconds
	m     *Message   // the first, if there are several
	n     int        // how many
	batch *openBatch // nil in the pool
	due   int64      // when its messages are overdue, in nanoseconds; 0 is never
	told  bool       // of that; the watchdog's
}

// The phases of a handling. Whoever moves it there does what it means: the worker
// ends it, the watchdog (or the drain) the rest.
const (
	phaseRuns     uint32 = iota
	phaseTimedOut        // its context was cancelled: it has failed, whatever it returns
	phaseStuck           // it has not returned since: a replacement may have its place
	phaseDisowned        // its message was dealt with: what it returns counts for nothing
	phaseEnded
	// laneOpen is set besides: the lane of a handling that is slow was let go, and
	// its worker has no say in it any more. See lanes.open.
	laneOpen = 1 << 7
)

// at is the phase that h is in.
func (h *handling) at() uint32 { return h.phase.Load() &^ laneOpen }

// move moves h from one phase to another, and keeps laneOpen: which only the
// watchdog sets, whose goroutine this is.
func (h *handling) move(from, to uint32) bool {
	return h.phase.CompareAndSwap(from, to) || h.phase.CompareAndSwap(from|laneOpen, to|laneOpen)
}

// end ends h, and says in which phase it was, and whether its lane was let go.
func (h *handling) end() (phase uint32, open bool) {
	was := h.phase.Swap(phaseEnded)
	return was &^ laneOpen, was&laneOpen != 0
}

func (h *handling) begin(m *Message, n int, now int64, trial bool) {
	h.m, h.n, h.began, h.trial = m, n, max(now, 1), trial
	h.phase.Store(phaseRuns)
}

// picture is h while it is not over; false says that it is. Once it is over its
// message may settle, and be emptied: see drop.
//
//  1. The message is pinned before the phase is read.
//  2. The phase is ended before the message settles, and so before drop looks at
//     the pins.
//
// So either drop sees the pin, or picture the end.
func (h *handling) picture(c *crew) (Handling, bool) {
	h.m.pins.Add(1)
	defer h.m.pins.Add(-1)
	if h.at() == phaseEnded {
		return Handling{}, false
	}
	return h.named(c), true
}

// named is picture for those who keep h's message from settling.
func (h *handling) named(c *crew) Handling {
	return Handling{Stage: c.stage, ID: h.m.ID(), Messages: h.n, Since: c.p.clock.time(h.began)}
}

// desk is where one goroutine of a stage handles.
type desk struct {
	owner deskOwner
	slot  atomic.Pointer[handling] // the last one, maybe ended; or nil
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
		if h := d.slot.Load(); h != nil && h.phase.Load() == phaseDisowned {
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
		if h := d.slot.Load(); h != nil && h.began <= expired && d.expire(h) && h.began <= lost && c.loseLocked(ctx, h) {
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
		if open, ok := s.h.disown(); ok {
			s.d.owner.takeOver(ctx, s.h, false, open)
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

// expire makes h fail if it still runs, and says whether its time was over before.
func (d *desk) expire(h *handling) bool {
	// cancel is read before the swap, and the worker makes a new context only after
	// it has seen the swap: so it belongs to the handling that is swapped.
	cancel := d.cancel.Load()
	if h.move(phaseRuns, phaseTimedOut) {
		if cancel != nil {
			(*cancel)(ErrHandlerTimeout)
		}
		return false
	}
	return h.at() == phaseTimedOut
}

// loseLocked makes h stuck, if it is not over, and hires a replacement.
//
// It holds c.mu, so that the worker whose handler returns in between finds itself
// among the stuck: (1) h is made stuck; (2) the worker sees that and calls back;
// (3) h is added; (4) back has the lock.
func (c *crew) loseLocked(ctx context.Context, h *handling) bool {
	if !h.move(phaseTimedOut, phaseStuck) {
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
// or disowned. True says that it is not needed any more.
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
		open, ok := h.disown()
		if !ok {
			continue
		}
		found, given = append(found, seat{d, h, open}), append(given, h.named(c))
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

// disown says whether this call disowned h, and whether its lane was let go before.
func (h *handling) disown() (open, ok bool) {
	for p := h.phase.Load(); p&^laneOpen < phaseDisowned; p = h.phase.Load() {
		if h.phase.CompareAndSwap(p, phaseDisowned|p&laneOpen) {
			return p&laneOpen != 0, true
		}
	}
	return false, false
}

// slow gives the handlings that began before a time, and are not over.
func (c *crew) slow(before time.Time) (found []*handling) {
	since := c.p.clock.nanos(before)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		if h := d.slot.Load(); h != nil && h.began <= since && h.phase.Load() < phaseDisowned {
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
		if h == nil || h.at() > phaseTimedOut {
			continue
		}
		busy++
		if first == nil || h.began < first.began {
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
