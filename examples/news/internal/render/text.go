package render

import "strings"

// plain is the text of blocks: paragraphs apart, quotes and items marked. A link
// whose text is not its address is followed by it.
func plain(blocks []block) string {
	var b strings.Builder
	for i, block := range blocks {
		if i > 0 {
			b.WriteString("\n\n")
		}
		var t strings.Builder
		for j, s := range block.spans {
			t.WriteString(s.text)
			// One link may span several pieces: its address follows the last.
			ends := j+1 == len(block.spans) || block.spans[j+1].link != s.link
			if s.link != "" && ends && !shown(block.spans[:j+1], s.link) {
				t.WriteString(" <" + s.link + ">")
			}
		}
		prefix := strings.Repeat("  ", min(max(block.depth-1, 0), deepest))
		switch block.kind {
		case blockQuote:
			prefix += "> "
		case blockCode:
			prefix += "    "
		}
		for j, l := range strings.Split(t.String(), "\n") {
			if j > 0 {
				b.WriteString("\n")
			}
			b.WriteString(prefix)
			if j == 0 {
				b.WriteString(block.marker)
			}
			b.WriteString(strings.TrimRight(l, " "))
		}
	}
	return b.String()
}

// shown says whether the pieces that a link ends with spell its address, or a
// hashtag or mention, whose address says no more.
func shown(spans []span, link string) bool {
	text := ""
	for i := len(spans) - 1; i >= 0 && spans[i].link == link; i-- {
		text = spans[i].text + text
	}
	return text == link || strings.HasPrefix(text, "#") || strings.HasPrefix(text, "@")
}

// textFile is the text format: the text and where it comes from.
func textFile(a *Article) []byte {
	var b strings.Builder
	if a.Post.Warning != "" {
		b.WriteString("[" + a.Post.Warning + "]\n\n")
	}
	if a.Text != "" {
		b.WriteString(a.Text + "\n\n")
	}
	b.WriteString("— " + byline(a))
	if a.Post.URL != "" {
		b.WriteString("\n" + a.Post.URL)
	}
	b.WriteString("\n")
	return []byte(b.String())
}

// byline says who wrote it, and when.
func byline(a *Article) string {
	return a.Post.Author + " (@" + a.Post.Account + "), " + a.Post.CreatedAt.UTC().Format("2006-01-02 15:04 UTC")
}
