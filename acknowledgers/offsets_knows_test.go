package acknowledgers_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// said is a commit as it was sent once, durable or not.
type said struct {
	next  int64
	above []acknowledgers.Span
}

// A ledger knows whatever it has said since its last durable commit, over rewinds,
// and nothing that somebody else has done.
func TestOffsetsKnowWhatTheyHaveSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, n := acknowledgers.NewOffsets(3), newNaive(3)
		notes := []said{{next: 3}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "commits") == 0 {
				durable := notes[rapid.IntRange(0, len(notes)-1).Draw(t, "durable")]
				o.Commit(durable.next)
				n.committed = max(n.committed, durable.next)
			} else {
				op := rapid.SampledFrom([]byte{0, 1, 2, 3, 5}).Draw(t, "op") // all but commits
				o, n = step(o, n, op, rapid.Byte().Draw(t, "arg"))
			}
			notes = append(notes, said{o.Next(), o.Above()})
			for _, s := range notes {
				if want := s.next >= o.Committed(); o.Knows(s.next, s.above) != want {
					t.Fatalf("it knows of %+v: %v, at %d with %v, durable is %d", s, !want, o.Next(), o.Above(), o.Committed())
				}
			}
			wantIgnorance(t, o, n)
		}
	})
}

// wantIgnorance tries what only another owner can have said.
func wantIgnorance(t *rapid.T, o *acknowledgers.Offsets, n *naive) {
	if oldest, ok := o.Oldest(); ok && (o.Knows(oldest+1, nil) || o.Knows(o.Committed(), []acknowledgers.Span{{First: oldest, End: oldest + 1}})) {
		t.Fatalf("it knows that somebody has settled %d, which is open here", oldest)
	}
	for _, offset := range n.delivered {
		if !n.settled[offset] && o.Knows(o.Next(), append(o.Above(), acknowledgers.Span{First: offset, End: offset + 1})) {
			t.Fatalf("it knows that somebody has settled %d, which is open here", offset)
		}
	}
	if o.Committed() > 0 && o.Knows(o.Committed()-1, nil) {
		t.Fatal("it knows a commit that was moved back")
	}
}
