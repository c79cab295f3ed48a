package rabbitmq

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// open makes one attempt at a session: it connects, declares, bounds what may be
// delivered, and consumes.
func (p *Producer) open(ctx context.Context) (*session, error) {
	s, err := connect(ctx, &p.server, p.begin)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: queue %q: %w", p.cfg.Queue, err)
	}
	return s, nil
}

// begin makes l a session.
func (p *Producer) begin(l *link) (*session, error) {
	queue := p.cfg.Queue
	t := topology{exchanges: p.cfg.Exchanges, bindings: slices.Clone(p.cfg.Bindings)}
	for i := range t.bindings {
		t.bindings[i].Queue = queue
	}
	if p.cfg.Declare != nil {
		declare := *p.cfg.Declare
		declare.Name = queue
		t.queues = []QueueDeclare{declare}
	}
	names, err := t.declare(l.conn)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		queue = names[0]
	}
	// Answers must pass, however large the message is that comes first.
	l.gate.open()
	defer l.gate.shut()
	s, err := p.prepare(l, queue, true)
	if cannotGet(err) {
		s, err = p.prepare(l, queue, false)
	}
	return s, err
}

// prepare opens a channel that consumes queue, after a look at its first message
// where counts says that those may be counted.
func (p *Producer) prepare(l *link, queue string, counts bool) (*session, error) {
	ch, err := l.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", plain(err))
	}
	s := newSession(p, l, ch, queue)
	s.counts = s.counts && counts
	if err := s.first(); err != nil {
		return nil, err
	}
	if s.narrow && s.prefetch > 1 {
		return s, nil // the consumer starts when the suspect is settled
	}
	if s.deliveries, err = s.consume(); err != nil {
		return nil, err
	}
	return s, nil
}

// supervise serves one session after the other, never two at a time: the next is
// opened when the last is closed.
func (p *Producer) supervise(ctx context.Context, s *session) {
	for attempt := 0; s != nil; s = p.reopen(ctx, attempt) {
		err := s.serve(ctx)
		p.abandon(ctx, err)
		attempt++
		if s.progress() {
			attempt = 0
		}
	}
}

// adopt makes s the session that is used. It is called with mu held. The mode may
// have changed while s was being opened, and nobody told s.
func (p *Producer) adopt(s *session) {
	p.counters.sessions.Add(1)
	p.session, p.err, s.mode = s, nil, p.mode
	p.change()
}

// abandon takes the session out of use, which ended with err.
func (p *Producer) abandon(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = nil
	if ctx.Err() != nil {
		p.ending = err
	} else {
		p.err = err
		note(&p.history.lost)
	}
	p.change()
}

// reopen opens the next session, trying without end, or returns nil when none is
// wanted any longer. attempt is how many failed before, without success in
// between.
func (p *Producer) reopen(ctx context.Context, attempt int) *session {
	for ; ; attempt++ {
		_, _, changed := p.state()
		if !sleep(ctx, p.cfg.Backoff, attempt, changed) || !p.wanted(ctx) {
			return nil
		}
		s, err := p.open(ctx)
		if err == nil {
			s.announce()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.adopt(s)
			return s
		}
		if ctx.Err() != nil {
			return nil
		}
		p.cfg.Logger.Warn("rabbitmq: cannot consume", "queue", p.cfg.Queue, "broker", p.server.String(), "attempt", attempt+1, "error", err)
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}
}

// wanted waits while the Producer is paused, and says whether it then runs.
func (p *Producer) wanted(ctx context.Context) bool {
	for {
		_, m, changed := p.state()
		if m != modePaused {
			return m == modeRunning && ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// newSession makes the session of ch, which consumes nothing yet.
func newSession(p *Producer, l *link, ch *amqp.Channel, queue string) *session {
	p.mu.Lock()
	prefetch := p.prefetch
	p.mu.Unlock()
	s := &session{
		p: p, link: l, ch: ch, queue: queue, prefetch: prefetch,
		base:     or(p.cfg.Consumer.Tag, fmt.Sprintf("broadway-%016x", rand.Uint64())),
		counts:   p.cfg.counts(prefetch),
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		canceled: ch.NotifyCancel(make(chan string, 1)),
		ready:    make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		commands: make(chan command),
		over:     make(chan struct{}),
	}
	s.narrow = s.counts && prefetch == 1
	s.lag.Store(-1)
	s.ref = broadway.NewAckRef(s, nil, 0)
	l.gate.tell(s.gated)
	return s
}
