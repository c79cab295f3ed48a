package stage

// broadcast hands each event to every subscriber, as fast as the one with the
// least demand takes them.
type broadcast[E any] struct {
	queue  queue[E]
	links  []*link[E]
	picked [][]E // scratch: what each link gets of the present events
	paused bool
}

func (d *broadcast[E]) split(events []E) parcel[E] { return parcel[E]{events: events} }

func (d *broadcast[E]) offer(p parcel[E]) (parcel[E], int) {
	events := p.events
	if d.queue.size == 0 && !d.paused {
		events = d.hand(events)
	}
	left, dropped := d.queue.put(events)
	return parcel[E]{events: left}, dropped
}

// common is the demand that every link has. A subscriber without demand, such as
// a new one, makes it 0.
func (d *broadcast[E]) common() int {
	if len(d.links) == 0 {
		return 0
	}
	least := d.links[0].demand
	for _, l := range d.links[1:] {
		least = min(least, l.demand)
	}
	return least
}

// hand hands on what is asked for and returns the rest. An event that a selector
// rejects does not count against that link's demand, which is how it is asked for
// anew.
func (d *broadcast[E]) hand(events []E) []E {
	for len(events) > 0 {
		n := min(len(events), d.common())
		if n == 0 {
			break
		}
		now := events[:n:n]
		// All selectors come before all changes: one that panics leaves every
		// subscriber's demand as it was.
		for i, l := range d.links {
			d.picked[i] = pick(now, l.selector)
		}
		for i, l := range d.links {
			if len(d.picked[i]) > 0 {
				l.demand -= len(d.picked[i])
				l.to.push(l, d.picked[i])
			}
		}
		clear(d.picked)
		events = events[n:]
	}
	return events
}

// pick returns the events that selector accepts: the same slice if it accepts
// all of them.
func pick[E any](events []E, selector func(E) bool) []E {
	if selector == nil {
		return events
	}
	var picked []E
	rejected := false
	for i, e := range events {
		switch ok := selector(e); {
		case ok && rejected:
			picked = append(picked, e)
		case !ok && !rejected:
			rejected = true
			picked = append(picked, events[:i]...)
		}
	}
	if !rejected {
		return events
	}
	return picked
}

func (d *broadcast[E]) subscribe(l *link[E]) error {
	for _, other := range d.links {
		if other.to == l.to {
			return ErrAlreadySubscribed
		}
	}
	d.links = append(d.links, l)
	d.picked = append(d.picked, nil)
	return nil
}

func (d *broadcast[E]) cancel(l *link[E]) {
	for i, other := range d.links {
		if other == l {
			d.links = append(d.links[:i], d.links[i+1:]...)
			d.picked = d.picked[:len(d.links)]
			break
		}
	}
	l.demand = 0
	// The others may have waited for this one only.
	d.flush()
}

func (d *broadcast[E]) ask(l *link[E], n int) {
	l.demand += n
	d.flush()
}

func (d *broadcast[E]) flush() {
	// With a selector, one hand may leave demand behind: go on while there is
	// something to hand.
	for !d.paused {
		n := min(d.common(), d.queue.size)
		if n == 0 {
			return
		}
		d.hand(d.queue.take(n))
	}
}

func (d *broadcast[E]) want() int { return max(d.common()-d.queue.size, 0) }

func (d *broadcast[E]) held() int { return d.queue.size }

func (d *broadcast[E]) stranded() int {
	if len(d.links) > 0 {
		return 0
	}
	return d.queue.size
}

func (d *broadcast[E]) pause(paused bool) {
	d.paused = paused
	d.flush()
}
