package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// slabSize is how many messages are allocated at once.
const slabSize = 64

// session is one connection with one channel, at most one consumer on it, and
// the epoch of what that consumer got. Three kinds of goroutines meet in it: the
// connection's reader takes deliveries in, Fetch and the acknowledger calls of the
// pipeline work on the ledger, and the owner (serve) alone talks to the broker.
type session struct {
	p        *Producer
	link     *link
	ch       *amqp.Channel
	ref      *broadway.AckRef
	queue    string // as the broker named it
	tag      string // of the present consumer
	base     string // what the tags of its consumers begin with
	tags     int    // how many consumers there were
	prefetch int
	mode     mode // what was wanted when the session began

	flattened atomic.Int64 // messages with headers that were changed, as far as told: see frames
	counts    bool         // deliveries that came back are counted against messages

	// deliveries is closed when the consumer is gone, and nothing else says so
	// in every case; closed and canceled tell why.
	deliveries <-chan amqp.Delivery
	closed     chan *amqp.Error
	canceled   chan string

	ready    chan struct{} // a delivery is there to be fetched
	wake     chan struct{} // something is to be sent
	commands chan command
	over     chan struct{} // closed when serve has returned

	lag     atomic.Int64 // messages in the queue, ready to be delivered; -1 unknown
	settled atomic.Bool  // something was sent for a message

	mu       sync.Mutex // protects following fields
	ledger   acknowledgers.Deliveries
	buffer   []*broadway.Message // delivered, not fetched
	suspects []*broadway.Message // the same, and to be tried alone: see attempts.go
	narrow   bool                // the broker delivers one message at a time, or none
	turn     bool                // the consumer is to be changed
	pressed  bool                // nothing more comes until something is settled
	holding  bool                // nothing is handed out any longer
	discards bool                // what is delivered is given back, and not kept
	secludes bool                // the same of what is delivered over the bound in bytes
	ended    bool                // nothing can be sent any longer
	newest   uint64              // the tag of the last delivery
	broken   error               // the broker broke the protocol, or something in between did
}

var (
	_ broadway.Acknowledger = (*session)(nil)
	_ broadway.Releaser     = (*session)(nil)
)

// announce logs that the session consumes.
func (s *session) announce() {
	s.p.cfg.Logger.Info("rabbitmq: consuming", "queue", s.queue, "broker", s.p.server.String(), "prefetch", s.prefetch)
}

// warn logs what is to be known of the broker, once a Producer.
func (s *session) warn() {
	if version, _ := s.link.conn.Properties["version"].(string); s.p.cfg.Declare.dropsOn(version) {
		s.p.cfg.Logger.Warn("rabbitmq: the broker drops messages of this queue that came back 20 times: declare a DeadLetterExchange, "+
			"or an x-delivery-limit of -1", "queue", s.queue, "version", version)
	}
}

// name gives the next consumer of the channel a tag that none had: RabbitMQ 3.10
// closes a channel (541) whose consumer of a quorum queue gets the tag of an earlier
// one that has unacknowledged messages.
func (s *session) name() {
	s.tags++
	s.tag = s.base
	if s.tags > 1 {
		suffix := fmt.Sprintf(".%d", s.tags)
		s.tag = s.base[:min(len(s.base), maxShortString-len(suffix))] + suffix
	}
}

// consume starts a consumer, of one message at a time or of the prefetch. What it gets is
// taken in from the first on.
func (s *session) consume() (<-chan amqp.Delivery, error) {
	s.mu.Lock()
	prefetch := s.prefetch
	if s.narrow {
		prefetch = 1
	}
	s.mu.Unlock()
	// The limit is per consumer, not for the channel (global): RabbitMQ 4.3
	// refuses the latter.
	if err := s.ch.Qos(prefetch, 0, false); err != nil {
		return nil, fmt.Errorf("set the prefetch: %w", plain(err))
	}
	c := s.p.cfg.Consumer
	arguments := make(Table, len(c.Arguments)+1)
	for key, value := range c.Arguments {
		arguments[key] = value
	}
	if c.Priority != 0 {
		arguments["x-priority"] = c.Priority
	}
	wire, err := toWire(arguments)
	if err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	s.name()
	s.link.frames.consumer.Store(&consumer{session: s, tag: s.tag})
	deliveries, err := s.ch.Consume(s.queue, s.tag, false, c.Exclusive, false, false, wire)
	if err != nil {
		return nil, fmt.Errorf("consume: %w", plain(err))
	}
	return deliveries, nil
}

// pump waits until the consumer is gone. What that gets was taken in before the client saw
// it (see intake), so that nothing comes here, unless the broker is broken.
func (s *session) pump(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		s.receive(&d)
	}
}

// receive takes in what the client has read.
func (s *session) receive(d *amqp.Delivery) {
	m := new(broadway.Message)
	s.fill(m, d, time.Now())
	s.deliver([]*broadway.Message{m})
}

// fill makes m of d, which came at a time.
func (s *session) fill(m *broadway.Message, d *amqp.Delivery, came time.Time) {
	meta := new(Metadata) // it has the payload, too: in one array with others it would keep theirs
	meta.fill(d, s.queue)
	meta.came = came
	m.Init(s.ref, int64(d.DeliveryTag), d.Body)
	m.Metadata, m.Redelivered = meta, d.Redelivered
	m.SetSize(meta.weight())
}

// deliver adds messages to what can be fetched, which fill has made.
func (s *session) deliver(messages []*broadway.Message) {
	if !s.admit(messages) {
		return
	}
	n := s.link.frames.flattened.Load()
	if last := s.flattened.Swap(n); last != n {
		s.tellFlattened(last, n)
	}
}

// tellFlattened counts messages whose headers the client could not have read: there are
// n, of which last were told.
func (s *session) tellFlattened(last, n int64) {
	if last == 0 {
		s.p.cfg.Logger.Warn("rabbitmq: a message has header tables that are nested too deep or too long: they come as bytes",
			"queue", s.queue, "broker", s.p.server.String())
	}
	s.p.counters.flattened.Add(n - last)
}

// admit adds messages to what can be fetched, up to one by which the broker, or
// something in between, is broken. It says whether the session goes on: what comes to one
// that has ended, while its connection closes, is nobody's.
func (s *session) admit(messages []*broadway.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	for _, m := range messages {
		if s.broken == nil {
			s.broken = s.enter(m)
		}
		if s.broken != nil {
			notify(s.wake)
			break
		}
		s.keep(m)
	}
	s.press()
	notify(s.ready)
	return true
}

// enter enters m into the ledger. Tags of a channel rise by one. A delivery whose frames
// are not in order is dropped without a word, and an acknowledgement of those around it
// would cover it: where one is missing, nothing after it is taken in. It is called with mu
// held.
func (s *session) enter(m *broadway.Message) error {
	tag := uint64(m.Seq())
	if tag != s.newest+1 {
		return fmt.Errorf("delivery %d came after %d: what is between them was lost on its way", tag, s.newest)
	}
	if err := s.ledger.Deliver(tag); err != nil {
		return err
	}
	s.newest = tag
	return nil
}

// press tells the pipeline whether something has to be settled before more comes,
// as when a reference is at its limit: then it closes open batches. So it is while
// the gate waits, and while suspects wait to be alone. It is called with mu held.
func (s *session) press() {
	pressed := len(s.buffer) == 0 && s.link.gate.waits()
	if len(s.suspects) > 0 {
		pressed = len(s.buffer) == 0 && s.narrow && !s.alone()
	}
	if pressed == s.pressed {
		return
	}
	s.pressed = pressed
	if pressed {
		s.ref.SetLimit(1)
	} else {
		s.ref.SetLimit(0)
	}
}

// gated is called when the gate has stopped the reader, or let it go.
func (s *session) gated() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.press()
}

// notify makes sure that whoever waits on c wakes.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take hands out what is there, up to d. Nothing and no error means nothing is
// there.
func (s *session) take(d broadway.Demand) ([]*broadway.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding || s.ended {
		return nil, nil
	}
	if len(s.buffer) == 0 {
		return s.takeSuspect(d)
	}
	n, bytes := 0, int64(0)
	for n < min(len(s.buffer), d.Messages) && bytes+s.buffer[n].Size() <= d.Bytes {
		bytes += s.buffer[n].Size()
		n++
	}
	if n == 0 && d.Messages > 0 {
		return nil, broadway.NeedBytes(s.buffer[0].Size())
	}
	n = s.ref.Take(n)
	taken := s.buffer[:n:n]
	s.buffer = s.buffer[n:]
	s.press()
	return taken, nil
}

// waiting is how many messages are in the queue, as far as is known: those that
// the broker holds, and those that it has delivered here.
func (s *session) waiting() (int64, bool) {
	lag := s.lag.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return lag + int64(s.ledger.Open()), lag >= 0
}

// progress says whether the session did anything useful.
func (s *session) progress() bool { return s.settled.Load() }

// Ack settles messages of the session. What it decides is sent by the owner,
// together with what is decided soon after.
func (s *session) Ack(_ context.Context, _ *broadway.AckRef, ok, failed []*broadway.Message) error {
	for _, m := range failed {
		if _, _, err := verdict(m); err != nil {
			return err
		}
	}
	s.decide(func(settle func(*broadway.Message, acknowledgers.Verdict)) {
		for _, m := range ok {
			settle(m, acknowledgers.Acked)
		}
		for _, m := range failed {
			if v, settled, _ := verdict(m); settled {
				settle(m, v)
			}
		}
	})
	s.forget(ok)
	s.forget(failed)
	return nil
}

// forget tells the gate that messages are not in memory any more.
func (s *session) forget(messages []*broadway.Message) {
	var bytes int64
	for _, m := range messages {
		bytes += m.Size()
	}
	s.link.gate.done(bytes)
}

// Release gives messages back that were not processed.
func (s *session) Release(_ context.Context, _ *broadway.AckRef, messages []*broadway.Message) error {
	note(&s.p.history.gaveBack)
	s.decide(func(settle func(*broadway.Message, acknowledgers.Verdict)) {
		for _, m := range messages {
			settle(m, acknowledgers.Returned)
		}
	})
	s.forget(messages)
	return nil
}

// verdict is what becomes of a failed message; not settled is one that stays
// with this consumer until the session ends.
func verdict(m *broadway.Message) (v acknowledgers.Verdict, settled bool, err error) {
	switch m.Action() {
	case broadway.ActionDrop, broadway.ActionDeadLetter:
		return acknowledgers.Acked, true, nil
	case broadway.ActionReject:
		return acknowledgers.Rejected, true, nil
	case broadway.ActionRequeue:
		return acknowledgers.Requeued, true, nil
	case broadway.ActionRequeueOnce:
		if m.Redelivered {
			return acknowledgers.Rejected, true, nil
		}
		return acknowledgers.Requeued, true, nil
	case broadway.ActionStopPipeline:
		return 0, false, nil
	}
	return 0, false, fmt.Errorf("rabbitmq: a failed message cannot be settled by the action %q", m.Action())
}

// decide lets do settle messages in the ledger, and wakes the owner when it has
// to send or to start its clock.
func (s *session) decide(do func(settle func(*broadway.Message, acknowledgers.Verdict))) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.ledger.Pending()
	do(func(m *broadway.Message, v acknowledgers.Verdict) {
		if v == acknowledgers.Requeued && m.Redelivered {
			s.p.history.requeues.Store(true)
		}
		switch {
		case s.ended:
			s.p.counters.stale.Add(1)
		case !s.ledger.Settle(uint64(m.Seq()), v):
			s.p.counters.refused.Add(1)
		}
	})
	s.press()
	if !s.ended && (before == 0 || s.due()) {
		notify(s.wake)
	}
}

// due says whether what is settled must be sent now: a quarter of the prefetch
// is, nothing else runs or waits, or only that is waited for. It is called with
// mu held.
func (s *session) due() bool {
	pending := s.ledger.Pending()
	return pending > 0 && (pending >= max(1, s.prefetch/4) || s.ledger.Open() == len(s.suspects) || s.holding)
}

// lookAtLag asks the broker at intervals how many messages wait, on a channel of
// its own: an answer that takes long, or none, holds up nothing.
func (s *session) lookAtLag(ctx context.Context) {
	if s.p.cfg.LagInterval <= 0 {
		return
	}
	tick := time.NewTicker(s.p.cfg.LagInterval)
	defer tick.Stop()
	var ch *amqp.Channel
	for {
		ch = s.lookOnce(ch)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookOnce returns the channel to be used the next time: nil, for a new one,
// when the broker has closed it, as it does when the queue is not there.
func (s *session) lookOnce(ch *amqp.Channel) *amqp.Channel {
	var err error
	if ch == nil {
		if ch, err = s.link.conn.Channel(); err != nil {
			return nil // the connection is gone: the owner will say so
		}
	}
	q, err := ch.QueueDeclarePassive(s.queue, false, false, false, false, nil)
	if err != nil {
		s.lag.Store(-1)
		return nil
	}
	s.lag.Store(int64(q.Messages))
	return ch
}
