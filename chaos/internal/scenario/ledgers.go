package scenario

import (
	"slices"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
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

// furthestAhead is the most by which the successes of a partition were ahead of what the broker had committed of it. A sample is
// taken to hold a little before its time already: what was committed between two samples counts as committed.
func furthestAhead(dir string) (int64, error) {
	all, err := successes(dir)
	if err != nil {
		return 0, err
	}
	samples, _, err := ledger.Read[ledger.Sample](dir, ledger.KindOffsets)
	if err != nil {
		return 0, err
	}
	slices.SortStableFunc(samples, func(a, b ledger.Sample) int { return int(a.At - b.At) })
	committed, ahead, at := map[int32]int64{}, int64(0), 0
	for _, success := range all {
		for ; at < len(samples) && samples[at].At <= success.At+4*int64(load.SampleEvery); at++ {
			committed[samples[at].Partition] = max(0, samples[at].Committed)
		}
		ahead = max(ahead, success.Offset+1-committed[success.Partition])
	}
	return ahead, nil
}
