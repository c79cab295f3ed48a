package broadway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// chunk is what one Fetch brought of one AckRef: the unit of accounting.
type chunk struct {
	source    *source
	ref       *AckRef
	messages  []*Message
	blocks    []block // of messages, without order: where they are claimed
	fetchedAt time.Time
	slab      bool  // its messages share their memory: see BeginSlab
	single    bool  // its message has left another chunk
	size      int   // how many messages it began with
	kept      int64 // bytes that are charged until the last of them has left it
	due       int64 // when what waits is recalled, in nanoseconds; 0 is never
	home      home  // where its messages go once all have settled, or nil

	recalled atomic.Bool  // what waits is given back: written under the ledger's lock
	pins     atomic.Int32 // who looks at one of its messages through a handling: see handling.pin
	tainted  atomic.Bool  // somebody may keep one of its messages: they are not used again

	// ledger's lock
	remaining  int
	prev, next *chunk
}

// taint keeps the memory of c's messages from being used again.
func (c *chunk) taint() { c.tainted.Store(true) }

// ledger holds the bounds of a pipeline: what is asked of all its producers plus
// what is unsettled stays within MaxUnsettled and MaxUnsettledBytes.
//
// Credit asserts that at each transition. A producer with a prefetch has its
// own ledger of messages, reserved out of the whole; the others share one.
type ledger struct {
	clock clock

	mu sync.Mutex // protects following fields

	shared   *stage.Credit // messages, for producers without a prefetch
	bytes    *stage.Credit
	own      map[*source]*stage.Credit
	bound    int64 // messages, over all
	taken    int64
	highest  int64
	highestB int64

	sources []*source
	live    int     // sources that have not ended
	blocked int     // live sources that wait for credit
	alone   *source // waits for credit of one large message: nobody else is asked

	oldest, newest *chunk
	idle           chan struct{} // closed when nothing is unsettled; nil without a waiter
}

func newLedger(messages, bytes int64, sources []*source) *ledger {
	bytes = max(bytes, 2*leastCharge*int64(len(sources))) // or some could never be asked
	l := &ledger{
		bound: messages, bytes: stage.NewCredit(bytes),
		own: map[*source]*stage.Credit{}, sources: sources,
	}
	rest := messages
	for _, s := range sources {
		if n := int64(s.traits.Prefetch); n > 0 {
			l.own[s] = stage.NewCredit(n)
			rest -= n
		}
	}
	if len(l.own) < len(sources) {
		l.shared = stage.NewCredit(rest) // validate saw that it is at least 1
	}
	return l
}

func (l *ledger) credit(s *source) *stage.Credit {
	if c := l.own[s]; c != nil {
		return c
	}
	return l.shared
}

// ask reserves credit for s: up to want messages, at least one, and bytes in
// proportion; or need bytes for one message, when need is not 0. It waits until
// there is some. onBlocked is called, without the lock, when it has to wait.
func (l *ledger) ask(ctx context.Context, s *source, want func() (most, least int), need int64, onBlocked func()) (Demand, error) {
	defer l.unblock(s)
	for {
		if err := context.Cause(ctx); err != nil {
			return Demand{}, err
		}
		most, least := want()
		d, starved := l.tryAsk(s, int64(most), int64(least), need)
		if d.Messages > 0 {
			return d, nil
		}
		if starved {
			onBlocked()
		}
		select {
		case <-s.wake: // has a token since the last look at want, if that has changed
		case <-ctx.Done():
		}
	}
}

// tryAsk reserves what it can, and nothing as long as credit for least messages is not
// free. Without any it says whether it was for want of credit, and not because want
// was 0 or more credit is waited for.
func (l *ledger) tryAsk(s *source, want, least, need int64) (d Demand, starved bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.credit(s)
	least = min(least, want, max(c.Bound()/4, 1)) // a small prefetch never has more free
	if need == 0 && want > 0 && c.Free() > 0 && c.Free() < least {
		want = 0
	}
	if want > 0 {
		if d = l.reserve(s, want, need); d.Messages > 0 {
			return d, false
		}
	}
	if want > 0 && !s.blocked {
		s.blocked = true
		l.blocked++
	}
	if want <= 0 {
		l.unblockLocked(s) // nobody is to stand back for who does not want anything now
	}
	return Demand{}, want > 0
}

func (l *ledger) reserve(s *source, want, need int64) Demand {
	if l.alone != nil && l.alone != s {
		return Demand{}
	}
	c := l.credit(s)
	if need > 0 {
		return l.reserveOne(s, c, need)
	}
	want = min(want, l.fairShare(s, c))
	if want <= 0 {
		return Demand{}
	}
	room := l.bytes.Free() - leastCharge*l.unasked(s)
	size := int64(float64(l.bytes.Bound()) * float64(want) / float64(l.bound))
	size = min(max(size, leastCharge), room)
	want = min(want, size/leastCharge)
	if want <= 0 {
		return Demand{}
	}
	s.asked = true
	c.Reserve(want)
	return Demand{Messages: int(want), Bytes: l.bytes.Reserve(size) - want*MessageOverhead}
}

// unasked is how many other sources could be asked, and are not: room for a
// message is left to each.
func (l *ledger) unasked(s *source) (n int64) {
	for _, other := range l.sources {
		if other != s && !other.asked && !other.ended {
			n++
		}
	}
	return n
}

// fairShare keeps a floor free for each other source of the shared credit that
// is not asked now; a source whose last ask was not filled gets only its floor.
func (l *ledger) fairShare(s *source, c *stage.Credit) int64 {
	if c != l.shared || l.live <= 1 {
		return c.Free()
	}
	floor := max(1, c.Bound()/int64(8*l.live))
	if !s.filled {
		return min(floor, c.Free())
	}
	kept := int64(0)
	for _, other := range l.sources {
		if other != s && l.own[other] == nil && !other.asked && !other.ended {
			kept += floor
		}
	}
	return max(min(floor, c.Free()), c.Free()-kept)
}

// reserveOne reserves for one message of need bytes, which passes alone when it
// is larger than the bound.
func (l *ledger) reserveOne(s *source, c *stage.Credit, need int64) Demand {
	if c.Free() == 0 {
		return Demand{}
	}
	if charge := need + MessageOverhead; l.bytes.Free() >= charge {
		l.bytes.Reserve(charge)
	} else if !l.bytes.ReserveAlone(charge) {
		l.alone = s
		return Demand{}
	}
	if l.alone != nil {
		l.alone = nil
		l.wakeAll()
	}
	s.asked = true
	c.Reserve(1)
	return Demand{Messages: 1, Bytes: need}
}

// unblock says that s no longer waits for credit.
func (l *ledger) unblock(s *source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unblockLocked(s)
}

func (l *ledger) unblockLocked(s *source) {
	if s.blocked {
		s.blocked = false
		l.blocked--
	}
	if l.alone == s {
		l.alone = nil
		l.wakeAll()
	}
}

// first is the source that the others stand back for, nil for none.
func (l *ledger) first() *source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alone
}

// arrived turns a reservation into taken credit for chunks, and gives the rest
// of it back.
func (l *ledger) arrived(s *source, d Demand, chunks []*chunk, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, c := range chunks {
		n += int64(len(c.messages))
		c.remaining = len(c.messages)
		c.size = c.remaining
		l.linkAfter(l.newest, c)
	}
	c := l.credit(s)
	c.Take(n)
	c.Cancel(int64(d.Messages) - n)
	l.bytes.Take(bytes + n*MessageOverhead)
	l.bytes.Cancel(d.Bytes - bytes + (int64(d.Messages)-n)*MessageOverhead)
	l.taken += n
	l.highest = max(l.highest, l.taken)
	l.highestB = max(l.highestB, l.bytes.Taken())
	s.asked = false
	s.filled = n == int64(d.Messages) || bytes >= d.Bytes
	if int64(d.Messages) > n || d.Bytes > bytes {
		l.wakeAll()
	}
}

// linkAfter puts c behind before, which is nil when there is none.
func (l *ledger) linkAfter(before, c *chunk) {
	c.prev = before
	if before != nil {
		c.next = before.next
		before.next = c
	} else {
		l.oldest = c
	}
	if c.next != nil {
		c.next.prev = c
	} else {
		l.newest = c
	}
}

func (l *ledger) unlink(c *chunk) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.oldest = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.newest = c.prev
	}
}

// settled returns the credit of messages of s, and adds to ended the chunks of which
// they were the last.
func (l *ledger) settled(s *source, settled []settlement, ended []*chunk) []*chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n, bytes int64
	for i := range settled {
		c := settled[i].chunk
		n += int64(len(settled[i].messages))
		if !c.slab {
			for _, m := range settled[i].messages {
				bytes += m.charge() - c.share(m)
			}
		}
		if c.remaining -= len(settled[i].messages); c.remaining == 0 {
			bytes += c.kept
			l.unlink(c)
			ended = append(ended, c)
		}
	}
	l.credit(s).Return(n)
	l.bytes.Return(bytes)
	l.taken -= n
	if l.taken == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
	l.wakeAll()
	return ended
}

// wakeAll makes every source that waits for credit look again.
func (l *ledger) wakeAll() {
	for _, s := range l.sources {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// look makes every source that waits look at its demand again.
func (l *ledger) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeAll()
}

// started and finished count live sources.
func (l *ledger) started(sources []*source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = len(sources)
	for _, s := range sources {
		s.ended = false
	}
}

func (l *ledger) finished(s *source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live--
	s.ended = true
	l.wakeAll()
}

// starved says that some source cannot be asked for want of credit.
func (l *ledger) starved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked > 0
}

// empty waits until nothing is unsettled or ctx ends.
func (l *ledger) empty(ctx context.Context) error {
	l.mu.Lock()
	if l.taken == 0 {
		l.mu.Unlock()
		return nil
	}
	if l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unclaimed lists the messages of the chunks that pick chooses that no worker has
// claimed, having released them in their state, in their order.
func (l *ledger) unclaimed(pick func(*chunk) bool) []*Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Message
	for c := l.oldest; c != nil; c = c.next {
		if !pick(c) {
			continue
		}
		for i := range c.blocks {
			for _, m := range c.blocks[i].claimAll() {
				m.state = stateReleased
				out = append(out, m)
			}
		}
		for _, m := range c.messages {
			if atomic.CompareAndSwapUint32(&m.state, stateOpen, stateReleased) {
				m.marks |= watched // PartitionBy may be about to read it
				c.taint()
				out = append(out, m)
			}
		}
	}
	return out
}

// age is how long ago the oldest unsettled message was fetched.
func (l *ledger) age(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.oldest == nil {
		return 0
	}
	return now.Sub(l.oldest.fetchedAt)
}
