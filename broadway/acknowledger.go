package broadway

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Acknowledger tells a source what became of its messages. Producers bring
// theirs: a receipt is minted where the message is born.
type Acknowledger interface {
	// Ack settles messages of ref: ok succeeded, failed did not, and each
	// failed message's Action says what its policy decided (a message with
	// ActionDeadLetter has been dead-lettered, and confirmed, already; requeue
	// once comes as ActionRequeue or ActionReject). Order
	// within each list is the order of completion. Neither list holds a
	// message that an earlier call for ref held.
	//
	// Calls for one ref are serial; the lists must not be kept after the call.
	// After an error the pipeline releases the
	// group: its messages count as unsettled at the source, and other groups
	// are not touched.
	Ack(ctx context.Context, ref *AckRef, ok, failed []*Message) error
}

// Releaser is an optional interface of an Acknowledger: it takes back messages
// that were not processed (the pipeline drains, a partition is revoked, a share
// is exhausted), without counting an attempt where the source can tell. Without
// it, released messages simply stay unsettled at the source.
type Releaser interface {
	// Release gives back messages of ref, serially with Ack for the same ref.
	Release(ctx context.Context, ref *AckRef, messages []*Message) error
}

// settler is the acknowledger stage of one source: the one goroutine that calls
// its Acknowledger, so that calls for a reference are serial. What gathers while
// a call runs goes into the next one.
type settler struct {
	p      *Pipeline
	source *source
	box    mailbox

	mu     sync.Mutex   // protects following field
	posted []settlement // of batches

	// The settler goroutine's own, reused.
	groups     []*settleGroup
	next       int          // of groups, to be settled
	taken      []settlement // what posted was
	single     []*Message   // what came one by one
	ok, failed []*Message
	ended      []*chunk
}

// settlement is messages of one chunk that have the same outcome, at one stage.
type settlement struct {
	chunk    *chunk
	at       *batcher // nil is the pool
	state    uint32
	messages []*Message
}

// settleGroup is the settled messages of one reference, in order of completion.
type settleGroup struct {
	ref  *AckRef
	list []settlement
	n    int // messages
}

func newSettler(p *Pipeline, src *source) *settler {
	s := &settler{p: p, source: src}
	s.box.init()
	return s
}

// run settles until stop is closed. ctx bounds the calls. An Acknowledger that
// calls runtime.Goexit ends the goroutine: its last act is to start the next one,
// which goes on with the next group.
func (s *settler) run(ctx context.Context, stop <-chan struct{}, start func(func())) {
	exiting := true
	defer func() {
		if exiting {
			start(func() { s.run(ctx, stop, start) })
		}
	}()
	for {
		for s.next < len(s.groups) || s.gather() {
			g := s.groups[s.next]
			s.next++
			s.settle(ctx, g)
		}
		if !s.rest() {
			continue
		}
		select {
		case <-s.box.wake:
		case <-stop:
			exiting = false
			return
		}
		s.box.asleep.Store(false)
	}
}

// rest announces that the settler is about to wait, and says whether it may.
func (s *settler) rest() bool {
	if !s.box.rest() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.posted) == 0 {
		s.forget()
		return true
	}
	s.box.asleep.Store(false)
	return false
}

// keptRoom is how much room for messages a settler keeps while it rests: to empty it
// costs, each time.
const keptRoom = 1024

// emptied is s without what it held, and without its room if that is large.
func emptied[T any](s []T) []T {
	if cap(s) > keptRoom {
		return nil
	}
	clear(s[:cap(s)])
	return s[:0]
}

// forget lets the collector have what was settled. s.mu is held.
func (s *settler) forget() {
	s.single, s.posted, s.taken = emptied(s.single), emptied(s.posted), emptied(s.taken)
	s.ok, s.failed, s.ended = emptied(s.ok), emptied(s.failed), emptied(s.ended)
	for _, g := range s.groups[:cap(s.groups)] {
		if g == nil {
			break
		}
		g.ref, g.list = nil, emptied(g.list)
	}
	s.groups, s.next = s.groups[:0], 0
}

// post takes over settled messages.
func (s *settler) post(settled []settlement) {
	s.mu.Lock()
	s.posted = append(s.posted, settled...)
	s.mu.Unlock()
	s.box.rouse()
}

// gather groups what waits by reference, and says whether anything did.
func (s *settler) gather() bool {
	s.groups, s.next = s.groups[:0], 0
	s.single = s.single[:0]
	s.mu.Lock()
	s.taken, s.posted = s.posted, s.taken[:0]
	s.mu.Unlock()
	for m := s.box.pop(); m != nil; m = s.box.pop() {
		s.add(m)
	}
	for _, part := range s.taken {
		s.group(part)
	}
	return len(s.groups) > 0
}

// add groups a message that came alone, if it can together with the one before.
func (s *settler) add(m *Message) {
	g := s.of(m.ref)
	s.single = append(s.single, m)
	n := len(s.single)
	g.n++
	state := atomic.LoadUint32(&m.state)
	if last := len(g.list) - 1; last >= 0 && n > 1 {
		part := &g.list[last]
		if k := len(part.messages); part.chunk == m.chunk && part.at == m.batcher() && part.state == state && part.messages[k-1] == s.single[n-2] {
			part.messages = s.single[n-1-k : n : n]
			return
		}
	}
	g.list = append(g.list, settlement{chunk: m.chunk, at: m.batcher(), state: state, messages: s.single[n-1 : n : n]})
}

func (s *settler) group(part settlement) {
	g := s.of(part.chunk.ref)
	g.list = append(g.list, part)
	g.n += len(part.messages)
}

// of is the group of ref, which keeps its place while it lasts.
func (s *settler) of(ref *AckRef) *settleGroup {
	if i := ref.group; i < len(s.groups) && s.groups[i].ref == ref {
		return s.groups[i]
	}
	n := len(s.groups)
	if n < cap(s.groups) && s.groups[:n+1][n] != nil {
		s.groups = s.groups[:n+1]
	} else {
		s.groups = append(s.groups, new(settleGroup))
	}
	g := s.groups[n]
	g.ref, g.list, g.n = ref, g.list[:0], 0
	ref.group = n
	return g
}

// settle tells the source about one group, and returns its credit.
func (s *settler) settle(ctx context.Context, g *settleGroup) {
	e, released := s.sort(g)
	defer func() { s.done(g, e) }() // also when a call ends the goroutine
	switch {
	case g.ref.Ended():
		e = SettleEvent{Pipeline: e.Pipeline, Stale: g.n}
	case s.p.aborted.Load():
		e = SettleEvent{Pipeline: e.Pipeline, Released: g.n}
	default:
		s.ack(ctx, g.ref, func(err error) {
			e = SettleEvent{Pipeline: e.Pipeline, Released: g.n, Err: err}
			s.release(ctx, g.ref, g.all())
			released = nil
		})
		s.release(ctx, g.ref, released)
	}
}

// all lists the messages of g.
func (g *settleGroup) all() []*Message {
	all := make([]*Message, 0, g.n)
	for _, part := range g.list {
		all = append(all, part.messages...)
	}
	return all
}

// sort fills the lists of an Ack, and gives what is released instead.
func (s *settler) sort(g *settleGroup) (e SettleEvent, released []*Message) {
	e.Pipeline = s.p.cfg.Name
	s.ok, s.failed = s.ok[:0], s.failed[:0]
	for _, part := range g.list {
		n := len(part.messages)
		switch part.state {
		case stateSucceeded:
			s.ok = append(s.ok, part.messages...)
			e.Succeeded += n
		case stateReleased:
			released = append(released, part.messages...)
			e.Released += n
			if part.chunk.recalled.Load() {
				s.p.count.recalled.Add(int64(n))
			}
		case stateDeadLettered:
			s.failed = append(s.failed, part.messages...)
			e.DeadLettered += n
		default:
			s.failed = append(s.failed, part.messages...)
			e.Failed += n
		}
	}
	return e, released
}

// ack makes one call, if there is anything to say. It calls failed when that
// fails: with an error, a panic, or the end of the goroutine.
func (s *settler) ack(ctx context.Context, ref *AckRef, failed func(error)) {
	if len(s.ok)+len(s.failed) == 0 {
		return
	}
	err := ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		if err != nil {
			s.p.log().Error("acknowledging failed, the messages stay unsettled",
				"producer", s.source.name, "messages", len(s.ok)+len(s.failed), "err", err)
			failed(err)
		}
	}()
	err = ref.acker.Ack(ctx, ref, s.ok, s.failed)
}

// release gives messages back, where the source takes them.
func (s *settler) release(ctx context.Context, ref *AckRef, messages []*Message) {
	r, ok := ref.acker.(Releaser)
	if !ok || len(messages) == 0 {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.p.log().Error("giving back panicked", "producer", s.source.name, "messages", len(messages), "panic", v)
		}
	}()
	if err := r.Release(ctx, ref, messages); err != nil {
		s.p.log().Error("giving back failed", "producer", s.source.name, "messages", len(messages), "err", err)
	}
}

// done counts a settled group and returns its credit: last, so that whoever
// waits for the credit finds the rest done.
func (s *settler) done(g *settleGroup, e SettleEvent) {
	s.p.count.settled(e)
	if s.p.cut.Load() {
		s.p.count.cut.Add(int64(e.Released))
	}
	s.p.cfg.Observer.Settled(e)
	for _, part := range g.list {
		if part.at != nil {
			part.at.held.Add(-int64(len(part.messages)))
		}
		if !part.chunk.slab || part.chunk.single {
			for _, m := range part.messages {
				m.drop()
			}
		}
	}
	s.ended = s.p.ledger.settled(s.source, g.list, s.ended[:0])
	for _, c := range s.ended {
		c.retire()
	}
	g.ref.settled(g.n)
}

// settle moves m to its outcome and hands it to its source's settler.
func (p *Pipeline) settle(m *Message, outcome uint32) {
	if !m.settle(outcome) {
		p.count.doubled.Add(1)
		return
	}
	m.chunk.source.settler.box.post(m)
}

// succeed settles messages of a batch: those of one chunk that stand together at once.
func (p *Pipeline) succeed(messages []*Message) {
	var buffer [16]settlement
	parts := buffer[:0]
	for from := 0; from < len(messages); {
		c, to := messages[from].chunk, from
		for to < len(messages) && messages[to].chunk == c && messages[to].settle(stateSucceeded) {
			to++
		}
		if to == from {
			p.count.doubled.Add(1)
			from++
			continue
		}
		if n := len(parts); n > 0 && (n == cap(parts) || parts[0].chunk.source != c.source) {
			parts[0].chunk.source.settler.post(parts)
			parts = parts[:0]
		}
		parts = append(parts, settlement{chunk: c, at: messages[from].batcher(), state: stateSucceeded, messages: messages[from:to]})
		from = to
	}
	if len(parts) > 0 {
		parts[0].chunk.source.settler.post(parts)
	}
}

// release gives messages back unsettled.
func (p *Pipeline) release(messages ...*Message) {
	for _, m := range messages {
		p.settle(m, stateReleased)
	}
}

// sweep releases the messages of ref (of all references, when nil) that no
// worker has claimed.
func (p *Pipeline) sweep(ref *AckRef) {
	p.sweepIf(func(c *chunk) bool { return ref == nil || c.ref == ref })
}

// sweepIf does so for the chunks that pick chooses.
func (p *Pipeline) sweepIf(pick func(*chunk) bool) {
	for _, m := range p.ledger.unclaimed(pick) {
		m.chunk.source.settler.box.post(m)
	}
}
