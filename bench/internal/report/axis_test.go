package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

func TestLatencyIsTheMedianOfEachPercentile(t *testing.T) {
	w := measure.Workload{Name: "w", Systems: []measure.System{{Name: "a"}, {Name: "b"}}}
	late := func(system string, p measure.Percentiles) measure.Round {
		return measure.Round{Workload: "w", System: system, Messages: 10, Seconds: 1, Latency: &p}
	}
	got := rows(w, []measure.Round{
		late("a", measure.Percentiles{P50: 1, P99: 30, P999: 5, Max: 9}),
		late("a", measure.Percentiles{P50: 2, P99: 10, P999: 6, Max: 8}),
		late("a", measure.Percentiles{P50: 9, P99: 20, P999: 4, Max: 7}),
		late("b", measure.Percentiles{P50: 1}), {Workload: "w", System: "b", Messages: 10, Seconds: 1},
	})
	if want := (measure.Percentiles{P50: 2, P99: 20, P999: 5, Max: 9}); got[0].Latency == nil || *got[0].Latency != want {
		t.Errorf("latency of a: %v, want %v", got[0].Latency, want)
	}
	if got[1].Latency != nil {
		t.Errorf("latency of b, of which one round has none: %v", got[1].Latency)
	}
}

func TestVerdictsOfDifferencesAndAxes(t *testing.T) {
	w := measure.Workload{Name: "w", Systems: []measure.System{{Name: "a"}, {Name: "b"}}, Targets: []measure.Target{
		{System: "a", Peer: "b", Measure: "p50", Difference: true, AtMost: 0.2},
		{System: "a", Peer: "b", Measure: "p99", Difference: true, AtMost: 0.9},
		{System: "b", Peer: "a", Measure: "p99.9", Difference: true, AtMost: 1},
		{Measure: "cpu", AtMost: 1.25},
		{Measure: "cpu", AtMost: 1.24},
		{Measure: "rss/flight", AtMost: 10},
	}}
	rounds := []measure.Round{
		{Workload: "w", System: "a", Messages: 100, Seconds: 1, CPU: 5, Grown: 6, Flight: 2, Latency: &measure.Percentiles{P50: 1.25, P99: 3, P999: 5}},
		{Workload: "w", System: "b", Messages: 10, Seconds: 1, CPU: 0.4, Grown: 5, Latency: &measure.Percentiles{P50: 1.125, P99: 2, P999: 4}},
	}
	got := verdicts(w, rows(w, rounds))
	for i, want := range []struct {
		reached    float64
		known, met bool
	}{{0.125, true, true}, {1, true, false}, {-1, true, true}, {1.25, true, true}, {1.25, true, false}, {0, false, false}} {
		v := got[i]
		if v.Known != want.known || v.Met() != want.met || v.Known && (v.Reached < want.reached-1e-9 || v.Reached > want.reached+1e-9) {
			t.Errorf("%v: reached %v, known %v, met %v; want %+v", v, v.Reached, v.Known, v.Met(), want)
		}
	}
	if half := verdicts(w, rows(w, rounds[:1])); half[3].Known {
		t.Errorf("an axis of which one point was not measured: %v", half[3])
	}
}

func TestTablesHaveTheColumnsOfTheirRows(t *testing.T) {
	plain := Row{System: "a", Messages: 10, Median: 1}
	late, grown := plain, plain
	late.Latency, grown.Flight, grown.Grown = &measure.Percentiles{P50: 0.5, P99: 1, P999: 2}, 2<<20, 6<<20
	for name, c := range map[string]struct {
		rows []Row
		has  string
		not  string
	}{
		"rates":     {[]Row{plain}, "messages/s", "p50"},
		"latencies": {[]Row{late, plain}, "p99.9", "in flight"},
		"growth":    {[]Row{plain, grown}, "3.00", "p50"},
	} {
		lines := columns(c.rows)
		var text strings.Builder
		for _, cells := range lines {
			if len(cells) != len(lines[0]) {
				t.Errorf("%s: %d cells below %d heads", name, len(cells), len(lines[0]))
			}
			text.WriteString(line(cells))
		}
		if got := text.String(); !strings.Contains(got, c.has) || strings.Contains(got, c.not) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestPicturesAreWellFormed(t *testing.T) {
	plain := Row{System: "a < b", Messages: 10, Median: 1, CPU: 1}
	late := plain
	late.Latency = &measure.Percentiles{P50: 0.5, P99: 1, P999: 2}
	for title, s := range map[string]section{
		"messages a second":          {Rows: []Row{plain, late}},
		"p99 in milliseconds":        {Rows: []Row{late}},
		"CPU microseconds a message": {Workload: measure.Workload{Axis: "workers"}, Rows: []Row{plain}},
	} {
		svg := picture(s)
		decoder := xml.NewDecoder(bytes.NewReader(svg))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", title, err)
			}
		}
		if !strings.Contains(string(svg), title) {
			t.Errorf("no %q in %s", title, svg)
		}
	}
}
