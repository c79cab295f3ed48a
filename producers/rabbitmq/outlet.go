package rabbitmq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// outlet is one connection of a Publisher, with one channel. The owner (serve)
// knows what is on its way, the writer alone writes, since a write may block for
// as long as the broker likes, and callers wait for their own confirms.
//
//	Publish ──jobs──▶ owner ──writes──▶ writer ──▶ broker
//	   ▲                ▲                            │
//	   └── confirms ────┼────────────────────────────┤
//	                    └── returned, blocked ───────┘
type outlet struct {
	p    *Publisher
	link *link
	ch   *amqp.Channel

	closed   chan *amqp.Error
	returned chan amqp.Return
	blocked  chan amqp.Blocking

	jobs     chan *job
	writes   chan *job
	finished chan *job
	over     chan struct{} // closed when nothing more can be sent
	refusal  error         // why the broker closed the channel, written before over is closed
	useful   atomic.Bool   // something was confirmed

	mu       sync.Mutex // protects following field
	blocking error      // why the broker takes nothing now; nil when it does
}

// job is one call of Publish. Its items belong to the writer until written is
// closed, and then to the caller, unless the caller has gone by then.
type job struct {
	items     []item
	abandoned <-chan struct{} // the caller waits no longer
	written   chan struct{}
	checked   chan struct{} // the owner has compared it with what was returned
	alone     bool          // nothing else may be on its way at the same time
	turn      atomic.Int32  // who comes last cleans up
	err       error         // why nothing is known of any item
}

const (
	turnWriter int32 = iota // the writer has not finished
	turnCaller              // it has: the caller is to call finish
	turnNobody              // the caller has left: the writer is to call finish
)

type item struct {
	exchange, key string
	message       amqp.Publishing
	confirm       *amqp.DeferredConfirmation
	unroutable    error // set by the owner
	unwritten     error // set by the writer: what the client said
	err           error
}

func newOutlet(p *Publisher, l *link) (*outlet, error) {
	const blockings = 4
	blocked := l.conn.NotifyBlocked(make(chan amqp.Blocking, blockings))
	return openOutlet(p, l, blocked)
}

// openOutlet makes an outlet of a new channel on l.
func openOutlet(p *Publisher, l *link, blocked chan amqp.Blocking) (*outlet, error) {
	const returns = 256 // more wait in the socket: the owner always takes them
	ch, err := l.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", plain(err))
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", plain(err))
	}
	return &outlet{
		p: p, link: l, ch: ch,
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		returned: ch.NotifyReturn(make(chan amqp.Return, returns)),
		blocked:  blocked,
		jobs:     make(chan *job), writes: make(chan *job), finished: make(chan *job),
		over: make(chan struct{}),
	}, nil
}

// serve works until the connection is lost or ctx ends, and closes it. When only
// the channel was lost, the error says why, and next is the outlet to go on with.
func (o *outlet) serve(ctx context.Context) (next *outlet, err error) {
	var writer sync.WaitGroup
	writer.Go(o.write)
	err = o.own(ctx)
	if err != nil && !o.link.conn.IsClosed() {
		o.refusal = err
	}
	close(o.over)
	if o.refusal != nil {
		reopened := o.link.guarded(o.p.server.closeTimeout, func() error {
			writer.Wait()
			var failed error
			next, failed = o.reopen()
			return failed
		})
		if reopened == nil {
			return next, fmt.Errorf("rabbitmq: the broker closed the channel: %w", err)
		}
	}
	closing := o.link.close(o.p.server.closing())
	writer.Wait()
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: connection lost: %w", err)
	}
	return nil, closing
}

// reopen makes the outlet that follows o on the same connection.
func (o *outlet) reopen() (*outlet, error) {
	next, err := openOutlet(o.p, o.link, o.blocked)
	if err != nil {
		return nil, err
	}
	next.blocking = o.health() // the broker says it once for a connection
	return next, nil
}

// mayTake says whether the owner may take another job while those are active.
func mayTake(active []*job) bool {
	return len(active) == 0 || !active[len(active)-1].alone
}

// own keeps the list of what is on its way. It never waits for anybody: the
// client reads its socket only as fast as returned is emptied, and gives up a
// return that nobody takes.
func (o *outlet) own(ctx context.Context) error {
	var active []*job
	var next *job // taken from a caller, not by the writer yet
	for {
		jobs, writes := o.jobs, o.writes
		if next != nil || o.health() != nil || !mayTake(active) {
			jobs = nil
		}
		if next == nil || o.health() != nil || next.alone && len(active) > 1 {
			writes = nil
		}
		select {
		case next = <-jobs:
			active = append(active, next)
		case writes <- next:
			next = nil
		case r, ok := <-o.returned:
			if ok { // else closed will say why
				match(active, &r)
			}
		case j := <-o.finished:
			// The broker sends a return before the confirm of the same message,
			// so what matters to j is in the channel already.
			o.drainReturned(active)
			active = slices.DeleteFunc(active, func(other *job) bool { return other == j })
			close(j.checked)
		case b := <-o.blocked:
			o.block(b)
		case e := <-o.closed:
			o.dismiss(next)
			if e == nil {
				return errors.New("the channel was closed")
			}
			return plain(e)
		case <-ctx.Done():
			o.dismiss(next)
			return nil
		}
	}
}

// dismiss ends a job that no writer will take.
func (o *outlet) dismiss(j *job) {
	if j != nil {
		close(j.written)
	}
}

func (o *outlet) drainReturned(active []*job) {
	for {
		select {
		case r, ok := <-o.returned:
			if !ok {
				return
			}
			match(active, &r)
		default:
			return
		}
	}
}

// match marks the message that r is about. AMQP gives a return no number, but
// everything else: messages that are equal in all of it are as good as each
// other, and the oldest was returned first.
func match(active []*job, r *amqp.Return) {
	var like *item
	for _, j := range active {
		for i := range j.items {
			it := &j.items[i]
			if it.unroutable != nil || it.key != r.RoutingKey || it.exchange != r.Exchange ||
				it.message.MessageId != r.MessageId || !bytes.Equal(it.message.Body, r.Body) {
				continue
			}
			if sameHeaders(it.message.Headers, r.Headers) {
				it.unroutable = fmt.Errorf("%w: %s (%d)", ErrUnroutable, r.ReplyText, r.ReplyCode)
				return
			}
			if like == nil {
				like = it
			}
		}
	}
	if like != nil {
		like.unroutable = fmt.Errorf("%w: %s (%d)", ErrUnroutable, r.ReplyText, r.ReplyCode)
	}
}

func sameHeaders(a, b amqp.Table) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

func (o *outlet) block(b amqp.Blocking) {
	var err error
	if b.Active {
		err = fmt.Errorf("rabbitmq: the broker blocks publishing: %s", b.Reason)
		o.p.cfg.Logger.Warn("rabbitmq: publishing is blocked", "broker", o.p.server.String(), "reason", b.Reason)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocking = err
}

func (o *outlet) health() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blocking
}

// write writes job after job.
func (o *outlet) write() {
	for {
		select {
		case j := <-o.writes:
			o.writeJob(j)
		case <-o.over:
			return
		}
	}
}

func (o *outlet) writeJob(j *job) {
	for i := range j.items {
		it := &j.items[i]
		if it.err != nil {
			continue
		}
		select {
		case <-j.abandoned:
			continue
		default:
		}
		confirm, err := o.ch.PublishWithDeferredConfirm(it.exchange, it.key, !o.p.cfg.AllowUnroutable, false, it.message)
		if err != nil {
			it.unwritten = fmt.Errorf("%w: %w", ErrUnconfirmed, plain(err))
			continue
		}
		it.confirm = confirm
	}
	last := !j.turn.CompareAndSwap(turnWriter, turnCaller)
	close(j.written)
	if last {
		o.finish(j)
	}
}

// finish takes j off the list, and waits until all returns that concern it were
// seen. It says whether that was so: not when the connection is lost.
func (o *outlet) finish(j *job) bool {
	select {
	case o.finished <- j:
	case <-o.over:
		return false
	}
	<-j.checked
	return true
}

// publish hands j over and waits for all of it, until ctx ends. It returns false
// when the connection was lost before it could.
func (o *outlet) publish(ctx context.Context, j *job) bool {
	select {
	case o.jobs <- j:
	case <-o.over:
		return false
	case <-ctx.Done():
		j.err = o.late(ctx)
		return true
	}
	select {
	case <-j.written:
		o.conclude(ctx, j)
		return true
	case <-ctx.Done():
	}
	if j.turn.CompareAndSwap(turnWriter, turnNobody) {
		j.err = o.late(ctx)
		return true
	}
	<-j.written
	o.conclude(ctx, j)
	return true
}

// conclude waits for the broker's answers to j, which is written.
func (o *outlet) conclude(ctx context.Context, j *job) {
	for i := range j.items {
		o.confirm(ctx, &j.items[i])
	}
	checked := o.finish(j)
	for i := range j.items {
		it := &j.items[i]
		switch {
		case it.err != nil:
		case !checked:
			it.err = o.lost()
		default:
			it.err = it.unroutable
		}
	}
}

// late is why a job was given up whose time is over.
func (o *outlet) late(ctx context.Context) error {
	err := context.Cause(ctx)
	if !errors.Is(err, ErrUnconfirmed) {
		err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	if blocking := o.health(); blocking != nil {
		err = fmt.Errorf("%w: %w", err, blocking)
	}
	return err
}

// confirm waits for the broker's answer to one message.
func (o *outlet) confirm(ctx context.Context, it *item) {
	if it.err != nil {
		return
	}
	if it.confirm == nil {
		it.err = o.notWritten(ctx, it)
		return
	}
	select {
	case <-it.confirm.Done():
	case <-ctx.Done():
	case <-o.over:
	}
	select {
	case <-it.confirm.Done():
	default:
		if it.err = o.late(ctx); ctx.Err() == nil {
			it.err = o.lost()
		}
		return
	}
	switch {
	case it.confirm.Acked():
		o.useful.Store(true)
	case o.ch.IsClosed(): // the client answers no to what the broker never answered
		it.err = o.lost()
	default:
		it.err = ErrNacked
	}
}

// notWritten is why the writer has not written it, or could not.
func (o *outlet) notWritten(ctx context.Context, it *item) error {
	switch {
	case it.unwritten == nil && ctx.Err() != nil:
		return o.late(ctx)
	case it.unwritten == nil || o.ch.IsClosed():
		return o.lost()
	}
	return it.unwritten
}

// newJob makes a job of n items.
func newJob(ctx context.Context, n int) *job {
	return &job{
		items: make([]item, n), abandoned: ctx.Done(),
		written: make(chan struct{}), checked: make(chan struct{}),
	}
}

// job prepares messages, and says how many of them can be sent.
func (p *Publisher) job(ctx context.Context, messages []Publishing) (*job, int) {
	j := newJob(ctx, len(messages))
	left, limit := 0, p.cfg.MaxBytes
	if largest := int(p.largest.Load()); largest > 0 {
		limit = min(limit, largest)
	}
	for i := range messages {
		m, it := &messages[i], &j.items[i]
		it.key = m.RoutingKey
		if m.Exchange == "" && m.RoutingKey == "" {
			it.key = p.cfg.RoutingKey
		}
		it.exchange = or(m.Exchange, p.cfg.Exchange)
		if it.message, it.err = m.wire(limit); it.err == nil {
			left++
		}
	}
	return j, left
}

// result is what Publish returns.
func (j *job) result() error {
	if j.err != nil {
		return j.err
	}
	failed := &broadway.PublishError{Errs: make([]error, len(j.items))}
	n := 0
	for i := range j.items {
		if failed.Errs[i] = j.items[i].err; failed.Errs[i] != nil {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return failed
}
