package render_test

import (
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

func TestPlainText(t *testing.T) {
	for in, want := range map[string]string{
		"<p>one</p><p>two<br>lines</p>":                              "one\n\ntwo\nlines",
		"<p>  a \n b  <b>c</b>d </p>":                                "a b cd",
		"<blockquote><p>q<br>r</p></blockquote>":                     "> q\n> r",
		"<ul><li>a</li><li><p>b</p><p>c</p></li></ul><p>d</p>":       "• a\n\n• b\n\nc\n\nd",
		"<ol><li>a</li><li>b</li></ol>":                              "1. a\n\n2. b",
		"<pre><code>x\n\ty</code></pre>":                             "    x\n    \ty",
		`<p><a href="https://e.example/">here</a>!</p>`:              "here <https://e.example/>!",
		`<p><a href="https://e.example/">https://e.example/</a></p>`: "https://e.example/",
		`<p><a href="https://e.example/tags/go">#<b>go</b></a></p>`:  "#go",
		`<p><a href="https://e.example/"><b>two</b> parts</a></p>`:   "two parts <https://e.example/>",
		"loose <p>text</p> ends":                                     "loose\n\ntext\n\nends",
		"":                                                           "",
		"<p> </p><p></p>":                                            "",
		"<p>AT&amp;T &lt;b&gt;</p>":                                  "AT&T <b>",
	} {
		if got, err := render.Plain(in); got != want || err != nil {
			t.Errorf("%q\n got %q (%v)\nwant %q", in, got, err, want)
		}
	}
}

func TestCutEndsAtAWord(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short", 5, "short"},
		{"one two three", 9, "one two…"},
		{"nowordshere", 5, "nowo…"},
		{"aaaae\u0301bbb", 6, "aaaa…"},  // not between e and its accent
		{"aaa👩\u200d💻bbbbb", 6, "aaa…"}, // nor within a joined emoji
		{"日本語日本語", 4, "日本語…"},
	} {
		if got := render.Cut(c.in, c.n); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestCutIsNeverTooLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.String().Draw(t, "s"), rapid.IntRange(1, 50).Draw(t, "n")
		if got := render.Cut(s, n); utf8.RuneCountInString(got) > n {
			t.Errorf("Cut(%q, %d) has %d characters", s, n, utf8.RuneCountInString(got))
		}
	})
}
