package broadway

import (
	"sync/atomic"
)

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
