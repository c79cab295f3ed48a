package render

import "unicode"

// arabicForms tells, for each letter from U+0621 on, how many forms it has in the
// block Arabic Presentation Forms-B, where they stand in a row from U+FE80 on:
// isolated, final, initial, medial. 0 is a character without forms.
const arabicForms = "12222424244444222244444444" + // hamza to ghain
	"000000" + // U+063B to U+0640
	"4444444224" // feh to yeh

const (
	arabicFirst = 0x0621
	formsFirst  = 0xFE80
	lam         = 0x0644
	tatweel     = 0x0640
)

// shape gives Arabic letters the forms that join them to their neighbours. It
// reports for each character of the result which of runes it came from: lam and
// alef become one.
func shape(runes []rune) (shaped []rune, from []int) {
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		from = append(from, i)
		if forms(r) == 0 {
			shaped = append(shaped, r)
			continue
		}
		joinsBefore := joinsForward(neighbour(runes, i, -1))
		if next := i + 1; r == lam && next < len(runes) {
			if ligature := lamAlef(runes[next]); ligature != 0 {
				if joinsBefore {
					ligature++ // the final form
				}
				shaped = append(shaped, ligature)
				i++
				continue
			}
		}
		joinsAfter := forms(r) == 4 && joinsBackward(neighbour(runes, i, 1))
		shaped = append(shaped, form(r, joinsBefore, joinsAfter))
	}
	return shaped, from
}

// neighbour is the next character in a direction that is not a mark, 0 at the end.
func neighbour(runes []rune, i, step int) rune {
	for i += step; i >= 0 && i < len(runes); i += step {
		if !unicode.IsMark(runes[i]) {
			return runes[i]
		}
	}
	return 0
}

func forms(r rune) int {
	if r < arabicFirst || int(r-arabicFirst) >= len(arabicForms) {
		return 0
	}
	return int(arabicForms[r-arabicFirst] - '0')
}

// joinsForward says whether r joins the letter after it, joinsBackward whether
// it joins the one before.
func joinsForward(r rune) bool  { return forms(r) == 4 || r == tatweel }
func joinsBackward(r rune) bool { return forms(r) >= 2 || r == tatweel }

func form(r rune, before, after bool) rune {
	base := rune(formsFirst)
	for l := rune(arabicFirst); l < r; l++ {
		base += rune(forms(l))
	}
	switch {
	case forms(r) == 1:
		return base
	case before && after:
		return base + 3
	case after:
		return base + 2
	case before:
		return base + 1
	}
	return base
}

// lamAlef is the isolated ligature of lam and the alef r; its final form follows.
func lamAlef(r rune) rune {
	switch r {
	case 0x0622:
		return 0xFEF5
	case 0x0623:
		return 0xFEF7
	case 0x0625:
		return 0xFEF9
	case 0x0627:
		return 0xFEFB
	}
	return 0
}
