package broadway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Processor handles one message. It may set the message's Value, Batcher,
// BatchKey and BatchMode. An error fails the message; see Reject, Retry and
// Unavailable for what it may advise. A panic fails the message too.
//
// ctx ends when the stage's Timeout has passed or the drain's deadline has come.
type Processor func(ctx context.Context, m *Message) error

// dispatcher hands messages to workers. See cursor and lanes.
type dispatcher interface {
	// prepare is called with what a Fetch brought before anyone else knows of it.
	prepare(a *arrival)
	// publish hands out what is prepared, in its order.
	publish(a *arrival)
	// requeue hands out a message whose wait for another attempt is over.
	requeue(m *Message)
	// queued is how many messages wait for a worker, and not for a key.
	queued() int
	// empty says that no message waits for a worker.
	empty() bool
	// visit handles messages until there is none for w, its time is over, or a
	// handling timed out.
	visit(ctx context.Context, w *worker)
	// await blocks until there may be work for w, or stop is closed: then false.
	await(w *worker, stop <-chan struct{}) bool
}

// pool is the processor stage: workers that share one dispatcher.
type pool struct {
	p        *Pipeline
	cfg      ProcessorConfig
	dispatch dispatcher
	each     MessageObserver // or nil
	crew     crew
	circuit  circuit
	stop     chan struct{} // closed when no more work comes
	clock    atomic.Int64  // coarse: nanoseconds, advanced by the watchdog
	resting  atomic.Int32  // workers that wait for work
}

func newPool(p *Pipeline) *pool {
	cfg := p.cfg.Processor
	l := &pool{p: p, cfg: cfg, stop: make(chan struct{})}
	l.each, _ = p.cfg.Observer.(MessageObserver)
	l.circuit.init(p, "processor", l.again)
	l.crew = crew{
		p: p, stage: "processor", timeout: cfg.Timeout, max: max(cfg.MaxStuck, 0), retry: cfg.RetryStuck,
		circuit: &l.circuit, fresh: l.desk,
	}
	if cfg.PartitionBy != nil {
		l.dispatch = newLanes(l)
	} else {
		l.dispatch = newCursor(l)
	}
	return l
}

// idle says that a worker waits and that, therefore, no message does (but those
// that wait for a message of their own key).
func (l *pool) idle() bool { return l.resting.Load() > 0 }

// quiet says that a worker waits, and that it has nothing to wake for: one that was
// woken may not have run yet. The queue is looked at first, or a worker could have
// emptied it in between, and be at work.
func (l *pool) quiet() bool { return l.idle() && l.dispatch.empty() && l.idle() }

// start starts the workers. ctx is what handlers get.
func (l *pool) start(ctx context.Context) {
	l.clock.Store(l.p.clock.nanos(time.Now()))
	l.crew.start(ctx, l.cfg.Concurrency)
}

// desk is a new worker's.
func (l *pool) desk() *desk {
	w := &worker{pool: l, runs: runsOf(l.cfg.Concurrency, len(l.p.batchers))}
	if d, ordered := l.dispatch.(*lanes); ordered {
		w.popped = d.tally()
	}
	w.owner = w
	w.renew()
	return &w.desk
}

// want is what the pool would take now: nothing until the queue has fallen to
// the low mark, then up to the high one. While there is work for some time less than
// a quarter of that is not worth a Fetch; credit for more will be free soon, as
// workers are at work. What waits for the circuit is no such work.
func (l *pool) want() (most, least int) {
	work := l.dispatch.queued()
	queued := work + int(l.circuit.count.Load())
	low, high := l.cfg.Concurrency*l.cfg.MinDemand, l.cfg.Concurrency*l.cfg.MaxDemand
	if queued > low {
		return 0, 0
	}
	if work > low/2 {
		least = high / 4
	}
	return high - queued, least
}

// rest counts a worker as waiting while wait blocks, after it has seen that a
// waiting worker may change what others do.
func (l *pool) rest(wait func() bool) bool {
	l.resting.Add(1)
	defer l.resting.Add(-1)
	l.p.workerRests()
	return wait()
}

// visitTime is how long a visit may last before it is reported.
const visitTime = 100 * time.Millisecond

// worker runs handlers, one at a time.
type worker struct {
	pool *pool
	desk
	popped *tally // messages out of lanes

	// The worker's own, of which takeOver may have some once it has disowned.
	handling          *handling // in the desk's slot
	block             *block    // of the cursor's, or nil
	from              *block    // where the last message lies, nil when it is alone
	place             int       // of the last message in from
	runs              []runs    // by batcher
	succeeded, failed int
	since             time.Time // start of the visit
	tick              int64     // the coarse clock then
	verdict           verdict   // on the last message
	expired           bool      // the last handling timed out, and its context is used up
	lane              *lane     // that await took, or nil
	owned             *lane     // whose message is handled, or nil
	trial             bool      // the last message decides whether the circuit closes
	ends              bool      // the goroutine has a replacement
	disowned          bool      // what the last message was, and its lane, is another's
	laneOpen          bool      // the lane of the last message is another's: see lanes.open
	before            written   // of the last message, with RetryStuck
}

// run visits the dispatcher until the pool stops, or the worker has a replacement.
// A handler that calls runtime.Goexit ends the goroutine: its last act is to hire
// the next one.
func (w *worker) run(ctx context.Context) {
	exiting := true
	defer func() {
		w.leaveVisit()
		if exiting && !w.ends {
			w.pool.crew.succeed(ctx, &w.desk)
		}
	}()
	var handling context.Context
	cancel := context.CancelCauseFunc(func(error) {})
	defer func() { cancel(nil) }()
	var since int64
	for !w.ends && !w.disowned && w.pool.dispatch.await(w, w.pool.stop) {
		// What handlers hang on their context, and do not take off, ends with it: so it
		// is not kept for long.
		if now := w.pool.clock.Load(); handling == nil || w.expired || now-since >= int64(visitTime) {
			cancel(nil)
			w.expired, since = false, now
			handling, cancel = context.WithCancelCause(ctx) //nolint:fatcontext // made of ctx, not of the last one
			w.cancel.Store(new(cancel))
		}
		w.visits(handling)
	}
	exiting = w.disowned // takeOver may still read what is the worker's
}

// visits visits the dispatcher until there is nothing to do, or the context was used up:
// by a time-out, or by age.
func (w *worker) visits(ctx context.Context) {
	defer w.forget()
	for {
		w.enter()
		w.pool.dispatch.visit(ctx, w)
		if over := w.over(); w.leaveVisit() == 0 || w.expired || over {
			return
		}
	}
}

// forget lets the collector have what w handled. One of its handlings that was given up
// stays as it was, for who takes over.
func (w *worker) forget() {
	w.handling.rest()
	w.from = nil
	for i := range w.runs {
		w.runs[i].rest()
	}
}

// renew gives the worker a handling that nobody else knows.
func (w *worker) renew() {
	w.handling = &handling{n: 1}
	w.slot.Store(w.handling)
}

// enter and leaveVisit bracket a visit; leaveVisit reports it.
func (w *worker) enter() {
	w.since = time.Now()
	w.tick = w.pool.clock.Load()
}

func (w *worker) leaveVisit() int {
	n := w.succeeded + w.failed
	if n > 0 {
		w.pool.p.cfg.Observer.Handled(HandleEvent{
			Pipeline: w.pool.p.cfg.Name, Succeeded: w.succeeded, Failed: w.failed, Duration: time.Since(w.since),
		})
	}
	w.succeeded, w.failed = 0, 0
	return n
}

// over says that the visit has lasted long enough to be reported.
func (w *worker) over() bool {
	return w.pool.clock.Load()-w.tick >= int64(visitTime)
}

// verdict is what became of a message that was handled.
type verdict uint8

const (
	gone   verdict = iota // handed on or settled
	parked                // waits for another attempt of the same stage
)

// handle handles m, which is claimed, and hands it on; false says that the worker
// needs a new context. What became of m is in w.verdict.
func (w *worker) handle(ctx context.Context, m *Message) bool {
	w.verdict = gone
	if m.withdrawn() || m.giveBack || ctx.Err() != nil {
		if atomic.LoadUint32(&m.state) == stateClaimed { // otherwise it stands for one that was given back
			w.pool.p.release(m)
		}
		return true
	}
	if err := m.err; err != nil && !m.retry { // attempts exhausted, or PartitionBy panicked
		w.failed++
		w.verdict = w.pool.p.fail(ctx, m, Reject(err), true, false)
		return true
	}
	w.trial = false
	if w.pool.circuit.shut.Load() && !w.enters(m) {
		return true
	}
	if w.pool.cfg.RetryStuck {
		w.before = m.written()
	}
	w.handling.begin(m, w.from, w.place, w.pool.clock.Load(), w.trial)
	return w.finish(ctx, m, w.guarded(ctx, m))
}

// enters says whether m passes the circuit, which is not closed.
func (w *worker) enters(m *Message) bool {
	switch w.pool.circuit.enter(m) {
	case fateHeld:
		w.verdict = parked
		return false
	case fateRelease:
		w.pool.p.release(m)
		return false
	case fateTry:
		w.trial = true
	}
	return true
}

// finish hands m on after its handler returned err.
func (w *worker) finish(ctx context.Context, m *Message, err error) bool {
	was := w.handling.end()
	phase := was.phase()
	w.laneOpen = was.open()
	trial := w.trial && was.working() // otherwise it was over: see stuck
	if !was.working() {
		w.ends = w.pool.crew.back(&w.desk, w.handling)
		w.renew()
	}
	if phase == phaseDisowned {
		w.expired, w.disowned = true, true
		return false
	}
	if phase != phaseRuns {
		w.expired = true
		err = w.pool.late()
	}
	if err == nil {
		w.succeeded++
		if trial {
			w.pool.circuit.tried(true)
		}
		w.forward(m)
		return true
	}
	w.failed++
	w.verdict = w.pool.p.fail(ctx, m, err, phase == phaseRuns, trial)
	return phase == phaseRuns
}

func (l *pool) late() error { return fmt.Errorf("%w after %v", ErrHandlerTimeout, l.cfg.Timeout) }

// stuck ends a try of the circuit: it will not know what became of it.
func (w *worker) stuck(h *handling) {
	if h.trial {
		w.pool.circuit.tried(false)
	}
}

// takeOver deals with the message of a handler that does not return, and opens its
// lane. The handler still has the Message, and may write to it: what goes on is a
// copy.
func (w *worker) takeOver(ctx context.Context, h *handling, release, open bool) {
	handled, _ := h.message(h.at())
	handled.chunk.taint()
	key, trial, instead := handled.lane, handled.retry, placeholder(handled.ref, handled.chunk, handled.lane)
	m := handled.copy(w.before)
	v := gone
	if release {
		w.pool.p.release(m)
	} else {
		v = w.pool.p.fail(ctx, m, w.pool.late(), false, false)
	}
	switch d, ok := w.pool.dispatch.(*lanes); {
	case !ok || w.owned == nil:
	case open:
		d.follow(instead, v)
	default:
		d.note(w.owned, key, trial, v)
		d.letGo(w.owned)
	}
}

// guarded calls the handler, and turns its panic into an error.
func (w *worker) guarded(ctx context.Context, m *Message) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
			return
		}
		w.finish(ctx, m, ErrGoexit) // and the goroutine ends
	}()
	if w.pool.each != nil {
		start := time.Now()
		err = w.pool.cfg.Handler(ctx, m)
		w.pool.each.MessageHandled(m, time.Since(start), err)
	} else {
		err = w.pool.cfg.Handler(ctx, m)
	}
	if err == nil {
		w.pool.p.setKey(m)
	}
	returned = true
	return err
}
