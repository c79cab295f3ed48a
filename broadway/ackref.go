package broadway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// AckRef is what a run of messages settles within: one ownership of a
// partition, one session of a channel. It is an epoch: once ended, a settle of
// its messages is a counted no-op that never reaches the source.
//
// Its life is Take … Drain … Wait … End. The producer owns it.
type AckRef struct {
	acker Acknowledger
	data  any
	phase atomic.Int32 // written under mu, read without
	group int          // the settler's: where it groups messages of r

	_ [32]byte // what follows is written for each group, what comes before is read for each message

	mu        sync.Mutex // protects following fields
	limit     int
	unsettled int
	onDrain   func(*AckRef)
	onFull    func()
	onRoom    func()
	stops     int           // reasons for Take to grant nothing: see stop
	full      *atomic.Int64 // the pipeline's count of references at their limit
	counted   bool          // in full
	idle      chan struct{} // closed when unsettled reaches 0; nil without a waiter
}

const (
	refLive int32 = iota
	refDraining
	refEnded
)

// NewAckRef makes a live reference. data is the acknowledger's own. limit is
// how many messages of it may be unsettled at once, 0 meaning no limit of its
// own; see [Limits].
func NewAckRef(a Acknowledger, data any, limit int) *AckRef {
	return &AckRef{acker: a, data: data, limit: limit}
}

// Acknowledger is who settles the messages of r.
func (r *AckRef) Acknowledger() Acknowledger { return r.acker }

// Data is what the producer put into r.
func (r *AckRef) Data() any { return r.data }

// Take claims room for up to n messages that Fetch is about to return, and says
// for how many: less at the limit, 0 when r is draining or ended. A producer
// calls it for all that it returns, and returns all that it took.
func (r *AckRef) Take(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase.Load() != refLive || r.stops > 0 {
		return 0
	}
	if r.limit > 0 {
		n = min(n, r.limit-r.unsettled)
	}
	n = max(n, 0)
	r.unsettled += n
	r.countLocked()
	return n
}

// Untake gives back what Take claimed for messages that Fetch does not return
// after all.
func (r *AckRef) Untake(n int) { r.returned(n) }

// Room says how many messages Take would grant at most.
func (r *AckRef) Room() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.phase.Load() != refLive || r.stops > 0:
		return 0
	case r.limit <= 0:
		return int(^uint(0) >> 1)
	}
	return max(r.limit-r.unsettled, 0)
}

// SetLimit changes the limit of r. What is unsettled already stays so.
func (r *AckRef) SetLimit(limit int) {
	r.mu.Lock()
	r.limit = limit
	r.countLocked()
	onFull := r.onFull
	full := r.counted
	r.mu.Unlock()
	if full && onFull != nil {
		onFull()
	}
}

// OnRoom makes f run whenever messages of r that was at its limit have settled, so
// that Take grants some again: after their Ack has returned, from the pipeline's
// goroutine and without locks. It is set before the first Take.
//
// The pipeline stops a reference that has an OnRoom, and no other: Take grants nothing
// while more messages of r wait for another attempt, or for a batcher that is blocked,
// than there is room for. So a producer of several references keeps them apart.
func (r *AckRef) OnRoom(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRoom = f
}

// stop makes Take grant nothing until goOn was called as often. False says that it
// does not, since the producer would not learn when it grants some again.
func (r *AckRef) stop() bool {
	r.mu.Lock()
	if r.onRoom == nil {
		r.mu.Unlock()
		return false
	}
	r.stops++
	r.countLocked()
	onFull := r.onFull
	r.mu.Unlock()
	if onFull != nil {
		onFull() // open batches may have to close
	}
	return true
}

func (r *AckRef) goOn() {
	r.mu.Lock()
	r.stops--
	r.countLocked()
	free, onRoom := r.stops == 0, r.onRoom
	r.mu.Unlock()
	if free {
		onRoom()
	}
}

// Unsettled says how many messages of r were taken and are not settled.
func (r *AckRef) Unsettled() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsettled
}

// Drain makes the pipeline stop handing out messages of r: those that no
// handler holds are released, open batches that contain some are flushed at
// once, parked retries are released. It does not wait; see Wait.
func (r *AckRef) Drain() {
	r.mu.Lock()
	hook := r.onDrain
	first := r.phase.CompareAndSwap(refLive, refDraining)
	r.countLocked()
	r.mu.Unlock()
	if first && hook != nil {
		hook(r)
	}
}

// Wait returns when no message of r is unsettled, or with the cause of ctx.
func (r *AckRef) Wait(ctx context.Context) error {
	r.mu.Lock()
	if r.unsettled == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// End closes the epoch: from now on a settle of a message of r is counted and
// dropped. Messages that no handler holds are released; handlers that run are
// not interrupted.
func (r *AckRef) End() {
	r.Drain()
	r.phase.Store(refEnded)
}

// Ended says whether r has ended.
func (r *AckRef) Ended() bool { return r.phase.Load() == refEnded }

// Draining says whether r hands out no more messages: it drains or has ended.
func (r *AckRef) Draining() bool { return r.phase.Load() != refLive }

// bind makes p learn when r drains, or a limit is lowered to what is unsettled, and r
// count in p's references at their limit while it is.
func (r *AckRef) bind(p *Pipeline) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onDrain == nil {
		r.onDrain, r.onFull, r.full = p.refDrains, p.nudge, &p.count.full
		r.countLocked()
	}
}

// isFull says whether r can take no more while it is live.
func (r *AckRef) isFull() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counted
}

// countLocked keeps full true.
func (r *AckRef) countLocked() {
	at := (r.limit > 0 && r.unsettled >= r.limit || r.stops > 0) && r.phase.Load() == refLive
	if r.full == nil || at == r.counted {
		return
	}
	r.counted = at
	if at {
		r.full.Add(1)
	} else {
		r.full.Add(-1)
	}
}

// settled counts n messages of r as settled, and tells the producer of the room.
func (r *AckRef) settled(n int) {
	if full, onRoom := r.returned(n); full && onRoom != nil {
		onRoom()
	}
}

// returned takes n messages of r off the account. It says whether r was at its limit,
// and whom to tell: looked at under one lock with the account, as a Take in between
// could fill r, and nobody would be told of the room that comes then.
func (r *AckRef) returned(n int) (full bool, onRoom func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full = r.limit > 0 && r.unsettled >= r.limit
	r.unsettled -= n
	if r.unsettled < 0 {
		panic(fmt.Sprintf("broadway: %d messages of a reference settled that were never taken", -r.unsettled))
	}
	r.countLocked()
	if r.unsettled == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
	return full, r.onRoom
}
