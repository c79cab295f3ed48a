package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Table prints what is known of a workload.
func Table(to io.Writer, w measure.Workload, rounds []measure.Round) error {
	rows := rows(w, rounds)
	tabs := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tabs, "\n%s\n", w.Title)
	for _, line := range columns(rows) {
		fmt.Fprintln(tabs, strings.Join(line, "\t")+"\t")
	}
	for _, v := range verdicts(w, rows) {
		fmt.Fprintln(tabs, v)
	}
	return tabs.Flush()
}

// columns are the lines of a table, the first being its heads: what is the same for all, and what these rows have.
func columns(rows []Row) [][]string {
	late := slices.ContainsFunc(rows, func(r Row) bool { return r.Latency != nil })
	flight := slices.ContainsFunc(rows, func(r Row) bool { return r.Flight > 0 })
	head := []string{"system", "version", "rounds", "messages", "messages/s", "min", "max", "CPU us", "MiB", "allocations"}
	if late {
		head = append(head, "p50 ms", "p99 ms", "p99.9 ms")
	}
	if flight {
		head = append(head, "in flight MiB", "grown / in flight")
	}
	lines := [][]string{head}
	for _, r := range rows {
		line := []string{
			r.System, r.Version, strconv.Itoa(r.Rounds), strconv.Itoa(r.Messages), rate(r.Median), rate(r.Min), rate(r.Max),
			fmt.Sprintf("%.3f", micros(r)), fmt.Sprintf("%.0f", r.RSS), allocations(r),
		}
		if late {
			line = append(line, millis(r.Latency)...)
		}
		if flight {
			line = append(line, inFlight(r), share(r))
		}
		lines = append(lines, line)
	}
	return lines
}

// micros is CPU time per message.
func micros(r Row) float64 { return r.CPU / float64(r.Messages) * 1e6 }

func millis(p *measure.Percentiles) []string {
	if p == nil {
		return []string{"", "", ""}
	}
	return []string{fmt.Sprintf("%.3f", p.P50), fmt.Sprintf("%.3f", p.P99), fmt.Sprintf("%.3f", p.P999)}
}

// inFlight is what was unsettled at most, which only this project tells.
func inFlight(r Row) string {
	if r.Flight == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Flight/(1<<20))
}

// share is by how many bytes the process grew for each byte in flight.
func share(r Row) string {
	if r.Flight == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Grown/r.Flight)
}

// rate is a figure of messages a second as people read it.
func rate(perSecond float64) string {
	switch {
	case perSecond >= 1e6:
		return fmt.Sprintf("%.2f M", perSecond/1e6)
	case perSecond >= 10_000:
		return fmt.Sprintf("%.0f k", perSecond/1e3)
	default:
		return fmt.Sprintf("%.0f", perSecond)
	}
}

// allocations of a message; those of a process that is not Go are not known.
func allocations(r Row) string {
	if r.Mallocs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", r.Mallocs)
}

// String says the target, what was reached, and whether that is enough.
func (v Verdict) String() string {
	bound := fmt.Sprintf(">= %.3g", v.AtLeast)
	if v.AtMost > 0 {
		bound = fmt.Sprintf("<= %.3g", v.AtMost)
	}
	what := v.Measure + " of " + v.System
	switch {
	case v.System == "":
		what = v.Measure + ", highest of all / lowest"
	case v.Difference:
		what += " - " + v.Peer
	case v.Peer != "":
		what += " / " + v.Peer
	}
	if !v.Known {
		return fmt.Sprintf("  %s: %s, not measured", what, bound)
	}
	answer := "missed"
	if v.Met() {
		answer = "met"
	}
	return fmt.Sprintf("  %s: %.2f (%s: %s)", what, v.Reached, bound, answer)
}
