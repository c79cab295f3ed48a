package scenario

import (
	"slices"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// successes are the successes of a run, in the order of their times.
func successes(dir string) ([]ledger.Observation, error) {
	all, _, err := ledger.Read[ledger.Observation](dir, ledger.KindSink)
	all = slices.DeleteFunc(all, func(o ledger.Observation) bool { return o.Stage != ledger.Success })
	slices.SortFunc(all, func(a, b ledger.Observation) int { return int(a.At - b.At) })
	return all, err
}

// unmarkedRepeats counts successes of an id after its first that the broker did not mark as redelivered.
func unmarkedRepeats(dir string) (int, error) {
	all, err := successes(dir)
	seen := make(map[string]bool, len(all))
	n := 0
	for _, o := range all {
		if seen[o.ID] && !o.Redelivered {
			n++
		}
		seen[o.ID] = true
	}
	return n, err
}
