package stage

import "fmt"

// partitions hands each event to the subscriber of its partition.
type partitions[E any] struct {
	hash   func(E) uint64
	all    []partition[E]
	wanted int // sum over all of the demand that their queues do not cover
	size   int // events held in all
	paused bool
}

// partition is one of them. Unless paused, it has demand or a queue, not both.
type partition[E any] struct {
	link  *link[E] // nil while nobody is subscribed
	queue queue[E]
}

func (p *partition[E]) demand() int {
	if p.link == nil {
		return 0
	}
	return p.link.demand
}

// want is the demand that the queue does not cover.
func (p *partition[E]) want() int { return max(p.demand()-p.queue.size, 0) }

// split sorts events by partition, into parts of one new slice.
func (d *partitions[E]) split(events []E) parcel[E] {
	var few [128]int32
	numbers, counts := few[:0], make([]int32, len(d.all))
	for _, e := range events {
		n := int32(d.hash(e) % uint64(len(d.all)))
		numbers = append(numbers, n)
		counts[n]++
	}
	parts, sorted := make([][]E, len(d.all)), make([]E, len(events))
	for i, n := range counts {
		parts[i], sorted = sorted[:0:n], sorted[n:]
	}
	for i, e := range events {
		n := numbers[i]
		parts[n] = append(parts[n], e)
	}
	return parcel[E]{parts: parts}
}

func (d *partitions[E]) offer(p parcel[E]) (parcel[E], int) {
	dropped := 0
	for i, events := range p.parts {
		if len(events) == 0 {
			continue
		}
		part := &d.all[i]
		d.change(part, func() {
			if part.queue.size == 0 && !d.paused {
				events = part.hand(events)
			}
			left, n := part.queue.put(events)
			p.parts[i] = left
			dropped += n
		})
	}
	return p, dropped
}

// change does something with a partition and keeps the sums.
func (d *partitions[E]) change(p *partition[E], do func()) {
	d.wanted -= p.want()
	d.size -= p.queue.size
	do()
	d.wanted += p.want()
	d.size += p.queue.size
}

// hand hands on what is asked for and returns the rest.
func (p *partition[E]) hand(events []E) []E {
	n := min(len(events), p.demand())
	if n == 0 {
		return events
	}
	p.link.demand -= n
	p.link.to.push(p.link, events[:n:n])
	return events[n:]
}

func (d *partitions[E]) subscribe(l *link[E]) error {
	if l.partition < 0 || l.partition >= len(d.all) {
		return fmt.Errorf("partition %d: it must be one of 0 to %d", l.partition, len(d.all)-1)
	}
	p := &d.all[l.partition]
	if p.link != nil {
		return fmt.Errorf("partition %d: %w", l.partition, ErrPartitionTaken)
	}
	p.link = l
	return nil
}

// cancel leaves what the partition holds to its next subscriber.
func (d *partitions[E]) cancel(l *link[E]) {
	p := &d.all[l.partition]
	d.change(p, func() { p.link = nil })
	l.demand = 0
}

func (d *partitions[E]) ask(l *link[E], n int) {
	p := &d.all[l.partition]
	d.change(p, func() {
		l.demand += n
		d.flush(p)
	})
}

func (d *partitions[E]) flush(p *partition[E]) {
	if n := min(p.demand(), p.queue.size); n > 0 && !d.paused {
		p.hand(p.queue.take(n))
	}
}

func (d *partitions[E]) want() int { return d.wanted }

func (d *partitions[E]) held() int { return d.size }

func (d *partitions[E]) stranded() int {
	n := 0
	for i := range d.all {
		if d.all[i].link == nil {
			n += d.all[i].queue.size
		}
	}
	return n
}

func (d *partitions[E]) pause(paused bool) {
	d.paused = paused
	for i := range d.all {
		p := &d.all[i]
		d.change(p, func() { d.flush(p) })
	}
}
