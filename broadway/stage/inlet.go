package stage

import "sync"

// inlet is the receiving side of a stage: the events that were handed to it and
// that it has not handled yet. What it holds is bounded by the credit of its
// links: nothing is handed to it that it did not ask for.
type inlet[E any] struct {
	owner *node // unparked when something arrives

	mu    sync.Mutex // guards everything below; taken after an outlet's, never before
	queue []delivery[E]
	links []*link[E] // those that are not over
	ended bool
}

// delivery is what a link brings: events or, if there are none, its end.
type delivery[E any] struct {
	link   *link[E]
	events []E
}

// push hands events to the stage or, with none, tells it that the link is over.
func (in *inlet[E]) push(l *link[E], events []E) {
	if len(events) > 0 {
		l.arrived.Add(int64(len(events)))
	}
	in.mu.Lock()
	in.queue = append(in.queue, delivery[E]{l, events})
	in.mu.Unlock()
	in.owner.unpark()
}

// take returns everything that arrived and leaves spare, emptied, to be filled.
func (in *inlet[E]) take(spare []delivery[E]) []delivery[E] {
	in.mu.Lock()
	defer in.mu.Unlock()
	arrived := in.queue
	in.queue = spare[:0]
	return arrived
}

func (in *inlet[E]) add(l *link[E]) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return &Error{in.owner.name, ErrEnded}
	}
	in.links = append(in.links, l)
	return nil
}

func (in *inlet[E]) remove(l *link[E]) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, other := range in.links {
		if other == l {
			in.links = append(in.links[:i], in.links[i+1:]...)
			return
		}
	}
}

// finish ends the inlet if no link is left and everything was taken, and tells
// whether it did.
func (in *inlet[E]) finish() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.links) > 0 || len(in.queue) > 0 {
		return false
	}
	in.ended = true
	return true
}

// stop ends the inlet, forgets what it holds and cancels every link, telling the
// stages behind them that it wants no more.
func (in *inlet[E]) stop() {
	for _, l := range in.shut() {
		l.from.cancel(l, true)
		l.end()
	}
}

// shut ends the inlet, forgets what it holds and returns the links that are not
// over.
func (in *inlet[E]) shut() []*link[E] {
	in.mu.Lock()
	defer in.mu.Unlock()
	links := in.links
	in.links, in.queue, in.ended = nil, nil, true
	return links
}

// release ends the inlet when Run is over.
func (in *inlet[E]) release() {
	for _, l := range in.shut() {
		l.end()
	}
}

// sources returns the stages that the inlet is subscribed to.
func (in *inlet[E]) sources() []*node {
	in.mu.Lock()
	defer in.mu.Unlock()
	var nodes []*node
	for _, l := range in.links {
		nodes = append(nodes, l.from.owner)
	}
	return nodes
}

// receive handles one delivery: it has handle called for chunks of it and, after
// each chunk, asks for more if few enough are left to come. A chunk has at most
// MaxDemand - MinDemand events.
func (in *inlet[E]) receive(d delivery[E], r *runner, handle func(chunk []E) error) error {
	l, events := d.link, d.events
	if len(events) == 0 {
		in.remove(l)
		l.end()
		return nil
	}
	l.book()
	for len(events) > 0 {
		if r.halted() {
			return errHalted
		}
		n := min(len(events), l.chunk)
		if err := handle(events[:n:n]); err != nil {
			return err
		}
		l.settle(n)
		events = events[n:]
	}
	return nil
}

func (in *inlet[E]) isEnded() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.ended
}
