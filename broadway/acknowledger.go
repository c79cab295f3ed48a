package broadway

import (
	"context"
	"runtime/debug"
	"sync"
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

	mu    sync.Mutex // protects following field
	swept []*Message // released while still linked in another queue

	// The settler goroutine's own, reused.
	groups     []*settleGroup
	next       int // of groups, to be settled
	ok, failed []*Message
}

// settleGroup is the settled messages of one reference, in order of completion.
type settleGroup struct {
	ref      *AckRef
	messages []*Message
}

func newSettler(p *Pipeline, src *source) *settler {
	s := &settler{p: p, source: src}
	s.box.init()
	return s
}

// sweep takes messages that may still be linked in a queue of another stage.
func (s *settler) sweep(messages []*Message) {
	s.mu.Lock()
	s.swept = append(s.swept, messages...)
	s.mu.Unlock()
	s.box.nudge()
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
		if !s.box.rest() {
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

// gather groups what waits by reference, and says whether anything did.
func (s *settler) gather() bool {
	s.groups, s.next = s.groups[:0], 0
	s.mu.Lock()
	swept := s.swept
	s.swept = nil
	s.mu.Unlock()
	for _, m := range swept {
		s.group(m)
	}
	for m := s.box.pop(); m != nil; m = s.box.pop() {
		s.group(m)
	}
	return len(s.groups) > 0
}

func (s *settler) group(m *Message) {
	for _, g := range s.groups {
		if g.ref == m.ref {
			g.messages = append(g.messages, m)
			return
		}
	}
	s.groups = append(s.groups, &settleGroup{ref: m.ref, messages: []*Message{m}})
}

// settle tells the source about one group, and returns its credit.
func (s *settler) settle(ctx context.Context, g *settleGroup) {
	e, released := s.sort(g)
	defer func() { s.done(g, e) }() // also when a call ends the goroutine
	switch {
	case g.ref.Ended():
		e = SettleEvent{Pipeline: e.Pipeline, Stale: len(g.messages)}
	case s.p.aborted.Load():
		e = SettleEvent{Pipeline: e.Pipeline, Released: len(g.messages)}
	default:
		s.ack(ctx, g.ref, func(err error) {
			e = SettleEvent{Pipeline: e.Pipeline, Released: len(g.messages), Err: err}
			s.release(ctx, g.ref, g.messages)
			released = nil
		})
		s.release(ctx, g.ref, released)
	}
}

// sort fills the lists of an Ack, and gives what is released instead.
func (s *settler) sort(g *settleGroup) (e SettleEvent, released []*Message) {
	e.Pipeline = s.p.cfg.Name
	s.ok, s.failed = s.ok[:0], s.failed[:0]
	for _, m := range g.messages {
		switch m.state.Load() {
		case stateSucceeded:
			s.ok = append(s.ok, m)
			e.Succeeded++
		case stateReleased:
			released = append(released, m)
			e.Released++
			if m.chunk.recalled.Load() {
				s.p.count.recalled.Add(1)
			}
		case stateDeadLettered:
			s.failed = append(s.failed, m)
			e.DeadLettered++
		default:
			s.failed = append(s.failed, m)
			e.Failed++
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
	for _, m := range g.messages {
		if m.at != nil {
			m.at.held.Add(-1)
		}
		m.drop()
	}
	n := len(g.messages)
	s.p.ledger.settled(s.source, g.messages)
	g.ref.settled(n)
}

// settle moves m to its outcome and hands it to its source's settler.
func (p *Pipeline) settle(m *Message, outcome uint32) {
	if !m.settle(outcome) {
		p.count.doubled.Add(1)
		return
	}
	m.chunk.source.settler.box.post(m)
}

func (p *Pipeline) succeed(messages []*Message) {
	for _, m := range messages {
		p.settle(m, stateSucceeded)
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
		m.chunk.source.settler.sweep([]*Message{m})
	}
}
