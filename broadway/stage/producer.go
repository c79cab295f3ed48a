package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// maxEmpty is how often in a row a fetch function may return nothing.
const maxEmpty = 100

var errNoFunction = errors.New("stage: the function is nil")

// Producer is a stage that brings events: those that its function fetches when
// they are asked for, and those that other goroutines [Producer.Emit].
type Producer[E any] struct {
	node
	out   *outlet[E]
	fetch func(context.Context, int) ([]E, error)
}

// NewProducer returns a producer that calls fetch, one call at a time, once for
// each ask of its subscribers. fetch returns from 1 to demand events, never more,
// or blocks until there is one or ctx ends. What it returns belongs to the stage.
// If it returns fewer, it is called again for the rest of that ask. It may return
// events along with an error.
//
// The error io.EOF ends the producer, when everything is handed on; others end
// Run. fetch may be nil, for events that are only emitted.
func NewProducer[E any](name string, fetch func(ctx context.Context, demand int) ([]E, error), o Options[E]) (*Producer[E], error) {
	out, err := o.newOutlet()
	if err != nil {
		return nil, &Error{name, err}
	}
	p := &Producer[E]{node: node{name: name, parker: newParker()}, out: out, fetch: fetch}
	out.owner = &p.node
	out.pulls = fetch != nil
	p.node.loop = p.loop
	p.node.brings = true
	p.node.release = out.end
	p.node.upstream = func() []*node { return nil }
	p.node.adjacent = out.sinks
	return p, nil
}

func (p *Producer[E]) outlet() *outlet[E] { return p.out }

// Emit hands events on without being asked: to subscribers that have demand, then
// to the buffer. If that is full then Emit blocks until there is room for all of
// them, or discards some, as [Options].Overflow says. It returns how many it took,
// discarded ones included, and an error if that is not all: ctx's, or [ErrEnded].
//
// It may be called from any goroutine, also before Run. The events of one call
// keep their order. The slice belongs to the stage then.
func (p *Producer[E]) Emit(ctx context.Context, events []E) (int, error) {
	n, err := p.out.emit(ctx.Done(), events, false)
	switch {
	case errors.Is(err, errHalted):
		return n, context.Cause(ctx)
	case err != nil:
		return n, &Error{p.name, err}
	}
	return n, nil
}

// Close ends the producer as if its function had returned io.EOF: the context of a
// call that runs is cancelled, what it returns is still handed on, and Emit is
// refused from now on.
func (p *Producer[E]) Close() { p.out.close() }

// Pause makes the producer keep its events and fetch no more, until Resume. It may
// be called before Run. What was emitted or is being fetched is buffered, and asks
// are kept, each by itself.
func (p *Producer[E]) Pause() { p.out.pause(true) }

// Resume ends a Pause. Buffered events are handed on in order, before new ones.
func (p *Producer[E]) Resume() { p.out.pause(false) }

// Buffered returns how many events wait because nobody asked for them yet.
func (p *Producer[E]) Buffered() int { return p.out.held() }

// Dropped returns how many events were discarded for want of room.
func (p *Producer[E]) Dropped() int64 { return p.out.lost() }

func (p *Producer[E]) loop(ctx context.Context, r *runner) error {
	fetching, cancel := context.WithCancel(ctx)
	defer cancel()
	p.out.setInterrupt(cancel)
	closed, empty := false, 0
	for !r.halted() {
		what, n := p.out.next()
		if !closed && what != fetch && p.out.isClosing() {
			closed = true
			r.sourceDone()
		}
		switch what {
		case idle:
			p.park()
		case fetch:
			if err := p.answer(ctx, fetching, n, &empty); err != nil {
				return err
			}
		default:
			return p.finish(what, n)
		}
	}
	return errHalted
}

// answer fetches for one ask and hands on what came.
func (p *Producer[E]) answer(ctx, fetching context.Context, n int, empty *int) error {
	events, err := p.fetch(fetching, n)
	if len(events) > n {
		return fmt.Errorf("%w: %d instead of %d", ErrOverDemand, len(events), n)
	}
	if handed := p.out.answer(ctx.Done(), events); handed != nil && !errors.Is(handed, ErrEnded) {
		return handed
	}
	*empty++
	if len(events) > 0 {
		*empty = 0
	}
	switch {
	case err == nil && *empty == maxEmpty:
		return io.ErrNoProgress
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		p.out.close()
		return nil
	case ctx.Err() != nil:
		return errHalted
	case fetching.Err() != nil && errors.Is(err, context.Canceled):
		// Close interrupted it, or the last subscriber did: the loop finds out.
		return nil
	}
	return err
}

// finish ends the producer.
func (p *Producer[E]) finish(what verdict, n int) error {
	p.out.end()
	if what == undeliver {
		return &UndeliveredError{Events: n}
	}
	return nil
}
