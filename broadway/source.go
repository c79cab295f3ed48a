package broadway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// source is the producer stage: one producer, and the loop that asks it.
type source struct {
	p        *Pipeline
	producer Producer
	traits   Traits
	name     string
	settler  *settler
	fetched  atomic.Int64
	over     atomic.Int64 // messages that are parked beyond what may be: it is not asked

	wake chan struct{} // one token: look at the demand again

	// Protected by the ledger's lock. filled says that the last ask was
	// filled; asked that Fetch runs; blocked that the source waits for credit.
	filled, asked, blocked, ended bool

	mu        sync.Mutex // protects following fields
	connected bool
	err       error
	demand    int
	lastFetch time.Time
	interrupt context.CancelCauseFunc // of the Fetch that runs, or nil
	returned  chan struct{}           // closed when the Fetch that runs returns; nil without a waiter

	arrived arrival // what the last Fetch brought, of run's own
}

// The causes with which a Fetch is interrupted: by Pause, and by a source that needs
// all credit for one large message.
var (
	errPaused = errors.New("broadway: paused")
	errYield  = errors.New("broadway: another source goes first")
)

// run asks and fetches until ctx ends, the source is done, or it fails for good.
func (s *source) run(ctx context.Context) {
	defer s.p.nudge()
	defer s.p.ledger.finished(s)
	if !s.connect(ctx) {
		return
	}
	var need int64
	fetching, interrupt := context.WithCancelCause(ctx)
	defer func() { interrupt(nil) }()
	for failures := 0; ; {
		d, err := s.p.ledger.ask(ctx, s, s.want, need, func() { s.starve(need) })
		if err != nil {
			return
		}
		if fetching.Err() != nil && ctx.Err() == nil { // the last Fetch was interrupted
			fetching, interrupt = context.WithCancelCause(ctx) //nolint:fatcontext // made of ctx, not of the last one
		}
		n, err := s.fetch(fetching, interrupt, d)
		need, _ = NeededBytes(err)
		switch {
		case n > 0 || need > 0 || errors.Is(err, errPaused) || errors.Is(err, errYield):
			failures = 0
		case isFatal(err):
			s.p.stop(fmt.Errorf("producer %s: %w", s.name, err))
			return
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return
		default:
			failures++
			s.report(err)
			if !s.p.backOff(ctx, failures, "fetch failed", s.name, err) {
				return
			}
		}
	}
}

// keeps says that messages of s are not given back singly for want of room: others
// would overtake them, or come again for their sake, or the broker would take them away.
func (s *source) keeps() bool {
	return s.traits.Rewinds || s.traits.CountsReturns || s.p.cfg.Processor.PartitionBy != nil
}

// want is what s is asked for.
func (s *source) want() (most, least int) {
	if s.over.Load() > 0 {
		return 0, 0
	}
	return s.p.want()
}

// starve is called when s has to wait for credit: open batches may have to be
// flushed, and for one large message the others have to let go of what they
// reserved.
func (s *source) starve(need int64) {
	s.p.nudge()
	if need == 0 || s.p.ledger.first() != s {
		return
	}
	for _, other := range s.p.sources {
		if other != s {
			other.cut(errYield)
		}
	}
}

func isFatal(err error) bool {
	kind, _ := classify(err)
	return err != nil && kind == adviseFatal
}

// connect makes the first connection, and says whether there is one.
func (s *source) connect(ctx context.Context) bool {
	c, ok := s.producer.(Connector)
	s.mu.Lock()
	ok = ok && !s.connected
	s.mu.Unlock()
	for failures := 1; ok; failures++ {
		err := c.Connect(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		s.report(err)
		if s.p.cfg.FailFast || isFatal(err) {
			s.p.stop(fmt.Errorf("producer %s: first connection: %w", s.name, err))
			return false
		}
		if !s.p.backOff(ctx, failures, "cannot connect", s.name, err) {
			return false
		}
	}
	s.mu.Lock()
	first := !s.connected
	s.connected, s.err = true, nil
	s.mu.Unlock()
	if first {
		s.p.unfirst.Add(-1)
	}
	return true
}

// fetch calls Fetch once with d, hands on what it returns, and says how much that is.
// interrupt ends ctx.
func (s *source) fetch(ctx context.Context, interrupt context.CancelCauseFunc, d Demand) (n int, err error) {
	s.begin(d, interrupt)
	start := time.Now()
	messages, err := s.guarded(ctx, d)
	bytes, broken := weigh(messages, d)
	if broken != nil {
		for _, m := range messages {
			m.ref.returned(1)
		}
		messages, bytes, err = nil, 0, Fatal(broken)
	}
	n = len(messages)
	a := s.accept(messages)
	if n > 0 {
		s.p.pool.dispatch.prepare(a)
	}
	// What the ledger knows may be swept, and what is published may settle, and its
	// chunk be used again, at any time.
	refs := s.refs(a)
	s.p.ledger.arrived(s, d, a.chunks, bytes)
	s.end(n)
	s.p.cfg.Observer.Fetched(FetchEvent{
		Pipeline: s.p.cfg.Name, Producer: s.name, Demand: d,
		Messages: n, Bytes: bytes, Duration: time.Since(start), Err: err,
	})
	if n > 0 {
		s.p.pool.dispatch.publish(a)
	}
	// A reference that drains from here on calls refDrains, and finds its messages
	// in the ledger. One that drained before is seen here.
	for _, ref := range refs {
		ref.bind(s.p)
		if ref.Draining() {
			s.p.refDrains(ref)
		}
	}
	return n, err
}

// refs are the references of a's chunks.
func (s *source) refs(a *arrival) []*AckRef {
	s.arrived.refs = s.arrived.refs[:0]
	for _, c := range a.chunks {
		if n := len(s.arrived.refs); n == 0 || s.arrived.refs[n-1] != c.ref {
			s.arrived.refs = append(s.arrived.refs, c.ref)
		}
	}
	return s.arrived.refs
}

// guarded calls Fetch, unless it was interrupted before it began, and turns its
// panic into an error.
func (s *source) guarded(ctx context.Context, d Demand) (messages []*Message, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	defer func() {
		if v := recover(); v != nil {
			messages, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return s.producer.Fetch(ctx, d)
}

// weigh sums the sizes of messages, and says how they break the contract.
func weigh(messages []*Message, d Demand) (bytes int64, err error) {
	for _, m := range messages {
		bytes += m.size
	}
	if len(messages) > d.Messages || bytes > d.Bytes {
		err = fmt.Errorf("broadway: Fetch returned %d messages of %d bytes for a demand of %d messages of %d bytes",
			len(messages), bytes, d.Messages, d.Bytes)
	}
	return bytes, err
}

// arrival is what a Fetch brought.
type arrival struct {
	messages []*Message
	n        int
	chunks   []*chunk
	refs     []*AckRef
	span     *span // of the cursor's

	counts []int32 // of messages by lane, of the lanes'; 0 in between
	full   []int32 // which are not 0, as they first occur
}

// accept cuts messages into chunks, none of which mixes references.
func (s *source) accept(messages []*Message) *arrival {
	a := &s.arrived
	a.messages, a.n, a.chunks = messages, len(messages), a.chunks[:0]
	now := time.Now()
	for start := 0; start < len(messages); {
		end := start + 1
		for end < len(messages) && messages[end].ref == messages[start].ref && messages[end].marks&begins == 0 {
			end++
		}
		a.chunks = append(a.chunks, s.chunk(messages[start:end:end], now))
		start = end
	}
	return a
}

// chunk makes a chunk of messages.
func (s *source) chunk(messages []*Message, now time.Time) *chunk {
	c := birthOf(messages)
	if c == nil {
		c = &chunk{messages: messages}
	}
	c.source, c.ref, c.fetchedAt, c.due = s, messages[0].ref, now, s.due(messages[0], now)
	c.cover(messages)
	most := s.p.cfg.Failure.MaxAttempts
	for _, m := range messages {
		if m.chunk != c {
			m.chunk = c
		}
		if err := s.p.cfg.MessageLimits.exceeded(m); err != nil {
			m.err = err
		}
		if m.Attempt > 1 {
			m.earlier = int16(min(m.Attempt-1, math.MaxInt16))
			if int(m.earlier) >= most {
				m.Attempt, m.err = int(m.earlier), fmt.Errorf("%w: %d ended with their process, of %d", ErrAttemptsExhausted, m.earlier, most)
			}
		}
	}
	return c
}

// begin and end bracket a Fetch, for Pause and Stats.
func (s *source) begin(d Demand, cancel context.CancelCauseFunc) {
	s.mu.Lock()
	s.interrupt, s.demand, s.err = cancel, d.Messages, nil
	s.mu.Unlock()
	// Whoever interrupts says why first: it either finds interrupt set, or is seen
	// here.
	if s.p.paused.Load() {
		cancel(errPaused)
	}
	if first := s.p.ledger.first(); first != nil && first != s {
		cancel(errYield)
	}
}

func (s *source) end(n int) {
	s.mu.Lock()
	s.interrupt, s.demand = nil, 0
	if n > 0 {
		s.lastFetch = time.Now()
	}
	if s.returned != nil {
		close(s.returned)
		s.returned = nil
	}
	s.mu.Unlock()
	s.fetched.Add(int64(n))
}

// halt interrupts the Fetch that runs, if any, and waits until it has returned.
func (s *source) halt(ctx context.Context) error {
	done := s.cut(errPaused)
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cut interrupts the Fetch that runs, and returns what is closed when it has
// returned; nil when none runs. Should it return in between, the next one may be
// interrupted in its place, and is called again.
func (s *source) cut(cause error) chan struct{} {
	s.mu.Lock()
	interrupt := s.interrupt
	if interrupt != nil && s.returned == nil {
		s.returned = make(chan struct{})
	}
	done := s.returned
	s.mu.Unlock()
	if interrupt != nil {
		interrupt(cause)
	}
	return done
}

func (s *source) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) stats() ProducerStats {
	s.mu.Lock()
	st := ProducerStats{
		Name: s.name, Kind: s.traits.Kind, Connected: s.connected, Asked: s.demand, TLSInsecure: s.traits.TLSInsecure,
		Fetched: s.fetched.Load(), LastFetch: s.lastFetch, Err: s.err,
	}
	s.mu.Unlock()
	if h, ok := s.producer.(HealthChecker); ok && st.Err == nil && st.Connected {
		st.Err = h.Health()
	}
	if l, ok := s.producer.(Lagger); ok {
		st.Lag = l.Lag()
	}
	if g, ok := s.producer.(GapCounter); ok {
		gaps := g.Gaps()
		st.Gaps = &gaps
	}
	return st
}
