package metrics

import (
	"math"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The native buckets of a weighted histogram: schema 3, which is eight buckets
// from each power of two to the next (growth 2^(1/8) = 1.09), for durations
// from a nanosecond to 4.5 hours.
const (
	nativeSchema  = 3
	nativePerTwo  = 1 << nativeSchema
	nativeLowest  = -30 * nativePerTwo // the bucket that ends at 2^-30 s = 0.93 ns
	nativeHighest = 14 * nativePerTwo  // the bucket that ends at 2^14 s
)

// weighted is a histogram of durations whose observations weigh: one visit of a
// worker tells the time of several messages in one call. prometheus.Histogram
// would need one call per message.
//
// It is read while it is written. A reading may miss what is being added, but
// its count is always the sum of its buckets.
type weighted struct {
	bounds []float64 // in seconds, ascending, without +Inf
	within []float64 // upper bounds of the native buckets within (0.5, 1]

	classic []atomic.Uint64 // one more than bounds: the last is +Inf
	native  [nativeHighest - nativeLowest + 1]atomic.Int64
	zero    atomic.Uint64
	nanos   atomic.Int64
	created time.Time
}

func newWeighted(bounds []float64, created time.Time) *weighted {
	h := &weighted{bounds: bounds, classic: make([]atomic.Uint64, len(bounds)+1), created: created}
	for i := range nativePerTwo {
		h.within = append(h.within, math.Exp2(float64(i-nativePerTwo)/nativePerTwo))
	}
	return h
}

// observe adds n observations of total/n each.
func (h *weighted) observe(total time.Duration, n int) {
	if n <= 0 {
		return
	}
	total = max(total, 0)
	mean := total.Seconds() / float64(n)
	h.nanos.Add(int64(total))
	h.classic[sort.SearchFloat64s(h.bounds, mean)].Add(uint64(n))
	if mean == 0 {
		h.zero.Add(uint64(n))
		return
	}
	h.native[h.key(mean)-nativeLowest].Add(int64(n))
}

// key is the index of the native bucket of v > 0, as OpenMetrics 2.0 defines
// them: bucket i of schema s holds (2^((i-1)/2^s), 2^(i/2^s)].
func (h *weighted) key(v float64) int {
	frac, exp := math.Frexp(v) // frac in [0.5, 1)
	key := sort.SearchFloat64s(h.within, frac) + (exp-1)*nativePerTwo
	return min(max(key, nativeLowest), nativeHighest)
}

// metric is a picture of h as one metric of desc.
func (h *weighted) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	var count uint64
	positive := make(map[int]int64)
	for i := range h.native {
		if n := h.native[i].Load(); n > 0 {
			positive[nativeLowest+i] = n
			count += uint64(n)
		}
	}
	zero := h.zero.Load()
	count += zero
	native, err := prometheus.NewConstNativeHistogram(desc, count, time.Duration(h.nanos.Load()).Seconds(),
		positive, nil, zero, nativeSchema, prometheus.DefNativeHistogramZeroThreshold, h.created, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return &bothHistogram{Metric: native, buckets: h.buckets(count)}
}

// buckets are the classic buckets. They were read after count, so they may hold
// observations that count does not: those are cut off.
func (h *weighted) buckets(count uint64) []*dto.Bucket {
	out := make([]*dto.Bucket, 0, len(h.bounds))
	var sum uint64
	for i, bound := range h.bounds {
		sum = min(sum+h.classic[i].Load(), count)
		out = append(out, &dto.Bucket{CumulativeCount: new(sum), UpperBound: new(bound)})
	}
	return slices.Clip(out)
}

// bothHistogram adds classic buckets to a native histogram.
type bothHistogram struct {
	prometheus.Metric
	buckets []*dto.Bucket
}

// Write implements prometheus.Metric.
func (b *bothHistogram) Write(out *dto.Metric) error {
	if err := b.Metric.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = b.buckets
	return nil
}
