package scenario

import (
	"math"
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

func TestGrowthIsTheSlopeAfterTheBeginning(t *testing.T) {
	line := func(n int, at func(i int) int64) (seconds []int64) {
		for i := range n {
			seconds = append(seconds, at(i))
		}
		return seconds
	}
	for name, test := range map[string]struct {
		seconds []int64
		want    float64
	}{
		"nothing":   {nil, 0},
		"one":       {[]int64{5}, 0},
		"flat":      {line(60, func(int) int64 { return 1 << 20 }), 0},
		"rising":    {line(60, func(i int) int64 { return 1<<20 + 100*int64(i) }), 60_000},
		"saw":       {line(600, func(i int) int64 { return 1<<20 + int64(i%10) }), 0},
		"beginning": {line(60, func(i int) int64 { return max(0, 10-int64(i)) << 20 }), 0},
	} {
		if got := growth(test.seconds); math.Abs(got-test.want) > 2 {
			t.Errorf("%s: %v instead of %v", name, got, test.want)
		}
	}
}

// Who was to be rejected is dead and has no success, and nobody else is.
func TestFatesAreCompared(t *testing.T) {
	dir := t.TempDir()
	write := func(kind string, entries ...any) {
		writer, err := ledger.Create(dir, kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if err := writer.Append(entry); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"good", "bad", "bad-twice", "bad-lost", "bad-both", "good-dead", "good-lost"} {
		write(ledger.KindProduced, ledger.Produced{ID: id, State: ledger.Acked})
	}
	write(ledger.KindSink, ledger.Observation{ID: "good", Stage: ledger.Success}, ledger.Observation{ID: "bad-both", Stage: ledger.Success},
		ledger.Observation{ID: "good-lost", Stage: ledger.Seen})
	write(ledger.KindDead, ledger.Drained{ID: "bad"}, ledger.Drained{ID: "bad-twice"}, ledger.Drained{ID: "bad-twice"}, ledger.Drained{ID: "bad-both"},
		ledger.Drained{ID: "good-dead"})
	again, wrong, err := fates(dir, worker.Fault{Part: "bad"})
	if err != nil || again != 1 || len(wrong) != 4 {
		t.Errorf("%d again, wrong %q, %v", again, wrong, err)
	}
	slices.Sort(wrong)
	for i, id := range []string{"bad-both", "bad-lost", "good-dead", "good-lost"} {
		if i < len(wrong) && wrong[i][:len(id)] != id {
			t.Errorf("%q is wrong instead of %s", wrong[i], id)
		}
	}
}
