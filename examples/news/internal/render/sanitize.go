package render

import (
	"strings"

	"github.com/microcosm-cc/bluemonday"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// cleaner makes hostile HTML harmless. It is an allow-list, and a short one:
// what Mastodon itself lets through, less everything that loads from elsewhere.
type cleaner struct {
	policy *bluemonday.Policy
	strict *bluemonday.Policy
}

func newCleaner() *cleaner {
	p := bluemonday.NewPolicy()
	p.AllowElements("p", "br", "blockquote", "pre", "code", "ul", "ol", "li",
		"b", "strong", "i", "em", "u", "s", "del", "sub", "sup")
	p.AllowAttrs("href").OnElements("a")
	p.RequireParseableURLs(true)
	p.AllowRelativeURLs(false)
	p.AllowURLSchemeWithCustomPolicy("http", webURL)
	p.AllowURLSchemeWithCustomPolicy("https", webURL)
	// Together: rel="nofollow noreferrer noopener".
	p.RequireNoFollowOnLinks(true)
	p.RequireNoReferrerOnLinks(true)
	p.AddTargetBlankToFullyQualifiedLinks(true)
	return &cleaner{policy: p, strict: bluemonday.StrictPolicy()}
}

// mostNested is how deep elements may stand in each other. A post that goes
// deeper is after the programs that read it, and is reduced to its text.
const mostNested = 60

// fragment sanitises HTML and closes what was left open, so that it cannot
// reach beyond the place it is put in.
func (c *cleaner) fragment(hostile string) (string, error) {
	clean := c.policy.Sanitize(visible(hostile))
	nodes, err := parseFragment(clean)
	if err != nil || depth(nodes) > mostNested {
		nodes, err = parseFragment(c.strict.Sanitize(clean))
	}
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, n := range nodes {
		if err := html.Render(&b, n); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// parseFragment reads HTML as the content of a page. The parser itself refuses
// more than 512 levels.
func parseFragment(s string) ([]*html.Node, error) {
	return html.ParseFragment(strings.NewReader(s), &html.Node{Type: html.ElementNode, Data: "div", DataAtom: atom.Div})
}

// depth is how deep elements stand in each other.
func depth(nodes []*html.Node) int {
	deepest := 0
	for _, n := range nodes {
		at := 0
		for n != nil {
			switch {
			case n.FirstChild != nil:
				n, at = n.FirstChild, at+1
			default:
				for n != nil && n.NextSibling == nil {
					n, at = n.Parent, at-1
				}
				if n != nil {
					n = n.NextSibling
				}
			}
			deepest = max(deepest, at)
		}
	}
	return deepest
}
