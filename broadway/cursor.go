package broadway

import (
	"context"
	"sync"
	"sync/atomic"
)

// cursor is the dispatcher without order. Messages are published in spans;
// workers claim the next index of the oldest span by one atomic add, one message
// at a time, so that no message waits behind a slow one while a worker is idle.
type cursor struct {
	pool *pool
	head atomic.Pointer[span]
	wake chan struct{} // one token for each worker at most

	mu   sync.Mutex // protects following field
	tail *span
}

// span is a run of published messages.
type span struct {
	messages []*Message
	low      int64 // claiming this index makes the sources look at the queue
	next     atomic.Int64
	link     atomic.Pointer[span]
}

func newCursor(l *pool) *cursor {
	c := &cursor{pool: l, wake: make(chan struct{}, l.cfg.Concurrency), tail: &span{}}
	c.head.Store(c.tail)
	return c
}

func (c *cursor) publish(messages []*Message) {
	low := len(messages) - max(c.pool.cfg.Concurrency*c.pool.cfg.MinDemand, 1)
	c.link(&span{messages: messages, low: int64(max(low, 0))})
	for range min(len(messages), int(c.pool.resting.Load())) {
		select {
		case c.wake <- struct{}{}:
		default:
			return
		}
	}
}

func (c *cursor) link(s *span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail.link.Store(s)
	c.tail = s
}

func (c *cursor) requeue(m *Message) { c.publish([]*Message{m}) }

// claim takes the next message, or returns nil when there is none.
func (c *cursor) claim() *Message {
	for {
		s := c.head.Load()
		if n := int64(len(s.messages)); s.next.Load() < n {
			if i := s.next.Add(1) - 1; i < n {
				if i == s.low {
					c.pool.p.ledger.look()
				}
				return s.messages[i]
			}
		}
		next := s.link.Load()
		if next == nil {
			return nil
		}
		c.head.CompareAndSwap(s, next)
	}
}

func (c *cursor) queued() int {
	n := 0
	for s := c.head.Load(); s != nil; s = s.link.Load() {
		n += max(len(s.messages)-int(s.next.Load()), 0)
	}
	return n
}

func (c *cursor) empty() bool { return c.queued() == 0 }

func (c *cursor) visit(ctx context.Context, w *worker) {
	for m := c.claim(); m != nil; m = c.claim() {
		if !w.handle(ctx, m) || w.over() {
			return
		}
	}
}

// await waits for a token. None is lost: (1) a worker counts itself as resting,
// (2) looks at the queue, (3) waits; a publisher links before it reads how many
// rest, so either (2) sees the span or the publisher sees (1).
func (c *cursor) await(_ *worker, stop <-chan struct{}) bool {
	if c.queued() > 0 {
		return true
	}
	return c.pool.rest(func() bool {
		if c.queued() > 0 {
			return true
		}
		select {
		case <-c.wake:
			return true
		case <-stop:
			return false
		}
	})
}
