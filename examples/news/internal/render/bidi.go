package render

import (
	"slices"
	"unicode"

	"golang.org/x/text/unicode/bidi"
)

// A PDF holds glyphs from left to right, so lines of Arabic and Hebrew are
// reordered here, after Unicode's bidirectional algorithm (UAX #9), and Arabic
// letters are given the forms that join them.

// rightToLeft says whether a paragraph runs from right to left: whether its
// first strong character does (rules P2 and P3).
func rightToLeft(runes []rune) bool {
	for _, r := range runes {
		switch class(r) {
		case bidi.L:
			return false
		case bidi.R, bidi.AL:
			return true
		}
	}
	return false
}

func class(r rune) bidi.Class {
	p, _ := bidi.LookupRune(r)
	return p.Class()
}

// levels gives each character of a line its embedding level: an even one runs to
// the right, an odd one to the left. The line is one that is not broken yet:
// what a character belongs to may end up on the next one.
//
// The library tells which way a run goes and not its level, so runs of levels 0
// and 2 come as one: in a line from left to right a number after right-to-left
// text is at level 2, and is parted from what follows it here.
func levels(line []rune, rtl bool) []int {
	out := make([]int, len(line))
	mark := "\u200e" // makes the line run the paragraph's way
	if rtl {
		mark = "\u200f"
	}
	var p bidi.Paragraph
	if _, err := p.SetString(mark + string(line)); err != nil {
		return out
	}
	o, err := p.Order()
	if err != nil {
		return out
	}
	for i := range o.NumRuns() {
		run := o.Run(i)
		from, to := run.Pos() // to is the last, and both count the mark
		from, to = max(from-1, 0), min(to, len(line))
		level := 0
		switch {
		case run.Direction() == bidi.RightToLeft:
			level = 1
		case rtl:
			level = 2
		case from > 0:
			for n := number(line[from:to]); n > 0; n-- {
				out[from] = 2
				from++
			}
		}
		for ; from < to; from++ {
			out[from] = level
		}
	}
	return out
}

// place is a character of a line, by its index. back says that it runs from
// right to left: brackets are mirrored.
type place struct {
	at   int
	back bool
}

// visual gives the order in which the characters of a line stand from left to
// right, by rule L2: from the highest level down to 1, reverse what is at least
// that. A mark stays after its letter, and space at the end belongs to the
// paragraph.
func visual(line []rune, levels []int, rtl bool) []place {
	base := 0
	if rtl {
		base = 1
	}
	levels = slices.Clone(levels)
	for i := len(line) - 1; i >= 0 && unicode.IsSpace(line[i]); i-- {
		levels[i] = base
	}
	order := make([]place, len(line))
	for i := range order {
		order[i] = place{at: i, back: levels[i]%2 == 1}
	}
	for level := 2; level >= 1; level-- {
		for i := 0; i < len(order); i++ {
			j := i
			for j < len(order) && levels[order[j].at] >= level {
				j++
			}
			slices.Reverse(order[i:j])
			i = max(i, j-1)
		}
	}
	return marksAfter(line, order)
}

// marksAfter puts marks that reversing has put before their letter after it.
func marksAfter(line []rune, order []place) []place {
	for i := 0; i < len(order); i++ {
		j := i
		for j < len(order) && order[j].back && unicode.IsMark(line[order[j].at]) {
			j++
		}
		if j > i && j < len(order) && order[j].back {
			slices.Reverse(order[i : j+1])
			i = j
		}
	}
	return order
}

// number is how many characters of a number a text begins with.
func number(runes []rune) int {
	n := 0
	for i, r := range runes {
		switch class(r) {
		case bidi.EN, bidi.AN, bidi.ET:
			n = i + 1
		case bidi.ES, bidi.CS, bidi.NSM, bidi.BN:
		default:
			return n
		}
	}
	return n
}

// mirrored is the counterpart of a bracket, for text from right to left.
func mirrored(r rune) rune {
	if p, _ := bidi.LookupRune(r); p.IsBracket() {
		return []rune(bidi.ReverseString(string(r)))[0]
	}
	return r
}
