package stage

import "sync"

// outlet is the emitting side of a stage: its subscribers, the events that wait
// for them, and what they want beyond that.
type outlet[E any] struct {
	owner     *node
	pulls     bool        // the owner fetches by ask; otherwise it only needs to know that there is demand
	discarded func(n int) // may be nil
	disp      dispatcher[E]

	mu        sync.Mutex // guards everything below, and disp but for its split
	links     []*link[E]
	asks      asks
	inflight  int           // asked of fetch, which has not returned
	paused    bool          // do not fetch
	closing   bool          // the owner brings no more events
	abandoned bool          // the last subscriber wants no more
	ended     bool          // the owner is gone
	room      chan struct{} // closed when there may be room; nil if nobody waits
	dropped   int64
	interrupt func() // ends the present fetch, if there can be one
}

// verdict is what the owner of an outlet is to do next.
type verdict int

const (
	idle      verdict = iota // wait
	fetch                    // answer an ask
	drained                  // end: everything was handed on
	deserted                 // end: nobody wants more
	undeliver                // end: nobody is there to take what is left
)

// next tells the owner what to do and, for fetch, how many events are asked for.
func (o *outlet[E]) next() (verdict, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	held := 0
	if o.closing {
		held = o.disp.held()
	}
	switch {
	case o.abandoned:
		return deserted, 0
	case o.closing && held == 0:
		return drained, 0
	case o.closing && o.disp.stranded() == held:
		return undeliver, held
	case o.closing || o.paused || o.asks.sum == 0:
		return idle, 0
	}
	o.inflight = o.asks.pop()
	return fetch, o.inflight
}

// answer hands on what fetch returned. Less than it was asked for leaves the rest
// of the ask, before all others.
func (o *outlet[E]) answer(done <-chan struct{}, events []E) error {
	_, err := o.emit(done, events, true)
	return err
}

// emit hands events on, holds those that nobody asked for, and blocks while there
// is no room. It returns how many it took. own tells the stage's own events from
// those of other goroutines, which are refused once the stage is closing.
func (o *outlet[E]) emit(done <-chan struct{}, events []E, own bool) (int, error) {
	all := len(events)
	left := o.disp.split(events)
	for first := true; ; first = false {
		room, dropped, err := o.offer(&left, own, first)
		if dropped > 0 && o.discarded != nil {
			o.discarded(dropped)
		}
		if err != nil || room == nil {
			return all - left.size(), err
		}
		select {
		case <-room:
		case <-done:
			return all - left.size(), errHalted
		}
	}
}

// offer tries once, and returns a channel that is closed when trying again makes
// sense, if something is left.
func (o *outlet[E]) offer(left *parcel[E], own, first bool) (room <-chan struct{}, dropped int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.abandoned || (o.closing && !own) {
		return nil, 0, ErrEnded
	}
	if first && own && o.pulls {
		o.asks.unpop(o.inflight - left.size())
		o.inflight = 0
	}
	*left, dropped = o.disp.offer(*left)
	o.dropped += int64(dropped)
	if o.rebalance() && !own {
		o.owner.unpark()
	}
	if !left.empty() {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room = o.room
	}
	return room, dropped, nil
}

// rebalance makes the asks add up to what is wanted, and tells whether the owner
// has something to do that it may not know of. What is wanted can fall below what
// was asked: by a cancel, and by events that came without being asked for. Then
// asks that were not fetched yet are taken back, and later asks are the smaller
// for those that were.
func (o *outlet[E]) rebalance() bool {
	switch {
	case o.closing:
		return true
	case o.pulls:
		return o.asks.aim(max(o.disp.want()-o.inflight, 0))
	default:
		return o.disp.want() > 0
	}
}

// ask adds to the demand of a link. It is called by the link's consumer.
func (o *outlet[E]) ask(l *link[E], n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !l.attached {
		return
	}
	held := o.disp.held()
	o.disp.ask(l, n)
	o.changed(held)
}

// changed follows each change of the demand. held is what was held before it.
func (o *outlet[E]) changed(held int) {
	if o.disp.held() < held {
		o.makeRoom()
	}
	if o.rebalance() {
		o.owner.unpark()
	}
}

// makeRoom lets those who wait for room try again.
func (o *outlet[E]) makeRoom() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// subscribe adds a link, with its first ask.
func (o *outlet[E]) subscribe(l *link[E], n int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.abandoned {
		return &Error{o.owner.name, ErrEnded}
	}
	held := o.disp.held()
	if err := o.disp.subscribe(l); err != nil {
		return &Error{o.owner.name, err}
	}
	l.attached = true
	o.links = append(o.links, l)
	o.disp.ask(l, n)
	o.changed(held)
	return nil
}

// cancel removes a link. What was handed to its consumer before is handled; its
// end comes behind that. stop tells that the consumer wants no more and handles
// nothing.
func (o *outlet[E]) cancel(l *link[E], stop bool) {
	if interrupt := o.detach(l, stop); interrupt != nil {
		interrupt()
	}
}

func (o *outlet[E]) detach(l *link[E], stop bool) (interrupt func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !l.attached {
		return nil
	}
	l.attached = false
	for i, other := range o.links {
		if other == l {
			o.links = append(o.links[:i], o.links[i+1:]...)
			break
		}
	}
	held := o.disp.held()
	o.disp.cancel(l)
	if !stop {
		l.to.push(l, nil)
	}
	o.changed(held)
	if stop && len(o.links) == 0 {
		o.abandoned = true
		o.makeRoom()
		o.owner.unpark()
		return o.interrupt
	}
	return nil
}

// close says that no more events come. What is held is still handed on.
func (o *outlet[E]) close() {
	if interrupt := o.beginClosing(); interrupt != nil {
		interrupt()
	}
}

func (o *outlet[E]) beginClosing() (interrupt func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return nil
	}
	o.closing = true
	o.asks = asks{}
	// Others who wait for room are refused; the owner itself goes on.
	o.makeRoom()
	o.owner.unpark()
	return o.interrupt
}

// end detaches every link and tells its consumer, behind all events.
func (o *outlet[E]) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.makeRoom()
	for _, l := range o.links {
		l.attached = false
		l.to.push(l, nil)
	}
	o.links = nil
}

// pause stops handing on and fetching, until it is called with false.
func (o *outlet[E]) pause(paused bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.paused = paused
	held := o.disp.held()
	o.disp.pause(paused)
	o.changed(held)
	o.owner.unpark()
}

// wanted tells whether there is demand that nothing held covers.
func (o *outlet[E]) wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.disp.want() > 0
}

// crowd returns how many subscribers there are, and whether the last of them said
// that it wants no more.
func (o *outlet[E]) crowd() (n int, abandoned bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.links), o.abandoned
}

func (o *outlet[E]) held() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.disp.held()
}

func (o *outlet[E]) lost() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

func (o *outlet[E]) setInterrupt(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.interrupt = f
}

func (o *outlet[E]) isClosing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing || o.abandoned
}

// sinks returns the stages that are subscribed to the outlet.
func (o *outlet[E]) sinks() []*node {
	o.mu.Lock()
	defer o.mu.Unlock()
	var nodes []*node
	for _, l := range o.links {
		nodes = append(nodes, l.to.owner)
	}
	return nodes
}
