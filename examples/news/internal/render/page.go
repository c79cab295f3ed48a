package render

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"time"
)

//go:embed article.html
var articleHTML string

//go:embed index.html
var indexHTML string

//go:embed style.css
var styleCSS string

// pages makes HTML pages. They need nothing from elsewhere, and their policy
// lets a browser load nothing: should the sanitiser fail, the page still runs no
// script.
type pages struct {
	articles *template.Template
	indexes  *template.Template
	policy   string
}

func newPages() (*pages, error) {
	articles, err := template.New("article").Parse(articleHTML)
	if err != nil {
		return nil, err
	}
	indexes, err := template.New("index").Parse(indexHTML)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(styleCSS))
	return &pages{
		articles: articles, indexes: indexes,
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'",
	}, nil
}

// frame is what every page has.
type frame struct {
	Policy string
	Style  template.CSS
}

func (p *pages) frame() frame { return frame{Policy: p.policy, Style: template.CSS(styleCSS)} }

func (p *pages) article(a *Article) ([]byte, error) {
	var b bytes.Buffer
	err := p.articles.Execute(&b, struct {
		frame
		*Article
		Body template.HTML
	}{p.frame(), a, template.HTML(a.Post.HTML)}) //nolint:gosec // sanitised by Render
	return b.Bytes(), err
}

// Entry is one line of an index page.
type Entry struct {
	ID     string
	Title  string
	Author string
	When   time.Time
}

// Tab is a link to another index.
type Tab struct{ Name, Href string }

// Index is one page that lists articles.
type Index struct {
	Title   string
	Total   int
	Page    int
	Pages   int
	Entries []Entry
	Tabs    []Tab
	// Newer and Older are the neighbouring pages, empty at the ends.
	Newer, Older string
}

// IndexPage makes an index page.
func (r *Renderer) IndexPage(x Index) ([]byte, error) {
	var b bytes.Buffer
	err := r.pages.indexes.Execute(&b, struct {
		frame
		Index
	}{r.pages.frame(), x})
	return b.Bytes(), err
}
