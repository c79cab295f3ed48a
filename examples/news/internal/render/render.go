// Package render is the first half of part B: it makes of one hostile post an
// article in several formats. What comes out of it may be put on a page.
//
//	html      a page of its own: sanitised, no script, no foreign resource
//	markdown  CommonMark
//	pdf       embedded font, its text can be searched and copied
//	text      plain text
//	activity  an ActivityStreams 2.0 Note
//
// Equal posts give equal bytes.
package render

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

// The formats that Render makes.
const (
	HTML     = "html"
	Markdown = "markdown"
	PDF      = "pdf"
	Text     = "text"
	Activity = "activity"
)

// Formats lists them all.
func Formats() []string { return []string{HTML, Markdown, PDF, Text, Activity} }

// Extension is the file name extension of a format.
func Extension(format string) string {
	return map[string]string{HTML: ".html", Markdown: ".md", PDF: ".pdf", Text: ".txt", Activity: ".json"}[format]
}

// Article is a post that is fit to be published.
type Article struct {
	// Post is the post with clean strings: valid UTF-8, no control characters,
	// and an URL that is http or https, or empty. Its HTML is sanitised and
	// balanced.
	Post post.Post
	// Title is the beginning of the text, on one line.
	Title string
	// Text is the plain text, without the footer that the text format has.
	Text string
	// Formats holds each rendering by the format's name.
	Formats map[string][]byte
	// Boxes is how many characters the PDF shows as a box: its font has no glyph
	// for them.
	Boxes int
}

// Renderer renders posts. It is safe for concurrent use.
type Renderer struct {
	clean *cleaner
	mark  *marker
	pages *pages
	paper *paper
}

// New prepares a renderer.
func New() (*Renderer, error) {
	pages, err := newPages()
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	paper, err := newPaper()
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return &Renderer{clean: newCleaner(), mark: newMarker(), pages: pages, paper: paper}, nil
}

// Render makes every format of p. An error means that the post cannot be
// rendered, now or ever; a library that panics on what a stranger wrote is one.
func (r *Renderer) Render(p post.Post) (a *Article, err error) {
	defer func() {
		if v := recover(); v != nil {
			a, err = nil, fmt.Errorf("render: post %s: panic: %v", p.ID, v)
		}
	}()
	return r.render(p)
}

func (r *Renderer) render(p post.Post) (*Article, error) {
	body, err := r.clean.fragment(p.HTML)
	if err != nil {
		return nil, fmt.Errorf("render: post %s: %w", p.ID, err)
	}
	blocks, err := parse(body)
	if err != nil {
		return nil, fmt.Errorf("render: post %s: %w", p.ID, err)
	}
	a := &Article{Post: tidy(p), Text: plain(blocks), Formats: make(map[string][]byte)}
	a.Post.HTML = body
	a.Title = title(a)
	if err := r.formats(a, blocks); err != nil {
		return nil, fmt.Errorf("render: post %s: %w", p.ID, err)
	}
	return a, nil
}

func (r *Renderer) formats(a *Article, blocks []block) (err error) {
	a.Formats[Text] = textFile(a)
	if a.Formats[HTML], err = r.pages.article(a); err != nil {
		return fmt.Errorf("html: %w", err)
	}
	if a.Formats[Markdown], err = r.mark.down(a); err != nil {
		return fmt.Errorf("markdown: %w", err)
	}
	if a.Formats[Activity], err = note(a); err != nil {
		return fmt.Errorf("activity: %w", err)
	}
	if a.Formats[PDF], a.Boxes, err = r.paper.print(a, blocks); err != nil {
		return fmt.Errorf("pdf: %w", err)
	}
	return nil
}

// tidy cleans what is not HTML.
func tidy(p post.Post) post.Post {
	p.Author, p.Account, p.Warning = line(p.Author), line(p.Account), line(p.Warning)
	p.URL = safeURL(p.URL)
	tags := make([]string, 0, len(p.Tags))
	for _, t := range p.Tags {
		if t = strings.Map(tagRune, t); t != "" {
			tags = append(tags, t)
		}
	}
	p.Tags = tags
	p.Language = strings.Map(func(r rune) rune {
		if r == '-' || r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return -1
	}, p.Language)
	return p
}

// tagRune keeps what a hashtag may consist of.
func tagRune(r rune) rune {
	if r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) {
		return r
	}
	return -1
}

// line is s on one line, without control characters.
func line(s string) string { return strings.Join(strings.Fields(visible(s)), " ") }

// visible drops what can forge a terminal line or turn text around: control
// characters except line feed and tab, and the overrides of Unicode's
// bidirectional algorithm.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == 0x2028 || r == 0x2029: // line and paragraph separator
			return '\n'
		case unicode.IsControl(r), r >= 0x202A && r <= 0x202E, r == utf8.RuneError, r == 0xFEFF:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// safeURL is address if it is a whole http or https address without a password,
// otherwise "".
func safeURL(address string) string {
	u, err := url.Parse(address)
	if err != nil || !webURL(u) || visible(address) != address || strings.ContainsAny(address, " \n\t<>\"") {
		return ""
	}
	return address
}

func webURL(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

// titleLength is the most characters of a title.
const titleLength = 80

func title(a *Article) string {
	t := line(a.Text)
	if t == "" {
		t = "A post by " + a.Post.Author
	}
	return Cut(t, titleLength)
}

// Cut shortens s to at most n characters, at a word's end if one is near, and
// shows that it did. It never parts a letter from the marks on it.
func Cut(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	end := n - 1 // one for the ellipsis
	for i := end; i > end/2; i-- {
		if unicode.IsSpace(runes[i]) {
			end = i
			break
		}
	}
	for end > 0 && (unicode.IsMark(runes[end]) || runes[end] == zwj || runes[end-1] == zwj || runes[end] == 0xFE0F) {
		end--
	}
	return strings.TrimRightFunc(string(runes[:end]), unicode.IsSpace) + "…"
}

// zwj joins emoji to one.
const zwj = '\u200d'
