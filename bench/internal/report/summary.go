// Package report makes tables and pictures of rounds.
package report

import (
	"math"
	"slices"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Row is one system of one workload: rates are messages a second.
type Row struct {
	Workload string  `json:"workload"`
	System   string  `json:"system"`
	Version  string  `json:"version,omitempty"`
	Rounds   int     `json:"rounds"`
	Messages int     `json:"messages"`
	Median   float64 `json:"median"`
	Min      float64 `json:"min"`
	Max      float64 `json:"max"`
	CPU      float64 `json:"cpu_s"`              // median, of one round
	RSS      float64 `json:"rss_mb"`             // highest
	Mallocs  float64 `json:"allocs_per_message"` // median
	// Grown and Flight are bytes: by how much the process grew (highest), and what was in flight (highest), 0 when unknown.
	Grown  float64 `json:"grown_bytes,omitempty"`
	Flight float64 `json:"flight_bytes,omitempty"`
	// Latency has the median of each percentile over the rounds, and the highest Max.
	Latency *measure.Percentiles `json:"latency_ms,omitempty"`
	Commit  string               `json:"commit"`
}

// rows are those of one workload, in the order of its systems. Rounds of the largest size count.
func rows(w measure.Workload, rounds []measure.Round) []Row {
	var all []Row
	for _, s := range w.Systems {
		of := ofSystem(w.Name, s.Name, rounds)
		if len(of) == 0 {
			continue
		}
		row := Row{Workload: w.Name, System: s.Name, Version: s.Version, Rounds: len(of), Messages: of[0].Messages, Commit: of[len(of)-1].Commit}
		rates := collect(of, measure.Round.Rate)
		row.Min, row.Median, row.Max = rates[0], median(rates), rates[len(rates)-1]
		row.CPU = median(collect(of, func(r measure.Round) float64 { return r.CPU }))
		row.Mallocs = median(collect(of, func(r measure.Round) float64 { return r.Mallocs }))
		row.RSS = slices.Max(collect(of, func(r measure.Round) float64 { return r.RSS }))
		row.Grown = slices.Max(collect(of, func(r measure.Round) float64 { return r.Grown }))
		row.Flight = slices.Max(collect(of, func(r measure.Round) float64 { return r.Flight }))
		row.Latency = latency(of)
		all = append(all, row)
	}
	return all
}

// latency is nil unless all rounds have theirs.
func latency(rounds []measure.Round) *measure.Percentiles {
	if slices.ContainsFunc(rounds, func(r measure.Round) bool { return r.Latency == nil }) {
		return nil
	}
	of := func(f func(measure.Percentiles) float64) []float64 {
		return collect(rounds, func(r measure.Round) float64 { return f(*r.Latency) })
	}
	return &measure.Percentiles{
		P50:  median(of(func(p measure.Percentiles) float64 { return p.P50 })),
		P99:  median(of(func(p measure.Percentiles) float64 { return p.P99 })),
		P999: median(of(func(p measure.Percentiles) float64 { return p.P999 })),
		Max:  slices.Max(of(func(p measure.Percentiles) float64 { return p.Max })),
	}
}

func ofSystem(workload, system string, rounds []measure.Round) []measure.Round {
	var of []measure.Round
	largest := 0
	for _, r := range rounds {
		if r.Workload != workload || r.System != system || r.Messages < largest {
			continue
		}
		if r.Messages > largest {
			of, largest = of[:0], r.Messages
		}
		of = append(of, r)
	}
	return of
}

// collect is sorted.
func collect(rounds []measure.Round, f func(measure.Round) float64) []float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = f(r)
	}
	slices.Sort(values)
	return values
}

// median is that of sorted values.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// Verdict is a target, and what was reached.
type Verdict struct {
	measure.Target
	Reached float64
	Known   bool
}

// Met says whether the target is.
func (v Verdict) Met() bool {
	return v.Known && (v.AtLeast == 0 || v.Reached >= v.AtLeast) && (v.AtMost == 0 || v.Reached <= v.AtMost)
}

func verdicts(w measure.Workload, rows []Row) []Verdict {
	var all []Verdict
	for _, t := range w.Targets {
		all = append(all, verdict(w, t, rows))
	}
	return all
}

func verdict(w measure.Workload, t measure.Target, rows []Row) Verdict {
	v := Verdict{Target: t}
	if t.System == "" {
		v.Reached, v.Known = flatness(w, rows, t.Measure)
		return v
	}
	v.Reached, v.Known = figure(rows, t.System, t.Measure)
	if t.Peer == "" {
		return v
	}
	theirs, ok := figure(rows, t.Peer, t.Measure)
	v.Known = v.Known && ok
	if t.Difference {
		v.Reached -= theirs
		return v
	}
	v.Reached, v.Known = v.Reached/theirs, v.Known && theirs > 0
	return v
}

// flatness is the highest of all systems of w over the lowest; unknown while one of them has no figure.
func flatness(w measure.Workload, rows []Row, what string) (float64, bool) {
	low, high := math.Inf(1), 0.0
	for _, s := range w.Systems {
		value, ok := figure(rows, s.Name, what)
		if !ok || value <= 0 {
			return 0, false
		}
		low, high = min(low, value), max(high, value)
	}
	return high / low, len(w.Systems) > 0
}

func figure(rows []Row, system, what string) (float64, bool) {
	at := slices.IndexFunc(rows, func(r Row) bool { return r.System == system })
	if at < 0 {
		return 0, false
	}
	r := rows[at]
	switch {
	case what == "rate":
		return r.Median, true
	case what == "cpu":
		return r.CPU / float64(r.Messages), true
	case what == "rss":
		return r.RSS, true
	case what == "allocs":
		return r.Mallocs, true
	case what == "rss/flight" && r.Flight > 0:
		return r.Grown / r.Flight, true
	case what == "p50" && r.Latency != nil:
		return r.Latency.P50, true
	case what == "p99" && r.Latency != nil:
		return r.Latency.P99, true
	case what == "p99.9" && r.Latency != nil:
		return r.Latency.P999, true
	}
	return 0, false
}
