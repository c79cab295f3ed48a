package stage

import "fmt"

// DefaultBuffer is how many events a stage holds beyond the demand, unless
// [Options] say otherwise.
const DefaultBuffer = 10_000

// Options are the options of a stage that others subscribe to. The zero value is
// good.
type Options[E any] struct {
	// Dispatcher shares the events among the subscribers. The default is
	// [ByDemand].
	Dispatcher Dispatcher[E]
	// Buffer is the most events to hold that nobody asked for yet, per partition
	// with [Partition]. 0 means [DefaultBuffer]. A fetch function, which returns
	// no more than it was asked for, needs it only for what a cancelled
	// subscription had asked for.
	Buffer int
	// Overflow says what becomes of events that find no room. The default is
	// [Block].
	Overflow Overflow
	// Discarded is told how many events were discarded just now, in the goroutine
	// that emitted them. It is optional; Dropped counts in any case.
	Discarded func(n int)
}

// newOutlet returns an outlet without its owner.
func (o Options[E]) newOutlet() (*outlet[E], error) {
	if o.Buffer < 0 {
		return nil, fmt.Errorf("the buffer of %d events is negative", o.Buffer)
	}
	if o.Overflow < Block || o.Overflow > DropLast {
		return nil, fmt.Errorf("%d is no overflow policy", int(o.Overflow))
	}
	if o.Buffer == 0 {
		o.Buffer = DefaultBuffer
	}
	dispatcher := o.Dispatcher
	if dispatcher.make == nil {
		dispatcher = ByDemand[E]()
	}
	d, err := dispatcher.make(o.Buffer, o.Overflow)
	if err != nil {
		return nil, err
	}
	return &outlet[E]{disp: d, discarded: o.Discarded}, nil
}
