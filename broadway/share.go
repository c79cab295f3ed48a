package broadway

import (
	"slices"
	"time"
)

// minBlocked is how long no report must have ended, at least, before a batcher
// counts as blocked.
const minBlocked = 2 * time.Second

// hold counts a message that comes from ref, and says whether the batcher takes it.
// Above its share a batcher that works takes what is on its way, and the sources are
// not asked for more. One that is blocked refuses; or, where a message must keep its
// place, it stops the message's reference, and the others flow. The only batcher has
// all of the bound as its share, and counts when it takes them.
func (b *batcher) hold(m *Message) bool {
	if len(b.p.batchers) == 1 {
		return true
	}
	n := b.held.Add(1)
	if b.blocks() && n > b.share() {
		if !m.chunk.source.keeps() {
			b.held.Add(-1)
			return false
		}
		b.stopRef(m.ref)
	}
	b.raise(n)
	return true
}

// stopRef stops ref until the batcher is not blocked any more, if it can be stopped.
// (1) A report ends. (2) collect finds nothing stopped. (3) This, which still found the
// batcher blocked, stops ref: so the batcher has to look again.
func (b *batcher) stopRef(ref *AckRef) {
	b.mu.Lock()
	stops := !slices.Contains(b.stopped, ref) && ref.stop()
	if stops {
		b.stopped = append(b.stopped, ref)
	}
	b.mu.Unlock()
	if stops {
		b.box.nudge()
	}
}

// overfull says that the batcher has its share.
func (b *batcher) overfull() bool {
	return len(b.p.batchers) > 1 && b.held.Load() >= b.share()
}

// blocks says that nothing is reported, and that it is not known when something
// will be.
func (b *batcher) blocks() bool { return b.blockedNow.Load() || b.circuit.shut.Load() }

// share is what the batcher may hold: its bound, unless that would be at the cost
// of what is reserved for the others.
func (b *batcher) share() int64 {
	room := int64(b.p.cfg.MaxUnsettled)
	for _, other := range b.p.batchers {
		if other != b {
			room -= max(other.held.Load(), other.reserve())
		}
	}
	return max(min(b.bound(), room), b.reserve())
}

// checkBlocked says whether the batcher has become blocked: no report has ended
// for minBlocked, and for four times the longest so far. With order the batches of a
// shard wait for one that is reported, though other reporters are idle.
func (b *batcher) checkBlocked(now time.Time) bool {
	reporting := int(b.reporting.Load())
	busy := reporting == b.cfg.Concurrency || b.ordered() && reporting > 0
	since := time.Duration(b.p.clock.nanos(now) - b.finishedAt.Load())
	if !busy || since < max(minBlocked, 4*time.Duration(b.slowest.Load())) {
		return false
	}
	return !b.blockedNow.Swap(true)
}

// works is told of the begin and the end of reports.
func (b *batcher) works(took time.Duration) {
	b.finishedAt.Store(b.p.clock.nanos(time.Now()))
	b.slowest.Store(max(b.slowest.Load(), int64(took))) // one of two at once may be lost
	if b.blockedNow.Swap(false) {
		b.p.ledger.look()
	}
}

func (b *batcher) raise(n int64) {
	for h := b.highest.Load(); n > h && !b.highest.CompareAndSwap(h, n); h = b.highest.Load() {
	}
}

// bound is the most that the batcher may hold: everything when it is alone, and
// half otherwise, so that one that is blocked leaves room for others.
func (b *batcher) bound() int64 {
	if len(b.p.batchers) == 1 {
		return int64(b.p.cfg.MaxUnsettled)
	}
	return int64(max(b.p.cfg.MaxUnsettled/2, 1))
}

// reserve is what the others leave to this batcher.
func (b *batcher) reserve() int64 {
	n := len(b.p.batchers)
	if n == 1 {
		return int64(b.p.cfg.MaxUnsettled)
	}
	return int64(min(b.cfg.Size, b.p.cfg.MaxUnsettled/(2*n)))
}
