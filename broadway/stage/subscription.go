package stage

import (
	"fmt"
	"math"
	"sync/atomic"
)

// Subscription is how much a consumer asks one of its producers for. It asks for
// MaxDemand events when it subscribes, handles them in chunks of at most
// MaxDemand - MinDemand and, whenever MinDemand or fewer are on their way or
// unhandled, asks for as many as make MaxDemand again:
//
//	max 1000, min 500   asks 1000, then 500 after each 500 handled
//	max 10, min 0       asks 10, then 10 after each 10 handled
//	max 1, min 0        one by one
//
// There is no default in the zero value, which is an error: see [Demand] and
// [DefaultSubscription].
type Subscription struct {
	// MaxDemand is the most events that may be on their way or unhandled, at
	// least 1.
	MaxDemand int
	// MinDemand is how many may be left when more are asked for: from 0 to
	// MaxDemand - 1.
	MinDemand int
}

// DefaultSubscription returns a MaxDemand of 1000 and a MinDemand of 500.
func DefaultSubscription() Subscription { return Demand(1000) }

// Demand returns a Subscription with maxDemand and half of it as MinDemand.
func Demand(maxDemand int) Subscription {
	return Subscription{MaxDemand: maxDemand, MinDemand: maxDemand / 2}
}

func (s Subscription) validate() error {
	switch {
	case s.MaxDemand < 1 || s.MaxDemand > math.MaxInt32:
		return fmt.Errorf("stage: MaxDemand is %d: it must be from 1 to %d", s.MaxDemand, math.MaxInt32)
	case s.MinDemand < 0 || s.MinDemand >= s.MaxDemand:
		return fmt.Errorf("stage: MinDemand is %d: it must be from 0 to %d, less than MaxDemand", s.MinDemand, s.MaxDemand-1)
	}
	return nil
}

// Source is a stage that others can subscribe to: a [Producer] or a
// [ProducerConsumer].
type Source[E any] interface {
	Stage
	outlet() *outlet[E]
}

// Sink is a stage that can subscribe to others: a [ProducerConsumer] or a
// [Consumer].
type Sink[E any] interface {
	Stage
	inlet() *inlet[E]
}

// Link is one subscription, once it is made.
type Link struct {
	cancel func()
	done   <-chan struct{}
}

// Cancel ends the subscription: the producer hands it nothing more, and gives the
// demand that is left to others instead of asking for it anew. Events that were
// handed over are still handled. It does not wait for that: see [Link.Done].
// Calling it again does nothing.
func (l *Link) Cancel() { l.cancel() }

// Done returns a channel that is closed when the subscription is over, because it
// was cancelled or because the producer ended, and everything that came through it
// is handled. It is closed when Run returns at the latest.
func (l *Link) Done() <-chan struct{} { return l.done }

// Subscribe makes by ask from for events, at once. It may be called before [Run]
// and while it runs, and any number of stages may subscribe to any number of
// others. Both must belong to the same Run.
func Subscribe[E any](by Sink[E], from Source[E], s Subscription) (*Link, error) {
	return subscribe(by, from, s, terms[E]{})
}

// SubscribeWhere is [Subscribe] to a stage that broadcasts, for the events that
// selector accepts. Those that it rejects do not count: others are asked for in
// their place. selector is called while the stage's lock is held, so it must be
// quick and must not call this package.
func SubscribeWhere[E any](by Sink[E], from Source[E], s Subscription, selector func(E) bool) (*Link, error) {
	if selector == nil {
		return nil, &Error{from.base().name, fmt.Errorf("a subscription by selector has none")}
	}
	return subscribe(by, from, s, terms[E]{selector: selector})
}

// SubscribePartition is [Subscribe] to one partition of a stage with the
// dispatcher [Partition]: from 0 to one less than it has.
func SubscribePartition[E any](by Sink[E], from Source[E], s Subscription, partition int) (*Link, error) {
	return subscribe(by, from, s, terms[E]{partition: partition, partitioned: true})
}

// terms are what one kind of dispatcher asks of a subscription.
type terms[E any] struct {
	selector    func(E) bool
	partition   int
	partitioned bool
}

func (t terms[E]) validate(d dispatcher[E]) error {
	_, broadcasts := d.(*broadcast[E])
	_, partitioned := d.(*partitions[E])
	switch {
	case t.selector != nil && !broadcasts:
		return fmt.Errorf("a selector needs the dispatcher Broadcast")
	case t.partitioned && !partitioned:
		return fmt.Errorf("a partition needs the dispatcher Partition")
	case !t.partitioned && partitioned:
		return fmt.Errorf("the dispatcher Partition needs SubscribePartition")
	}
	return nil
}

func subscribe[E any](by Sink[E], from Source[E], s Subscription, t terms[E]) (*Link, error) {
	in, out := by.inlet(), from.outlet()
	if err := s.validate(); err != nil {
		return nil, &Error{in.owner.name, err}
	}
	if err := t.validate(out.disp); err != nil {
		return nil, &Error{out.owner.name, err}
	}
	if out.owner.feedsOn(in.owner) {
		return nil, &Error{in.owner.name, ErrCycle}
	}
	if in.owner.running() != out.owner.running() {
		return nil, &Error{in.owner.name, ErrOtherRun}
	}
	l := &link[E]{
		from: out, to: in, terms: t,
		credit: NewCredit(int64(s.MaxDemand)),
		least:  int64(s.MinDemand),
		chunk:  s.MaxDemand - s.MinDemand,
		done:   make(chan struct{}),
	}
	if err := l.attach(); err != nil {
		return nil, err
	}
	return &Link{cancel: func() { out.cancel(l, false) }, done: l.done}, nil
}

// link is one subscription, between an outlet and an inlet.
type link[E any] struct {
	from *outlet[E]
	to   *inlet[E]
	terms[E]
	done chan struct{}
	// arrived counts events that were handed over and are not in the ledger yet.
	arrived atomic.Int64

	// The consumer's side: only its goroutine uses these.
	credit *Credit // reserved: on its way; taken: handed over and not handled
	least  int64   // ask when so few or fewer are reserved and taken
	chunk  int
	over   bool

	// The producer's side: guarded by from.mu.
	demand   int
	position int // among the links of a byDemand
	attached bool
}

// attach makes the link known, first to the consumer and then to the producer, as
// that may hand it events at once.
//
//  1. in.add, 2. the consumer stops and cancels all its links: this one is not
//     attached yet, 3. out.subscribe attaches it: to a consumer that is gone.
//
// Hence the look back at the end.
func (l *link[E]) attach() error {
	if err := l.to.add(l); err != nil {
		return err
	}
	n := l.credit.Reserve(l.credit.Bound())
	if err := l.from.subscribe(l, int(n)); err != nil {
		l.to.remove(l)
		l.to.owner.unpark()
		return err
	}
	if l.to.isEnded() {
		l.from.cancel(l, true)
		return &Error{l.to.owner.name, ErrEnded}
	}
	return nil
}

// book enters what arrived into the ledger. It comes before each other transition,
// not when the events have their turn: so an event or an ask too many is noticed at
// the first transition after it arrived.
func (l *link[E]) book() {
	if l.arrived.Load() > 0 {
		l.credit.Take(l.arrived.Swap(0))
	}
}

// settle returns the credit of n handled events and asks for more, if it is time.
func (l *link[E]) settle(n int) {
	l.book()
	l.credit.Return(int64(n))
	if l.credit.Bound()-l.credit.Free() <= l.least {
		l.from.ask(l, int(l.credit.Reserve(l.credit.Free())))
	}
}

// end closes the link's books. The consumer calls it, or Run after it.
func (l *link[E]) end() {
	if l.over {
		return
	}
	l.over = true
	l.credit.Cancel(l.credit.Reserved())
	close(l.done)
}
