package scenario

import (
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

func TestGapsOfALog(t *testing.T) {
	gap := func(first, next int64) ledger.Gap {
		return ledger.Gap{Source: "t", First: first, Next: next, Why: ledger.Compacted}
	}
	for name, c := range map[string]struct {
		there []int64
		end   int64
		want  []ledger.Gap
	}{
		"an empty log":         {nil, 0, nil},
		"nothing is left":      {nil, 3, []ledger.Gap{gap(0, 3)}},
		"all are there":        {[]int64{0, 1, 2}, 3, nil},
		"before, amid, behind": {[]int64{1, 2, 5}, 7, []ledger.Gap{gap(0, 1), gap(3, 5), gap(6, 7)}},
	} {
		l := log{keys: map[int64]string{}, end: c.end}
		for _, offset := range c.there {
			l.keys[offset] = "k"
		}
		if got := l.gaps("t"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v instead of %v", name, got, c.want)
		}
	}
}
