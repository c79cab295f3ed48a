package render_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/yuin/goldmark"
	"golang.org/x/net/html"
	"golang.org/x/text/unicode/norm"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

var update = flag.Bool("update", false, "write the golden files anew")

func renderer(t testing.TB) *render.Renderer {
	t.Helper()
	r, err := render.New()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func article(t testing.TB, p post.Post) *render.Article {
	t.Helper()
	a, err := renderer(t).Render(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sample has one of everything.
func sample() post.Post {
	return post.Post{
		ID: "115843920331767808", URL: "https://social.example/@reader/115843920331767808",
		Account: "reader@social.example", Author: "Zofia <b>Żółkiewska</b> 🧮\x1b[31m", Language: "pl",
		CreatedAt: time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC), Tags: []string{"programming", "ar\"chi<tecture"},
		Warning: "long & <i>opinionated</i>",
		HTML: `<p>Notatka 12: Zażółć gęślą jaźń <a href="https://wiki.example/Queueing_theory?a=1&amp;b=2">wiki</a>. Привет, мир! Γειά σου Κόσμε.</p>` +
			`<p>🎉 👩‍💻 🇵🇱 ❤️ 𝔸𝕝𝕘 e&#769;te&#769; 1 < 2 *not bold* _nor_ [this](javascript:alert(1))</p>` +
			`<p>今日の学び：一番遅い工程。</p><p>تعلمت اليوم: لغة Go بسيطة و 3 قنوات.</p>` +
			`<blockquote><p>a promise,<br>a debt</p></blockquote><pre><code>if a &amp;&amp; b {` + "\n\t" + `go()` + "\n" + `}</code></pre>` +
			`<ul><li>one</li><li>two</li></ul><ol><li>first</li></ol><script>alert(1)</script><img src=x onerror=alert(1)><p><b>never closed`,
	}
}

func TestArticlesLookLikeThis(t *testing.T) {
	a := article(t, sample())
	for _, format := range []string{render.HTML, render.Markdown, render.Text, render.Activity} {
		path := filepath.Join("testdata", "article"+render.Extension(format))
		if *update {
			if err := os.WriteFile(path, a.Formats[format], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, a.Formats[format]) {
			t.Errorf("%s differs from %s (go test -update writes it anew):\n%s", format, path, a.Formats[format])
		}
	}
}

func TestEqualPostsGiveEqualBytes(t *testing.T) {
	a, b := article(t, sample()), article(t, sample())
	for _, format := range render.Formats() {
		if len(a.Formats[format]) == 0 || !bytes.Equal(a.Formats[format], b.Formats[format]) {
			t.Errorf("%s: %d bytes, and %d the second time", format, len(a.Formats[format]), len(b.Formats[format]))
		}
	}
}

// TestPostsAreRenderedSideBySide renders code, which needs a second font, many
// times at once: under the race detector nothing is shared, and every article is
// the same.
func TestPostsAreRenderedSideBySide(t *testing.T) {
	r, p := renderer(t), sample()
	want, err := r.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := r.Render(p)
			if err != nil || !bytes.Equal(got.Formats[render.PDF], want.Formats[render.PDF]) {
				t.Errorf("another PDF, or %v", err)
			}
		})
	}
	wg.Wait()
}

func TestAPageLoadsAndRunsNothing(t *testing.T) {
	for _, attack := range hostile(t) {
		p := sample()
		p.HTML, p.Author, p.Warning, p.Account, p.Language = attack, attack, attack, attack, attack
		p.Tags, p.URL = []string{attack}, "javascript:alert(1)//"+attack
		page := string(article(t, p).Formats[render.HTML])
		doc, err := html.Parse(strings.NewReader(page))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			switch n.Data {
			case "script", "img", "iframe", "object", "embed", "form", "input", "svg", "math", "base", "link", "video", "audio":
				t.Errorf("<%s> from %q", n.Data, attack)
			}
			for _, at := range n.Attr {
				if strings.HasPrefix(at.Key, "on") || strings.HasPrefix(strings.ToLower(strings.TrimSpace(at.Val)), "javascript:") {
					t.Errorf("%s=%q from %q", at.Key, at.Val, attack)
				}
			}
		}
		if strings.Count(page, "</body>") != 1 || !strings.Contains(page, "Content-Security-Policy") {
			t.Errorf("the frame of the page is broken by %q", attack)
		}
	}
}

func TestThePolicyOfAPageFitsItsStyle(t *testing.T) {
	page := string(article(t, sample()).Formats[render.HTML])
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	if want := "style-src &#39;sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "&#39;"; !found || !strings.Contains(strings.ReplaceAll(page, "&#43;", "+"), want) {
		t.Errorf("no %s in the page: a browser would show it without its style", want)
	}
}

func TestMarkdownReadsAsTheSameText(t *testing.T) {
	for _, p := range append(world(t, 40), sample()) {
		a := article(t, p)
		var back bytes.Buffer
		if err := goldmark.Convert(a.Formats[render.Markdown], &back); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(back.String(), "raw HTML omitted") && !strings.Contains(string(a.Formats[render.Markdown]), "<!--THE END-->") {
			t.Errorf("post %s: raw HTML in\n%s", p.ID, a.Formats[render.Markdown])
		}
		if again, err := render.Clean(back.String()); err != nil || words(text(t, again)) != words(a.Post.Warning+text(t, a.Post.HTML)+byline(a)) {
			t.Errorf("post %s (%v)\n got %q\nwant %q", p.ID, err, words(text(t, again)), words(a.Post.Warning+text(t, a.Post.HTML)+byline(a)))
		}
	}
}

func byline(a *render.Article) string {
	return "— " + a.Post.Author + " (@" + a.Post.Account + "), " + a.Post.CreatedAt.Format("2006-01-02 15:04 UTC") + a.Post.URL
}

// text is all text of a fragment.
func text(t *testing.T, body string) string {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

// words is s without white space, which every format breaks lines by as it likes.
func words(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}

func TestTheActivityIsOne(t *testing.T) {
	a := article(t, sample())
	var n map[string]any
	if err := json.Unmarshal(a.Formats[render.Activity], &n); err != nil {
		t.Fatal(err)
	}
	if n["type"] != "Note" || n["@context"] != "https://www.w3.org/ns/activitystreams" || n["content"] != a.Post.HTML || len(n["url"].([]any)) != 4 {
		t.Errorf("%v", n)
	}
}

// pdftotext is a PDF's text, by a program that shares no code with us.
func pdftotext(t *testing.T, pdf []byte) string {
	t.Helper()
	path, err := exec.LookPath("pdftotext")
	if err != nil {
		t.Fatal("pdftotext is missing: install the package poppler-utils")
	}
	cmd := exec.Command(path, "-enc", "UTF-8", "-", "-")
	cmd.Stdin = bytes.NewReader(pdf)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("pdftotext: %v\n%s", err, complaints.String())
	}
	// The marks that say which way a line runs are pdftotext's own.
	return norm.NFKC.String(regexp.MustCompile("[\u202a-\u202e\u200e\u200f]").ReplaceAllString(string(out), ""))
}

func TestTheTextOfAPDFComesBack(t *testing.T) {
	a := article(t, sample())
	got := words(pdftotext(t, a.Formats[render.PDF]))
	for _, want := range []string{
		"Zażółć gęślą jaźń", "Привет, мир!", "Γειά σου Κόσμε", "[party popper]", "[woman][personal computer]", "[flag PL]",
		"Alg été", "1 < 2 *not bold*", "今日の学び：一番遅い工程。", "a promise,", "if a && b {", "go()", "• one", "1. first", "never closed",
		"long & <i>opinionated</i>", "#programming", a.Post.URL, "13 characters of this page have no glyph",
	} {
		if !strings.Contains(got, words(norm.NFKC.String(want))) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, want := range []string{"تعلمت", "اليوم", "بسيطة", "قنوات"} { // each word, whatever the order of the line
		if !strings.Contains(got, norm.NFKC.String(want)) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if a.Boxes != 13 {
		t.Errorf("%d boxes", a.Boxes)
	}
}

func TestALongPostHasSeveralPages(t *testing.T) {
	p := sample()
	p.HTML = strings.Repeat("<p>a paragraph of some words</p>", 120) + "<p>" + strings.Repeat("x", 3000) + "</p><p>the end</p>"
	pdf := article(t, p).Formats[render.PDF]
	got := pdftotext(t, pdf)
	if strings.Count(got, "a paragraph of some words") != 120 || !strings.Contains(got, "the end") ||
		strings.Count(strings.ReplaceAll(got, "\n", ""), "x") < 3000 || strings.Count(got, "\f") < 3 {
		t.Errorf("%d paragraphs, %d pages", strings.Count(got, "a paragraph of some words"), strings.Count(got, "\f"))
	}
}

func TestAPostWithoutTextIsRendered(t *testing.T) {
	for _, body := range []string{"", "<script>alert(1)</script>", "<p>\u200b</p>", "<p> </p>", "🎉"} {
		p := sample()
		p.HTML, p.URL, p.Author, p.Warning, p.Tags = body, "", "", "", nil
		a := article(t, p)
		if a.Title == "" || pdftotext(t, a.Formats[render.PDF]) == "" {
			t.Errorf("%q: title %q", body, a.Title)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	r := renderer(b)
	for b.Loop() {
		if _, err := r.Render(sample()); err != nil {
			b.Fatal(err)
		}
	}
}
