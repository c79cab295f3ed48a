package broadway

import (
	"slices"
	"time"
)

// DeliveredAt is an optional interface of source metadata, for sources with
// Traits.AckTimeout whose clients buffer: the broker's clock runs from when it
// delivered, and not from when Fetch returned.
type DeliveredAt interface {
	// DeliveredAt is when the client got the message.
	DeliveredAt() time.Time
}

// A broker with a time-out for acknowledging takes everything back once one message
// is unsettled for longer (RabbitMQ closes the channel). So what waits in the
// pipeline for longer than half of it is recalled: given back, wherever it waits.
// What a handler has cannot be given back; it is named in the log, and counted.
//
// A recalled message that is in a handler goes on as ever, as nothing would be won
// by repeating its work. Only where it would have to wait again, for another
// attempt, for its circuit or for a reporter, it is given back.
//
// With PartitionBy a message that is given back takes along what waits behind it, of
// its whole reference, or later messages of its key would overtake it.

// recallSteps is how often, within half of a time-out, overdue messages are looked for.
const recallSteps = 16

// due is when messages that were delivered with m have waited for half of the
// source's time-out, in nanoseconds; 0 is never.
func (s *source) due(m *Message, now time.Time) int64 {
	limit := s.traits.AckTimeout
	if limit <= 0 {
		return 0
	}
	if d, ok := m.Metadata.(DeliveredAt); ok {
		now = d.DeliveredAt()
	}
	return max(s.p.clock.nanos(now.Add(limit/2)), 1)
}

// recallEvery is how often overdue messages are looked for; 0 when no source has a
// time-out.
func (p *Pipeline) recallEvery() (every time.Duration) {
	for _, s := range p.sources {
		if t := s.traits.AckTimeout; t > 0 && (every == 0 || t/2/recallSteps < every) {
			every = max(t/2/recallSteps, time.Millisecond)
		}
	}
	return every
}

// withdrawn says that m is not to wait any longer: its reference drains, or it was
// recalled. Whoever owns m may ask.
func (m *Message) withdrawn() bool { return m.ref.Draining() || m.chunk.recalled.Load() }

// recall looks for messages that are overdue, recalls those that wait, and names
// the handlers that have others. It is the watchdog's.
func (p *Pipeline) recall(now time.Time) {
	left, before := p.ledger.recall(now, p.cfg.Processor.PartitionBy != nil), p.recalling.Load()
	p.recalling.Store(int64(left))
	if n := p.count.recalled.Load(); n > p.recallTold {
		p.log().Warn("messages waited for half of the broker's time-out for acknowledging, and were given back", "messages", n-p.recallTold)
		p.recallTold = n
	}
	if left == 0 && before == 0 {
		return
	}
	for _, c := range p.crews() {
		for _, h := range c.overdue(now) {
			p.log().Warn("handler runs beyond half of the broker's time-out for acknowledging: the broker may take its messages back",
				"stage", h.Stage, "id", h.ID, "messages", h.Messages, "age", now.Sub(h.Since))
		}
	}
	p.sweepIf(func(c *chunk) bool { return c.recalled.Load() })
	p.parker.hurry(func(r retry) bool { return r.message.chunk.recalled.Load() })
	p.pool.circuit.hurry(func(m *Message) bool { return m.chunk.recalled.Load() })
	if p.deadLetters != nil {
		p.deadLetters.nudge()
	}
	for _, b := range p.batchers {
		b.recall.Store(true)
		b.box.nudge()
	}
}

// recall marks what is overdue, with ordered all of its references, and says how
// many messages of what is marked are not settled.
func (l *ledger) recall(now time.Time, ordered bool) (left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var refs []*AckRef
	at := l.clock.nanos(now)
	for c := l.oldest; c != nil; c = c.next {
		if c.overdue(at) && !c.recalled.Swap(true) && ordered && !slices.Contains(refs, c.ref) {
			refs = append(refs, c.ref)
		}
	}
	for c := l.oldest; c != nil; c = c.next {
		if slices.Contains(refs, c.ref) {
			c.recalled.Store(true)
		}
		if c.recalled.Load() {
			left += c.remaining
		}
	}
	return left
}

// overdue says whether c's messages are at a time of the pipeline's clock.
func (c *chunk) overdue(now int64) bool { return c.due != 0 && c.due <= now }

// overdue counts messages that are overdue and not settled.
func (l *ledger) overdue(now time.Time) (n int) {
	at := l.clock.nanos(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.oldest; c != nil; c = c.next {
		if c.overdue(at) {
			n += c.remaining
		}
	}
	return n
}

// overdue finds handlings whose messages are overdue, each of them once.
func (c *crew) overdue(now time.Time) (found []Handling) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		h := d.slot.Load()
		if h == nil {
			continue
		}
		was := h.at()
		if due := h.due.Load(); due == 0 || due > c.p.clock.nanos(now) || h.told.Load() == was.turn() {
			continue
		}
		if picture, ok := h.picture(c); ok && h.still(was) { // otherwise the picture is of another turn
			h.told.Store(was.turn())
			found = append(found, picture)
		}
	}
	return found
}

// firstDue is when the first of messages is overdue, 0 when none will be.
func firstDue(messages []*Message) (first int64) {
	for _, m := range messages {
		if due := m.chunk.due; due != 0 && (first == 0 || due < first) {
			first = due
		}
	}
	return first
}

// giveBack releases a message that waited for the pool, though every worker may be
// busy. Another one takes its place in its lane, to say that its key is free.
func (l *pool) giveBack(m *Message) {
	if _, ordered := l.dispatch.(*lanes); !ordered {
		l.p.release(m)
		return
	}
	instead := placeholder(m.ref, m.chunk, m.lane)
	l.p.release(m)
	l.dispatch.requeue(instead)
}

// placeholder takes a message's place in its lane, to say that its key is free.
func placeholder(ref *AckRef, c *chunk, key uint64) *Message {
	instead := &Message{ref: ref, chunk: c, lane: key, retry: true, giveBack: true}
	instead.state = stateReleased
	return instead
}

// again sends messages that waited for the pool back to it.
func (l *pool) again(messages []*Message) {
	for _, m := range messages {
		if m.giveBack {
			l.giveBack(m)
		} else {
			l.dispatch.requeue(m)
		}
	}
}

// withdraw reports recalled messages that wait in the batcher at once, or gives them
// back where no reporter is free for them.
func (b *batcher) withdraw() {
	if !b.recall.Swap(false) {
		return
	}
	if b.p.recalling.Load() == 0 {
		clear(b.lost)
		return
	}
	recalled := func(m *Message) bool { return m.chunk.recalled.Load() }
	b.dispatch()
	for _, o := range b.open {
		if b.takes(o.id.shard) && slices.ContainsFunc(o.Messages, recalled) {
			b.close(o, TriggerTimeout)
			b.dispatch()
		}
	}
	var chosen []*Message
	for _, o := range b.open {
		chosen = o.strip(chosen, recalled)
	}
	for _, k := range b.blocked {
		kept := k.aside[:0]
		for _, m := range k.aside {
			if recalled(m) {
				chosen = append(chosen, m)
			} else {
				kept = append(kept, m)
			}
		}
		clear(k.aside[len(kept):])
		k.aside = kept
	}
	b.giveBack(chosen)
	b.returnClosed(recalled)
}

// takes says whether a batch of shard that is closed now is reported at once.
func (b *batcher) takes(shard int) bool {
	return int(b.reporting.Load()) < b.cfg.Concurrency && !b.busy[shard] && len(b.ready[shard]) == 0 && b.circuit.mayPass()
}

// overtakes says whether m comes behind a message of its key that was recalled, and
// given back, here.
func (b *batcher) overtakes(m *Message) bool {
	return len(b.lost) > 0 && b.lost[m.lane] && m.chunk.recalled.Load()
}
