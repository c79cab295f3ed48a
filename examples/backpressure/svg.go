package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// The picture: two charts side by side, queue lengths and API calls.
const (
	chartWidth, chartHeight = 420, 220
	margin                  = 60
)

// series is one line of a chart.
type series struct {
	name, colour string
	points       []sample
	value        func(sample) float64
}

// draw makes an SVG of both runs.
func draw(push, pull result) []byte {
	queued := func(s sample) float64 { return float64(s.queued) }
	calls := func(s sample) float64 { return float64(s.calls) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		2*(chartWidth+2*margin), chartHeight+2*margin)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for i, c := range []struct {
		title string
		value func(sample) float64
	}{{"posts between A and C", queued}, {"API calls", calls}} {
		chart(&b, i*(chartWidth+2*margin)+margin, c.title, []series{
			{"pushed", "#c0392b", push.samples, c.value},
			{"pulled", "#2471a3", pull.samples, c.value},
		})
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// chart draws axes, a title, a legend and lines, its left edge at x.
func chart(b *bytes.Buffer, x int, title string, lines []series) {
	var last time.Duration
	top := 1.0
	for _, l := range lines {
		for _, p := range l.points {
			last, top = max(last, p.at), max(top, l.value(p))
		}
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="15">%s</text>`+"\n", x, margin-25, title)
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`+"\n", x, margin, margin+chartHeight, x+chartWidth)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%.0f</text>`+"\n", x-5, margin+5, top)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%.1f s</text>`+"\n", x+chartWidth, margin+chartHeight+18, last.Seconds())
	for i, l := range lines {
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", x+10, margin+15+16*i, l.colour, l.name)
		points := make([]string, len(l.points))
		for j, p := range l.points {
			points[j] = fmt.Sprintf("%.1f,%.1f", float64(x)+chartWidth*p.at.Seconds()/max(last.Seconds(), 1e-9),
				margin+chartHeight*(1-l.value(p)/top))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), l.colour)
	}
}
