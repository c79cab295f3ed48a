package acknowledgers

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Span is a run of offsets: First is in it, End is not.
type Span struct{ First, End int64 }

// Len is how many offsets the span covers.
func (s Span) Len() int64 { return s.End - s.First }

// Offsets is the ledger of one ownership of a log partition, where settling is
// cumulative: a commit of n says that everything below n is done. Whatever the
// order in which messages settle, [Offsets.Next] is the end of the longest
// settled prefix of what was delivered.
//
//	delivered   10 11 12    15 16 17    (13 and 14 do not exist)
//	settled      x  x  x     x     x
//	Next                       ^ 16
//	Above                         [17,18)
//
// It never assumes that an offset is followed by the next: compaction and
// control records leave gaps, and only what was delivered is waited for.
// Delivered offsets are kept as runs and their settling as a bitmap, so both
// cost next to nothing where offsets are dense.
//
// Offsets is pure bookkeeping: it has no lock and does no I/O. Make one with
// [NewOffsets].
type Offsets struct {
	runs []run
	// words has one bit per delivered offset, counted in the order of delivery:
	// set means settled. Bit 0 of words[0] is ordinal base.
	words []uint64
	base  int64

	head int64 // ordinal of the oldest unsettled; tail when there is none
	tail int64 // how many were delivered
	set  int64 // how many were settled

	position  int64 // every offset below it was delivered or will never be
	committed int64 // the offset that is known to be durable
	durable   int64 // how many delivered offsets lie below committed

	// skip is what an earlier epoch settled above its Next: not to be delivered
	// again. Sorted, and never written after ResumeOffsets.
	skip []Span
}

// run is count offsets from offset on that were delivered as ordinals from
// ordinal on.
type run struct{ offset, ordinal, count int64 }

// NewOffsets returns the ledger of an ownership that begins at start, the
// committed offset (or where the ownership starts without one).
func NewOffsets(start int64) *Offsets {
	return &Offsets{position: start, committed: start}
}

// ResumeOffsets returns the ledger of an ownership that begins at the committed
// offset start, of which settled lists what earlier ones have settled above it:
// rising spans that do not touch, as [Offsets.Above] gave them. See
// [Offsets.Done].
func ResumeOffsets(start int64, settled []Span) *Offsets {
	o := NewOffsets(start)
	o.skip = settled
	return o
}

// Deliver tells that the offsets first to first+n-1 are handed out. Offsets
// rise: it panics, as that is a programmer error, when first lies below
// [Offsets.Position] or n is not positive.
func (o *Offsets) Deliver(first, n int64) {
	if first < o.position || n <= 0 {
		panic(fmt.Sprintf("acknowledgers: Deliver(%d, %d) at position %d", first, n, o.position))
	}
	if k := len(o.runs); k > 0 && o.runs[k-1].offset+o.runs[k-1].count == first {
		o.runs[k-1].count += n
	} else {
		o.runs = append(o.runs, run{offset: first, ordinal: o.tail, count: n})
	}
	o.tail += n
	o.position = first + n
	for need := (o.tail - o.base + 63) / 64; int64(len(o.words)) < need; {
		o.words = append(o.words, 0)
	}
}

// Advance tells that no offset below next will be delivered that was not yet:
// control records, or a gap that compaction left. A next below
// [Offsets.Position] changes nothing.
func (o *Offsets) Advance(next int64) { o.position = max(o.position, next) }

// Settle marks the offsets first to first+n-1 as settled and returns how many
// of them were delivered and not settled before. Others are left out.
func (o *Offsets) Settle(first, n int64) int64 {
	end, settled := first+n, int64(0)
	for i := o.find(first); i < len(o.runs) && o.runs[i].offset < end; i++ {
		r := o.runs[i]
		from, to := max(first, r.offset), min(end, r.offset+r.count)
		if from < to {
			settled += o.mark(r.ordinal+from-r.offset, r.ordinal+to-r.offset)
		}
	}
	o.set += settled
	o.pop()
	return settled
}

// find is the index of the first run that ends above offset.
func (o *Offsets) find(offset int64) int {
	i, _ := slices.BinarySearchFunc(o.runs, offset, func(r run, target int64) int {
		if r.offset+r.count <= target {
			return -1
		}
		return 1
	})
	return i
}

// mark sets the bits of the ordinals from (inclusive) to to and returns how
// many were clear.
func (o *Offsets) mark(from, to int64) int64 {
	from = max(from, o.head)
	var fresh int64
	for from < to {
		i, bit := (from-o.base)/64, (from-o.base)%64
		n := min(64-bit, to-from)
		mask := (^uint64(0) >> (64 - n)) << bit
		fresh += int64(bits.OnesCount64(mask &^ o.words[i]))
		o.words[i] |= mask
		from += n
	}
	return fresh
}

// pop moves head over what is settled and drops the words below it.
func (o *Offsets) pop() {
	for o.head < o.tail {
		i, bit := (o.head-o.base)/64, (o.head-o.base)%64
		ones := int64(bits.TrailingZeros64(^(o.words[i] >> bit)))
		n := min(ones, 64-bit, o.tail-o.head)
		o.head += n
		if n < 64-bit {
			break
		}
	}
	if done := (o.head - o.base) / 64; done > 0 {
		o.words = slices.Delete(o.words, 0, int(done))
		o.base += done * 64
	}
}

// Next is the offset to commit: the oldest delivered offset that is not
// settled; when there is none [Offsets.Position], or the end of what an earlier
// epoch settled from there on. It never falls.
func (o *Offsets) Next() int64 {
	if oldest, ok := o.Oldest(); ok {
		return oldest
	}
	i, _ := slices.BinarySearchFunc(o.skip, o.position, endsAbove)
	if i < len(o.skip) && o.skip[i].First <= o.position {
		return o.skip[i].End
	}
	return o.position
}

// Oldest is the lowest delivered offset that is not settled, if there is one.
func (o *Offsets) Oldest() (int64, bool) {
	if o.head == o.tail {
		return 0, false
	}
	return o.at(o.head), true
}

// at is the offset of an ordinal that some run holds.
func (o *Offsets) at(ordinal int64) int64 {
	i, _ := slices.BinarySearchFunc(o.runs, ordinal, func(r run, target int64) int {
		if r.ordinal+r.count <= target {
			return -1
		}
		return 1
	})
	return o.runs[i].offset + ordinal - o.runs[i].ordinal
}

// Position is the end of what was delivered or passed over: the next offset to
// come is not below it.
func (o *Offsets) Position() int64 { return o.position }

// Unsettled counts delivered offsets that are not settled.
func (o *Offsets) Unsettled() int64 { return o.tail - o.set }

// Settled counts delivered offsets that are settled.
func (o *Offsets) Settled() int64 { return o.set }

// SettledAbove counts offsets that are settled and that Next does not cover: an
// earlier one is not.
func (o *Offsets) SettledAbove() int64 { return o.set - o.head }

// Committed is the offset that is known to be durable.
func (o *Offsets) Committed() int64 { return o.committed }

// Commit tells that a commit of next is durable. A next below
// [Offsets.Committed] changes nothing; one above [Offsets.Next] is a programmer
// error and panics.
func (o *Offsets) Commit(next int64) {
	if next <= o.committed {
		return
	}
	if next > o.Next() {
		panic(fmt.Sprintf("acknowledgers: Commit(%d) above %d", next, o.Next()))
	}
	o.committed = next
	i := o.find(next)
	if i < len(o.runs) {
		o.durable = o.runs[i].ordinal + max(next-o.runs[i].offset, 0)
	} else {
		o.durable = o.tail
	}
	o.runs = slices.Delete(o.runs, 0, i)
}

// Uncommitted counts delivered offsets that no durable commit covers, settled
// or not: what a crash at this moment would deliver again.
func (o *Offsets) Uncommitted() int64 { return o.tail - o.durable }

// Above lists what is settled at or above [Offsets.Next], in order. A span may
// cover offsets between settled neighbours that were never delivered.
func (o *Offsets) Above() []Span {
	var own []Span
	joins := false // the last span ends right before the ordinal looked at
	for i := o.find(o.Next()); i < len(o.runs); i++ {
		r := o.runs[i]
		for at := max(r.ordinal, o.head); at < r.ordinal+r.count; {
			n, settled := o.stretch(at, r.ordinal+r.count)
			from := r.offset + at - r.ordinal
			switch {
			case settled && joins:
				own[len(own)-1].End = from + n
			case settled:
				own = append(own, Span{from, from + n})
			}
			joins = settled
			at += n
		}
	}
	return union(own, o.Skipped())
}

// stretch says how many ordinals from at on, below end, are alike, and whether
// they are settled.
func (o *Offsets) stretch(at, end int64) (n int64, settled bool) {
	for start := at; at < end; {
		i, bit := (at-o.base)/64, (at-o.base)%64
		word := o.words[i] >> bit
		if at == start {
			settled = word&1 == 1
		}
		if settled {
			word = ^word
		}
		alike := min(int64(bits.TrailingZeros64(word)), 64-bit, end-at)
		n += alike
		at += alike
		if alike < 64-bit {
			break
		}
	}
	return n, settled
}

// union merges two sorted lists of spans into one.
func union(a, b []Span) []Span {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Span) int {
		if x.First < y.First {
			return -1
		}
		return 1
	})
	out := all[:0]
	for _, s := range all {
		if k := len(out); k > 0 && s.First <= out[k-1].End {
			out[k-1].End = max(out[k-1].End, s.End)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Knows says whether a commit of next, with what has settled above it as settled
// lists in order, tells nothing that o does not know, and has all that is known to be
// durable: then it is one of o's own, or of an owner who did no more.
func (o *Offsets) Knows(next int64, settled []Span) bool {
	if next < o.committed || next > o.Next() {
		return false
	}
	above := union([]Span{{First: next, End: o.Next()}}, o.Above())
	for _, s := range settled {
		i, _ := slices.BinarySearchFunc(above, s.First, endsAbove)
		if i == len(above) || above[i].First > s.First || above[i].End < s.End {
			return false
		}
	}
	return true
}

// Rewind returns the ledger of the next epoch of the same ownership: it begins
// at [Offsets.Next], and what is settled above is known to it as
// [Offsets.Done], so that it is not delivered a second time.
func (o *Offsets) Rewind() *Offsets {
	n := ResumeOffsets(o.Next(), o.Above())
	n.committed = o.committed
	return n
}

// Done says whether an earlier epoch settled offset. Such an offset must not be
// handed out; the prefix passes over it, and it may be told as delivered and
// settled. It reads only what the ledger began with, so it may be called while
// another goroutine uses the ledger.
func (o *Offsets) Done(offset int64) bool {
	if len(o.skip) == 0 {
		return false
	}
	i, _ := slices.BinarySearchFunc(o.skip, offset, endsAbove)
	return i < len(o.skip) && o.skip[i].First <= offset
}

// Undone is the end of the offsets from offset on, which is not [Offsets.Done], that
// are not done either: the first one above it that is, or the highest there is. Like
// Done it may be called while another goroutine uses the ledger.
func (o *Offsets) Undone(offset int64) int64 {
	if len(o.skip) == 0 {
		return math.MaxInt64
	}
	i, _ := slices.BinarySearchFunc(o.skip, offset, endsAbove)
	if i == len(o.skip) {
		return math.MaxInt64
	}
	return o.skip[i].First
}

// Skipped lists what earlier epochs settled and no prefix covers yet.
func (o *Offsets) Skipped() []Span {
	next := o.Next()
	i, _ := slices.BinarySearchFunc(o.skip, next, endsAbove)
	return o.skip[i:]
}

// endsAbove orders spans for a search of the first that ends above target.
func endsAbove(s Span, target int64) int {
	if s.End <= target {
		return -1
	}
	return 1
}
