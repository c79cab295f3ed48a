package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// What the count of a quorum queue proves: how often a message came back to the
// queue from a consumer that was lost, which may have died of this message, of
// another that it held at the time, or not at all. ARCHITECTURE.md has the table.
const (
	// suspectCount makes a message a suspect, to be tried while the process has
	// no other message. Once is what any stop, lost connection or crash does to
	// all messages that the consumer held.
	suspectCount = 2
	// unprovenCount is how often messages come back that do no harm: from the
	// process that had the poison first; from the one that got it next, or started
	// before the broker had noticed the end of the first; from one that had them as
	// suspects and handed them back, which counts before RabbitMQ 4.3; and once
	// more for two processes that do so at the same time, or for another poison
	// among them. Whatever came back more often was alone when it did.
	unprovenCount = 4
	// lostSuspectCount is suspectCount for a process that lost a session lately and
	// outlived it. What such losses do to all that was delivered ends here, below
	// what attempts proves: from here on messages are alone when a session is lost.
	// One more is what handing back costs.
	lostSuspectCount = unprovenCount - 1
	// excuse is how long this process does not count after it lost a session, gave
	// messages back, or counted for one message.
	excuse = 10 * time.Minute
)

// history is what a process knows about messages that come back. The zero value
// knows of nothing.
type history struct {
	lost     atomic.Pointer[time.Time] // when a session was lost, by the monotonic clock
	gaveBack atomic.Pointer[time.Time] // when messages were given back
	charged  atomic.Pointer[time.Time] // when deliveries were last counted as attempts
	requeues atomic.Bool               // the pipeline requeues what fails, again and again
}

// note remembers that something happened now.
func note(at *atomic.Pointer[time.Time]) {
	now := time.Now()
	at.Store(&now)
}

// lately says whether what was noted in at excuses anything still.
func lately(at *atomic.Pointer[time.Time]) bool {
	t := at.Load()
	return t != nil && time.Since(*t) < excuse
}

// attempts is how many processes died of a message that came back so often,
// probably. Up to unprovenCount there is no telling, so none; beyond it was this
// message each time.
func attempts(returned int64) int {
	if returned <= unprovenCount {
		return 0
	}
	return int(returned)
}

// counts says whether deliveries that came back count against messages, where the
// queue counts them. They cannot where a change of consumers would give away the
// turn of this one, unless it never has but one message.
func (c Config) counts(prefetch int) bool {
	if c.Declare != nil && (c.Declare.kind() == Classic || c.Declare.AutoDelete) {
		return false
	}
	return prefetch == 1 || !c.Consumer.Exclusive && !c.Declare.singleActive()
}

// limitMistakes finds a delivery limit at which the broker takes messages away,
// without an exchange to put them, or before this package can tell which it is that
// processes die of.
func (q *QueueDeclare) limitMistakes() []error {
	if q.Passive {
		return nil // it is not declared here
	}
	limit, ok := q.limit()
	if !ok || limit < 0 {
		return nil
	}
	var errs []error
	if limit <= unprovenCount {
		errs = append(errs, mistake("Declare.Arguments", "x-delivery-limit: %d is not more than %d, which messages reach that are only "+
			"beside one that processes die of; set it above the pipeline's MaxAttempts, too", limit, unprovenCount))
	}
	if !q.deadLetters() {
		errs = append(errs, mistake("Declare.DeadLetterExchange", "or DeadLetterRoutingKey is required with x-delivery-limit: "+
			"the broker drops what exceeds it otherwise"))
	}
	return errs
}

// limited says that the broker may take messages away that came back too often, as far
// as is known of the queue: it is not classic, and not declared without a limit.
func (q *QueueDeclare) limited() bool {
	if q == nil {
		return true
	}
	limit, ok := q.limit()
	return q.kind() != Classic && (!ok || limit >= 0)
}

// dropsOn says that a broker of a version takes messages of q away, as far as is known,
// with no place to put them: RabbitMQ 4 has a limit where nothing is said.
func (q *QueueDeclare) dropsOn(version string) bool {
	if q == nil || q.Passive || q.kind() != Quorum || q.deadLetters() {
		return false
	}
	_, said := q.limit()
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 4 && !said
}

// deadLetters says that what the broker takes out of q goes somewhere.
func (q *QueueDeclare) deadLetters() bool {
	_, named := q.Arguments["x-dead-letter-exchange"]
	return named || q.DeadLetterExchange != "" || q.DeadLetterRoutingKey != ""
}

// limit is the delivery limit that q declares.
func (q *QueueDeclare) limit() (limit int64, ok bool) {
	if n, plain := q.Arguments["x-delivery-limit"].(int); plain {
		return int64(n), true
	}
	return integer(q.Arguments["x-delivery-limit"])
}

// returned is how often m came back, as far as that may prove something. What this
// process gave back came back for that, and while a policy requeues what fails,
// counts say how often it did.
func (s *session) returned(m *broadway.Message) int64 {
	meta, ok := m.Metadata.(*Metadata)
	if !ok || !s.counts || s.p.history.requeues.Load() || lately(&s.p.history.gaveBack) {
		return 0
	}
	return meta.returned
}

// suspect says whether a message that came back so often is to be tried alone. Once
// one is, so is whatever came back at all: among those are the others that were with
// the poison. It is called with mu held.
func (s *session) suspect(returned int64) bool {
	switch {
	case s.narrow:
		return returned > 0
	case lately(&s.p.history.lost):
		return returned >= lostSuspectCount
	}
	return returned >= suspectCount
}

// charge is how many attempts count against a message that came back so often: none
// while a session that this process lost, and outlived, may be the reason. (If the
// message was, the process that comes after this one is to find that: it has no such
// excuse.)
//
// A process charges one message and then none for a while. Whatever makes many
// messages come back often, others that lost sessions or gave messages back, for
// example, costs no more than one of them; and each of several that kill is the first
// of some process.
func (s *session) charge(returned int64) int {
	n := attempts(returned)
	h := &s.p.history
	if n == 0 || lately(&h.lost) || lately(&h.charged) {
		return 0
	}
	note(&h.charged)
	return n
}

// takeSuspect hands out the first suspect, when nothing else is unsettled nor can
// come, and what was settled is sent. It is called with mu held.
func (s *session) takeSuspect(d broadway.Demand) ([]*broadway.Message, error) {
	if !s.narrow || !s.alone() || s.ledger.Pending() > 0 || d.Messages == 0 {
		return nil, nil
	}
	if size := s.suspects[0].Size(); size > d.Bytes {
		return nil, broadway.NeedBytes(size)
	}
	s.press() // not any longer: or the pipeline's account, which is behind, would refuse
	if s.ref.Take(1) == 0 {
		return nil, nil
	}
	taken := s.suspects[:1:1]
	s.suspects = s.suspects[1:]
	s.press()
	return taken, nil
}

// alone says that there are suspects, and that nothing else is unsettled. It is
// called with mu held.
func (s *session) alone() bool {
	return len(s.suspects) > 0 && s.ledger.Open() == len(s.suspects)
}

// giveBack settles messages that were never fetched as not processed. It is
// called with mu held.
func (s *session) giveBack(messages []*broadway.Message) {
	for _, m := range messages {
		if s.ledger.Settle(uint64(m.Seq()), acknowledgers.Returned) {
			s.p.counters.returned.Add(1)
		}
	}
	s.forget(messages)
}

// keep adds a delivery to what can be fetched, or to the suspects. It is called
// with mu held.
func (s *session) keep(m *broadway.Message) {
	s.link.gate.add(m.Size())
	over := s.secludes && s.link.gate.full(0)
	if s.discards || over {
		m.Payload, m.Metadata = nil, nil // its size stays, to be taken off again
	}
	returned := s.returned(m)
	m.Attempt = 1 + s.charge(returned)
	suspect := s.suspect(returned)
	if suspect {
		m.BatchMode = broadway.Flush // nothing will fill its batch
	}
	if suspect || over {
		s.suspects = append(s.suspects, m)
	} else {
		s.buffer = append(s.buffer, m)
	}
	if suspect != s.narrow && s.prefetch > 1 && s.counts {
		s.turn = true
		notify(s.wake)
	}
}

// change adapts what the broker may deliver to what it has delivered: one message
// at a time as long as they are suspects, up to the prefetch otherwise. A prefetch
// holds for consumers that start after it is set, so a change is another consumer
// on the same channel, beside what runs.
func (o *owner) change() error {
	o.mu.Lock()
	o.turn = false
	widen := o.narrow && len(o.suspects) == 0
	o.mu.Unlock()
	if widen {
		return o.widen()
	}
	return o.seclude()
}

// first asks for one message before anything is consumed. A process that crashed
// finds out by it whether its predecessor had suspects, which come first; if so,
// nothing else is delivered before that one is settled.
func (s *session) first() error {
	if !s.counts || s.prefetch == 1 {
		return nil
	}
	d, ok, err := s.ch.Get(s.queue, false)
	if err != nil {
		return fmt.Errorf("get: %w", plain(err))
	}
	if ok {
		d.ConsumerTag = s.base
		s.receive(&d)
	}
	s.narrow, s.turn = len(s.suspects) > 0, false
	return nil
}

// cannotGet says whether the broker refused first because messages cannot be asked
// for in this queue, as in a quorum queue with a single active consumer.
func cannotGet(err error) bool {
	const resourceLocked, notImplemented = 405, 540
	var e *Error
	return errors.As(err, &e) && (e.Code == resourceLocked || e.Code == notImplemented)
}

// widen replaces the consumer by one with the full prefetch.
func (o *owner) widen() error {
	if err := o.stopConsuming(); err != nil {
		return err
	}
	o.mu.Lock()
	o.narrow = len(o.suspects) > 0 // one may have come as the last
	narrow := o.narrow
	o.mu.Unlock()
	if narrow {
		return o.seclude()
	}
	return o.consumeAgain()
}

// seclude ends the consumer, because a suspect came to others. All others but the
// first suspect of what is not fetched go on as if nothing were; the first is tried
// when nothing else is unsettled; and further suspects go back, so that they are
// not with it when the process dies.
func (o *owner) seclude() error {
	o.mu.Lock()
	o.secludes = len(o.suspects) > 0 // what is over comes behind one, and so goes back
	o.mu.Unlock()
	if err := o.stopConsuming(); err != nil {
		return err
	}
	o.mu.Lock()
	o.secludes = false
	o.narrow, o.turn = true, false
	o.giveBack(o.suspects[min(1, len(o.suspects)):])
	o.suspects = slices.Clip(o.suspects[:min(1, len(o.suspects))])
	o.press()
	notify(o.ready)
	o.mu.Unlock()
	return o.flush()
}

// trying says that a suspect is tried: whatever comes next waits for its end.
func (o *owner) trying() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.narrow && o.ledger.Open()+o.ledger.Pending() > 0
}

// proceed does what waited for everything that is settled to be sent: a suspect
// is tried, or the next one is asked for.
func (o *owner) proceed() error {
	o.mu.Lock()
	if o.alone() {
		notify(o.ready)
	}
	next := o.gone == nil && o.narrow && !o.holding && !o.ended && o.ledger.Open() == 0
	o.mu.Unlock()
	if !next {
		return nil
	}
	return o.consumeAgain()
}
