package broadway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
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
	// publish hands out fresh messages, in their order.
	publish(messages []*Message)
	// requeue hands out a message whose wait for another attempt is over.
	requeue(m *Message)
	// queued is how many messages wait for a worker, and not for a key.
	queued() int
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
	workers  []*worker
	wg       sync.WaitGroup
	stop     chan struct{} // closed when no more work comes
	clock    atomic.Int64  // coarse: nanoseconds, advanced by the watchdog
	resting  atomic.Int32  // workers that wait for work
}

func newPool(p *Pipeline) *pool {
	cfg := p.cfg.Processor
	l := &pool{p: p, cfg: cfg, stop: make(chan struct{})}
	l.each, _ = p.cfg.Observer.(MessageObserver)
	for range cfg.Concurrency {
		l.workers = append(l.workers, &worker{pool: l})
	}
	if cfg.PartitionBy != nil {
		l.dispatch = newLanes(l)
	} else {
		l.dispatch = newCursor(l)
	}
	return l
}

// submit takes over fresh messages.
func (l *pool) submit(messages []*Message) { l.dispatch.publish(messages) }

// idle says that a worker waits and that, therefore, no message does (but those
// that wait for a message of their own key).
func (l *pool) idle() bool { return l.resting.Load() > 0 }

// start starts the workers. ctx is what handlers get.
func (l *pool) start(ctx context.Context) {
	l.clock.Store(time.Now().UnixNano())
	for _, w := range l.workers {
		l.wg.Go(func() { w.run(ctx) })
	}
}

// want is what the pool would take now: nothing until the queue has fallen to
// the low mark, then up to the high one.
func (l *pool) want() int {
	queued := l.dispatch.queued()
	if queued > l.cfg.Concurrency*l.cfg.MinDemand {
		return 0
	}
	return l.cfg.Concurrency*l.cfg.MaxDemand - queued
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

	// The worker's own.
	succeeded, failed int
	since             time.Time // start of the visit
	tick              int64     // the coarse clock then
	verdict           verdict   // on the last message
	expired           bool      // the last handling timed out, and its context is used up
	lane              *lane     // that await took, or nil

	// slot is when the handling began that runs now (coarse), 0 for none. The
	// watchdog claims a late one by negating it; then the attempt has failed,
	// whatever the handler returns.
	slot   atomic.Int64
	cancel atomic.Pointer[context.CancelCauseFunc]
}

// run visits the dispatcher until the pool stops. A handler that calls
// runtime.Goexit ends the goroutine: its last act is to start the next one.
func (w *worker) run(ctx context.Context) {
	exiting := true
	defer func() {
		w.leave()
		if exiting {
			w.pool.wg.Go(func() { w.run(ctx) })
		}
	}()
	for w.pool.dispatch.await(w, w.pool.stop) {
		w.visits(ctx)
	}
	exiting = false
}

// visits visits the dispatcher with one context, until there is nothing to do or
// the context was used up by a time-out.
func (w *worker) visits(ctx context.Context) {
	handling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.cancel.Store(&cancel)
	for {
		w.enter()
		w.pool.dispatch.visit(handling, w)
		if w.leave() == 0 || w.expired {
			w.expired = false
			return
		}
	}
}

// enter and leave bracket a visit; leave reports it.
func (w *worker) enter() {
	w.since = time.Now()
	w.tick = w.pool.clock.Load()
}

func (w *worker) leave() int {
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

// handle handles m and hands it on; false says that the worker needs a new
// context. What became of m is in w.verdict.
func (w *worker) handle(ctx context.Context, m *Message) bool {
	w.verdict = gone
	if !m.retry && !m.claim() {
		return true // released while it waited
	}
	if m.ref.Draining() || m.giveBack || ctx.Err() != nil {
		w.pool.p.release(m)
		return true
	}
	if err := m.err; err != nil && !m.retry { // attempts exhausted, or PartitionBy panicked
		w.failed++
		w.verdict = w.pool.p.fail(ctx, m, Reject(err), true)
		return true
	}
	began := max(w.pool.clock.Load(), 1)
	w.slot.Store(began)
	return w.finish(ctx, m, w.guarded(ctx, m))
}

// finish hands m on after its handler returned err.
func (w *worker) finish(ctx context.Context, m *Message, err error) bool {
	intime := w.slot.Swap(0) > 0
	if !intime {
		w.expired = true
		err = fmt.Errorf("%w after %v", ErrHandlerTimeout, w.pool.cfg.Timeout)
	}
	if err == nil {
		w.succeeded++
		w.pool.p.forward(m)
		return true
	}
	w.failed++
	w.verdict = w.pool.p.fail(ctx, m, err, intime)
	return intime
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

// expire cancels the handling that began before limit, if it still runs.
func (w *worker) expire(limit int64) {
	began, cancel := w.slot.Load(), w.cancel.Load()
	if began <= 0 || began > limit {
		return
	}
	// cancel was read before the swap, and the worker makes a new context only
	// after it has seen the swap: so it belongs to the handling that is swapped.
	if w.slot.CompareAndSwap(began, -began) {
		(*cancel)(ErrHandlerTimeout)
	}
}
