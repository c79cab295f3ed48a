package stage

// Overflow says what becomes of events for which there is neither demand nor
// room in the buffer.
type Overflow int

const (
	// Block makes the emitter wait until there is room. It is the default:
	// nothing is lost.
	Block Overflow = iota
	// DropFirst discards the oldest events of the buffer, and keeps the newest.
	DropFirst
	// DropLast discards the newest events, and keeps what the buffer holds.
	DropLast
)

// queue is a bounded FIFO of events, kept as the slices they came in.
type queue[E any] struct {
	segments [][]E // segments[head:] are held, oldest first
	head     int
	size     int // events held
	bound    int // most events held
	overflow Overflow
}

// put appends events and returns those that found no room (with Block) or how
// many were discarded (otherwise).
func (q *queue[E]) put(events []E) (left []E, dropped int) {
	room := q.bound - q.size
	if len(events) <= room {
		q.append(events)
		return nil, 0
	}
	switch q.overflow {
	case DropFirst:
		dropped = len(events) - room
		if len(events) > q.bound {
			events = events[len(events)-q.bound:]
		}
		q.skip(len(events) + q.size - q.bound)
		q.append(events)
		return nil, dropped
	case DropLast:
		q.append(events[:room])
		return nil, len(events) - room
	default:
		q.append(events[:room:room])
		return events[room:], 0
	}
}

// take removes the oldest n events, which must be there, as one slice.
func (q *queue[E]) take(n int) []E {
	if first := q.segments[q.head]; len(first) >= n {
		q.skip(n)
		return first[:n:n]
	}
	events := make([]E, 0, n)
	for i := q.head; len(events) < n; i++ {
		segment := q.segments[i]
		events = append(events, segment[:min(len(segment), n-len(events))]...)
	}
	q.skip(n)
	return events
}

// skip forgets the oldest n events, which must be there.
func (q *queue[E]) skip(n int) {
	q.size -= n
	for n > 0 {
		first := q.segments[q.head]
		if len(first) > n {
			q.segments[q.head] = first[n:]
			return
		}
		n -= len(first)
		q.segments[q.head] = nil
		q.head++
	}
}

func (q *queue[E]) append(events []E) {
	if len(events) == 0 {
		return
	}
	switch {
	case q.head == len(q.segments):
		q.segments, q.head = q.segments[:0], 0
	case q.head > 0 && len(q.segments) == cap(q.segments):
		n := copy(q.segments, q.segments[q.head:])
		clear(q.segments[n:])
		q.segments, q.head = q.segments[:n], 0
	}
	q.segments = append(q.segments, events)
	q.size += len(events)
}
