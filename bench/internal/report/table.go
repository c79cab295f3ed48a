package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Table prints what is known of a workload.
func Table(to io.Writer, w measure.Workload, rounds []measure.Round) error {
	rows := rows(w, rounds)
	tabs := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tabs, "\n%s\nsystem\trounds\tmessages/s\tmin\tmax\tCPU us\tMiB\tallocations\t\n", w.Title)
	for _, r := range rows {
		fmt.Fprintf(tabs, "%s\t%d\t%s\t%s\t%s\t%.3f\t%.0f\t%.3f\t\n", r.System, r.Rounds, rate(r.Median), rate(r.Min), rate(r.Max),
			r.CPU/float64(r.Messages)*1e6, r.RSS, r.Mallocs)
	}
	for _, v := range verdicts(w, rows) {
		fmt.Fprintln(tabs, v)
	}
	return tabs.Flush()
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

// String says the target, what was reached, and whether that is enough.
func (v Verdict) String() string {
	bound := fmt.Sprintf(">= %g", v.AtLeast)
	if v.AtMost > 0 {
		bound = fmt.Sprintf("<= %g", v.AtMost)
	}
	against := ""
	if v.Peer != "" {
		against = " / " + v.Peer
	}
	if !v.Known {
		return fmt.Sprintf("  %s of %s%s: %s, not measured", v.Measure, v.System, against, bound)
	}
	answer := "missed"
	if v.Met() {
		answer = "met"
	}
	return fmt.Sprintf("  %s of %s%s: %.2f (%s: %s)", v.Measure, v.System, against, v.Reached, bound, answer)
}
