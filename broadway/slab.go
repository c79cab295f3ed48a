package broadway

import (
	"bytes"
	"time"
)

// MessageOverhead is what each message weighs against MaxUnsettledBytes besides
// its Size: the Message, the metadata of its source, and its places in queues,
// batches and ledgers. In bytes; measured on 64-bit machines and rounded up. It
// counts against the bound only: neither a Demand nor a Batch has it in its Bytes.
const MessageOverhead = 512

// leastCharge is what the smallest message that is worth asking for weighs.
const leastCharge = MessageOverhead + 1

// copyAge is how old a chunk is at least before what is left of it is copied out.
const copyAge = time.Second

// Detacher is an optional interface of source metadata whose memory is shared
// with that of other messages.
type Detacher interface {
	// Detach returns metadata that equals the receiver and shares no memory with
	// other messages, for a message whose payload is payload by now. It is called
	// while no handler has the message, but one that was given up may still read
	// the receiver: Detach must not change it.
	Detach(payload []byte) any
}

// BeginSlab says that m and the messages after it in what Fetch returns, up to
// the next for which BeginSlab was called or that has another AckRef, share the
// arrays that their payloads and metadata lie in: a slab. A slab counts as a whole until its
// last message has settled, or was copied out of it, since it is kept as a whole
// in memory. Keep slabs small (64 KiB and 128 messages are what the Kafka
// producer has): a message in a handler is not copied.
//
// Without it each message has an array of its own.
func (m *Message) BeginSlab() { m.marks |= begins }

// charge is what m weighs against the bound.
func (m *Message) charge() int64 { return m.size + MessageOverhead }

// cover is what c keeps in memory until its last message has left it. Of a slab
// that is everything; otherwise only the messages themselves, which a producer
// allocates together, as payloads are dropped one by one.
func (c *chunk) cover(messages []*Message) {
	c.slab = messages[0].marks&begins != 0
	c.kept = MessageOverhead * int64(len(messages))
	if c.slab {
		for _, m := range messages {
			c.kept += m.size
		}
	}
}

// share is what of c's kept bytes was charged for m.
func (c *chunk) share(m *Message) int64 {
	if c.slab {
		return m.charge()
	}
	return MessageOverhead
}

// drop lets the collector have what m held. The Message itself lies in one array
// with others, some of which may live for long.
func (m *Message) drop() {
	if m.marks&watched == 0 && m.pins.Load() == 0 {
		m.Payload, m.Value, m.Metadata, m.err = nil, nil, nil, nil
	}
}

// retire is called when all messages of c have settled, by nobody who has one: they go
// back to where they came from, or are emptied. What somebody may still read stays as it is.
func (c *chunk) retire() {
	switch {
	case c.tainted.Load() || c.pins.Load() > 0:
	case c.home != nil:
		c.home.back()
		return
	case c.slab:
		for _, m := range c.messages {
			m.drop()
		}
	}
	c.messages, c.blocks = nil, nil
}

// leave takes m, which no handler has, out of its chunk, into one of its own; the
// caller then copies what m shares. False says that there is nothing to gain, or no
// credit: what is copied and the chunk that it came from are both in memory until
// the last message has left the chunk.
func (l *ledger) leave(m *Message) (slab, left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := m.chunk
	share := c.share(m)
	free := l.bytes.Free()
	if c.remaining == 1 {
		free += c.kept
	}
	if c.kept <= share || free < share {
		return c.slab, false
	}
	c.taint() // who copies m still reads it, and a copy may share its metadata
	own := &chunk{source: c.source, ref: c.ref, fetchedAt: c.fetchedAt, slab: c.slab, single: true, kept: share, remaining: 1, due: c.due}
	own.recalled.Store(c.recalled.Load())
	l.linkAfter(c, own)
	if c.remaining--; c.remaining == 0 {
		l.unlink(c)
		c.messages, c.blocks = nil, nil
		l.bytes.Return(c.kept)
		l.wakeAll()
	}
	l.bytes.Take(l.bytes.Reserve(share))
	l.highestB = max(l.highestB, l.bytes.Taken())
	m.chunk = own
	return c.slab, true
}

// wasteful says whether a chunk that is older than copyAge has mostly settled, so
// that it is worth to copy what is left of it.
func (l *ledger) wasteful(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.oldest; c != nil && now.Sub(c.fetchedAt) > copyAge; c = c.next {
		if 2*c.remaining <= c.size {
			return true
		}
	}
	return false
}

// apart copies m, which no handler has, out of what it shares with others, if that
// may set something free: as a new Message where it lies in an array of them, or
// where somebody may still look at it (see picture), otherwise in place. It returns m
// or that. A message that has not been handled yet as it is, such as one that is
// parked, is never looked at.
func (p *Pipeline) apart(m *Message) *Message {
	slab, left := p.ledger.leave(m)
	if !left {
		return m
	}
	n := m
	if m.marks&alone == 0 || m.pins.Load() > 0 {
		n = m.again(m.Attempt, m.batcher())
		n.retry, n.giveBack, n.action = m.retry, m.giveBack, m.action
		m.drop()
	}
	if slab {
		n.Payload = bytes.Clone(n.Payload)
	}
	if d, ok := n.Metadata.(Detacher); ok {
		n.Metadata = d.Detach(n.Payload)
	}
	return n
}

// apartAll does so for messages of a batcher, which no reporter has.
func (p *Pipeline) apartAll(messages []*Message, now time.Time) {
	for i, m := range messages {
		if now.Sub(m.chunk.fetchedAt) > copyAge {
			messages[i] = p.apart(m)
		}
	}
}

// copyOut makes every stage that keeps messages which nobody handles copy the old
// ones, when that sets something free.
func (p *Pipeline) copyOut(now time.Time) {
	if !p.ledger.wasteful(now) {
		return
	}
	p.parker.copyOut()
	for _, b := range p.batchers {
		b.crowded.Store(true)
		b.box.nudge()
	}
}

// copyOut copies what is parked: each of them is an attempt after the first, and
// so a Message of its own, or is about to be given back.
func (k *parker) copyOut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.heap {
		if r := &k.heap[i]; r.message != nil && !r.release {
			k.p.apart(r.message)
		}
	}
}

// copyOut copies what waits in the batcher: for its batch to close, for a
// reporter, for another message of its key.
func (b *batcher) copyOut(now time.Time) {
	if !b.crowded.Swap(false) {
		return
	}
	for _, o := range b.open {
		b.p.apartAll(o.Messages, now)
	}
	for _, shard := range b.ready {
		for _, o := range shard {
			b.p.apartAll(o.Messages, now)
		}
	}
	for _, k := range b.blocked {
		b.p.apartAll(k.aside, now)
	}
}
