package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

const (
	// flushAfter is how long a settled message waits for others to be sent with.
	flushAfter = 5 * time.Millisecond
	// sendTimeout bounds the writing of settlements. A broker that sends
	// heartbeats and reads nothing would hold the owner for ever otherwise.
	sendTimeout = 30 * time.Second
	// remembered is how many frames are kept to be named when the broker
	// refuses one.
	remembered = 32
)

// preconditionFailed is how the broker closes a channel that settled a tag
// twice, or kept one for too long.
const preconditionFailed = 406

// command is what a pipeline asks of a session's owner.
type command struct {
	kind commandKind
	done chan error
}

type commandKind uint8

const (
	commandPause commandKind = iota
	commandResume
	commandDrain
)

// ask lets the owner carry out kind. A session that is over has nothing left to
// do.
func (s *session) ask(ctx context.Context, kind commandKind) error {
	c := command{kind: kind, done: make(chan error, 1)}
	select {
	case s.commands <- c:
	case <-s.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-c.done:
		return err
	case <-s.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// owner is the one goroutine that talks to the broker on a session's channel.
type owner struct {
	*session
	pumps  sync.WaitGroup
	gone   chan struct{} // closed when the pump of the present consumer has ended; nil without one
	retire bool          // the session ends once nothing that was fetched is unsettled
	clock  *time.Timer
	armed  bool
	look   *time.Timer // at what waits in the buffer
	frames []acknowledgers.Settlement
	last   []acknowledgers.Settlement // the frames sent last, at most remembered
}

// serve works until the session is lost, retires, or ctx ends, and closes it. It
// returns why it was lost, or what went wrong while it was closed in good order.
func (s *session) serve(ctx context.Context) error {
	o := &owner{session: s, clock: time.NewTimer(time.Hour)}
	defer close(s.over)
	defer o.clock.Stop()
	o.look = time.NewTimer(o.lookAfter())
	defer o.look.Stop()
	looking, stop := context.WithCancel(ctx)
	o.pumps.Go(func() { s.lookAtLag(looking) })
	if s.deliveries != nil {
		o.start(s.deliveries)
	}
	err, lost := o.loop(ctx)
	if lost && !s.ch.IsClosed() { // only the consumer is gone
		err = errors.Join(err, o.flush())
	}
	// Nothing is sent from here on but what finish sends. The epoch ends before
	// the connection is closed, so that nothing of it is started in vain.
	o.seal(lost)
	s.ref.End()
	if lost {
		err = o.report(errors.Join(err, s.link.close(s.p.server.closing())))
	} else {
		err = o.finish()
	}
	stop()
	o.pumps.Wait()
	return err
}

// loop returns why the session ends, and whether it was lost.
func (o *owner) loop(ctx context.Context) (reason error, lost bool) {
	err := o.catchUp()
	for err == nil {
		select {
		case <-ctx.Done():
			return nil, false
		case e := <-o.closed:
			return o.why(e), true
		case <-o.gone:
			return o.why(nil), true
		case c := <-o.commands:
			c.done <- o.obey(c.kind)
		case <-o.wake:
			err = o.attend()
		case <-o.clock.C:
			o.armed = false
			err = o.flush()
		case <-o.look.C:
			err = o.returnOverdue(time.Now())
			o.look.Reset(o.lookAfter())
		}
		if o.retire && o.idle() {
			return nil, false
		}
	}
	// What a call returns when the connection is lost says only that it is.
	o.link.cut()
	if e := <-o.closed; e != nil && e.Server {
		return plain(e), true
	}
	return err, true
}

// catchUp does what was asked while the session was being opened.
func (o *owner) catchUp() error {
	switch o.mode {
	case modePaused:
		return o.obey(commandPause)
	case modeDraining:
		return o.obey(commandDrain)
	}
	return nil
}

// start takes in the deliveries of a consumer.
func (o *owner) start(deliveries <-chan amqp.Delivery) {
	gone := make(chan struct{})
	o.gone = gone
	o.pumps.Go(func() {
		defer close(gone)
		o.pump(deliveries)
	})
}

// obey carries out a command.
func (o *owner) obey(kind commandKind) error {
	inOrder := o.p.cfg.Declare.singleActive()
	if kind == commandResume {
		return o.resume()
	}
	o.hold(true)
	if inOrder {
		// Order needs this consumer to stay the active one until it is done.
		// Only the end of the channel then gives back, at once, both its turn
		// and what it has not fetched.
		o.retire = kind == commandPause
		return nil
	}
	return o.cancel()
}

// resume consumes again, where pausing has ended that.
func (o *owner) resume() error {
	o.retire = false
	o.hold(false)
	if o.gone != nil || o.trying() {
		return nil
	}
	if err := o.consumeAgain(); err != nil {
		o.link.cut() // a channel that refused is closed: the session is lost
		return err
	}
	return nil
}

// consumeAgain starts another consumer on the channel.
func (o *owner) consumeAgain() error {
	var deliveries <-chan amqp.Delivery
	err := o.link.answered(o.p.server.closeTimeout, func() (err error) {
		deliveries, err = o.consume()
		return err
	})
	if err != nil {
		return err
	}
	o.start(deliveries)
	return nil
}

// stopConsuming ends the consumer, if there is one, and takes in what is still on
// its way.
func (o *owner) stopConsuming() error {
	if o.gone == nil {
		return nil
	}
	err := o.link.answered(o.p.server.closeTimeout, func() error { return o.ch.Cancel(o.tag, false) })
	if err != nil {
		return fmt.Errorf("rabbitmq: cancel the consumer: %w", err)
	}
	<-o.gone // closed by the client, after what it had buffered
	o.gone = nil
	return nil
}

// cancel ends the consumer, takes in what is still on its way, and hands back
// what was never fetched.
func (o *owner) cancel() error {
	o.discard(true)
	defer o.discard(false)
	if err := o.stopConsuming(); err != nil {
		return err
	}
	return o.emptyBuffer()
}

// emptyBuffer hands back what was never fetched.
func (o *owner) emptyBuffer() error {
	o.mu.Lock()
	if len(o.buffer)+len(o.suspects) > 0 {
		note(&o.p.history.gaveBack)
	}
	o.giveBack(o.buffer)
	o.giveBack(o.suspects)
	o.buffer, o.suspects = nil, nil
	o.press()
	o.mu.Unlock()
	return o.flush()
}

// discard makes what is delivered from now on not be kept: an answer is waited for,
// and what comes before it is given back.
func (o *owner) discard(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.discards = on
}

// hold starts or stops the handing out of messages.
func (o *owner) hold(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.holding = on
	if len(o.buffer)+len(o.suspects) > 0 {
		notify(o.ready)
	}
}

// idle says whether everything that was fetched is settled.
func (o *owner) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ledger.Open() == len(o.buffer)+len(o.suspects)
}

// attend looks at what was settled: it is sent now, or soon.
func (o *owner) attend() error {
	o.mu.Lock()
	turn := o.turn && !o.holding
	o.mu.Unlock()
	if turn {
		if err := o.change(); err != nil {
			return err
		}
	}
	o.mu.Lock()
	due, pending, broken := o.due(), o.ledger.Pending(), o.broken
	o.mu.Unlock()
	switch {
	case broken != nil:
		return broken
	case due:
		return o.flush()
	case pending > 0 && !o.armed:
		o.armed = true
		o.clock.Reset(flushAfter)
	}
	return nil
}

// flush sends what is settled.
func (o *owner) flush() error {
	o.mu.Lock()
	o.frames = o.ledger.Flush(o.frames[:0])
	o.mu.Unlock()
	if len(o.frames) == 0 {
		return nil
	}
	o.remember(o.frames)
	err := o.link.guarded(sendTimeout, func() error { return o.send(o.frames) })
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	o.settled.Store(true)
	return o.proceed()
}

func (o *owner) send(frames []acknowledgers.Settlement) error {
	for _, f := range frames {
		var err error
		switch f.Verdict {
		case acknowledgers.Acked:
			err = o.ch.Ack(f.Tag, f.Multiple)
		case acknowledgers.Rejected:
			err = o.ch.Reject(f.Tag, false)
		case acknowledgers.Requeued:
			err = o.ch.Reject(f.Tag, true)
		case acknowledgers.Returned:
			err = o.ch.Nack(f.Tag, f.Multiple, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *owner) remember(frames []acknowledgers.Settlement) {
	frames = frames[max(0, len(frames)-remembered):]
	drop := max(0, len(o.last)+len(frames)-remembered)
	o.last = append(o.last[:copy(o.last, o.last[drop:])], frames...)
}

// seal makes every later settle a stale one. What was settled and not sent is
// stale, too, where the channel is lost.
func (o *owner) seal(lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	if !lost {
		return
	}
	o.p.counters.stale.Add(int64(o.ledger.Pending()))
}

// finish closes the session in good order. The broker answers the closing of the
// channel after everything that was sent before it, so that an answer says that
// the acknowledgements have arrived, though a quorum queue that is behind may not
// have taken them (see the package's documentation); it takes back what is not settled.
func (o *owner) finish() error {
	deadline := o.p.server.closing()
	o.discard(true)
	err := o.link.answered(o.p.server.closeTimeout, func() error {
		return errors.Join(o.flush(), o.ch.Close())
	})
	select {
	case e := <-o.closed: // by the broker, while it was being closed here
		if e != nil {
			err = errors.Join(err, plain(e))
		}
	default:
	}
	if err == nil {
		err = o.link.close(deadline)
	} else {
		o.link.cut()
	}
	if err != nil {
		return fmt.Errorf("rabbitmq: queue %q: close: %w", o.queue, err)
	}
	return nil
}

// why says why the session is lost: e when the channel or connection was closed,
// nil when its consumer ended.
func (o *owner) why(e *amqp.Error) error {
	if e == nil {
		select {
		case e = <-o.closed:
		default:
		}
	}
	if e != nil {
		return plain(e)
	}
	select {
	case _, ok := <-o.canceled:
		if ok {
			return errCanceled
		}
	default:
	}
	return errors.New("the consumer ended")
}

var errCanceled = errors.New("the broker canceled the consumer: the queue was deleted or moved, " +
	"or an acknowledgement took too long (consumer_timeout)")

// report logs why the session is lost, and returns it.
func (o *owner) report(err error) error {
	o.mu.Lock()
	oldest, _ := o.ledger.Oldest()
	open, pending := o.ledger.Open(), o.ledger.Pending()
	o.mu.Unlock()
	log := o.p.cfg.Logger.With("queue", o.queue, "broker", o.p.server.String())
	var refused *Error
	if errors.As(err, &refused) && refused.Code == preconditionFailed {
		var hint []any
		if strings.Contains(refused.Reason, "timed out") {
			hint = []any{"hint", "handlers take longer than the broker's consumer_timeout: let all attempts, each of Processor.Timeout, fit into " +
				"half of it, and tell it as AckTimeout; or raise it"}
		}
		log.Error("rabbitmq: the broker closed the channel over a delivery",
			append(hint, "oldest_unsettled_tag", oldest, "sent_last", fmt.Sprint(o.last))...)
	}
	log.Warn("rabbitmq: session lost", "error", err, "unsettled", open, "unsent", pending)
	return fmt.Errorf("rabbitmq: queue %q: session lost: %w", o.queue, err)
}
