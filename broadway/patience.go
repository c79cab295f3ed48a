package broadway

import "math"

// A batcher that waits does not look at each message: with slow handlers that would be one
// wake-up for every message, which costs more than all else. What comes while it waits can
// only fill batches that are open, so it is woken when one may be full, and what it has not
// looked at until then waits in its mailbox, as it would in the batch.
//
// It is woken at once for what it has to decide on. No message is forgotten:
//
//  1. The batcher says how many messages it may miss.
//  2. It says that it sleeps, and looks into its mailbox once more.
//  3. It waits.
//
// A worker puts a message, and looks at (1) afterwards. Either it finds what is missed,
// and takes it down; or the batcher had not come to (1), and sees the message in (2).

// mayMiss is how many messages the batcher may not look at: as many as no open batch is
// filled by, if all that come join one.
func (b *batcher) mayMiss() int64 {
	b.until.Store(math.MaxInt64)
	if b.cfg.Policy != nil || b.cfg.Bytes > 0 || len(b.blocked) > 0 || len(b.lost) > 0 {
		return 0
	}
	n := b.cfg.Size
	for shard := range b.ready {
		o := b.open[batchID{shard: shard}]
		if o == nil {
			return 0
		}
		n = min(n, b.cfg.Size-len(o.Messages))
	}
	if len(b.due) > 0 {
		b.until.Store(b.p.clock.nanos(b.due[0].deadline))
	}
	return int64(n)
}

// neededBy is when the batcher has to look at m, in nanoseconds: at once where it may open a
// batch or close one, and before m's time is over.
func (b *batcher) neededBy(m *Message) int64 {
	if m.BatchKey != "" || m.BatchMode == Flush {
		return 0
	}
	if due := m.chunk.due; due != 0 {
		return due - int64(m.chunk.source.traits.AckTimeout/4)
	}
	return math.MaxInt64
}

// told is told that a worker has put a message of ref that is needed by a time, and may have
// settled since; and that so many are to be counted with: see runs.put. What is withdrawn
// after this has looked wakes the batcher itself.
func (b *batcher) told(announced int, ref *AckRef, by int64) {
	switch {
	case by < b.until.Load() || ref.Draining() || b.p.recalling.Load() > 0:
	case b.p.count.full.Load() > 0 && b.p.pool.idle() && ref.isFull(): // a batch that has m may be closed for it
	case announced == 0 && !b.overfull():
		return
	case b.patience.Load() > 0 && b.patience.Add(-int64(announced)) > 0 && !b.overfull():
		return
	}
	b.box.rouse()
}
