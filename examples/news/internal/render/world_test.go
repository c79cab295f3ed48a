package render_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

// world reads the first n posts of the stand-in's API.
func world(t *testing.T, n int) []post.Post {
	t.Helper()
	w, err := standin.Listen(standin.Config{Seed: 1, Posts: n, Rate: standin.Rate{Calls: 1 << 30, Window: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer wg.Wait()
	defer cancel()
	tl, err := ingest.NewTimelines(ingest.Config{Server: w.PostsURL(), Hashtags: standin.Hashtags()})
	if err != nil {
		t.Fatal(err)
	}
	var posts []post.Post
	for len(posts) < n {
		next, err := tl.Next(t.Context(), n-len(posts))
		if err != nil {
			t.Fatal(err)
		}
		posts = append(posts, next...)
	}
	return posts
}

// The stand-in's posts, hostile ones included, all become articles whose PDF
// holds their text.
func TestThePostsOfTheWorldAreRendered(t *testing.T) {
	r := renderer(t)
	for i, p := range world(t, 120) {
		a, err := r.Render(p)
		if err != nil {
			t.Fatal(err)
		}
		harmless(t, a.Post.HTML)
		if i%4 > 0 {
			continue // a process for each takes long
		}
		got := words(pdftotext(t, a.Formats[render.PDF]))
		for word := range strings.FieldsSeq(a.Text) {
			want, _ := render.Drawable(word)
			want = words(norm.NFKC.String(want))
			if strings.HasPrefix(word, "<http") || word == ">" {
				continue // what plain text has more
			}
			if strings.ContainsFunc(a.Text, rightToLeft) {
				if strings.Contains(word, "://") {
					continue // pdftotext puts other words into an address on two lines
				}
				want = strings.TrimFunc(want, func(r rune) bool { return !unicode.IsLetter(r) }) // pdftotext moves the rest
			}
			if !strings.Contains(got, want) {
				t.Errorf("post %s: no %q in\n%s", p.ID, want, got)
			}
		}
	}
}

func rightToLeft(r rune) bool { return unicode.In(r, unicode.Arabic, unicode.Hebrew) }
