package acknowledgers

import (
	"cmp"
	"fmt"
	"slices"
)

// Verdict is what becomes of one delivery.
type Verdict uint8

const (
	// Acked is done: the source forgets the delivery (basic.ack).
	Acked Verdict = iota + 1
	// Rejected failed for good: the source drops or dead-letters the delivery
	// (basic.reject without requeue).
	Rejected
	// Requeued failed and comes again, as a counted attempt (basic.reject with
	// requeue).
	Requeued
	// Returned was not processed and comes again (basic.nack with requeue).
	Returned
)

// String is the verdict's name: "acked", "rejected", "requeued" or "returned".
func (v Verdict) String() string {
	switch v {
	case Acked:
		return "acked"
	case Rejected:
		return "rejected"
	case Requeued:
		return "requeued"
	case Returned:
		return "returned"
	}
	return "unknown"
}

// Settlement is one frame to be sent: Verdict for Tag or, with Multiple, for
// Tag and every tag below it that was not sent before.
type Settlement struct {
	Tag      uint64
	Verdict  Verdict
	Multiple bool
}

// String says what is sent for which tag, such as "acked <=17".
func (s Settlement) String() string {
	if s.Multiple {
		return fmt.Sprintf("%s <=%d", s.Verdict, s.Tag)
	}
	return fmt.Sprintf("%s %d", s.Verdict, s.Tag)
}

// Deliveries is the ledger of one AMQP channel: deliveries that are settled
// singly and in any order, and the fewest frames that say so. It keeps two
// promises to the broker, either of which broken closes the channel or loses a
// message: each tag is settled exactly once on the wire, and no frame covers a
// tag that is not settled.
//
//	Deliver           Settle               Flush
//	────────▶ open ───────────▶ pending ───────────▶ sent, forgotten
//
// A frame with Multiple therefore covers only the settled prefix: everything
// from the oldest delivery up to the first that is open, in runs of one verdict,
// each run after the runs before it. Rejections have no such form in AMQP and
// go out one by one, as does whatever is settled beyond an open delivery.
//
// A Deliveries is pure bookkeeping: it has no lock and starts no goroutine.
// Whoever shares one between goroutines guards it. The zero value is empty and
// ready. Its memory is in proportion to the deliveries that are not sent, also
// while one of them stays open for ever.
type Deliveries struct {
	// entries are in the order of their tags; those before head are sent, and
	// those that are missing in between too.
	entries []delivery
	head    int
	last    uint64
	open    int
	pending int
}

type delivery struct {
	tag     uint64
	verdict Verdict // 0 while open
	sent    bool
}

// Deliver adds a delivery. Tags are those of one channel: they start above 0
// and rise, not necessarily by one. Any other is a broken source, and an error.
func (d *Deliveries) Deliver(tag uint64) error {
	if tag <= d.last {
		return fmt.Errorf("acknowledgers: delivery tag %d after %d", tag, d.last)
	}
	d.last = tag
	d.entries = append(d.entries, delivery{tag: tag})
	d.open++
	return nil
}

// Settle decides on a delivery and says whether it could: a tag that is settled
// already, or was never delivered, stays as it is. It panics for a Verdict that
// does not exist.
func (d *Deliveries) Settle(tag uint64, v Verdict) bool {
	if v < Acked || v > Returned {
		panic(fmt.Sprintf("acknowledgers: no such verdict: %d", v))
	}
	i := d.find(tag)
	if i < 0 || d.entries[i].verdict != 0 {
		return false
	}
	d.entries[i].verdict = v
	d.open--
	d.pending++
	return true
}

// Open is how many deliveries nothing was decided on.
func (d *Deliveries) Open() int { return d.open }

// Pending is how many deliveries are settled and not sent.
func (d *Deliveries) Pending() int { return d.pending }

// Oldest is the lowest tag that is open, and whether there is one.
func (d *Deliveries) Oldest() (uint64, bool) {
	for _, e := range d.entries[d.head:] {
		if e.verdict == 0 {
			return e.tag, true
		}
	}
	return 0, false
}

// Flush appends to dst the frames that settle everything pending, to be sent in
// this order, and counts them as sent.
func (d *Deliveries) Flush(dst []Settlement) []Settlement {
	for d.head < len(d.entries) && d.entries[d.head].verdict != 0 {
		if d.entries[d.head].sent {
			d.head++
			continue
		}
		dst = d.flushRun(dst)
	}
	for i := d.head; d.pending > 0; i++ {
		if e := &d.entries[i]; e.verdict != 0 && !e.sent {
			dst = append(dst, Settlement{Tag: e.tag, Verdict: e.verdict})
			e.sent = true
			d.pending--
		}
	}
	d.compact()
	return dst
}

// flushRun sends the run at head: pending deliveries of one verdict, which those
// that are sent already do not interrupt.
func (d *Deliveries) flushRun(dst []Settlement) []Settlement {
	first := d.entries[d.head]
	frame := Settlement{Tag: first.tag, Verdict: first.verdict}
	single := first.verdict == Rejected || first.verdict == Requeued
	for d.head < len(d.entries) {
		e := d.entries[d.head]
		if !e.sent && e.verdict != first.verdict {
			break
		}
		d.head++
		if e.sent {
			continue
		}
		// The tag of a frame must be one that is not sent, or the broker
		// closes the channel: so it is the last pending one of the run.
		frame.Multiple = e.tag != first.tag
		frame.Tag = e.tag
		d.pending--
		if single {
			break
		}
	}
	return append(dst, frame)
}

// find is the index of tag among the entries, or -1. As long as tags are
// without gaps it is one subtraction.
func (d *Deliveries) find(tag uint64) int {
	live := d.entries[d.head:]
	if len(live) == 0 || tag < live[0].tag {
		return -1
	}
	if i := tag - live[0].tag; i < uint64(len(live)) && live[i].tag == tag {
		return d.head + int(i)
	}
	i, ok := slices.BinarySearchFunc(live, tag, func(e delivery, tag uint64) int {
		return cmp.Compare(e.tag, tag)
	})
	if !ok {
		return -1
	}
	return d.head + i
}

// compact forgets what is sent, once that is most of what is kept, so that each
// time more entries are forgotten than moved.
func (d *Deliveries) compact() {
	const slack = 64
	if len(d.entries) <= 2*d.open+slack {
		return
	}
	kept := d.entries[:0]
	for _, e := range d.entries[d.head:] {
		if !e.sent {
			kept = append(kept, e)
		}
	}
	d.entries, d.head = kept, 0
}
