package broadway

import (
	"context"
	"runtime"
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
	pool      *pool
	lanes     []lane
	ready     chan *lane   // a lane is in it once at most, so it never blocks
	offered   atomic.Int64 // lanes that nobody visits yet: in ready, or on their way to a worker that rested
	published atomic.Int64 // messages, and those that waited for their key again: less what workers have popped, they wait for one
	popped    []tally      // by workers: some share one
	workers   atomic.Int64 // how many there ever were
	looked    atomic.Bool  // the sources were made to look at the queue since the last publish, as it is low
}

// tally is a count in a cache line of its own.
type tally struct {
	atomic.Int64
	_ [64 - 8]byte
}

// lane is the mailbox of the keys that hash to it.
//
// Whoever swaps scheduled from false to true puts the lane into ready; the
// worker that takes it out owns what is marked so until it swaps it back.
type lane struct {
	inbox     stack[sheaf, *sheaf]
	scheduled atomic.Bool

	// The owner's.
	local   []*Message            // before sheaf
	sheaf   *sheaf                // before inbox
	blocked map[uint64][]*Message // by key: what waits for its parked message
}

// sheaf is messages of one lane, in their order: a block that its lane's owner goes
// through.
type sheaf struct {
	block block
	place int    // of what comes next
	below *sheaf // in the stack; once taken, what comes after it
}

func (h *sheaf) link() **sheaf { return &h.below }

func newLanes(l *pool) *lanes {
	n := lanesPerWorker * l.cfg.Concurrency
	// Workers that run at the same time should not write to the same line of the cache;
	// but who wants to know what waits reads them all.
	tallies := min(l.cfg.Concurrency, 2*runtime.GOMAXPROCS(0))
	return &lanes{pool: l, lanes: make([]lane, n), ready: make(chan *lane, n), popped: make([]tally, tallies)}
}

func (d *lanes) prepare(*arrival) {}

// publish sorts messages by lane, by counting, so that each lane is visited once: in
// the order in which they first occur, so that one worker goes by that.
func (d *lanes) publish(a *arrival) {
	messages := a.messages
	if n := len(d.lanes); len(a.counts) < n {
		a.counts = make([]int32, n)
	}
	places := make([]int32, len(messages))
	a.full = a.full[:0]
	for i, m := range messages {
		if m.err == nil { // what is not handled needs no order, and the user's code may be what it died of
			m.lane = d.laneOf(m)
		}
		at := int32(d.placeOf(m.lane))
		places[i] = at
		if a.counts[at]++; a.counts[at] == 1 {
			a.full = append(a.full, at)
		}
	}
	sorted, sheaves := make([]*Message, len(messages)), make([]sheaf, len(a.full))
	end := int32(0)
	for i, at := range a.full {
		n := a.counts[at]
		sheaves[i].block.messages = sorted[end : end+n : end+n]
		a.counts[at], end = end, end+n
	}
	for i, m := range messages {
		at := places[i]
		sorted[a.counts[at]] = m
		a.counts[at]++
	}
	d.published.Add(int64(len(messages)))
	d.looked.Store(false)
	for i, at := range a.full {
		a.counts[at] = 0
		d.deliver(&d.lanes[at], &sheaves[i])
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
	d.published.Add(1)
	h := new(sheaf)
	h.block.messages = []*Message{m}
	d.deliver(d.laneFor(m.lane), h)
}

// laneFor is where the messages of a key go, and placeOf its place.
func (d *lanes) laneFor(key uint64) *lane { return &d.lanes[d.placeOf(key)] }

func (d *lanes) placeOf(key uint64) uint64 { return mix(key) % uint64(len(d.lanes)) }

func (d *lanes) deliver(l *lane, h *sheaf) {
	l.inbox.push(h)
	if l.scheduled.CompareAndSwap(false, true) {
		d.offer(l)
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

// offer makes a lane wait for a worker.
func (d *lanes) offer(l *lane) {
	d.offered.Add(1)
	d.ready <- l
}

// queued is nothing when a worker rests and there is no lane for it: what waits then
// waits for its key. One that was woken may not have run yet.
func (d *lanes) queued() int {
	if d.empty() && d.pool.idle() {
		return 0
	}
	return d.waiting()
}

// waiting is how many messages wait for a worker, those of a key that is not free included
// until one finds that.
func (d *lanes) waiting() int {
	popped := int64(0)
	for i := range d.popped {
		popped += d.popped[i].Load()
	}
	return max(int(d.published.Load()-popped), 0)
}

// tally is where a new worker counts what it pops.
func (d *lanes) tally() *tally { return &d.popped[int(d.workers.Add(1))%len(d.popped)] }

// lookOnce makes the sources look at the queue once it has fallen to the low mark.
func (d *lanes) lookOnce() {
	if !d.looked.Load() && d.waiting() <= d.pool.cfg.Concurrency*d.pool.cfg.MinDemand && d.looked.CompareAndSwap(false, true) {
		d.pool.p.ledger.look()
	}
}

func (d *lanes) empty() bool { return d.offered.Load() == 0 }

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
	d.offered.Add(-1)
	w.owned, w.laneOpen = l, false
	w.cutRuns()
	defer func() {
		if !w.disowned && !w.laneOpen {
			d.letGo(l)
		}
	}()
	for range laneVisit {
		m := l.pop(w)
		if m == nil {
			break
		}
		w.popped.Add(1)
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
	d.lookOnce()
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
		d.published.Add(int64(len(waits)))
	}
}

// pop takes the next message, of which w knows where it lies; nil when there is none.
func (l *lane) pop(w *worker) (m *Message) {
	if len(l.local) > 0 {
		m, l.local = l.local[0], l.local[1:]
		w.from = nil
		return m
	}
	if l.sheaf == nil {
		l.sheaf = l.inbox.take()
	}
	h := l.sheaf
	if h == nil {
		return nil
	}
	w.from, w.place = &h.block, h.place
	if h.place++; h.place == len(h.block.messages) {
		l.sheaf = h.below
		if h.below != nil {
			h.below = nil // who still has the last message keeps nothing that came after it
		}
	}
	return h.block.messages[w.place]
}

// letGo gives the lane up, or schedules it again when there is more. A push comes
// before its look at scheduled: if it also came before this looks at the inbox, it is
// seen here; if not, it schedules the lane itself.
func (d *lanes) letGo(l *lane) {
	if l.sheaf != nil || len(l.local) > 0 {
		d.offer(l)
		return
	}
	l.scheduled.Store(false)
	if l.inbox.top.Load() != nil && l.scheduled.CompareAndSwap(false, true) {
		d.offer(l)
	}
}
