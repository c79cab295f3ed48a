package broadway

import (
	"context"
	"sync"
	"sync/atomic"
)

// blockSize is how many messages a block has at most.
const blockSize = 32

// cursor is the dispatcher without order. Messages are published in spans of
// blocks. A worker opens a block of its own and claims its messages one at a time, by
// an atomic add that nobody else makes as long as there are blocks for all; one that
// finds none to open claims from those of others. So no message waits behind a slow
// one while a worker is idle, and workers that are fast do not meet. Nor does one wait
// for long while none is: what is old is claimed first, whoever has opened its block.
type cursor struct {
	pool *pool
	head atomic.Pointer[span]
	old  atomic.Int64  // the number of the last span that is old: see age
	wake chan struct{} // one token for each worker at most

	mu   sync.Mutex // protects following fields
	tail *span
	aged int64 // the watchdog's: the last span when it looked
}

// span is a run of published blocks.
type span struct {
	number  int64 // in the order of publishing
	blocks  []block
	opened  atomic.Int64         // how many blocks have a worker
	left    atomic.Int64         // how many blocks have messages that nobody has claimed
	waiting atomic.Int64         // messages in blocks that nobody has opened
	looked  atomic.Bool          // the sources were made to look at the queue, as it is low
	link    atomic.Pointer[span] // the next; itself once it is out of the list
	first   [8]block             // blocks, if it has no more
}

// block is some messages of one chunk.
type block struct {
	messages []*Message
	span     *span
	chunk    *chunk
	next     atomic.Int64 // the first that nobody has claimed
	_        [64 - 48]byte
}

// claim takes the next message for w, or returns nil when there is none. last says that
// it was the block's last.
func (b *block) claim(w *worker) (m *Message, last bool) {
	n := len(b.messages)
	i := int(b.next.Add(1) - 1)
	if i >= n {
		return nil, false
	}
	if w.from != b {
		w.from = b
	}
	w.place = i
	return b.messages[i], i == n-1
}

// claimAll takes what nobody has claimed.
func (b *block) claimAll() []*Message {
	n := int64(len(b.messages))
	i := min(b.next.Swap(n), n)
	if i < n && b.span != nil {
		b.span.left.Add(-1)
	}
	return b.messages[i:]
}

func (b *block) rest() int { return max(len(b.messages)-int(b.next.Load()), 0) }

func newCursor(l *pool) *cursor {
	c := &cursor{pool: l, wake: make(chan struct{}, l.cfg.Concurrency), tail: &span{}}
	c.head.Store(c.tail)
	return c
}

// prepare cuts what a fetch brought into blocks.
func (c *cursor) prepare(a *arrival) {
	size := min(max(a.n/(4*c.pool.cfg.Concurrency), 1), blockSize)
	n := 0
	for _, k := range a.chunks {
		n += (len(k.messages) + size - 1) / size
	}
	s := newSpan(n)
	a.span = s
	at := 0
	for i := range a.chunks {
		k := a.chunks[i]
		first := at
		for from := 0; from < len(k.messages); from += size {
			s.blocks[at].messages, s.blocks[at].chunk = k.messages[from:min(from+size, len(k.messages))], k
			at++
		}
		k.blocks = s.blocks[first:at]
		for _, m := range k.messages {
			m.state = stateClaimed // by whoever claims it in its block
		}
	}
	s.waiting.Store(int64(a.n))
}

func newSpan(blocks int) *span {
	s := new(span)
	if blocks <= len(s.first) {
		s.blocks = s.first[:blocks]
	} else {
		s.blocks = make([]block, blocks)
	}
	for i := range s.blocks {
		s.blocks[i].span = s
	}
	s.left.Store(int64(blocks))
	return s
}

func (c *cursor) publish(a *arrival) { c.link(a.span, a.n) }

func (c *cursor) requeue(m *Message) {
	s := newSpan(1)
	s.blocks[0].messages, s.blocks[0].chunk = []*Message{m}, m.chunk
	s.waiting.Store(1)
	c.link(s, 1)
}

// link makes n messages visible, and wakes workers for them.
func (c *cursor) link(s *span, n int) {
	c.mu.Lock()
	s.number = c.tail.number + 1
	c.tail.link.Store(s)
	c.tail = s
	c.mu.Unlock()
	for range min(n, int(c.pool.resting.Load())) {
		select {
		case c.wake <- struct{}{}:
		default:
			return
		}
	}
}

// claim takes the next message for w, or returns nil when there is none.
func (c *cursor) claim(w *worker) *Message {
	if b := w.block; b != nil {
		m, last := b.claim(w)
		if last {
			c.finished(b.span)
		}
		if m == nil || last {
			w.block = nil
		}
		if m != nil {
			return m
		}
	}
	if m := c.open(w); m != nil {
		return m
	}
	return c.steal(w)
}

// open takes the first message of a block that nobody has opened.
func (c *cursor) open(w *worker) *Message {
	for s := c.head.Load(); s != nil; s = c.after(s) {
		for s.opened.Load() < int64(len(s.blocks)) {
			i := s.opened.Add(1) - 1
			if i >= int64(len(s.blocks)) {
				break
			}
			b := &s.blocks[i]
			s.waiting.Add(-int64(len(b.messages)))
			m, last := b.claim(w)
			switch {
			case m == nil:
				continue // it was swept
			case last:
				c.finished(s)
			default:
				w.block = b
				c.lookOnce(s)
			}
			return m
		}
		if s.number <= c.old.Load() {
			if m := c.stealFrom(s, w); m != nil {
				return m
			}
		}
	}
	return nil
}

// after is the span after s, which leaves the list if it is the first and everything in
// it is claimed. It does not keep what comes after it then: who has a message of s may
// have it for long.
func (c *cursor) after(s *span) *span {
	next := c.next(s)
	if next != nil && s.left.Load() == 0 && c.head.CompareAndSwap(s, next) {
		s.link.Store(s)
	}
	return next
}

// next is the span after s: the first, if s has left the list, and so all before it.
func (c *cursor) next(s *span) *span {
	if next := s.link.Load(); next != s {
		return next
	}
	return c.head.Load()
}

// steal takes a message from a block that another worker has opened.
func (c *cursor) steal(w *worker) *Message {
	for s := c.head.Load(); s != nil; s = c.after(s) {
		if m := c.stealFrom(s, w); m != nil {
			return m
		}
	}
	return nil
}

func (c *cursor) stealFrom(s *span, w *worker) *Message {
	if s.left.Load() == 0 {
		return nil
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		if b.rest() == 0 {
			continue
		}
		m, last := b.claim(w)
		if m == nil {
			continue
		}
		if last {
			c.finished(s)
		} else {
			c.lookOnce(s)
		}
		return m
	}
	return nil
}

// age makes old what was published before the watchdog looked last. What of it is not
// claimed by then lies behind slow messages, in blocks that workers have opened; and while
// there are others to open nobody would help.
func (c *cursor) age() {
	c.old.Store(c.aged)
	c.mu.Lock()
	c.aged = c.tail.number
	c.mu.Unlock()
}

// finished is told that all messages of a block of s are claimed.
func (c *cursor) finished(s *span) {
	s.left.Add(-1)
	c.lookOnce(s)
}

// lookOnce makes the sources look at the queue once s has fallen to the low mark.
func (c *cursor) lookOnce(s *span) {
	low := int64(max(c.pool.cfg.Concurrency*c.pool.cfg.MinDemand, 1) - 1)
	if s.looked.Load() || s.waiting.Load() > low || int64(s.unclaimed()) > low {
		return
	}
	if s.looked.CompareAndSwap(false, true) {
		c.pool.p.ledger.look()
	}
}

// unclaimed is how many messages of s nobody has claimed.
func (s *span) unclaimed() (n int) {
	if s.left.Load() == 0 {
		return 0
	}
	for i := range s.blocks {
		n += s.blocks[i].rest()
	}
	return n
}

func (c *cursor) queued() (n int) {
	for s := c.head.Load(); s != nil; s = c.next(s) {
		n += s.unclaimed()
	}
	return n
}

// empty looks at each block where some seem to be left: who has claimed the last message of
// one may not have run since, to say so, and workers that believed in left until then would
// go round and keep it from running.
func (c *cursor) empty() bool {
	for s := c.head.Load(); s != nil; s = c.next(s) {
		if s.left.Load() > 0 && s.anyUnclaimed() {
			return false
		}
	}
	return true
}

func (s *span) anyUnclaimed() bool {
	for i := range s.blocks {
		if s.blocks[i].rest() > 0 {
			return true
		}
	}
	return false
}

func (c *cursor) visit(ctx context.Context, w *worker) {
	for m := c.claim(w); m != nil; m = c.claim(w) {
		if !w.handle(ctx, m) || w.over() {
			return
		}
	}
}

// await waits for a token. None is lost: (1) a worker counts itself as resting,
// (2) looks at the queue, (3) waits; a publisher links before it reads how many
// rest, so either (2) sees the span or the publisher sees (1).
func (c *cursor) await(_ *worker, stop <-chan struct{}) bool {
	if !c.empty() {
		return true
	}
	return c.pool.rest(func() bool {
		if !c.empty() {
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
