package publish_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// statusOf is the text that the platform sends for an article.
func statusOf(t *testing.T) func(*render.Article) string {
	t.Helper()
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.FormValue("status") }))
	t.Cleanup(server.Close)
	client := publish.NewClient(server.Listener.Addr().String())
	t.Cleanup(client.CloseIdleConnections)
	m := publish.NewMastodon(server.URL+"/", "token", client)
	return func(a *render.Article) string {
		if _, err := m.Publish(t.Context(), a, "k"); err != nil {
			t.Fatal(err)
		}
		return got
	}
}

func TestAStatusFits(t *testing.T) {
	status := statusOf(t)
	links := regexp.MustCompile(`https?://[^\s]+`)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.SampledFrom([]string{
			"word", "https://a.b/c", "http://x.example/" + strings.Repeat("long/", 40), "źdźbło", "🎉", "e\u0301", "日本語", "\n", strings.Repeat("w", 90),
		})).Draw(t, "words")
		a := &render.Article{Text: strings.Join(words, " "), Post: onePost()}
		a.Post.Warning = rapid.SampledFrom([]string{"", "long & opinionated"}).Draw(t, "warning")
		got := status(a)
		cost := func(s string) int {
			return utf8.RuneCountInString(links.ReplaceAllString(s, strings.Repeat("x", 23))) + utf8.RuneCountInString(a.Post.Warning)
		}
		if cost(got) > 500 || !strings.HasSuffix(got, a.Post.URL) {
			t.Errorf("%d characters: %q", cost(got), got)
		}
		whole := strings.TrimSpace(a.Text) + "\n\n— A\n" + a.Post.URL
		if cost(whole) <= 500 && strings.TrimSpace(whole) != got {
			t.Errorf("%q became %q", whole, got)
		}
		for _, link := range links.FindAllString(got, -1) {
			if !slices.Contains(strings.Fields(whole), link) {
				t.Errorf("a broken link %q", link)
			}
		}
		if cost(got) < 300 && cost(whole) > 500 {
			t.Errorf("%q was cut to %q", whole, got)
		}
	})
}

func TestAStatusMentionsNobody(t *testing.T) {
	a := &render.Article{Text: "hello @everyone@social.example", Post: post.Post{Author: "@admin", URL: "https://e.example/1"}}
	if got := statusOf(t)(a); regexp.MustCompile(`@\w`).MatchString(got) {
		t.Errorf("%q", got)
	}
}
