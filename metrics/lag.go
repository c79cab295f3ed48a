package metrics

import (
	"cmp"
	"slices"
)

// other is the label of what was summed.
const other = "other"

// lag is one series of lag_messages.
type lag struct {
	pipeline, producer, source, partition string

	order    int // the partition's number
	messages int64
}

func compareLags(a, b lag) int {
	return cmp.Or(
		cmp.Compare(a.pipeline, b.pipeline), cmp.Compare(a.producer, b.producer),
		cmp.Compare(a.source, b.source), cmp.Compare(a.order, b.order))
}

// boundLags makes at most limit series of lags, plus one for each producer in
// the worst case; the sum of all stays the same. Which partitions keep a series
// of their own depends on nothing but names and numbers, so that series do not
// come and go.
//
// Partitions of one name are one series: a partition that is told twice is
// summed too.
func boundLags(lags []lag, limit int) []lag {
	slices.SortFunc(lags, compareLags)
	lags = sumRuns(lags)
	if len(lags) <= limit {
		return lags
	}
	sources := 0
	for i := range lags {
		if i == 0 || lags[i].producer != lags[i-1].producer || lags[i].pipeline != lags[i-1].pipeline || lags[i].source != lags[i-1].source {
			sources++
		}
	}
	// Each source keeps a series for its sum, as long as sources do not take
	// more than half.
	bySource := sources <= limit/2
	own := limit - sources
	if !bySource {
		own = limit / 2
	}
	kept := rank(lags, own)
	for i := range lags {
		if kept[i] {
			continue
		}
		lags[i].partition, lags[i].order = other, int(^uint(0)>>1)
		if !bySource {
			lags[i].source = other
		}
	}
	slices.SortFunc(lags, compareLags)
	return sumRuns(lags)
}

// rank says which of lags, sorted, are the first own in order of partition: all
// sources get their partition 0 before any gets its partition 1.
func rank(lags []lag, own int) []bool {
	index := make([]int, len(lags))
	for i := range index {
		index[i] = i
	}
	slices.SortStableFunc(index, func(a, b int) int { return cmp.Compare(lags[a].order, lags[b].order) })
	kept := make([]bool, len(lags))
	for _, i := range index[:own] {
		kept[i] = true
	}
	return kept
}

// sumRuns makes one of neighbours that have the same labels.
func sumRuns(lags []lag) []lag {
	out := lags[:0]
	for _, l := range lags {
		if n := len(out); n > 0 && compareLags(out[n-1], l) == 0 {
			out[n-1].messages += l.messages
			continue
		}
		out = append(out, l)
	}
	return out
}
