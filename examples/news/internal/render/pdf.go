package render

import (
	"bytes"
	"strconv"
	"time"

	"codeberg.org/go-pdf/fpdf"
	"github.com/go-fonts/dejavu/dejavusans"
	"github.com/go-fonts/dejavu/dejavusansmono"
)

// Sizes of the page, in millimetres and points.
const (
	margin     = 20.0
	pageWidth  = 210.0
	pageHeight = 297.0
	sizeTitle  = 16.0
	sizeText   = 11.0
	sizeSmall  = 8.5
	leading    = 1.45 // line height per font size
	pointsToMM = 25.4 / 72
	step       = 6.0 // indentation of quotes, lists and code
	deepest    = 6   // no further indentation
)

// colour is red, green and blue.
type colour struct{ r, g, b int }

// The fonts, by the names that the documents know them by.
const (
	fontSans = "dejavu"
	fontMono = "dejavu-mono"
)

// paper prints articles as PDF, in DejaVu Sans: Latin, Cyrillic, Greek, Arabic
// and Hebrew. It has no glyphs of East Asia; those show as boxes, are counted
// and mentioned, and are whole when the text is copied.
type paper struct {
	sans *coverage
	mono *coverage
}

func newPaper() (*paper, error) {
	sans, err := fontCoverage(dejavusans.TTF)
	if err != nil {
		return nil, err
	}
	mono, err := fontCoverage(dejavusansmono.TTF)
	return &paper{sans: sans, mono: mono}, err
}

// print makes the document and says how many characters of it are boxes.
func (p *paper) print(a *Article, blocks []block) ([]byte, int, error) {
	s := p.open(a)
	s.heading(a)
	for _, b := range blocks {
		s.block(b)
	}
	s.closing(a)
	var out bytes.Buffer
	err := s.doc.Output(&out)
	return out.Bytes(), s.boxes, err
}

// open starts a document. Its dates are the post's: equal posts print equally.
func (p *paper) open(a *Article) *sheet {
	doc := fpdf.New("P", "mm", "A4", "")
	doc.SetCatalogSort(true)
	created := a.Post.CreatedAt.UTC().Truncate(time.Second)
	doc.SetCreationDate(created)
	doc.SetModificationDate(created)
	doc.AddUTF8FontFromBytes(fontSans, "", bytes.Clone(dejavusans.TTF)) // fpdf writes into it
	doc.SetMargins(margin, margin, margin)
	doc.SetAutoPageBreak(false, 0)
	doc.SetCellMargin(0)
	title, _ := drawable(a.Title, p.sans)
	author, _ := drawable(a.Post.Author, p.sans)
	doc.SetTitle(title, true)
	doc.SetAuthor(author, true)
	doc.SetSubject(a.Post.URL, true)
	s := &sheet{doc: doc, paper: p, widths: map[glyph]float64{}}
	doc.SetFooterFunc(func() {
		doc.SetFont(fontSans, "", sizeSmall)
		doc.SetTextColor(120, 120, 120)
		doc.SetXY(margin, pageHeight-margin+5)
		doc.CellFormat(pageWidth-2*margin, 5, a.Post.ID+"  ·  "+strconv.Itoa(doc.PageNo()), "", 0, "C", false, 0, "")
	})
	doc.AddPage()
	s.y = margin
	return s
}

func (s *sheet) heading(a *Article) {
	s.paragraph([]span{{text: a.Post.Author}}, style{size: sizeTitle, colour: colour{20, 20, 20}})
	when := a.Post.CreatedAt.UTC().Format("2006-01-02 15:04 UTC")
	s.paragraph([]span{{text: "@" + a.Post.Account + "  ·  " + when}}, style{size: sizeSmall, colour: colour{110, 110, 110}})
	s.rule()
	if a.Post.Warning != "" {
		s.paragraph([]span{{text: a.Post.Warning}}, style{size: sizeText, colour: colour{150, 60, 20}})
		s.y += 2
	}
}

func (s *sheet) block(b block) {
	look := style{size: sizeText, colour: colour{20, 20, 20}, marker: b.marker, indent: step * float64(min(max(b.depth-1, 0), deepest))}
	if b.marker != "" {
		look.indent += step
	}
	switch b.kind {
	case blockQuote:
		look.indent += step
		look.colour, look.bar = colour{90, 90, 90}, true
	case blockCode:
		look.size, look.mono, look.fill = sizeText*0.85, true, true
		look.indent += 2
		s.monoFont()
	}
	s.paragraph(b.spans, look)
	s.y += 2.2
}

func (s *sheet) closing(a *Article) {
	s.rule()
	tags := ""
	for _, t := range a.Post.Tags {
		tags += "#" + t + "  "
	}
	small := style{size: sizeSmall, colour: colour{110, 110, 110}}
	s.paragraph([]span{{text: tags}}, small)
	if a.Post.URL != "" {
		s.paragraph([]span{{text: a.Post.URL, link: a.Post.URL}}, small)
	}
	if s.boxes > 0 {
		s.y += 2
		s.paragraph([]span{{text: strconv.Itoa(s.boxes) + " characters of this page have no glyph in DejaVu Sans: " +
			"they show as boxes, and are whole when copied."}}, small)
	}
}
