package render

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"github.com/go-fonts/dejavu/dejavusansmono"
)

// sheet sets text on the pages of one document: it breaks lines and pages, and
// puts every line into its visual order.
type sheet struct {
	doc    *fpdf.Fpdf
	paper  *paper
	y      float64 // where the next line goes
	boxes  int
	widths map[glyph]float64
	mono   bool // the font for code is in the document
}

// glyph is a character in a font and size.
type glyph struct {
	r    rune
	mono bool
	size float64
}

// style is what a paragraph looks like.
type style struct {
	size   float64 // in points
	indent float64 // in millimetres
	colour colour
	marker string
	mono   bool
	fill   bool // on grey
	bar    bool // beside a bar
}

func (l style) height() float64 { return l.size * leading * pointsToMM }

// character is one glyph to be set, the span it came from, and its level in the
// bidirectional text around it.
type character struct {
	r     rune
	span  int
	level int
}

func (s *sheet) monoFont() {
	if !s.mono {
		s.doc.AddUTF8FontFromBytes(fontMono, "", bytes.Clone(dejavusansmono.TTF)) // fpdf writes into it
		s.mono = true
	}
}

// rule draws a line across the page.
func (s *sheet) rule() {
	s.y += 2
	s.doc.SetDrawColor(190, 190, 190)
	s.doc.Line(margin, s.y, pageWidth-margin, s.y)
	s.y += 4
}

// paragraph sets spans in one style.
func (s *sheet) paragraph(spans []span, look style) {
	font := fontSans
	if look.mono {
		font = fontMono
	}
	s.doc.SetFont(font, "", look.size)
	lines := s.characters(spans, look)
	rtl := rightToLeft(runesOf(lines...))
	for _, l := range lines {
		for i, level := range levels(runesOf(l), rtl) {
			l[i].level = level
		}
	}
	for i, l := range lines {
		for j, part := range s.wrap(l, look) {
			s.line(part, spans, look, rtl)
			if i == 0 && j == 0 && look.marker != "" {
				s.marker(look, rtl)
			}
		}
	}
}

// characters makes drawable, shaped lines of spans: one for each line feed.
func (s *sheet) characters(spans []span, look style) [][]character {
	font := s.paper.sans
	if look.mono {
		font = s.paper.mono
	}
	lines := [][]character{nil}
	for i, sp := range spans {
		text, boxes := drawable(sp.text, font)
		s.boxes += boxes
		for j, part := range strings.Split(strings.ReplaceAll(text, "\t", "    "), "\n") {
			if j > 0 {
				lines = append(lines, nil)
			}
			for _, r := range part {
				last := len(lines) - 1
				lines[last] = append(lines[last], character{r: r, span: i})
			}
		}
	}
	for i, l := range lines {
		shaped, from := shape(runesOf(l))
		out := make([]character, len(shaped))
		for j, r := range shaped {
			out[j] = character{r: r, span: l[from[j]].span}
		}
		lines[i] = out
	}
	return lines
}

func runesOf(lines ...[]character) []rune {
	var runes []rune
	for _, l := range lines {
		for _, c := range l {
			runes = append(runes, c.r)
		}
	}
	return runes
}

func (s *sheet) width(r rune, look style) float64 {
	key := glyph{r, look.mono, look.size}
	w, ok := s.widths[key]
	if !ok {
		w = s.doc.GetStringWidth(string(r))
		s.widths[key] = w
	}
	return w
}

// wrap breaks a line where it gets too long: after a space or a slash, beside an
// East Asian character, or anywhere if it must, but never before a mark. Not
// after a hyphen: who copies the text would lose it.
func (s *sheet) wrap(l []character, look style) [][]character {
	room := pageWidth - 2*margin - look.indent
	var parts [][]character
	start, chance, width := 0, 0, 0.0
	for i := 0; i < len(l); i++ {
		width += s.width(l[i].r, look)
		if width > room && i > start && !unicode.IsMark(l[i].r) && l[i].r != ' ' {
			end := i
			if chance > start {
				end = chance
			}
			parts = append(parts, l[start:end])
			start, width = end, 0
			i = end - 1 // measure again from there
			continue
		}
		if i+1 < len(l) && breakable(l[i].r, l[i+1].r) {
			chance = i + 1
		}
	}
	return append(parts, l[start:])
}

// breakable says whether a line may end between two characters.
func breakable(a, b rune) bool {
	switch {
	case unicode.IsMark(b) || b == ' ':
		return false
	case a == ' ' || a == '/':
		return true
	case strings.ContainsRune("。、，．！？：；」』）】…", b):
		return false
	}
	return eastAsian(a) || eastAsian(b)
}

func eastAsian(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r >= 0x3000 && r <= 0x303F
}

// line sets one line, on a new page if this one is full.
func (s *sheet) line(l []character, spans []span, look style, rtl bool) {
	height := look.height()
	if s.y+height > pageHeight-margin {
		s.newPage(look)
	}
	l = trimRight(l)
	left, room := margin+look.indent, pageWidth-2*margin-look.indent
	if rtl {
		left = margin
	}
	if look.fill {
		s.doc.SetFillColor(243, 243, 243)
		s.doc.Rect(left-2, s.y, room+2, height, "F")
	}
	if look.bar {
		s.doc.SetFillColor(200, 200, 200)
		s.doc.Rect(barAt(left, room, rtl), s.y, 0.8, height, "F")
	}
	x := left
	if rtl {
		total := 0.0
		for _, c := range l {
			total += s.width(c.r, look)
		}
		x = left + room - total
	}
	s.runs(l, spans, look, rtl, x)
	s.y += height
}

func barAt(left, room float64, rtl bool) float64 {
	if rtl {
		return left + room + 2
	}
	return left - 3
}

// runs sets the pieces of a line, from left to right: a piece is what belongs to
// one span.
func (s *sheet) runs(l []character, spans []span, look style, rtl bool, x float64) {
	at := make([]int, len(l))
	for i, c := range l {
		at[i] = c.level
	}
	order := visual(runesOf(l), at, rtl)
	for i := 0; i < len(order); {
		var text strings.Builder
		width, from := 0.0, l[order[i].at].span
		for i < len(order) && l[order[i].at].span == from {
			r := l[order[i].at].r
			if order[i].back {
				r = mirrored(r)
			}
			text.WriteRune(r)
			width += s.width(r, look)
			i++
		}
		link, c := spans[from].link, look.colour
		if link != "" {
			c = colour{30, 70, 160}
		}
		s.doc.SetTextColor(c.r, c.g, c.b)
		s.doc.SetXY(x, s.y)
		s.doc.CellFormat(width, look.height(), text.String(), "", 0, "L", false, 0, link)
		x += width
	}
}

// marker puts the sign of a list item beside the line that was just set.
func (s *sheet) marker(look style, rtl bool) {
	x := margin + look.indent - step
	if rtl {
		x = pageWidth - margin - look.indent + 1
	}
	s.doc.SetTextColor(look.colour.r, look.colour.g, look.colour.b)
	s.doc.SetXY(x, s.y-look.height())
	s.doc.CellFormat(step, look.height(), strings.TrimSpace(look.marker), "", 0, "L", false, 0, "")
}

func (s *sheet) newPage(look style) {
	s.doc.AddPage() // the footer has changed the font
	font := fontSans
	if look.mono {
		font = fontMono
	}
	s.doc.SetFont(font, "", look.size)
	s.y = margin
}

// trimRight drops the space that a line was broken at.
func trimRight(l []character) []character {
	i := len(l)
	for i > 0 && l[i-1].r == ' ' {
		i--
	}
	return slices.Clip(l[:i])
}
