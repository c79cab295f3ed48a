// Package report makes tables and pictures of rounds.
package report

import (
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
	Commit   string  `json:"commit"`
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
		all = append(all, row)
	}
	return all
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
		v := Verdict{Target: t}
		ours, ok := figure(rows, t.System, t.Measure)
		v.Reached, v.Known = ours, ok
		if t.Peer != "" {
			theirs, ok := figure(rows, t.Peer, t.Measure)
			v.Reached, v.Known = ours/theirs, v.Known && ok && theirs > 0
		}
		all = append(all, v)
	}
	return all
}

func figure(rows []Row, system, what string) (float64, bool) {
	for _, r := range rows {
		if r.System != system {
			continue
		}
		switch what {
		case "rate":
			return r.Median, true
		case "cpu":
			return r.CPU / float64(r.Messages), true
		case "rss":
			return r.RSS, true
		case "allocs":
			return r.Mallocs, true
		}
	}
	return 0, false
}
