package render_test

import (
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// hostile are the attacks of the stand-in's corpus, and some more.
func hostile(t testing.TB) []string {
	t.Helper()
	raw, err := os.ReadFile("../standin/corpus.json")
	if err != nil {
		t.Fatal(err)
	}
	var corpus struct {
		Hostile []string `json:"hostile"`
	}
	if err := json.Unmarshal(raw, &corpus); err != nil || len(corpus.Hostile) < 30 {
		t.Fatalf("%d attacks, %v", len(corpus.Hostile), err)
	}
	return append(corpus.Hostile,
		`<a href="java&#0;script:alert(1)">x</a>`,
		`<a href="https://x.example/" target="_self" rel="opener">x</a>`,
		"<p>\u202eright to left override\u2066 \x00\x1b[2J\x7f</p>",
		"<xmp><script>alert(1)</script></xmp><textarea><img src=x onerror=alert(1)></textarea>",
		"<select><option><style></option></select><img src=x onerror=alert(1)></style>",
		strings.Repeat("<b>", 600)+"deep",
		strings.Repeat("<blockquote>", 300)+"deep",
		"</p></p></div></body><p>after",
		"<!DOCTYPE html><html><head><title>t</title></head><body onload=alert(1)>x",
		"<a href='https://x.example/\"><script>alert(1)</script>'>x</a>",
	)
}

// harmless fails unless every element and attribute of body is on the list.
func harmless(t testing.TB, body string) {
	t.Helper()
	allowed := []string{"p", "br", "blockquote", "pre", "code", "ul", "ol", "li", "b", "strong", "i", "em", "u", "s", "del", "sub", "sup", "a"}
	z := html.NewTokenizer(strings.NewReader(body))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return
		}
		token := z.Token()
		switch kind {
		case html.CommentToken, html.DoctypeToken:
			t.Errorf("%s in %q", token, body)
		case html.StartTagToken, html.SelfClosingTagToken:
			if !slices.Contains(allowed, token.Data) {
				t.Errorf("<%s> in %q", token.Data, body)
			}
			attributes(t, token)
		}
	}
}

func attributes(t testing.TB, token html.Token) {
	t.Helper()
	got := map[string]string{}
	for _, a := range token.Attr {
		got[a.Key] = a.Val
	}
	if href, ok := got["href"]; ok && token.Data == "a" {
		u, err := url.Parse(href)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			t.Errorf("a link to %q", href)
		}
		if got["rel"] != "nofollow noreferrer noopener" || got["target"] != "_blank" {
			t.Errorf("a link with rel=%q target=%q", got["rel"], got["target"])
		}
		delete(got, "href")
		delete(got, "rel")
		delete(got, "target")
	}
	if len(got) > 0 {
		t.Errorf("<%s> with %v", token.Data, got)
	}
}

func TestHostileHTMLBecomesHarmless(t *testing.T) {
	for _, attack := range hostile(t) {
		for _, in := range []string{attack, "<p>before</p>" + attack, attack + "<p>after</p>"} {
			out, err := render.Clean(in)
			if err != nil {
				t.Errorf("%q: %v", in, err)
			}
			harmless(t, out)
			for _, bad := range []string{"\x1b", "\x00", "\u202e"} {
				if strings.Contains(out, bad) {
					t.Errorf("%q is left of %q", bad, in)
				}
			}
			if again, err := render.Clean(out); again != out || err != nil {
				t.Errorf("cleaning twice differs:\n%q\n%q (%v)", out, again, err)
			}
		}
	}
}

func TestGoodHTMLStaysWhatItSays(t *testing.T) {
	for in, want := range map[string]string{
		"<p>a &amp; b<br>c</p>":                               "<p>a &amp; b<br/>c</p>",
		"<p>1 < 2 & 3 > 2</p>":                                "<p>1 &lt; 2 &amp; 3 &gt; 2</p>",
		"<p>Zażółć 日本 🎉 e\u0301</p>":                          "<p>Zażółć 日本 🎉 e\u0301</p>",
		`<a href="https://e.example/?a=1&amp;b=%C3%AA">e</a>`: `<a href="https://e.example/?a=1&amp;b=%C3%AA" rel="nofollow noreferrer noopener" target="_blank">e</a>`,
		"<p><b>open": "<p><b>open</b></p>",
		`<p>x <a href="https://t.example/tags/go" class="mention hashtag" rel="tag">#<span>go</span></a></p>`: `<p>x <a href="https://t.example/tags/go" rel="nofollow noreferrer noopener" target="_blank">#go</a></p>`,
	} {
		if got, err := render.Clean(in); got != want || err != nil {
			t.Errorf("%q\n got %q (%v)\nwant %q", in, got, err, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, attack := range hostile(f) {
		f.Add(attack)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out, err := render.Clean(in)
		if err != nil {
			return
		}
		harmless(t, out)
		if _, err := render.Plain(out); err != nil {
			t.Error(err)
		}
	})
}
