package memory

import (
	"errors"
	"io"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// run is what one Fetch takes of one partition.
type run struct {
	lease *lease
	n     int
}

// generate puts into the queue what d asks for and the queue does not hold.
func (p *Producer) generate(d broadway.Demand) error {
	for p.next != nil {
		missing, bytes := p.missing(d)
		before := p.endedCount()
		made, err := p.make(missing, bytes)
		q := p.queue
		q.mu.Lock()
		for _, e := range made {
			q.append(e.Partition, e)
		}
		ended := p.endedCount()
		q.closed = q.closed || ended == len(p.ended)
		q.mu.Unlock()
		if err != nil || len(made) > 0 || ended == before {
			return err
		} // otherwise what was asked of a partition that has ended is asked of the others
	}
	return nil
}

// endedCount is how many partitions generate no more.
func (p *Producer) endedCount() (n int) {
	for _, ended := range p.ended {
		if ended {
			n++
		}
	}
	return n
}

// missing is how many messages each partition should generate, and of how many
// bytes, beyond what waits: the last one may exceed them.
func (p *Producer) missing(d broadway.Demand) (missing []int, bytes int64) {
	q := p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	missing, bytes = make([]int, len(p.leases)), d.Bytes
	for i := range q.partitions {
		_, weight, need := fit(&q.partitions[i], q.partitions[i].ready(), bytes)
		if bytes -= weight; need > 0 {
			bytes = 0
		}
	}
	left := min(d.Messages, q.cfg.Capacity-q.waiting)
	open := 0
	rooms := make([]int, len(p.leases)) // asked once: it may grow meanwhile
	for i := range p.leases {
		if !p.ended[i] {
			rooms[i] = p.room(i) - q.partitions[i].ready()
		}
		if rooms[i] > 0 {
			open++
		}
	}
	for k := range p.leases {
		i := (p.first + k) % len(p.leases)
		if rooms[i] <= 0 || left <= 0 {
			continue
		}
		quota := (left+open-1)/open - q.partitions[i].ready()
		missing[i] = max(min(quota, rooms[i]), 0)
		left -= missing[i]
		open--
	}
	return missing, bytes
}

// make calls Next: no lock is held.
func (p *Producer) make(missing []int, bytes int64) ([]entry, error) {
	var made []entry
	for k := range missing {
		i := (p.first + k) % len(missing)
		for n := missing[i]; n > 0 && bytes > 0; n-- {
			payload, err := p.next(i)
			if errors.Is(err, io.EOF) {
				p.ended[i] = true
				break
			}
			if err != nil {
				return made, err
			}
			bytes -= int64(len(payload))
			made = append(made, entry{Metadata: Metadata{Partition: i}, payload: payload})
		}
	}
	return made, nil
}

// room is how many messages partition i may hand out. queue.mu is held.
func (p *Producer) room(i int) int {
	l := p.leases[i]
	switch {
	case l == nil:
		l = &lease{limit: p.limit}
	case l.stopped || l.ref.Room() == 0:
		return 0
	}
	room := 1 << slabBits
	if l.ref != nil {
		room = min(room, l.ref.Room()) // a reference that is stopped has none
	}
	if l.limit > 0 {
		room = min(room, max(l.limit-l.unsettled, 0))
	}
	return room
}

// collect takes from the queue what d allows; nothing means that Fetch must
// wait for a change, or the time that it gives.
func (p *Producer) collect(d broadway.Demand) ([]*broadway.Message, time.Time, error) {
	q := p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	var due time.Time
	for i := range q.partitions {
		due = sooner(due, q.partitions[i].unpark(now))
	}
	total, err := p.claim(d)
	if err != nil {
		return nil, due, err
	}
	if total > 0 {
		return p.deliver(total), due, nil
	}
	if q.closed && p.exhausted() {
		return nil, due, p.end()
	}
	return nil, due, nil
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// exhausted says whether nothing waits that could be delivered, now or later.
func (p *Producer) exhausted() bool {
	for i := range p.queue.partitions {
		part := &p.queue.partitions[i]
		stopped := p.leases[i] != nil && p.leases[i].stopped
		if !stopped && part.ready()+len(part.parked) > 0 {
			return false
		}
	}
	return true
}

// end is how a finite source ends.
func (p *Producer) end() error {
	if err := p.stopped(); err != nil {
		return broadway.Fatal(err)
	}
	return io.EOF
}

// claim shares d among the partitions, in turn, as p.runs. A reference may grant
// less than its lease has room for, in the instant between an Ack and the moment
// in which the pipeline counts it: then its OnRoom follows. queue.mu is held.
func (p *Producer) claim(d broadway.Demand) (total int, err error) {
	q := p.queue
	p.runs = p.runs[:0]
	open := 0
	for i := range p.leases {
		if min(p.room(i), q.partitions[i].ready()) > 0 {
			open++
		}
	}
	left, bytes, start := d.Messages, d.Bytes, p.first
	for k := 0; k < len(p.leases) && open > 0 && left > 0; k++ {
		i := (start + k) % len(p.leases)
		able := min(p.room(i), q.partitions[i].ready())
		if able == 0 {
			continue
		}
		n, weight, need := fit(&q.partitions[i], min(able, (left+open-1)/open), bytes)
		if need > 0 && n == 0 && total == 0 {
			return 0, broadway.NeedBytes(need)
		}
		l := p.lease(i)
		granted := l.ref.Take(n)
		if granted < n {
			_, weight, _ = fit(&q.partitions[i], granted, bytes)
		}
		if granted > 0 {
			p.runs = append(p.runs, run{l, granted})
			total += granted
		}
		left, bytes, open = left-granted, bytes-weight, open-1
		if need > 0 {
			p.first = i // what did not fit comes first the next time
			return total, nil
		}
	}
	if total > 0 {
		p.first = (p.runs[0].lease.partition + 1) % len(p.leases)
	}
	return total, nil
}

// fit is how many of the first n messages of part weigh at most bytes, how much
// they weigh, and how much the next weighs if it was that which did not fit.
func fit(part *partition, n int, bytes int64) (fits int, weight, need int64) {
	for ; fits < n; fits++ {
		size := part.at(fits).size()
		if weight+size > bytes {
			return fits, weight, size
		}
		weight += size
	}
	return fits, weight, 0
}

// lease is the producer's hold of partition i. queue.mu is held.
func (p *Producer) lease(i int) *lease {
	if p.leases[i] == nil {
		l := &lease{partition: i, limit: p.limit, slabs: make(map[int64]*slab)}
		l.ref = broadway.NewAckRef(p, l, p.limit)
		l.ref.OnRoom(p.queue.roused)
		p.leases[i] = l
	}
	return p.leases[i]
}

// deliver makes messages of p.runs. queue.mu is held.
func (p *Producer) deliver(total int) []*broadway.Message {
	q := p.queue
	entries := make([]entry, total)
	slab := make([]broadway.Message, total)
	messages := make([]*broadway.Message, total)
	at := 0
	for _, r := range p.runs {
		part := &q.partitions[r.lease.partition]
		own := entries[at : at+r.n : at+r.n]
		part.take(own)
		part.unsettled += r.n
		seq := r.lease.add(own)
		for i := range own {
			e, m := &own[i], &slab[at]
			e.Deliveries++
			m.Init(r.lease.ref, seq+int64(i), e.payload)
			m.SetSize(e.size())
			m.Metadata = &e.Metadata
			m.Redelivered = e.Deliveries > 1
			messages[at] = m
			at++
		}
	}
	q.waiting -= total
	q.counts.Delivered += int64(total)
	q.wake()
	return messages
}
