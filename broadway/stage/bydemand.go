package stage

// byDemand hands each event to one subscriber, the one with the most demand
// first.
type byDemand[E any] struct {
	queue queue[E]
	// links is sorted by demand, the most first. A link that reaches the demand
	// of others comes after them, so equals take turns.
	links  []*link[E]
	total  int // demand of all links
	paused bool
}

func (d *byDemand[E]) split(events []E) parcel[E] { return parcel[E]{events: events} }

func (d *byDemand[E]) offer(p parcel[E]) (parcel[E], int) {
	events := p.events
	if d.queue.size == 0 && !d.paused {
		events = d.hand(events)
	}
	left, dropped := d.queue.put(events)
	return parcel[E]{events: left}, dropped
}

// hand hands on what is asked for and returns the rest.
func (d *byDemand[E]) hand(events []E) []E {
	for len(events) > 0 && d.total > 0 {
		l := d.links[0]
		n := min(len(events), l.demand)
		l.demand -= n
		d.total -= n
		d.sink()
		l.to.push(l, events[:n:n])
		events = events[n:]
	}
	return events
}

// sink moves the first link behind all that have as much demand or more.
func (d *byDemand[E]) sink() {
	l, i := d.links[0], 0
	for ; i+1 < len(d.links) && d.links[i+1].demand >= l.demand; i++ {
		d.place(i, d.links[i+1])
	}
	d.place(i, l)
}

// rise moves a link that got demand before all that have less.
func (d *byDemand[E]) rise(l *link[E]) {
	i := l.position
	for ; i > 0 && d.links[i-1].demand < l.demand; i-- {
		d.place(i, d.links[i-1])
	}
	d.place(i, l)
}

func (d *byDemand[E]) place(i int, l *link[E]) {
	d.links[i] = l
	l.position = i
}

func (d *byDemand[E]) subscribe(l *link[E]) error {
	d.links = append(d.links, l)
	l.position = len(d.links) - 1
	return nil
}

func (d *byDemand[E]) cancel(l *link[E]) {
	for i := l.position; i+1 < len(d.links); i++ {
		d.place(i, d.links[i+1])
	}
	d.links[len(d.links)-1] = nil
	d.links = d.links[:len(d.links)-1]
	d.total -= l.demand
	l.demand = 0
}

func (d *byDemand[E]) ask(l *link[E], n int) {
	l.demand += n
	d.total += n
	d.rise(l)
	d.flush()
}

func (d *byDemand[E]) flush() {
	if n := min(d.total, d.queue.size); n > 0 && !d.paused {
		d.hand(d.queue.take(n))
	}
}

func (d *byDemand[E]) want() int { return max(d.total-d.queue.size, 0) }

func (d *byDemand[E]) held() int { return d.queue.size }

func (d *byDemand[E]) stranded() int {
	if len(d.links) > 0 {
		return 0
	}
	return d.queue.size
}

func (d *byDemand[E]) pause(paused bool) {
	d.paused = paused
	d.flush()
}
