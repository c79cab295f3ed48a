package broadway

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// lanesPerWorker makes it unlikely that two keys share a lane by chance.
const lanesPerWorker = 64

// laneVisit is how many messages a worker handles before it lets go of a lane
// that others could wait behind.
const laneVisit = 32

// laneKept is how long a handling may keep its lane, and not only its key, from
// other workers.
const laneKept = 2 * visitTime

// lanes is the dispatcher that keeps the order of each key. A message goes to
// the lane that its key hashes to; one worker owns a lane at a time. A message
// that waits for another attempt, or is in a slow handler, blocks its key, not its
// lane.
type lanes struct {
	pool    *pool
	lanes   []lane
	ready   chan *lane // a lane is in it once at most, so it never blocks
	waiting atomic.Int64
}

// lane is the mailbox of the keys that hash to it.
//
// Whoever swaps scheduled from false to true puts the lane into ready; the
// worker that takes it out owns what is marked so until it swaps it back.
type lane struct {
	inbox     queue
	waiting   atomic.Int64 // in inbox and local; for a moment one less than there are
	scheduled atomic.Bool

	// The owner's.
	local   []*Message            // before inbox
	blocked map[uint64][]*Message // by key: what waits for its parked message
}

func newLanes(l *pool) *lanes {
	n := lanesPerWorker * l.cfg.Concurrency
	d := &lanes{pool: l, lanes: make([]lane, n), ready: make(chan *lane, n)}
	for i := range d.lanes {
		d.lanes[i].inbox.init()
	}
	return d
}

func (d *lanes) prepare(*arrival) {}

func (d *lanes) publish(a *arrival) {
	for _, m := range a.messages {
		if m.err == nil { // what is not handled needs no order, and the user's code may be what it died of
			m.lane = d.laneOf(m)
		}
	}
	d.waiting.Add(int64(len(a.messages)))
	for _, m := range a.messages {
		d.deliver(m)
	}
}

// laneOf asks PartitionBy; a panic fails the message when its turn comes.
func (d *lanes) laneOf(m *Message) (lane uint64) {
	defer func() {
		if v := recover(); v != nil {
			m.err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return d.pool.cfg.PartitionBy(m)
}

func (d *lanes) requeue(m *Message) {
	d.waiting.Add(1)
	d.deliver(m)
}

// laneFor is where the messages of a key go.
func (d *lanes) laneFor(key uint64) *lane { return &d.lanes[mix(key)%uint64(len(d.lanes))] }

func (d *lanes) deliver(m *Message) {
	l := d.laneFor(m.lane)
	l.inbox.push(m)
	l.waiting.Add(1)
	if l.scheduled.CompareAndSwap(false, true) {
		d.ready <- l
	}
}

// mix spreads the bits of a key that may be a small number: the finaliser of
// SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// queued is nothing when a worker rests: what waits then waits for its key.
func (d *lanes) queued() int {
	if d.pool.idle() {
		return 0
	}
	return int(d.waiting.Load())
}

func (d *lanes) empty() bool { return len(d.ready) == 0 }

func (d *lanes) await(w *worker, stop <-chan struct{}) bool {
	select {
	case w.lane = <-d.ready:
		return true
	default:
	}
	return d.pool.rest(func() bool {
		select {
		case w.lane = <-d.ready:
			return true
		case <-stop:
			return false
		}
	})
}

func (d *lanes) visit(ctx context.Context, w *worker) {
	for ctx.Err() == nil || w.lane != nil {
		l := w.lane
		w.lane = nil
		if l == nil {
			select {
			case l = <-d.ready:
			default:
				return
			}
		}
		if !d.visitLane(ctx, w, l) {
			return
		}
	}
}

// visitLane handles some messages of l, and says whether the visit may go on.
func (d *lanes) visitLane(ctx context.Context, w *worker, l *lane) bool {
	w.owned, w.laneOpen = l, false
	w.cutRuns()
	defer func() {
		if !w.disowned && !w.laneOpen {
			d.letGo(l)
		}
	}()
	for range laneVisit {
		m := l.pop()
		if m == nil {
			break
		}
		if d.waiting.Add(-1) == int64(d.pool.cfg.Concurrency*d.pool.cfg.MinDemand) {
			d.pool.p.ledger.look()
		}
		if waits, blocked := l.blocked[m.lane]; blocked && !m.retry {
			l.blocked[m.lane] = append(waits, m)
			continue
		}
		if !d.handle(ctx, w, l, m) {
			return false
		}
		if w.laneOpen {
			break
		}
	}
	return !w.over()
}

// handle handles m, and blocks or frees its key: also when the handler calls
// runtime.Goexit, which ends the goroutine here.
func (d *lanes) handle(ctx context.Context, w *worker, l *lane, m *Message) bool {
	key, trial, ref, chunk := m.lane, m.retry, m.ref, m.chunk // whoever gets m next may write it
	defer func() {
		switch {
		case w.disowned: // the lane is another's
		case w.laneOpen:
			d.follow(placeholder(ref, chunk, key), w.verdict)
		default:
			d.note(l, key, trial, w.verdict)
		}
		if trial {
			w.cutRuns()
		}
	}()
	if !trial && !m.claim() {
		w.verdict = gone // released while it waited
		return true
	}
	return w.handle(ctx, m)
}

// cutRuns makes what w puts next come after all that was put before, to the reader:
// what other workers have put of a lane that w has just got, or of a key that was freed.
func (w *worker) cutRuns() {
	for i := range w.runs {
		w.runs[i].cut()
	}
}

// open lets go of the lanes of handlings that are slow, so that other workers
// handle the other keys in them. The key of each is blocked as if it waited for
// another attempt. It is called by the watchdog.
//
//  1. The worker has put its handling into its slot, and does not touch the lane
//     before the handling ends.
//  2. The watchdog sets laneOpen, which fails once the handling has ended. From then
//     on the lane is the watchdog's: it blocks the key, and lets the lane go.
//  3. The worker ends its handling, and learns by the same swap that the lane is not
//     its own. It sends what frees the key through the lane's inbox: see follow.
//     Should that be before the watchdog is done, it waits there.
func (d *lanes) open(slow []*handling, since int64) {
	for _, h := range slow {
		m, was, unpin := h.pin()
		if m == nil {
			continue // it is over
		}
		if key := m.lane; h.began.Load() <= since && was.runs() && !was.open() && h.word.CompareAndSwap(uint64(was), uint64(was)|laneOpen) {
			l := d.laneFor(key)
			d.note(l, key, false, parked)
			d.letGo(l)
		} // otherwise the next look finds it
		unpin()
	}
}

// follow does what the outcome of a message means whose lane was let go: if it is
// not tried again, instead frees its key.
func (d *lanes) follow(instead *Message, v verdict) {
	if v != parked {
		d.requeue(instead)
	}
}

// note does what the outcome of a message means for its key; trial says that it
// was tried again, so that others may wait for it.
func (d *lanes) note(l *lane, key uint64, trial bool, v verdict) {
	if v == parked {
		if l.blocked == nil {
			l.blocked = map[uint64][]*Message{}
		}
		if _, ok := l.blocked[key]; !ok {
			l.blocked[key] = nil
		}
		return
	}
	if trial {
		waits := l.blocked[key]
		delete(l.blocked, key)
		l.local = append(waits, l.local...)
		l.waiting.Add(int64(len(waits)))
		d.waiting.Add(int64(len(waits)))
	}
}

func (l *lane) pop() (m *Message) {
	if len(l.local) > 0 {
		m, l.local = l.local[0], l.local[1:]
	} else {
		m = l.inbox.pop()
	}
	if m != nil {
		l.waiting.Add(-1)
	}
	return m
}

// letGo gives the lane up, or schedules it again when there is more. A push
// counts before it looks at scheduled: if it counted before this reads waiting,
// it is seen here; if not, it schedules the lane itself.
func (d *lanes) letGo(l *lane) {
	l.scheduled.Store(false)
	if l.waiting.Load() > 0 && l.scheduled.CompareAndSwap(false, true) {
		d.ready <- l
	}
}
