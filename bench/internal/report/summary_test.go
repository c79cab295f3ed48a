package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

func round(system string, messages int, seconds float64) measure.Round {
	return measure.Round{Workload: "w", System: system, Messages: messages, Seconds: seconds, CPU: seconds / 2, RSS: seconds * 10}
}

func TestRowsAreOfTheLargestSize(t *testing.T) {
	w := measure.Workload{Name: "w", Systems: []measure.System{{Name: "a"}, {Name: "never ran"}, {Name: "b"}}}
	got := rows(w, []measure.Round{
		round("a", 10, 1), round("b", 1000, 4), round("a", 1000, 1), round("a", 1000, 4), round("a", 1000, 2), round("a", 10, 1),
		{Workload: "another", System: "a", Messages: 5000, Seconds: 1},
	})
	if len(got) != 2 || got[0].System != "a" || got[1].System != "b" {
		t.Fatalf("rows: %+v, want those of a and b", got)
	}
	a := got[0]
	if a.Rounds != 3 || a.Messages != 1000 || a.Min != 250 || a.Median != 500 || a.Max != 1000 || a.CPU != 1 || a.RSS != 40 {
		t.Errorf("row of a: %+v", a)
	}
}

func TestMedianOfTwoLiesBetween(t *testing.T) {
	if got := median([]float64{1, 4}); got != 2.5 {
		t.Errorf("median of 1 and 4: %v", got)
	}
}

func TestVerdicts(t *testing.T) {
	w := measure.Workload{Name: "w", Systems: []measure.System{{Name: "a"}, {Name: "b"}}, Targets: []measure.Target{
		{System: "a", Peer: "b", Measure: "rate", AtLeast: 2},
		{System: "a", Peer: "b", Measure: "rate", AtLeast: 5},
		{System: "a", Peer: "b", Measure: "cpu", AtMost: 0.5},
		{System: "a", Measure: "rss", AtMost: 5},
		{System: "a", Peer: "absent", Measure: "rate", AtLeast: 0.1},
	}}
	got := verdicts(w, rows(w, []measure.Round{round("a", 100, 1), round("b", 100, 4)}))
	for i, want := range []bool{true, false, true, false, false} {
		if got[i].Met() != want {
			t.Errorf("%v: met %v, want %v", got[i], got[i].Met(), want)
		}
	}
	if text := got[4].String(); !strings.Contains(text, "not measured") {
		t.Errorf("a target without its peer: %q", text)
	}
}

func TestConstantsStandBesideWorkloadsAndAreNoRows(t *testing.T) {
	dir := t.TempDir()
	w := measure.Workload{Name: "w", Title: "W", Systems: []measure.System{{Name: "a"}}}
	if err := Write(dir, []measure.Workload{w}, []measure.Round{round("a", 10, 1)}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range elixir() {
		if !strings.Contains(string(text), "| "+c.What+" | "+c.Rate+" |") {
			t.Errorf("performance.md lacks %s", c.What)
		}
		if strings.Contains(string(data), c.What) {
			t.Errorf("performance.json has %s, which was not measured", c.What)
		}
	}
}
