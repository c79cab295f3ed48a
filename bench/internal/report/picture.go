package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

const (
	barHeight, barGap  = 18, 6
	labelWidth, barMax = 260, 380
)

// shown is what a picture of s is of, and how its figures are written: rates, latencies where there are any, CPU time along an axis.
func shown(s section) (title string, value func(Row) float64, format func(Row) string) {
	switch {
	case !slices.ContainsFunc(s.Rows, func(r Row) bool { return r.Latency == nil }):
		return "p99 in milliseconds", func(r Row) float64 { return r.Latency.P99 }, func(r Row) string { return r.Latency.String() }
	case s.Axis != "":
		return "CPU microseconds a message", micros, func(r Row) string { return fmt.Sprintf("%.3f, %.0f MiB", micros(r), r.RSS) }
	}
	return "messages a second", func(r Row) float64 { return r.Median }, func(r Row) string { return rate(r.Median) }
}

// picture is a bar for each system, as long as the logarithm of its figure: what is compared differs by factors of a hundred.
func picture(s section) []byte {
	title, value, format := shown(s)
	var b bytes.Buffer
	height := 30 + len(s.Rows)*(barHeight+barGap)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="760" height="%d" font-family="sans-serif" font-size="12">`+"\n", height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="18" font-weight="bold">%s, %s (logarithmic)</text>`+"\n", escape(s.Title), title)
	low, high := math.Inf(1), 0.0
	for _, r := range s.Rows {
		low, high = min(low, value(r)), max(high, value(r))
	}
	low /= 2
	for i, r := range s.Rows {
		y := 30 + i*(barHeight+barGap)
		length := barMax * math.Log(value(r)/low) / math.Log(high/low)
		fill := "#9aa7b5"
		if (measure.System{Name: r.System}).Ours() {
			fill = "#1f6feb"
		}
		fmt.Fprintf(&b, `<text x="8" y="%d">%s</text><rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%s</text>`+"\n",
			y+13, escape(r.System), labelWidth, y, length, barHeight, fill, labelWidth+length+6, y+13, format(r))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer does not fail
	return b.String()
}
