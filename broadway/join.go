package broadway

import (
	"container/heap"
	"time"
)

// takeRun takes what a worker has finished, and returns the run after it.
func (b *batcher) takeRun(r *run, now time.Time) (next *run) {
	messages, next := r.close(), r.below
	all := len(messages)
	if len(b.p.batchers) == 1 {
		b.raise(b.held.Add(int64(len(messages)))) // see hold
	}
	if b.ordered() || len(b.blocked) > 0 || len(b.lost) > 0 {
		for _, m := range messages {
			b.take(m, now)
		}
	} else {
		for len(messages) > 0 {
			n := b.joinAll(messages)
			if n == 0 {
				b.join(messages[0], now)
				n = 1
			}
			messages = messages[n:]
		}
	}
	r.free(all)
	return next
}

// joinAll puts the first of messages into the batch that the last one joined, as long as
// there is nothing more to decide, and says how many that were.
func (b *batcher) joinAll(messages []*Message) (n int) {
	o := b.recent
	if o == nil || o.state != nil || b.cfg.Bytes > 0 || b.p.recalls {
		return 0
	}
	messages = messages[:min(len(messages), b.cfg.Size-1-len(o.Messages))]
	bytes := o.Bytes
	for _, m := range messages {
		if m.BatchKey != o.id.key || m.BatchMode == Flush || m.withdrawn() {
			break
		}
		bytes += m.size
		n++
	}
	o.Messages = append(o.Messages, messages[:n]...)
	o.Bytes = bytes
	return n
}

// take puts m into its batch, or aside.
func (b *batcher) take(m *Message, now time.Time) {
	k := b.blocked[m.lane]
	if m.retry && m.withdrawn() || m.giveBack || b.overtakes(m) {
		b.giveBack([]*Message{m})
		return
	}
	if m.arrival == 0 {
		b.arrivals++
		m.arrival = b.arrivals
	}
	if k != nil && k.trial != m {
		k.aside = append(k.aside, m)
		return
	}
	b.join(m, now)
}

// join puts m into the open batch of its key, and closes that when it is full.
func (b *batcher) join(m *Message, now time.Time) {
	id := batchID{key: m.BatchKey}
	if b.ordered() {
		id.shard = int(mix(m.lane) >> 8 % uint64(len(b.busy)))
	}
	o := b.recent
	if o == nil || o.id != id {
		o = b.open[id]
	}
	if o != nil {
		if t, fits := b.fits(o, m); !fits {
			b.close(o, t)
			o = nil
		}
	}
	if o == nil {
		o = b.begin(id, now)
	}
	b.recent = o
	o.Messages = append(o.Messages, m)
	o.Bytes += m.size
	if due := m.chunk.due; due != 0 {
		b.schedule(o, b.p.clock.time(due).Add(-m.chunk.source.traits.AckTimeout/4))
	}
	complete := o.state != nil && b.policy(func() bool { return o.state.Add(m) }, true)
	switch {
	case len(o.Messages) >= b.cfg.Size:
		b.close(o, TriggerSize)
	case b.cfg.Bytes > 0 && o.Bytes >= b.cfg.Bytes:
		b.close(o, TriggerBytes)
	case m.BatchMode == Flush:
		b.close(o, TriggerFlush)
	case m.withdrawn():
		b.close(o, TriggerDrain)
	case complete:
		b.close(o, TriggerPolicy)
	case o.state != nil:
		b.policy(func() bool { b.schedule(o, o.state.Deadline()); return true }, true)
	}
}

// policy asks the user's Policy, and answers for it when it panics.
func (b *batcher) policy(ask func() bool, otherwise bool) (answer bool) {
	defer func() {
		if v := recover(); v != nil {
			b.p.log().Error("the batch policy panicked", "batcher", b.cfg.Name, "panic", v)
			answer = otherwise
		}
	}()
	return ask()
}

// fits says whether m may join o, and if not, why o is closed before it.
func (b *batcher) fits(o *openBatch, m *Message) (Trigger, bool) {
	if b.cfg.Bytes > 0 && len(o.Messages) > 0 && o.Bytes+m.size > b.cfg.Bytes {
		return TriggerBytes, false
	}
	if o.state == nil || len(o.Messages) == 0 {
		return TriggerPolicy, true
	}
	return TriggerPolicy, b.policy(func() bool { return o.state.Fits(m) }, true)
}

// begin opens a batch.
func (b *batcher) begin(id batchID, now time.Time) *openBatch {
	o := b.room()
	o.Batch.Batcher, o.Key, o.id, o.index = b.cfg.Name, id.key, id, -1
	b.open[id] = o
	if b.cfg.Policy != nil {
		b.policy(func() bool { o.state = b.cfg.Policy.Open(now); return true }, true)
	}
	if b.cfg.Timeout > 0 {
		b.schedule(o, now.Add(b.cfg.Timeout))
	}
	return o
}

// schedule sets the deadline of o, unless it has an earlier one.
func (b *batcher) schedule(o *openBatch, at time.Time) {
	switch {
	case at.IsZero() || o.index >= 0 && !at.Before(o.deadline):
	case o.index >= 0:
		o.deadline = at
		heap.Fix(&b.due, o.index)
	default:
		o.deadline = at
		heap.Push(&b.due, o)
	}
}
