package standin

import (
	"crypto/subtle"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"
)

// PlatformStatuses and PlatformWebhook name the platforms in the ledger.
const (
	PlatformStatuses = "mastodon"
	PlatformWebhook  = "webhook"
)

// statusLimit is how many characters a status may have, and urlCost what a link
// counts for, whatever its length (Mastodon's defaults).
const (
	statusLimit = 500
	urlCost     = 23
	bodyLimit   = 1 << 20
)

// statuses serves POST /api/v1/statuses.
type statuses struct {
	*platform
	corpus *corpus
	token  string
	links  *regexp.Regexp
}

func newStatuses(p *platform, c *corpus, token string) *statuses {
	return &statuses{platform: p, corpus: c, token: token, links: regexp.MustCompile(`https?://[^\s]+`)}
}

func (s *statuses) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Bearer " + s.token
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
		refuse(w, http.StatusUnauthorized, "The access token is invalid")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
	text := r.FormValue("status")
	if strings.TrimSpace(text) == "" {
		refuse(w, http.StatusUnprocessableEntity, "Validation failed: Text can't be blank")
		return
	}
	if s.length(text) > statusLimit {
		refuse(w, http.StatusUnprocessableEntity, "Validation failed: Text character limit of 500 exceeded")
		return
	}
	s.perform(w, r, s.source(text), r.Header.Get("Idempotency-Key"), func(remote string) {
		reply(w, http.StatusOK, status{
			ID: remote, Content: text, Visibility: "public", Tags: []tag{},
			URL: "https://statuses.example/@news/" + remote,
		})
	})
}

// length counts characters as Mastodon does.
func (s *statuses) length(text string) int {
	return utf8.RuneCountInString(s.links.ReplaceAllString(text, strings.Repeat("x", urlCost)))
}

// source finds the post that a text names by its address.
func (s *statuses) source(text string) string {
	for _, link := range s.links.FindAllString(text, -1) {
		if id, ok := s.corpus.byURL[link]; ok {
			return id
		}
	}
	return ""
}
