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

// handling is the calls of a handler that one goroutine makes, one after the other,
// for its watchdog: calls are told apart by their turn.
type handling struct {
	word  atomic.Uint64           // turn, place in the block, laneOpen, phase
	began atomic.Int64            // nanoseconds
	block atomic.Pointer[block]   // where the message lies, or nil: then m and chunk say which it is
	m     atomic.Pointer[Message] // the first, if there are several; nil when its goroutine rests
	chunk atomic.Pointer[chunk]   // of m
	due   atomic.Int64            // when its messages are overdue, in nanoseconds; 0 is never
	told  atomic.Uint64           // the turn of which somebody was told that it is overdue
	n     int                     // how many messages
	batch *openBatch              // nil in the pool
	trial bool                    // it decides whether the stage's circuit closes: of the turn that is stuck
}

// The phases of a handling. Whoever moves it there does what it means: the worker
// ends it, the watchdog (or the drain) the rest.
const (
	phaseEnded    uint64 = iota // or never began
	phaseRuns                   // not before began, m, chunk and due are those of the turn
	phaseTimedOut               // its context was cancelled: it has failed, whatever it returns
	phaseStuck                  // it has not returned since: a replacement may have its place
	phaseDisowned               // its message was dealt with: what it returns counts for nothing
	phaseMask     = 7
	// laneOpen is set besides: the lane of a handling that is slow was let go, and
	// its worker has no say in it any more. See lanes.open.
	laneOpen   = 1 << 3
	placeShift = 4
	placeMask  = 0xff // a block has fewer messages
	oneTurn    = (placeMask + 1) << placeShift
)

// stand is what a handling's word says: of which turn, in which phase. A change that
// was decided on a stand is made only while the handling still is there.
type stand uint64

func (s stand) phase() uint64 { return uint64(s) & phaseMask }
func (s stand) open() bool    { return s&laneOpen != 0 }
func (s stand) turn() uint64  { return uint64(s) / oneTurn }
func (s stand) place() int    { return int(s >> placeShift & placeMask) }

// runs says that a handler has not returned, and whatever became of it since counts.
func (s stand) runs() bool { return s.phase() != phaseEnded && s.phase() != phaseDisowned }

// working says that the handler is not given up.
func (s stand) working() bool { return s.phase() == phaseRuns || s.phase() == phaseTimedOut }

func (h *handling) at() stand { return stand(h.word.Load()) }

// move moves h from where it stood to a phase of the same turn.
func (h *handling) move(from stand, to uint64) bool {
	return h.word.CompareAndSwap(uint64(from), uint64(from)&^phaseMask|to)
}

// end ends h, and says where it stood.
func (h *handling) end() stand {
	// The turn does not change in between: only this goroutine begins one.
	return stand(h.word.Swap(h.word.Load() &^ (phaseMask | laneOpen)))
}

// begin begins a turn, with m, which lies at a place in b unless that is nil. What the
// last one had as well is not written again, since what others may read costs.
func (h *handling) begin(m *Message, b *block, place int, now int64, trial bool) {
	now = max(now, 1)
	if place > placeMask {
		b, place = nil, 0
	}
	if h.began.Load() != now {
		h.began.Store(now)
	}
	if h.block.Load() != b {
		h.block.Store(b)
	}
	if b == nil {
		h.m.Store(m)
	}
	if c := m.chunk; (b == nil || b.chunk == nil) && h.chunk.Load() != c {
		h.chunk.Store(c)
	}
	if due := m.chunk.due; h.due.Load() != due {
		h.due.Store(due)
	}
	h.trial = trial
	h.word.Store((h.word.Load()/oneTurn+1)*oneTurn | uint64(place)<<placeShift | phaseRuns)
}

// rest lets the collector have what the last turn handled.
func (h *handling) rest() {
	h.block.Store(nil)
	h.m.Store(nil)
	h.chunk.Store(nil)
}

// message is that of the turn that was read, if it has not ended, and its chunk.
func (h *handling) message(was stand) (*Message, *chunk) {
	switch b := h.block.Load(); {
	case b == nil || was.place() >= len(b.messages):
		return h.m.Load(), h.chunk.Load()
	case b.chunk == nil: // of several
		return b.messages[was.place()], h.chunk.Load()
	default:
		return b.messages[was.place()], b.chunk
	}
}

// pin keeps the message of the turn that runs from being emptied and used again, if
// one does, until unpin is called. Once a handling is over its message may settle.
//
//  1. The chunk is pinned before the phase is read again; and so is the message.
//  2. The phase is ended before the message settles, and so before anyone who would
//     empty it looks at the pins.
//
// So either they see the pin, or this sees the end.
func (h *handling) pin() (m *Message, was stand, unpin func()) {
	was = h.at()
	m, c := h.message(was)
	if was.phase() == phaseEnded || c == nil || m == nil {
		return nil, was, nil
	}
	c.pins.Add(1)
	if !h.still(was) {
		c.pins.Add(-1)
		return nil, was, nil
	}
	m.pins.Add(1) // where others of its chunk are emptied
	unpin = func() { m.pins.Add(-1); c.pins.Add(-1) }
	if !h.still(was) {
		unpin()
		return nil, was, nil
	}
	return m, was, unpin
}

// still says that the turn is the same, and has not ended.
func (h *handling) still(was stand) bool {
	now := h.at()
	return now.turn() == was.turn() && now.phase() != phaseEnded
}

// picture is h while it is not over; false says that it is.
func (h *handling) picture(c *crew) (Handling, bool) {
	m, _, unpin := h.pin()
	if m == nil {
		return Handling{}, false
	}
	defer unpin()
	return h.pictured(c, m), true
}

// named is picture for those who keep h's message from settling.
func (h *handling) named(c *crew) Handling {
	m, _ := h.message(h.at())
	return h.pictured(c, m)
}

func (h *handling) pictured(c *crew, m *Message) Handling {
	return Handling{Stage: c.stage, ID: m.ID(), Messages: h.n, Since: c.p.clock.time(h.began.Load())}
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
