package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gobroadway/gobroadway/broadway"
)

// ErrClosed is returned by a Producer or Publisher after Close.
var ErrClosed = errors.New("rabbitmq: closed")

// Producer consumes one queue. It is made by NewProducer, and a pipeline calls
// its methods.
type Producer struct {
	cfg      Config
	server   endpoint
	invalid  error
	counters counters
	running  sync.WaitGroup // the supervisor: started by Connect, waited for by Close
	history  history

	mu       sync.Mutex // protects following fields
	prefetch int
	session  *session // nil while there is none
	mode     mode
	err      error              // why there is no session
	stop     context.CancelFunc // ends the supervisor; nil before Connect
	changed  chan struct{}      // closed, and replaced, when session or mode changes
	ending   error              // what Close returns
}

// mode is what a pipeline wants of a Producer.
type mode uint8

const (
	modeRunning mode = iota
	modePaused
	modeDraining
	modeClosed
)

type counters struct {
	sessions, stale, returned, refused, flattened atomic.Int64
}

// Stats counts what a Producer did, since it was made.
type Stats struct {
	// Sessions is how many times it has connected and consumed.
	Sessions int64
	// Stale counts settles of messages whose session had ended: never sent, and
	// delivered again.
	Stale int64
	// Returned counts messages that were delivered but never fetched, and given
	// back while pausing or draining, or because of AckTimeout.
	Returned int64
	// Refused counts settles of messages that were settled already. There are
	// none, unless the pipeline is wrong.
	Refused int64
	// Flattened counts deliveries with headers that the client cannot read, so
	// that parts of them came as bytes: see the package's documentation.
	Flattened int64
}

// NewProducer makes the consumer of one queue. It dials nothing; mistakes in cfg
// are reported by Validate, which broadway.New calls.
func NewProducer(cfg Config) *Producer {
	p := &Producer{invalid: cfg.Validate(), changed: make(chan struct{})}
	if p.invalid == nil {
		p.server, _ = cfg.server()
	}
	p.cfg = cfg.withDefaults()
	p.prefetch = or(cfg.Prefetch, defaultPrefetch)
	return p
}

var (
	_ broadway.Producer      = (*Producer)(nil)
	_ broadway.Describer     = (*Producer)(nil)
	_ broadway.Validator     = (*Producer)(nil)
	_ broadway.Connector     = (*Producer)(nil)
	_ broadway.Drainer       = (*Producer)(nil)
	_ broadway.Pauser        = (*Producer)(nil)
	_ broadway.Lagger        = (*Producer)(nil)
	_ broadway.HealthChecker = (*Producer)(nil)
)

// Validate reports every mistake of the Config, each as a *FieldError.
func (p *Producer) Validate() error { return p.invalid }

// Describe tells the pipeline what this source is, and derives the prefetch from
// l when the Config leaves it open.
func (p *Producer) Describe(l broadway.Limits) broadway.Traits {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.Prefetch == 0 {
		p.prefetch = min(max(l.Share, 1), MaxPrefetch)
	}
	p.server.maxHeld = shareOf(l)
	return broadway.Traits{
		Kind: "rabbitmq", Name: p.cfg.Queue, Broker: true,
		Actions:       broadway.ActionSet(broadway.ActionReject, broadway.ActionRequeue, broadway.ActionRequeueOnce),
		Prefetch:      p.prefetch,
		AckTimeout:    max(p.cfg.AckTimeout, 0),
		CountsReturns: p.cfg.Declare.limited(),
		TLSInsecure:   p.server.tls != nil && p.server.tls.InsecureSkipVerify,
	}
}

// shareOf is the source's part of MaxUnsettledBytes, which may be as large as a
// number: the quotient comes first.
func shareOf(l broadway.Limits) int64 {
	whole, share := int64(max(l.MaxUnsettled, 1)), int64(l.Share)
	return max(l.MaxUnsettledBytes/whole*share+l.MaxUnsettledBytes%whole*share/whole, 1)
}

// Connect connects once, declares what is to be declared, and starts to consume.
// From then on the Producer keeps itself connected, until Close.
func (p *Producer) Connect(ctx context.Context) error {
	if p.invalid != nil {
		return p.invalid
	}
	if done, err := p.connected(); done {
		return err
	}
	p.server.warn(p.cfg.Logger)
	s, err := p.open(ctx)
	if err != nil {
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		return err
	}
	s.announce()
	s.warn()
	// The supervisor outlives this call, so it outlives ctx, too.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.mu.Lock()
	if p.stop != nil || p.mode == modeClosed {
		p.mu.Unlock()
		stop()
		return errors.Join(ErrClosed, s.link.close(p.server.closing()))
	}
	p.stop = stop
	p.adopt(s)
	p.running.Go(func() { p.supervise(work, s) })
	p.mu.Unlock()
	return nil
}

// connected says whether nothing is left to do for Connect.
func (p *Producer) connected() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == modeClosed {
		return true, ErrClosed
	}
	return p.stop != nil, nil
}

// Fetch returns what the broker has delivered, up to d, or waits for it. While
// there is no connection it waits, too: Health says why.
func (p *Producer) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s, m, changed := p.state()
		var ready <-chan struct{}
		switch {
		case m == modeClosed:
			return nil, broadway.Fatal(ErrClosed)
		case m == modeRunning && s != nil:
			if messages, err := s.take(d); len(messages) > 0 || err != nil {
				return messages, err
			}
			ready = s.ready
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-ready:
		}
	}
}

// state is the session that is to be used now, if any, what is wanted of it, and
// a channel that is closed when either changes.
func (p *Producer) state() (*session, mode, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session, p.mode, p.changed
}

// become changes the mode, unless the Producer is past that, and returns the
// session.
func (p *Producer) become(m mode) (*session, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode >= modeDraining && m <= p.mode {
		return p.session, false
	}
	p.mode = m
	p.change()
	return p.session, true
}

// change wakes whoever waits for a change. It is called with mu held.
func (p *Producer) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Pause cancels the consumer and hands back what was never fetched; the
// connection stays, for the acknowledgements of what was. With a single active
// consumer it only stops fetching: the session ends, and with it the turn of
// this consumer, once what was fetched is settled.
func (p *Producer) Pause(ctx context.Context) error {
	s, ok := p.become(modePaused)
	if !ok || s == nil {
		return nil
	}
	return s.ask(ctx, commandPause)
}

// Resume consumes again after Pause.
func (p *Producer) Resume(ctx context.Context) error {
	s, ok := p.become(modeRunning)
	if !ok || s == nil {
		return nil
	}
	return s.ask(ctx, commandResume)
}

// Drain cancels the consumer and hands back what was never fetched. With a
// single active consumer it leaves both to Close.
func (p *Producer) Drain(ctx context.Context) error {
	s, ok := p.become(modeDraining)
	if !ok || s == nil {
		return nil
	}
	return s.ask(ctx, commandDrain)
}

// Close sends the last acknowledgements, closes channel and connection, and
// waits for the broker's answer to both, at most for Config.CloseTimeout. The
// error says that it did not come: then some of what was acknowledged may be
// delivered again.
func (p *Producer) Close() error {
	p.become(modeClosed)
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
	p.running.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ending
}

// Health is nil while the queue is consumed, or paused on purpose; otherwise it
// says why not.
func (p *Producer) Health() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return p.err
	case p.session == nil && p.mode == modeRunning:
		return fmt.Errorf("rabbitmq: queue %q: not connected", p.cfg.Queue)
	}
	return nil
}

// Lag is how many messages wait in the queue, those that are delivered here and
// not settled included, as the broker said last. Nil when it has not yet.
func (p *Producer) Lag() []broadway.Lag {
	s, _, _ := p.state()
	if s == nil {
		return nil
	}
	waiting, ok := s.waiting()
	if !ok {
		return nil
	}
	return []broadway.Lag{{Source: s.queue, Messages: waiting}}
}

// Stats counts what happened so far.
func (p *Producer) Stats() Stats {
	c := &p.counters
	return Stats{
		Sessions: c.sessions.Load(), Stale: c.stale.Load(),
		Returned: c.returned.Load(), Refused: c.refused.Load(),
		Flattened: c.flattened.Load(),
	}
}
