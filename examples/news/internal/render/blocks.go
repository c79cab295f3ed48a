package render

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// block is a paragraph of a sanitised post: what text and PDF are made of.
type block struct {
	kind blockKind
	// depth is how many quotes and lists it stands in.
	depth int
	// marker is what precedes a list item, "• " or "2. ".
	marker string
	spans  []span
}

type blockKind uint8

const (
	blockText blockKind = iota
	blockQuote
	blockCode
)

// span is text within a block, perhaps a link. Line feeds in it are breaks.
type span struct {
	text string
	link string
}

// parse reads sanitised HTML.
func parse(body string) ([]block, error) {
	nodes, err := parseFragment(body)
	if err != nil {
		return nil, err
	}
	w := walker{}
	for _, n := range nodes {
		w.walk(n, state{})
	}
	w.end()
	return w.blocks, nil
}

// state is where in the tree a walker is.
type state struct {
	kind  blockKind
	depth int
	link  string
}

// walker flattens a tree into blocks.
type walker struct {
	blocks []block
	open   *block
	marker string // of a list item that has no block yet
}

func (w *walker) walk(n *html.Node, s state) {
	if n.Type == html.TextNode {
		w.text(n.Data, s)
		return
	}
	switch n.DataAtom {
	case atom.Br:
		w.add("\n", s)
		return
	case atom.A:
		s.link = attribute(n, "href")
	case atom.Pre:
		s.kind = blockCode
	case atom.Blockquote:
		s.kind, s.depth = blockQuote, s.depth+1
	case atom.Ul, atom.Ol:
		s.depth++
	}
	if !isBlock(n.DataAtom) {
		w.children(n, s)
		return
	}
	w.end()
	if n.DataAtom == atom.Li {
		w.marker = itemMarker(n)
	}
	w.children(n, s)
	w.end()
}

func (w *walker) children(n *html.Node, s state) {
	for c := range n.ChildNodes() {
		w.walk(c, s)
	}
}

func isBlock(a atom.Atom) bool {
	switch a {
	case atom.P, atom.Pre, atom.Blockquote, atom.Ul, atom.Ol, atom.Li:
		return true
	}
	return false
}

// itemMarker is the marker of a list item.
func itemMarker(li *html.Node) string {
	if li.Parent == nil || li.Parent.DataAtom != atom.Ol {
		return "• "
	}
	n := 1
	for s := li.PrevSibling; s != nil; s = s.PrevSibling {
		if s.DataAtom == atom.Li {
			n++
		}
	}
	return strconv.Itoa(n) + ". "
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func (w *walker) text(t string, s state) {
	if s.kind != blockCode {
		t = collapse(t)
	}
	if strings.TrimSpace(t) == "" && w.open == nil {
		return // between blocks
	}
	w.add(t, s)
}

func (w *walker) add(t string, s state) {
	if w.open == nil {
		w.open = &block{kind: s.kind, depth: s.depth, marker: w.marker}
		w.marker = ""
	}
	w.open.spans = append(w.open.spans, span{text: t, link: s.link})
}

// end closes the open block, without the space around it.
func (w *walker) end() {
	b := w.open
	w.open = nil
	if b == nil {
		return
	}
	for len(b.spans) > 0 && strings.TrimSpace(b.spans[0].text) == "" {
		b.spans = b.spans[1:]
	}
	for len(b.spans) > 0 && strings.TrimSpace(b.spans[len(b.spans)-1].text) == "" {
		b.spans = b.spans[:len(b.spans)-1]
	}
	if len(b.spans) == 0 {
		return
	}
	if b.kind != blockCode {
		b.spans[0].text = strings.TrimLeftFunc(b.spans[0].text, unicode.IsSpace)
	}
	last := &b.spans[len(b.spans)-1]
	last.text = strings.TrimRightFunc(last.text, unicode.IsSpace)
	w.blocks = append(w.blocks, *b)
}

// collapse makes one space of each run of white space, as a browser does.
func collapse(s string) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if r == ' ' || r == '\n' || r == '\t' || r == '\r' || r == '\f' {
			space = true
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	if space {
		b.WriteByte(' ')
	}
	return b.String()
}
