package broadway

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// parker holds messages that wait for their next attempt. They count as
// unsettled and occupy no worker.
type parker struct {
	p    *Pipeline
	wake chan struct{}
	// Places for retries, and for messages that pause before they are given back.
	retries, returning places
	over               atomic.Int64 // retries without a place: see reserve

	mu   sync.Mutex // protects following fields
	heap dueHeap
}

// newParker makes a parker with a quarter of the bound for each kind.
func newParker(p *Pipeline) *parker {
	k := &parker{p: p, wake: make(chan struct{}, 1)}
	k.retries.limit = int64(max(p.cfg.MaxUnsettled/4, 1))
	k.returning.limit = k.retries.limit
	return k
}

// places are a bounded number of things.
type places struct {
	limit int64
	taken atomic.Int64
}

// reserve takes a place, if there is one; vacate gives it back.
func (s *places) reserve() bool {
	if s.taken.Add(1) > s.limit {
		s.taken.Add(-1)
		return false
	}
	return true
}

func (s *places) vacate() { s.taken.Add(-1) }

// reserve makes place for another attempt of m. Beyond the bound m's reference is
// stopped, or else its source; goOn, if it is not nil, ends that. Given back m would begin
// with its first attempt again, and never come to its last.
func (k *parker) reserve(m *Message) (goOn func()) {
	if k.retries.reserve() {
		return nil
	}
	k.over.Add(1)
	if ref := m.ref; ref.stop() {
		return ref.goOn
	}
	s := m.chunk.source
	s.over.Add(1)
	return func() {
		s.over.Add(-1)
		k.p.ledger.look()
	}
}

// vacate undoes reserve: the retry does not wait any longer.
func (k *parker) vacate(r retry) {
	if r.goOn == nil {
		k.retries.vacate()
		return
	}
	k.over.Add(-1)
	r.goOn()
}

// waiting is how many messages wait for another attempt.
func (k *parker) waiting() int64 { return k.retries.taken.Load() + k.over.Load() }

// park keeps r, for which a place was reserved, until it is due. What nobody waits
// for any more is due at once, to be given back: a reference that drains, or a
// drain whose handlers were cut off, either is seen here or finds r in the heap.
func (k *parker) park(r retry) {
	r.due = time.Now().Add(r.wait)
	k.mu.Lock()
	if r.message.withdrawn() || k.p.cut.Load() {
		r.due, r.message.giveBack = time.Time{}, true
	}
	heap.Push(&k.heap, r)
	k.mu.Unlock()
	k.nudge()
}

// after calls f once the wait is over, from the parker's goroutine.
func (k *parker) after(wait time.Duration, f func()) {
	k.mu.Lock()
	heap.Push(&k.heap, retry{due: time.Now().Add(wait), then: f})
	k.mu.Unlock()
	k.nudge()
}

func (k *parker) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// hurry makes those retries due that pick chooses, to be given back by the stage
// that they are due at.
func (k *parker) hurry(pick func(retry) bool) {
	k.mu.Lock()
	for i := range k.heap {
		if r := &k.heap[i]; r.message != nil && pick(*r) {
			r.due = time.Time{}
			r.message.giveBack = true
		}
	}
	heap.Init(&k.heap)
	k.mu.Unlock()
	k.nudge()
}

// run sends parked messages back to their stages when they are due.
func (k *parker) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := k.take(time.Now())
		for _, r := range due {
			switch {
			case r.then != nil:
				r.then()
				continue
			case r.release:
				k.returning.vacate()
			default:
				k.vacate(r)
			}
			k.p.resume(r)
		}
		timer.Reset(next)
		select {
		case <-k.wake:
		case <-timer.C:
		case <-stop:
			return
		}
	}
}

// take removes what is due, and says how long to wait for the next.
func (k *parker) take(now time.Time) (due []retry, next time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.heap) > 0 && !k.heap[0].due.After(now) {
		due = append(due, heap.Pop(&k.heap).(retry))
	}
	if len(k.heap) > 0 {
		return due, k.heap[0].due.Sub(now)
	}
	return due, time.Hour
}

// dueHeap is a heap of retries by the time they are due.
type dueHeap []retry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(retry)) }
func (h *dueHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = retry{}
	*h = old[:len(old)-1]
	return r
}
