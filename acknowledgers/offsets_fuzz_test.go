package acknowledgers_test

import (
	"testing"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// naive is the ledger as one would write it down: every offset by itself.
type naive struct {
	position, committed int64
	delivered           []int64
	settled, done       map[int64]bool
	// dead offsets were passed over once: there is nothing, in any epoch.
	dead map[int64]bool
}

func newNaive(start int64) *naive {
	return &naive{position: start, committed: start, settled: map[int64]bool{}, done: map[int64]bool{}, dead: map[int64]bool{}}
}

// reach moves the position to next: what is passed over is dead.
func (n *naive) reach(next int64) {
	for ; n.position < next; n.position++ {
		n.dead[n.position] = !n.done[n.position]
	}
}

// next is the offset to commit at least: what is done from the position on is
// known for sure.
func (n *naive) next() int64 {
	for _, offset := range n.delivered {
		if !n.settled[offset] {
			return offset
		}
	}
	next := n.position
	for n.done[next] {
		next++
	}
	return next
}

// most is the offset to commit at most: dead offsets may be passed over, too.
func (n *naive) most() int64 {
	next := n.next()
	if len(n.delivered) == len(n.settled) {
		for n.done[next] || n.dead[next] {
			next++
		}
	}
	return next
}

func (n *naive) uncommitted() (count int64) {
	for _, offset := range n.delivered {
		if offset >= n.committed {
			count++
		}
	}
	return count
}

func (n *naive) settledAbove() (count int64) {
	for offset := range n.settled {
		if offset >= n.next() {
			count++
		}
	}
	return count
}

func (n *naive) rewind(start int64) *naive {
	r := newNaive(start)
	r.committed, r.dead = n.committed, n.dead
	for _, known := range []map[int64]bool{n.done, n.settled} {
		for offset := range known {
			if offset >= r.position {
				r.done[offset] = true
			}
		}
	}
	return r
}

// step does what the two bytes say to both ledgers, and returns them.
func step(o *acknowledgers.Offsets, n *naive, op, arg byte) (*acknowledgers.Offsets, *naive) {
	first, count := n.position, int64(arg%7)+1
	switch op % 6 {
	case 0: // deliver a run, perhaps after a gap, leaving out what is done
		first += int64(arg / 64)
		n.reach(first)
		for offset := first; offset < first+count; offset++ {
			if n.done[offset] || n.dead[offset] {
				o.Advance(offset + 1)
			} else {
				o.Deliver(offset, 1)
				n.delivered = append(n.delivered, offset)
			}
			n.position = offset + 1
		}
	case 1: // deliver in one call
		for offset := first; offset < first+count; offset++ {
			if n.done[offset] || n.dead[offset] {
				return o, n
			}
		}
		o.Deliver(first, count)
		for offset := first; offset < first+count; offset++ {
			n.delivered = append(n.delivered, offset)
		}
		n.position = first + count
	case 2: // settle anywhere near the end, known or not
		settle(o, n, max(first-int64(arg), 0), count)
	case 3: // pass over a gap
		o.Advance(first + int64(arg%5))
		n.reach(first + int64(arg%5))
	case 4: // commit some of the prefix
		next := n.next() - int64(arg%4)
		o.Commit(next)
		n.committed = max(n.committed, next)
	case 5:
		if arg < 16 {
			return o.Rewind(), n.rewind(o.Next())
		}
		settle(o, n, n.next(), count)
	}
	return o, n
}

func settle(o *acknowledgers.Offsets, n *naive, first, count int64) {
	o.Settle(first, count)
	for _, offset := range n.delivered {
		if offset >= first && offset < first+count {
			n.settled[offset] = true
		}
	}
}

func compare(t *testing.T, o *acknowledgers.Offsets, n *naive) {
	t.Helper()
	if o.Next() < n.next() || o.Next() > n.most() || o.Position() != n.position || o.Committed() != n.committed {
		t.Fatalf("next %d position %d committed %d, want %d (to %d) %d %d",
			o.Next(), o.Position(), o.Committed(), n.next(), n.most(), n.position, n.committed)
	}
	if o.Unsettled() != int64(len(n.delivered)-len(n.settled)) || o.Settled() != int64(len(n.settled)) {
		t.Fatalf("unsettled %d settled %d, want %d %d", o.Unsettled(), o.Settled(), len(n.delivered)-len(n.settled), len(n.settled))
	}
	if o.SettledAbove() != n.settledAbove() {
		t.Fatalf("settled above %d, want %d", o.SettledAbove(), n.settledAbove())
	}
	if o.Uncommitted() != n.uncommitted() {
		t.Fatalf("uncommitted %d, want %d", o.Uncommitted(), n.uncommitted())
	}
	above := map[int64]bool{}
	for _, s := range o.Above() {
		for offset := s.First; offset < s.End; offset++ {
			above[offset] = true
		}
	}
	for _, offset := range n.delivered {
		if want := offset >= n.next() && n.settled[offset] || n.done[offset]; above[offset] != want {
			t.Fatalf("Above() says %v of %d, want %v", above[offset], offset, want)
		}
	}
	for offset := range n.done {
		if offset >= n.position && !o.Done(offset) {
			t.Fatalf("Done(%d) is forgotten", offset)
		}
	}
	for offset := n.position; offset < n.position+20; offset++ {
		if o.Done(offset) && !n.done[offset] && !n.dead[offset] {
			t.Fatalf("Done(%d) was never settled", offset)
		}
	}
}

func FuzzOffsets(f *testing.F) {
	f.Add([]byte{1, 5, 2, 3, 2, 1, 4, 0})
	f.Add([]byte{0, 200, 1, 6, 2, 3, 5, 1, 0, 5, 5, 100, 4, 1, 3, 4})
	f.Add([]byte{1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 1, 6, 2, 66, 2, 3, 5, 99, 5, 99, 4, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		o, n := acknowledgers.NewOffsets(3), newNaive(3)
		for i := 0; i+1 < min(len(program), 300); i += 2 {
			o, n = step(o, n, program[i], program[i+1])
			compare(t, o, n)
		}
	})
}
