package stage

import "fmt"

// Dispatcher says how a stage shares its events among its subscribers:
// [ByDemand], [Broadcast] or [Partition]. The zero value is ByDemand.
type Dispatcher[E any] struct {
	make func(bound int, overflow Overflow) (dispatcher[E], error)
}

// ByDemand returns the default dispatcher: each event goes to one subscriber,
// the one with the most demand first. Among equals the one that has waited
// longest comes first.
func ByDemand[E any]() Dispatcher[E] {
	return Dispatcher[E]{make: func(bound int, overflow Overflow) (dispatcher[E], error) {
		return &byDemand[E]{queue: queue[E]{bound: bound, overflow: overflow}}, nil
	}}
}

// Broadcast returns the dispatcher that hands each event to every subscriber.
// It asks for as many as the subscriber with the least demand takes, so the
// slowest sets the pace. Subscribers share slices and must not change them.
//
// A subscriber may see only some of the events: see [SubscribeWhere].
func Broadcast[E any]() Dispatcher[E] {
	return Dispatcher[E]{make: func(bound int, overflow Overflow) (dispatcher[E], error) {
		return &broadcast[E]{queue: queue[E]{bound: bound, overflow: overflow}}, nil
	}}
}

// Partition returns the dispatcher with one subscriber for each of n partitions,
// numbered from 0, of which an event belongs to number hash(event) modulo n. See
// [SubscribePartition].
//
// Each partition has a buffer of its own, of [Options].Buffer events, for those
// that come while its subscriber has no demand or is not there. They are asked
// for once more on behalf of the others, so a blocked partition does not stall
// them until its buffer is full. From then on, as nothing can be fetched past
// the events of a blocked partition, [Block] makes all of them wait; [DropFirst]
// and [DropLast] discard from that partition alone.
//
// hash is called once per event, from the goroutine that emits. It must be pure.
func Partition[E any](n int, hash func(E) uint64) Dispatcher[E] {
	return Dispatcher[E]{make: func(bound int, overflow Overflow) (dispatcher[E], error) {
		if n < 1 {
			return nil, fmt.Errorf("%d partitions: there must be at least 1", n)
		}
		if hash == nil {
			return nil, fmt.Errorf("%d partitions without a hash function", n)
		}
		d := &partitions[E]{hash: hash, all: make([]partition[E], n)}
		for i := range d.all {
			d.all[i].queue = queue[E]{bound: bound, overflow: overflow}
		}
		return d, nil
	}}
}

// dispatcher decides which subscriber gets which events, and holds the events
// that nobody asked for yet. It is a plain state machine: the outlet that owns it
// guards it with its lock, but for split.
type dispatcher[E any] interface {
	// split prepares events for offer. It depends on nothing that changes, and
	// is called without the lock.
	split(events []E) parcel[E]
	// offer hands on what is asked for and holds what there is room for. It
	// returns the rest, and how many it discarded.
	offer(p parcel[E]) (left parcel[E], dropped int)
	// subscribe adds a subscriber, without demand yet.
	subscribe(l *link[E]) error
	// cancel removes a subscriber, and its demand.
	cancel(l *link[E])
	// ask adds demand, after handing on what is held.
	ask(l *link[E], n int)
	// want is the demand that what is held does not cover.
	want() int
	// held is how many events are held.
	held() int
	// stranded is how many of them no present subscriber may take.
	stranded() int
	// pause stops handing on until it is called with false.
	pause(paused bool)
}

// parcel is events on their way into a dispatcher: in one slice, or in one for
// each partition.
type parcel[E any] struct {
	events []E
	parts  [][]E
}

func (p parcel[E]) empty() bool {
	for _, part := range p.parts {
		if len(part) > 0 {
			return false
		}
	}
	return len(p.events) == 0
}

func (p parcel[E]) size() int {
	n := len(p.events)
	for _, part := range p.parts {
		n += len(part)
	}
	return n
}
