package stage

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Stage is what [Run] runs: a [Producer], a [ProducerConsumer] or a [Consumer].
type Stage interface {
	base() *node
}

// node is what all stages have in common.
type node struct {
	name   string
	parker // of the stage's goroutine

	// Set once, by the stage's constructor.
	loop     func(ctx context.Context, r *runner) error
	release  func()         // ends the stage when Run is over
	upstream func() []*node // the stages that it is subscribed to
	adjacent func() []*node // these and those that are subscribed to it
	brings   bool           // it brings events of its own: a producer

	mu  sync.Mutex // guards run
	run *runner
}

func (n *node) base() *node { return n }

// claim makes r run the node, unless another did.
func (n *node) claim(r *runner) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch n.run {
	case nil:
		n.run = r
		return nil
	case r:
		return &Error{n.name, fmt.Errorf("it is named twice")}
	default:
		return &Error{n.name, fmt.Errorf("it was run before")}
	}
}

func (n *node) unclaim() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.run = nil
}

func (n *node) running() *runner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run
}

// feedsOn tells whether n is other, or gets its events from it, through others or
// directly.
func (n *node) feedsOn(other *node) bool {
	seen := map[*node]bool{n: true}
	for todo := []*node{n}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if next == other {
			return true
		}
		for _, source := range next.upstream() {
			if !seen[source] {
				seen[source] = true
				todo = append(todo, source)
			}
		}
	}
	return false
}

// runner is one call of Run.
type runner struct {
	nodes []*node
	open  atomic.Int64 // producers that may bring events
	stop  atomic.Bool
	// failed is set if a stage did not end by itself.
	failed atomic.Bool
	// left holds for each stage what it could not hand on. Each goroutine writes
	// its own.
	left []error
}

// Run runs the stages, each in a goroutine of its own, until all have ended, and
// returns nil if they did so by themselves:
//
//   - a [Producer] ends when its function returned io.EOF, or [Producer.Close] was
//     called, and everything it had was handed on;
//   - the others end when all producers have come to that point, their own
//     subscriptions are over, and everything that came is handled and handed on;
//   - a [Consumer] ends when its function returns [ErrStop], and so does a stage
//     all of whose subscribers did.
//
// A stage that comes to its end with events that no subscriber is there to take
// does not wait for one: the others end as above, and Run returns an
// [*UndeliveredError].
//
// If ctx ends, or a function returns another error, panics or calls
// runtime.Goexit, then Run stops everything: it cancels the context of the
// functions, waits for those that are running, forgets the events that are not
// handled, and returns the cause, for a function's error an [*Error]. To end
// without loss, let the producers end.
//
// A stage is run once. Stages that are subscribed to each other belong to the same
// Run.
func Run(ctx context.Context, stages ...Stage) error {
	r, err := newRunner(stages)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var halt, work sync.WaitGroup
	halt.Go(func() {
		<-ctx.Done()
		r.halt()
	})
	for i := range r.nodes {
		work.Go(func() { r.supervise(ctx, i, cancel) })
	}
	work.Wait()
	err = errors.Join(r.left...)
	if r.failed.Load() {
		err = context.Cause(ctx)
	}
	cancel(nil)
	halt.Wait()
	for _, n := range r.nodes {
		n.release()
	}
	return err
}

func newRunner(stages []Stage) (*runner, error) {
	r := &runner{}
	for _, s := range stages {
		n := s.base()
		if err := n.claim(r); err != nil {
			r.unclaim()
			return nil, err
		}
		r.nodes = append(r.nodes, n)
		if n.brings {
			r.open.Add(1)
		}
	}
	r.left = make([]error, len(r.nodes))
	for _, n := range r.nodes {
		for _, other := range n.adjacent() {
			if other.running() != r {
				r.unclaim()
				return nil, &Error{other.name, fmt.Errorf("stage %q is linked to it: %w", n.name, ErrOtherRun)}
			}
		}
	}
	return r, nil
}

func (r *runner) unclaim() {
	for _, n := range r.nodes {
		n.unclaim()
	}
}

// supervise runs one stage. What it did wrong ends the others.
func (r *runner) supervise(ctx context.Context, i int, cancel context.CancelCauseFunc) {
	n := r.nodes[i]
	// Goexit runs the deferred function too, without a panic to recover.
	err := ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		// Only the stage's own: a function may return that of another Run.
		_, undelivered := err.(*UndeliveredError) //nolint:errorlint // see above
		switch {
		case err == nil:
		case undelivered:
			r.left[i] = &Error{n.name, err}
		default:
			r.failed.Store(true)
			if !errors.Is(err, errHalted) {
				cancel(&Error{n.name, err})
			}
		}
	}()
	err = n.loop(ctx, r)
}

// halt makes every stage look that Run is to end.
func (r *runner) halt() {
	r.stop.Store(true)
	r.wake()
}

func (r *runner) halted() bool { return r.stop.Load() }

// sourceDone says that a producer brings no more events. After the last, stages
// end that have no subscription left.
func (r *runner) sourceDone() {
	if r.open.Add(-1) == 0 {
		r.wake()
	}
}

func (r *runner) draining() bool { return r.open.Load() == 0 }

func (r *runner) wake() {
	for _, n := range r.nodes {
		n.unpark()
	}
}
