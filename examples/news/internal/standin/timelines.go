package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Page sizes of Mastodon's timelines.
const (
	pageDefault = 20
	pageMax     = 40
)

// timelines serves GET /api/v1/timelines/tag/{hashtag}.
type timelines struct {
	corpus *corpus
	ledger *Ledger
	limit  *rateLimit
	dice   dice
}

func (t *timelines) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := t.ledger.call()
	ok := t.limit.allow(w.Header(), time.Now())
	if !ok {
		t.ledger.count(func(c *Counts) { c.Limited++ })
		refuse(w, http.StatusTooManyRequests, "Too many requests")
		return
	}
	// The API fails by the number of the call: it has no keys.
	if f, _ := t.dice.roll("posts", strconv.Itoa(call), 1); f == faultDown || f == faultBroken {
		t.ledger.count(func(c *Counts) { c.Unavailable++ })
		refuse(w, http.StatusServiceUnavailable, "Service temporarily unavailable")
		return
	}
	q := r.URL.Query()
	page := t.page(r.PathValue("hashtag"), q)
	ids := make([]string, len(page))
	for i, s := range page {
		ids[i] = s.ID
	}
	if err := t.ledger.page(ids); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	if len(page) > 0 {
		w.Header().Set("Link", links(r, ids))
	}
	reply(w, http.StatusOK, page)
}

// page selects as Mastodon does: max_id and since_id take the newest posts
// between them, min_id the oldest after it; always newest first.
func (t *timelines) page(hashtag string, q url.Values) []status {
	list := t.corpus.byTag[strings.ToLower(hashtag)]
	size := pageDefault
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		size = min(n, pageMax)
	}
	after := func(id string) int { // the index of the first post newer than id
		n, _ := slices.BinarySearchFunc(list, id, func(i int, id string) int {
			if compareIDs(t.corpus.posts[i].ID, id) <= 0 {
				return -1
			}
			return 1
		})
		return n
	}
	lo, hi := 0, len(list)
	if max := q.Get("max_id"); max != "" {
		hi = after(max)
		if hi > 0 && t.corpus.posts[list[hi-1]].ID == max {
			hi--
		}
	}
	if since := q.Get("since_id"); since != "" {
		lo = after(since)
	}
	if least := q.Get("min_id"); least != "" {
		lo = max(lo, after(least))
		hi = min(hi, lo+size)
	}
	lo = max(lo, hi-size)
	page := []status{}
	for i := hi - 1; i >= lo; i-- {
		page = append(page, t.corpus.posts[list[i]])
	}
	return page
}

// links is the Link header: older posts are "next", newer ones "prev".
func links(r *http.Request, ids []string) string {
	address := func(name, id string) string {
		q := url.Values{name: {id}}
		if limit := r.URL.Query().Get("limit"); limit != "" {
			q.Set("limit", limit)
		}
		u := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: q.Encode()}
		return u.String()
	}
	return fmt.Sprintf(`<%s>; rel="next", <%s>; rel="prev"`,
		address("max_id", ids[len(ids)-1]), address("min_id", ids[0]))
}

// Rate is how many calls the posts API answers in each window of time.
type Rate struct {
	Calls  int
	Window time.Duration
}

// rateLimit counts calls per window, and says so in Mastodon's headers.
type rateLimit struct {
	rate Rate

	mu    sync.Mutex // protects following fields
	reset time.Time
	used  int
}

func (l *rateLimit) allow(h http.Header, now time.Time) bool {
	l.mu.Lock()
	if !now.Before(l.reset) {
		l.reset, l.used = now.Add(l.rate.Window), 0
	}
	l.used++
	left, reset := l.rate.Calls-l.used, l.reset
	l.mu.Unlock()
	h.Set("X-RateLimit-Limit", strconv.Itoa(l.rate.Calls))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(left, 0)))
	h.Set("X-RateLimit-Reset", reset.UTC().Format("2006-01-02T15:04:05.000000Z"))
	return left >= 0
}

// compareIDs orders ids as numbers; anything else sorts somewhere.
func compareIDs(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	// The caller has gone if this fails; it will call again.
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, why string) { reply(w, code, apiError{Error: why}) }
