package stage

import (
	"context"
	"errors"
)

// ProducerConsumer is a stage that makes events of type O of events of type I.
type ProducerConsumer[I, O any] struct {
	node
	in     inlet[I]
	out    *outlet[O]
	handle func(context.Context, []I) ([]O, error)
}

// NewProducerConsumer returns a stage that calls handle for each chunk of events,
// one call at a time, and hands on what it returns: none, one or many for each
// event. Both slices are as with [NewConsumer] and [NewProducer]; handle may return
// the slice that it was given.
//
// It handles nothing while nobody asks it for events. Once somebody does, it
// handles all of what one of its producers handed it at a time, of which
// [Options].Buffer events may be left to wait for demand; beyond that, it waits
// before the next chunk. If handle returns nothing, the demand stays and the next
// chunk is handled. An error ends Run.
func NewProducerConsumer[I, O any](name string, handle func(ctx context.Context, events []I) ([]O, error), o Options[O]) (*ProducerConsumer[I, O], error) {
	if handle == nil {
		return nil, &Error{name, errNoFunction}
	}
	out, err := o.newOutlet()
	if err != nil {
		return nil, &Error{name, err}
	}
	s := &ProducerConsumer[I, O]{node: node{name: name, parker: newParker()}, out: out, handle: handle}
	s.in.owner = &s.node
	out.owner = &s.node
	s.node.loop = s.loop
	s.node.release = func() {
		s.in.release()
		s.out.end()
	}
	s.node.upstream = s.in.sources
	s.node.adjacent = func() []*node { return append(s.in.sources(), s.out.sinks()...) }
	return s, nil
}

func (s *ProducerConsumer[I, O]) inlet() *inlet[I] { return &s.in }

func (s *ProducerConsumer[I, O]) outlet() *outlet[O] { return s.out }

// Buffered returns how many events wait because nobody asked for them yet.
func (s *ProducerConsumer[I, O]) Buffered() int { return s.out.held() }

// Dropped returns how many events were discarded for want of room.
func (s *ProducerConsumer[I, O]) Dropped() int64 { return s.out.lost() }

func (s *ProducerConsumer[I, O]) loop(ctx context.Context, r *runner) error {
	err := s.work(ctx, r)
	_, undelivered := err.(*UndeliveredError) //nolint:errorlint // its own, never wrapped: a function may return that of another Run
	deserted := errors.Is(err, errDeserted)
	if deserted || undelivered {
		s.in.stop()
	}
	if deserted {
		err = nil
	}
	if err == nil || undelivered {
		s.out.end()
	}
	return err
}

// errDeserted says that no subscriber wants more.
var errDeserted = errors.New("stage: deserted")

// work handles what arrives, while there is demand for what comes of it.
func (s *ProducerConsumer[I, O]) work(ctx context.Context, r *runner) error {
	handle := func(chunk []I) error { return s.transform(ctx, chunk) }
	var arrived []delivery[I]
	for {
		if arrived = s.in.take(arrived); len(arrived) == 0 {
			if done, err := s.rest(r); done || err != nil {
				return err
			}
			continue
		}
		for i, d := range arrived {
			arrived[i] = delivery[I]{}
			// The end of a link has no events: it needs no demand, only to be
			// the next in the queue.
			if err := s.await(r, len(d.events)); err != nil {
				return err
			}
			if err := s.in.receive(d, r, handle); err != nil {
				return err
			}
		}
	}
}

// transform handles one chunk.
func (s *ProducerConsumer[I, O]) transform(ctx context.Context, chunk []I) error {
	events, err := s.handle(ctx, chunk)
	if err != nil || len(events) == 0 {
		return err
	}
	_, err = s.out.emit(ctx.Done(), events, true)
	if errors.Is(err, ErrEnded) {
		return errDeserted
	}
	return err
}

// await waits until there is demand for what comes of n events.
func (s *ProducerConsumer[I, O]) await(r *runner, n int) error {
	for n > 0 && !s.out.wanted() {
		subscribers, abandoned := s.out.crowd()
		switch {
		case r.halted():
			return errHalted
		case abandoned:
			return errDeserted
		case subscribers == 0 && r.draining():
			return &UndeliveredError{Events: n + s.out.held()}
		}
		s.park()
	}
	return nil
}

// rest waits for something to arrive. When nothing can arrive any more, it waits
// until everything is handed on, and tells that the stage is done.
func (s *ProducerConsumer[I, O]) rest(r *runner) (done bool, err error) {
	if r.draining() && s.in.finish() {
		s.out.close()
	}
	what, n := s.out.next()
	switch {
	case r.halted():
		return false, errHalted
	case what == deserted:
		return false, errDeserted
	case what == drained:
		return true, nil
	case what == undeliver:
		return false, &UndeliveredError{Events: n}
	}
	s.park()
	return false, nil
}
