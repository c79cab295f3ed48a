package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-mastodon"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

// Config says what to download and from where.
type Config struct {
	// Server is the base address of a Mastodon-compatible API.
	Server string
	// Hashtags to follow, without '#': at least one.
	Hashtags []string
	// After is the cursor: only posts with a greater id are read. Empty reads
	// from the first post on.
	After string
	// Limit ends the source with io.EOF after so many posts. 0 means never; a
	// negative Limit means at once.
	Limit int
	// Transport makes the calls. Default http.DefaultTransport.
	Transport http.RoundTripper
	// CallTimeout bounds one call. Default 10 s.
	CallTimeout time.Duration
	// Idle is the wait before asking again when every timeline is read to its
	// end. Default 5 s.
	Idle time.Duration
}

// page is how many posts one call asks for: Mastodon's most. Rate limits count
// calls, so calls are few and pages full; what is not asked for yet waits here.
const page = 40

// Timelines merges hashtag timelines into one stream, oldest post first. A post
// under two hashtags stands at the head of both at the same moment, and counts
// once: no memory of earlier posts is needed, neither here nor after a restart,
// and one cursor tells it all. It is for one goroutine.
type Timelines struct {
	cfg     Config
	client  *mastodon.Client
	pace    *pacer
	lines   []*timeline
	calls   int // so far; the moment of a call
	empty   int // calls in a row that brought nothing
	given   int
	skipped int
}

// timeline is one hashtag.
type timeline struct {
	hashtag string
	seen    mastodon.ID // the newest id read
	posts   []post.Post // read, not given: oldest first
	asked   int         // the moment of the last call, 0 before the first
	dry     int         // the same if it brought nothing, otherwise 0
}

// NewTimelines checks cfg. It calls nobody.
func NewTimelines(cfg Config) (*Timelines, error) {
	if cfg.Server == "" || len(cfg.Hashtags) == 0 {
		return nil, errors.New("ingest: a server and a hashtag are required")
	}
	if cfg.After == "" {
		cfg.After = "0"
	}
	if err := post.CheckID(cfg.After); err != nil {
		return nil, fmt.Errorf("ingest: cursor: %w", err)
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = 10 * time.Second
	}
	if cfg.Idle == 0 {
		cfg.Idle = 5 * time.Second
	}
	t := &Timelines{cfg: cfg, pace: &pacer{next: cfg.Transport}}
	t.client = mastodon.NewClient(&mastodon.Config{Server: cfg.Server})
	t.client.Client = http.Client{Transport: t.pace, CheckRedirect: noRedirects}
	t.client.UserAgent = "broadway-news"
	for _, tag := range cfg.Hashtags {
		t.lines = append(t.lines, &timeline{hashtag: strings.TrimPrefix(tag, "#"), seen: mastodon.ID(cfg.After)})
	}
	return t, nil
}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Skipped is how many posts were passed over because their id is no number.
func (t *Timelines) Skipped() int { return t.skipped }

// Next returns 1 to n posts, calling the API only if it has none at hand; or it
// waits until there is one or ctx ends; or it returns an error, after which it
// may be called again. [io.EOF] comes after Config.Limit posts.
func (t *Timelines) Next(ctx context.Context, n int) ([]post.Post, error) {
	if t.cfg.Limit != 0 {
		n = min(n, t.cfg.Limit-t.given)
		if n <= 0 {
			return nil, io.EOF
		}
	}
	for {
		var posts []post.Post
		for len(posts) < n && t.ripe() {
			posts = append(posts, t.take())
		}
		if len(posts) > 0 {
			t.given += len(posts)
			return posts, nil
		}
		if err := t.refill(ctx); err != nil {
			return nil, err
		}
	}
}

// ripe says whether the oldest post at hand is the next one: no timeline may
// still hold an older one. A timeline without posts at hand is known to hold
// none only if it was asked, in vain, after the last of the others:
//
//  1. we ask X, and get nothing
//  2. a post 7 appears in X, then a post 8 in Y
//  3. we ask Y, and get 8
//
// Giving 8 now would move the cursor past 7, and a restart would lose it.
func (t *Timelines) ripe() bool {
	latest, any := 0, false
	for _, l := range t.lines {
		if len(l.posts) > 0 {
			latest, any = max(latest, l.asked), true
		}
	}
	return any && !slices.ContainsFunc(t.lines, func(l *timeline) bool { return len(l.posts) == 0 && l.dry < latest })
}

// take removes the oldest post from every timeline that it heads.
func (t *Timelines) take() post.Post {
	var oldest *timeline
	for _, l := range t.lines {
		if len(l.posts) > 0 && (oldest == nil || post.CompareIDs(l.posts[0].ID, oldest.posts[0].ID) < 0) {
			oldest = l
		}
	}
	p := oldest.posts[0]
	for _, l := range t.lines {
		if len(l.posts) > 0 && l.posts[0].ID == p.ID {
			l.posts = l.posts[1:]
		}
	}
	return p
}

// refill asks the timeline without posts at hand of which the least is known.
// When all of them are at their end it waits first.
func (t *Timelines) refill(ctx context.Context) error {
	var line *timeline
	for _, l := range t.lines {
		if len(l.posts) == 0 && (line == nil || l.dry < line.dry) {
			line = l
		}
	}
	if t.empty >= len(t.lines) {
		if err := sleep(ctx, t.cfg.Idle); err != nil {
			return err
		}
		t.empty = 0
	}
	return t.ask(ctx, line)
}

// ask reads one page of l.
func (t *Timelines) ask(ctx context.Context, l *timeline) error {
	for {
		if err := t.pace.wait(ctx); err != nil {
			return err
		}
		statuses, err := t.call(ctx, l)
		var limited *limitedError
		switch {
		case errors.As(err, &limited):
			continue // the pacer knows until when
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("ingest: #%s: %w", l.hashtag, err)
		}
		t.calls++
		t.keep(l, statuses)
		return nil
	}
}

func (t *Timelines) call(ctx context.Context, l *timeline) ([]*mastodon.Status, error) {
	// The library tries some answers again by itself: only a deadline ends it.
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	return t.client.GetTimelineHashtag(ctx, l.hashtag, false, &mastodon.Pagination{MinID: l.seen, Limit: page})
}

// keep takes a page, which comes newest first, oldest first.
func (t *Timelines) keep(l *timeline, statuses []*mastodon.Status) {
	before := l.seen
	for _, s := range slices.Backward(statuses) {
		p := fromStatus(s)
		if post.CheckID(p.ID) != nil {
			t.skipped++
			continue // and never into a cursor
		}
		if s.ID.Compare(l.seen) <= 0 {
			continue // a server that does not know min_id must not make a loop
		}
		l.seen = s.ID
		l.posts = append(l.posts, p)
	}
	l.asked = t.calls
	if l.seen == before {
		l.dry = t.calls
		t.empty++
	} else {
		l.dry, t.empty = 0, 0
	}
}

func fromStatus(s *mastodon.Status) post.Post {
	p := post.Post{
		ID: string(s.ID), URL: s.URL, Account: s.Account.Acct, Author: s.Account.DisplayName,
		CreatedAt: s.CreatedAt.UTC(), Language: s.Language, Warning: s.SpoilerText, HTML: s.Content,
	}
	if p.URL == "" {
		p.URL = s.URI
	}
	if p.Author == "" {
		p.Author = s.Account.Username
	}
	for _, tag := range s.Tags {
		p.Tags = append(p.Tags, strings.ToLower(tag.Name))
	}
	return p
}
