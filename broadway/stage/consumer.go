package stage

import (
	"context"
	"errors"
)

// Consumer is a stage that handles events.
type Consumer[E any] struct {
	node
	in     inlet[E]
	handle func(context.Context, []E) error
}

// NewConsumer returns a consumer that calls handle for each chunk of events, one
// call at a time. The slice is handle's own, to keep or to change, unless the
// producer broadcasts. The context ends when Run stops.
//
// When handle returned, the events count as handled and others are asked for. An
// error ends Run; [ErrStop] ends the consumer.
func NewConsumer[E any](name string, handle func(ctx context.Context, events []E) error) (*Consumer[E], error) {
	if handle == nil {
		return nil, &Error{name, errNoFunction}
	}
	c := &Consumer[E]{node: node{name: name, parker: newParker()}, handle: handle}
	c.in.owner = &c.node
	c.node.loop = c.loop
	c.node.release = c.in.release
	c.node.upstream = c.in.sources
	c.node.adjacent = c.in.sources
	return c, nil
}

func (c *Consumer[E]) inlet() *inlet[E] { return &c.in }

func (c *Consumer[E]) loop(ctx context.Context, r *runner) error {
	handle := func(chunk []E) error { return c.handle(ctx, chunk) }
	var arrived []delivery[E]
	for {
		if arrived = c.in.take(arrived); len(arrived) == 0 {
			switch {
			case r.halted():
				return errHalted
			case r.draining() && c.in.finish():
				return nil
			}
			c.park()
			continue
		}
		for i, d := range arrived {
			arrived[i] = delivery[E]{}
			err := c.in.receive(d, r, handle)
			if errors.Is(err, ErrStop) {
				c.in.stop()
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}
