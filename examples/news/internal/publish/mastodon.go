package publish

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Mastodon publishes on a Mastodon-compatible status API: plain text, cut to
// what a status may hold, and the address of the original.
type Mastodon struct {
	server string
	token  string
	client *http.Client
	links  *regexp.Regexp
	words  *regexp.Regexp
}

// NewMastodon makes the platform. token is never logged.
func NewMastodon(server, token string, client *http.Client) *Mastodon {
	return &Mastodon{
		server: strings.TrimSuffix(server, "/"), token: token, client: client,
		links: regexp.MustCompile(`https?://[^\s]+`), words: regexp.MustCompile(`\s*\S+`),
	}
}

// Name is "mastodon".
func (m *Mastodon) Name() string { return "mastodon" }

// Format is plain text.
func (m *Mastodon) Format() string { return render.Text }

// Publish posts one status. The server answers a repeated key with the status
// that it made for it.
func (m *Mastodon) Publish(ctx context.Context, a *render.Article, key string) (string, error) {
	form := url.Values{"status": {m.status(a)}, "visibility": {"public"}}
	if a.Post.Language != "" {
		form.Set("language", a.Post.Language)
	}
	if a.Post.Warning != "" {
		form.Set("spoiler_text", a.Post.Warning)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.server+"/api/v1/statuses", strings.NewReader(form.Encode()))
	if err != nil {
		return "", &RefusedError{Reason: err.Error()}
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+m.token)
	r.Header.Set("Idempotency-Key", key)
	return call(m.client, r)
}

// A status may have 500 characters, of which each link costs 23, long or short.
const (
	statusLimit = 500
	linkCost    = 23
)

// status is the text of a status. It mentions nobody: a mention would ring at
// somebody who did not ask for it.
func (m *Mastodon) status(a *render.Article) string {
	end := "\n\n— " + quiet(a.Post.Author)
	if a.Post.URL != "" {
		end += "\n" + a.Post.URL
	}
	room := statusLimit - m.cost(end) - m.cost(a.Post.Warning)
	return strings.TrimSpace(m.fit(strings.TrimSpace(quiet(a.Text)), room) + end)
}

// fit cuts text at a word's end so that it costs at most room. A link is kept
// whole or left out; a word that alone is long may be cut.
func (m *Mastodon) fit(text string, room int) string {
	if m.cost(text) <= room {
		return text
	}
	room -= 2 // the ellipsis, and a space before it
	var b strings.Builder
	for _, word := range m.words.FindAllString(text, -1) {
		cost := m.cost(word)
		if cost > room {
			if room > longWord && !m.links.MatchString(word) {
				b.WriteString(strings.TrimSuffix(render.Cut(word, room), "…"))
			}
			break
		}
		b.WriteString(word)
		room -= cost
	}
	last := b.String()[strings.LastIndexAny(b.String(), " \n")+1:]
	if m.links.MatchString(last) {
		return b.String() + " …"
	}
	return b.String() + "…"
}

// longWord is how much room must be left for part of a word to fill it.
const longWord = 40

// quiet keeps "@somebody" from being a mention.
func quiet(s string) string { return strings.ReplaceAll(s, "@", "@\u2060") }

// cost is how many characters s counts as.
func (m *Mastodon) cost(s string) int {
	n := utf8.RuneCountInString(s)
	for _, link := range m.links.FindAllString(s, -1) {
		n += linkCost - utf8.RuneCountInString(link)
	}
	return n
}
