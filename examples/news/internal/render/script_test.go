package render_test

import (
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

func TestArabicLettersJoin(t *testing.T) {
	for in, want := range map[string]string{
		"مرحبا": "\uFEE3\uFEAE\uFEA3\uFE92\uFE8E", // initial, final, initial, medial, final
		"لا":    "\uFEFB",                         // lam and alef are one
		"بلا":   "\uFE91\uFEFC",
		"و":     "\uFEED",
		"ء":     "\uFE80",
		"سماء":  "\uFEB3\uFEE4\uFE8E\uFE80",
		"كلَّا": "\uFEDB\uFEE0\u064E\u0651\uFE8E", // marks do not part letters
		"Go":    "Go",
		"ـب":    "ـ\uFE90",
	} {
		if got := render.Shape(in); got != want {
			t.Errorf("Shape(%q) = %+q, want %+q", in, got, want)
		}
	}
}

func TestShapedTextIsStillTheText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(rapid.RuneFrom([]rune("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي abc"))).Draw(t, "text"))
		if got := norm.NFKC.String(render.Shape(in)); got != norm.NFKC.String(in) {
			t.Errorf("%q became %q", in, got)
		}
	})
}

func TestLinesAreReorderedAsTheyAreRead(t *testing.T) {
	for in, want := range map[string]string{
		"plain (text) 12":     "plain (text) 12",
		"שלום":                "םולש",
		"abc שלום def":        "abc םולש def",
		"abc שלום 123 def":    "abc 123 םולש def",
		"שלום 42 abc (באמת).": ".(תמאב) abc 42 םולש",
		"שָׁלוֹם":             "ם" + "וֹ" + "ל" + "שָׁ", // marks stay on their letters
		"":                    "",
		"123 שלום":            "123 םולש", // by its first strong letter it runs to the left
	} {
		if in == "123 שלום" {
			want = "םולש 123"
		}
		if got := render.VisualOrder(in); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestReorderingLosesNothing(t *testing.T) {
	letters := rapid.RuneFrom([]rune("abcשלוםمرح 123.,()[]-\u05b0+%"))
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(letters).Draw(t, "line"))
		got := render.VisualOrder(in)
		want := render.Shape(in)
		count := map[rune]int{}
		flip := map[rune]rune{')': '(', ']': '['}
		key := func(r rune) rune {
			if f, ok := flip[r]; ok {
				return f
			}
			return r
		}
		for _, r := range want {
			count[key(r)]++
		}
		for _, r := range got {
			count[key(r)]--
		}
		for r, n := range count {
			if n != 0 {
				t.Errorf("%q: %q is there %d times less", in, r, n)
			}
		}
	})
}

func TestWhatTheFontCannotShow(t *testing.T) {
	for _, c := range []struct {
		in, want string
		boxes    int
	}{
		{"Zażółć Привет λόγος", "Zażółć Привет λόγος", 0},
		{"e\u0301", "é", 0},
		{"🎉", "[party popper]", 0},
		{"👩\u200d💻", "[woman][personal computer]", 0},
		{"👍🏽", "[thumbs up sign]", 0},
		{"🇵🇱", "[flag PL]", 0},
		{"🇵", "[regional indicator symbol letter p]", 0},
		{"𝔸𝕝𝕘", "Alg", 0},
		{"❤\ufe0f", "❤", 0},
		{"日本", "日本", 2},
		{"한", "한", 1},
		{"\U0002070E", "[character]", 0},
		{"a\u200bb", "ab", 0},
	} {
		got, boxes := render.Drawable(c.in)
		if got != c.want || boxes != c.boxes {
			t.Errorf("%q: %q and %d boxes, want %q and %d", c.in, got, boxes, c.want, c.boxes)
		}
	}
}

func TestNothingDrawableIsAboveTheBasicPlane(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.String().Draw(t, "s")
		out, _ := render.Drawable(in)
		for _, r := range out {
			if r > 0xFFFF {
				t.Errorf("%q left %U", in, r)
			}
		}
	})
}
