package acknowledgers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
)

// offsetsOps deliver 1,000 offsets, settle them in one order or another, and commit.
func offsetsOps() []micro.Op {
	const n = 1000
	round := func(settle func(o *acknowledgers.Offsets, at int64)) func() {
		o := acknowledgers.NewOffsets(0)
		return func() {
			at := o.Position()
			o.Deliver(at, n)
			settle(o, at)
			if o.Next() != at+n {
				panic(fmt.Sprintf("Next() is %d, want %d", o.Next(), at+n))
			}
			o.Commit(at + n)
		}
	}
	gaps := func(o *acknowledgers.Offsets) int64 { // as compaction leaves them: every other offset is there
		at := o.Position()
		for i := range int64(n) {
			o.Deliver(at+2*i, 1)
		}
		return at
	}
	compacted := acknowledgers.NewOffsets(0)
	return []micro.Op{
		{Name: "settle-1000-as-one-range", Run: round(func(o *acknowledgers.Offsets, at int64) { o.Settle(at, n) })},
		{Name: "settle-1000-by-hundreds", Run: round(func(o *acknowledgers.Offsets, at int64) {
			for i := int64(0); i < n; i += 100 {
				o.Settle(at+i, 100)
			}
		})},
		{Name: "settle-1000-one-by-one", Run: round(func(o *acknowledgers.Offsets, at int64) {
			for i := range int64(n) {
				o.Settle(at+i, 1)
			}
		})},
		{Name: "settle-1000-backwards", Run: round(func(o *acknowledgers.Offsets, at int64) {
			for i := range int64(n) {
				o.Settle(at+n-1-i, 1)
			}
		})},
		{Name: "settle-1000-at-random", Run: round(func(o *acknowledgers.Offsets, at int64) {
			for i := range int64(n) {
				o.Settle(at+i*617%n, 1) // 617 and 1,000 have no common divisor: each comes once
			}
		})},
		{Name: "settle-1000-with-gaps", Run: func() {
			at := gaps(compacted)
			for i := range int64(n) {
				compacted.Settle(at+2*i, 1)
			}
			compacted.Commit(compacted.Next())
		}},
	}
}

// sparseOps look at a ledger whose oldest offset is open, and every third of the 10,000 above it.
func sparseOps() []micro.Op {
	const n = 10_000
	o := acknowledgers.NewOffsets(0)
	o.Deliver(0, n)
	for i := int64(1); i < n; i++ {
		if i%3 != 0 {
			o.Settle(i, 1)
		}
	}
	above := o.Above()
	resumed := acknowledgers.ResumeOffsets(0, above)
	return []micro.Op{
		{Name: "next", Run: func() { o.Next() }},
		{Name: "uncommitted-and-settled-above", Run: func() { o.Uncommitted(); o.SettledAbove() }},
		{Name: "above-of-3333-spans", Allocs: micro.Unheld, Run: func() { o.Above() }},
		{Name: "knows-3333-spans", Allocs: micro.Unheld, Run: func() { o.Knows(0, above) }},
		{Name: "done-of-3333-spans", Run: func() { resumed.Done(n / 2) }},
	}
}

// deliveriesOps settle 1,000 deliveries and send what says so.
func deliveriesOps() []micro.Op {
	const n = 1000
	round := func(frames int, verdict func(i uint64) acknowledgers.Verdict, at func(i uint64) uint64) func() {
		var d acknowledgers.Deliveries
		var out []acknowledgers.Settlement
		last := uint64(0)
		return func() {
			for i := range uint64(n) {
				if err := d.Deliver(last + 1 + i); err != nil {
					panic(err)
				}
			}
			for i := range uint64(n) {
				d.Settle(last+1+at(i), verdict(i))
			}
			last += n
			if out = d.Flush(out[:0]); len(out) != frames || d.Pending() != 0 {
				panic(fmt.Sprintf("%d frames, want %d", len(out), frames))
			}
		}
	}
	ack := func(uint64) acknowledgers.Verdict { return acknowledgers.Acked }
	inOrder := func(i uint64) uint64 { return i }
	return []micro.Op{
		{Name: "ack-1000-in-order", Run: round(1, ack, inOrder)},
		{Name: "ack-1000-at-random", Run: round(1, ack, func(i uint64) uint64 { return i * 617 % n })},
		{Name: "ack-1000-reject-each-hundredth", Run: round(21, func(i uint64) acknowledgers.Verdict {
			if i%100 == 50 {
				return acknowledgers.Rejected
			}
			return acknowledgers.Acked
		}, inOrder)},
		{Name: "reject-1000", Run: round(n, func(uint64) acknowledgers.Verdict { return acknowledgers.Rejected }, inOrder)},
		openDelivery(n),
	}
}

// openDelivery has one delivery open for ever: what comes after it is sent tag by tag.
func openDelivery(n uint64) micro.Op {
	var d acknowledgers.Deliveries
	var out []acknowledgers.Settlement
	last := uint64(1)
	if err := d.Deliver(last); err != nil {
		panic(err)
	}
	return micro.Op{Name: "ack-1000-behind-an-open-one", Run: func() {
		for range n {
			last++
			if err := d.Deliver(last); err != nil {
				panic(err)
			}
			d.Settle(last, acknowledgers.Acked)
		}
		if out = d.Flush(out[:0]); uint64(len(out)) != n {
			panic(fmt.Sprintf("%d frames, want %d", len(out), n))
		}
	}}
}

// sink is a Publisher that confirms everything.
type sink struct{}

func (sink) Publish(context.Context, ...broadway.Record) error { return nil }
func (sink) Close() error                                      { return nil }

// letterOps make dead letters of messages, and messages of dead letters.
func letterOps() []micro.Op {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	letters := &acknowledgers.DeadLetters{Publisher: sink{}, Destination: "dead", Now: func() time.Time { return noon }}
	from := envelope{"orders/3/17", "orders", []byte("key"), []broadway.Header{{Key: "mine", Value: []byte("value")}}}
	ref := broadway.NewAckRef(acknowledgers.Noop{}, nil, 0)
	made := func(payload, n int) []*broadway.Message {
		messages := make([]*broadway.Message, n)
		for i := range messages {
			messages[i] = broadway.NewMessage(ref, int64(i), make([]byte, payload))
			messages[i].Metadata = from
		}
		return messages
	}
	put := func(d *acknowledgers.DeadLetters, messages []*broadway.Message) func() {
		return func() {
			if err := d.DeadLetter(context.Background(), messages); err != nil {
				panic(err)
			}
		}
	}
	references := &acknowledgers.DeadLetters{Publisher: sink{}, MaxBytes: 100, Now: letters.Now}
	dead := broadway.NewMessage(ref, 0, make([]byte, 200))
	dead.Metadata = envelope{"dead/0/1", "dead", []byte("key"), deadHeaders()}
	return []micro.Op{
		{Name: "write-1", Allocs: micro.Unheld, Run: put(letters, made(200, 1))},
		{Name: "write-100", Allocs: micro.Unheld, Run: put(letters, made(200, 100))},
		{Name: "write-a-reference-of-64KiB", Allocs: micro.Unheld, Run: put(references, made(64<<10, 1))},
		{Name: "read-1", Allocs: micro.Unheld, Run: func() {
			if l := acknowledgers.ReadLetter(dead); l.Stage != "processor" {
				panic("not read")
			}
		}},
		{Name: "original-of-1", Allocs: micro.Unheld, Run: func() {
			l := acknowledgers.ReadLetter(dead)
			if r := l.Original(); r.Destination != "orders" {
				panic("not put back")
			}
		}},
	}
}

// deadHeaders are what a dead letter has.
func deadHeaders() []broadway.Header {
	kept := &shelf{}
	d := &acknowledgers.DeadLetters{Publisher: kept, Destination: "dead"}
	m := broadway.NewMessage(broadway.NewAckRef(acknowledgers.Noop{}, nil, 0), 0, []byte("payload"))
	m.Metadata = envelope{"orders/3/17", "orders", []byte("key"), []broadway.Header{{Key: "mine", Value: []byte("value")}}}
	if err := d.DeadLetter(context.Background(), []*broadway.Message{m}); err != nil || len(kept.records) != 1 {
		panic(errors.Join(errors.New("no letter"), err))
	}
	return kept.records[0].Headers
}

func BenchmarkOffsets(b *testing.B)       { micro.Benchmark(b, offsetsOps()) }
func BenchmarkSparseOffsets(b *testing.B) { micro.Benchmark(b, sparseOps()) }
func BenchmarkDeliveries(b *testing.B)    { micro.Benchmark(b, deliveriesOps()) }
func BenchmarkDeadLetters(b *testing.B)   { micro.Benchmark(b, letterOps()) }

func TestAllocations(t *testing.T) {
	micro.Allocations(t, slices.Concat(offsetsOps(), sparseOps(), deliveriesOps()))
}
