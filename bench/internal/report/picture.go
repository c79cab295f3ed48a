package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

const (
	barHeight, barGap  = 18, 6
	labelWidth, barMax = 260, 380
)

// picture is a bar for each system, as long as the logarithm of its rate: what is compared differs by factors of a hundred.
func picture(s section) []byte {
	var b bytes.Buffer
	height := 30 + len(s.Rows)*(barHeight+barGap)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="760" height="%d" font-family="sans-serif" font-size="12">`+"\n", height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="18" font-weight="bold">%s, messages a second (logarithmic)</text>`+"\n", escape(s.Title))
	low, high := math.Inf(1), 0.0
	for _, r := range s.Rows {
		low, high = min(low, r.Median), max(high, r.Median)
	}
	low /= 2
	for i, r := range s.Rows {
		y := 30 + i*(barHeight+barGap)
		length := barMax * math.Log(r.Median/low) / math.Log(high/low)
		fill := "#9aa7b5"
		if (measure.System{Name: r.System}).Ours() {
			fill = "#1f6feb"
		}
		fmt.Fprintf(&b, `<text x="8" y="%d">%s</text><rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%s</text>`+"\n",
			y+13, escape(r.System), labelWidth, y, length, barHeight, fill, labelWidth+length+6, y+13, rate(r.Median))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer does not fail
	return b.String()
}
