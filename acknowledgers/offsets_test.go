package acknowledgers_test

import (
	"math"
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

func TestOffsetsCommitTheLongestSettledPrefix(t *testing.T) {
	o := acknowledgers.NewOffsets(10)
	o.Deliver(10, 5)
	for _, step := range []struct {
		settle, next int64
	}{{12, 10}, {11, 10}, {14, 10}, {10, 13}, {13, 15}} {
		if n := o.Settle(step.settle, 1); n != 1 {
			t.Fatalf("Settle(%d) = %d, want 1", step.settle, n)
		}
		if got := o.Next(); got != step.next {
			t.Fatalf("after Settle(%d) Next() = %d, want %d", step.settle, got, step.next)
		}
	}
}

func TestOffsetsGapsAreNotWaitedFor(t *testing.T) {
	o := acknowledgers.NewOffsets(0)
	o.Deliver(0, 1)
	o.Deliver(7, 1)
	o.Settle(0, 1)
	if got := o.Next(); got != 7 {
		t.Fatalf("Next() = %d, want 7: 1 to 6 do not exist", got)
	}
	o.Settle(7, 1)
	o.Advance(9) // a control record at 8
	if got := o.Next(); got != 9 {
		t.Fatalf("Next() = %d, want 9: the control record is passed over", got)
	}
}

func TestOffsetsOnlyCountWhatWasDelivered(t *testing.T) {
	o := acknowledgers.NewOffsets(5)
	o.Deliver(5, 3)
	for _, step := range []struct{ first, n, want int64 }{
		{0, 5, 0}, // before the start
		{8, 4, 0}, // not delivered yet
		{4, 2, 1}, // one of two
		{5, 1, 0}, // again
		{0, 100, 2},
	} {
		if got := o.Settle(step.first, step.n); got != step.want {
			t.Errorf("Settle(%d, %d) = %d, want %d", step.first, step.n, got, step.want)
		}
	}
	if o.Unsettled() != 0 || o.Settled() != 3 {
		t.Errorf("unsettled %d, settled %d, want 0 and 3", o.Unsettled(), o.Settled())
	}
}

func TestOffsetsUncommittedBoundsDuplicates(t *testing.T) {
	o := acknowledgers.NewOffsets(0)
	o.Deliver(0, 10)
	o.Deliver(100, 10)
	o.Settle(0, 10)
	o.Settle(105, 5)
	if got := o.Uncommitted(); got != 20 {
		t.Fatalf("Uncommitted() = %d, want 20: nothing is durable", got)
	}
	o.Commit(50) // within the gap
	if got := o.Uncommitted(); got != 10 {
		t.Fatalf("Uncommitted() = %d, want 10", got)
	}
	o.Settle(100, 5)
	o.Commit(o.Next())
	if got := o.Uncommitted(); got != 0 {
		t.Fatalf("Uncommitted() = %d, want 0", got)
	}
	o.Commit(3) // an old answer changes nothing
	if got := o.Committed(); got != 110 {
		t.Fatalf("Committed() = %d, want 110", got)
	}
}

func TestOffsetsAboveJoinsNeighboursAcrossGaps(t *testing.T) {
	o := acknowledgers.NewOffsets(0)
	o.Deliver(0, 4)
	o.Deliver(10, 4)
	o.Settle(2, 2)
	o.Settle(10, 1)
	o.Settle(13, 1)
	want := []acknowledgers.Span{{First: 2, End: 11}, {First: 13, End: 14}}
	if got := o.Above(); !slices.Equal(got, want) {
		t.Fatalf("Above() = %v, want %v", got, want)
	}
}

func TestOffsetsRewindSkipsWhatIsSettled(t *testing.T) {
	o := acknowledgers.NewOffsets(0)
	o.Deliver(0, 6)
	o.Settle(0, 1)
	o.Settle(3, 2)

	r := o.Rewind()
	if r.Next() != 1 || r.Position() != 1 {
		t.Fatalf("rewound to %d, position %d, want 1", r.Next(), r.Position())
	}
	for offset, done := range map[int64]bool{1: false, 2: false, 3: true, 4: true, 5: false} {
		if r.Done(offset) != done {
			t.Errorf("Done(%d) = %v, want %v", offset, !done, done)
		}
	}
	for offset, end := range map[int64]int64{1: 3, 2: 3, 5: math.MaxInt64, 100: math.MaxInt64} {
		if got := r.Undone(offset); got != end {
			t.Errorf("Undone(%d) = %d, want %d", offset, got, end)
		}
	}
	if got := o.Undone(7); got != math.MaxInt64 {
		t.Errorf("Undone(7) = %d of a ledger that began with nothing", got)
	}
	// 1 and 2 come again and only 2 settles: a second rewind knows of 2, 3 and 4.
	r.Deliver(1, 2)
	r.Settle(2, 1)
	r.Advance(5)
	again := r.Rewind()
	want := []acknowledgers.Span{{First: 2, End: 5}}
	if got := again.Skipped(); again.Next() != 1 || !slices.Equal(got, want) {
		t.Fatalf("rewound to %d skipping %v, want 1 and %v", again.Next(), got, want)
	}
	again.Deliver(1, 1)
	again.Settle(1, 1) // the position is 2, and 2 to 4 are known to be done
	if got := again.Next(); got != 5 {
		t.Fatalf("Next() = %d, want 5: what was settled before is passed over", got)
	}
	if got := again.Skipped(); len(got) != 0 {
		t.Fatalf("Skipped() = %v, want none below the prefix", got)
	}
}

func TestOffsetsRefuseProgrammerErrors(t *testing.T) {
	for name, f := range map[string]func(*acknowledgers.Offsets){
		"deliver twice":              func(o *acknowledgers.Offsets) { o.Deliver(3, 1) },
		"deliver nothing":            func(o *acknowledgers.Offsets) { o.Deliver(10, 0) },
		"commit above the unsettled": func(o *acknowledgers.Offsets) { o.Commit(4) },
	} {
		t.Run(name, func(t *testing.T) {
			o := acknowledgers.NewOffsets(0)
			o.Deliver(0, 5)
			o.Settle(0, 3)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(o)
		})
	}
}

func TestOffsetsForgetWhatIsCommitted(t *testing.T) {
	o := acknowledgers.NewOffsets(0)
	allocated := testing.AllocsPerRun(100, func() {
		for range 100 {
			at := o.Position()
			o.Deliver(at, 64)
			o.Settle(at, 64)
			o.Commit(o.Next())
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations for 6,400 settled offsets, want none: the ledger must not grow", allocated)
	}
}
