package render

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/runenames"
)

// coverage is the set of characters of the Basic Multilingual Plane that a font
// has glyphs for: one bit each.
type coverage [1 << 16 / 64]uint64

func (c *coverage) has(r rune) bool { return r >= 0 && r <= 0xFFFF && c[r/64]&(1<<(r%64)) != 0 }

var errFont = errors.New("render: the font has no readable character map")

// fontCoverage reads the character map of a TrueType font: the table "cmap", in
// its format 4 (OpenType specification 1.9, "cmap").
func fontCoverage(ttf []byte) (*coverage, error) {
	table := fontTable(ttf, "cmap")
	if len(table) < 4 {
		return nil, errFont
	}
	for i := range int(binary.BigEndian.Uint16(table[2:])) {
		record := 4 + 8*i
		if len(table) < record+8 {
			return nil, errFont
		}
		at := int(binary.BigEndian.Uint32(table[record+4:]))
		if at+14 <= len(table) && binary.BigEndian.Uint16(table[at:]) == 4 {
			return format4(table[at:])
		}
	}
	return nil, errFont
}

func fontTable(ttf []byte, name string) []byte {
	if len(ttf) < 12 {
		return nil
	}
	for i := range int(binary.BigEndian.Uint16(ttf[4:])) {
		at := 12 + 16*i
		if len(ttf) < at+16 {
			return nil
		}
		offset, size := int(binary.BigEndian.Uint32(ttf[at+8:])), int(binary.BigEndian.Uint32(ttf[at+12:]))
		if string(ttf[at:at+4]) == name && offset+size <= len(ttf) {
			return ttf[offset : offset+size]
		}
	}
	return nil
}

// format4 reads segments of characters. Each has an end, a start, a delta and an
// offset, in four parallel arrays.
func format4(t []byte) (*coverage, error) {
	u16 := func(at int) int {
		if at+2 > len(t) {
			return 0
		}
		return int(binary.BigEndian.Uint16(t[at:]))
	}
	size := u16(6) // two bytes a segment
	c := new(coverage)
	for s := 0; s < size; s += 2 {
		end, start := u16(14+s), u16(16+size+s)
		delta, offsetAt := u16(16+2*size+s), 16+3*size+s
		for r := start; r <= end && r < 0xFFFF; r++ {
			glyph := r
			if offset := u16(offsetAt); offset != 0 {
				glyph = u16(offsetAt + offset + 2*(r-start))
				if glyph == 0 {
					continue
				}
			}
			if (glyph+delta)&0xFFFF != 0 {
				c[r/64] |= 1 << (r % 64)
			}
		}
	}
	return c, nil
}

// drawable rewrites s so that a font can show it, and so that a PDF can hold
// it: fpdf gives up on a document at the first character above U+FFFF. Those
// become their plain counterparts (𝔸 is an A) or their names in brackets, and so
// do symbols without a glyph; marks are composed with their letters. boxes
// counts the letters that the font has no glyph for: they stay in the text and
// show as boxes.
func drawable(s string, font *coverage) (out string, boxes int) {
	var b strings.Builder
	runes := []rune(norm.NFC.String(s))
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case isRegional(r) && i+1 < len(runes) && isRegional(runes[i+1]):
			b.WriteString("[flag " + string(regional(r)) + string(regional(runes[i+1])) + "]")
			i++
		case invisible(r):
		case r > 0xFFFF, unicode.IsSymbol(r) && !font.has(r):
			b.WriteString(spelled(r, font))
		default:
			if !font.has(r) {
				boxes++
			}
			b.WriteRune(r)
		}
	}
	return b.String(), boxes
}

// invisible says whether r draws nothing by itself: joiners, selectors, tags and
// the skin tones of emoji.
func invisible(r rune) bool {
	return unicode.Is(unicode.Cf, r) || unicode.IsControl(r) || unicode.Is(unicode.Variation_Selector, r) ||
		r >= 0x1F3FB && r <= 0x1F3FF
}

func isRegional(r rune) bool { return r >= 0x1F1E6 && r <= 0x1F1FF }

func regional(r rune) rune { return 'A' + r - 0x1F1E6 }

// spelled is what stands for a character that cannot be shown.
func spelled(r rune, font *coverage) string {
	plain := norm.NFKC.String(string(r))
	if !strings.ContainsFunc(plain, func(r rune) bool { return !font.has(r) }) {
		return plain
	}
	name := strings.ToLower(runenames.Name(r))
	if name == "" || strings.HasPrefix(name, "<") {
		name = "character"
	}
	return "[" + name + "]"
}
