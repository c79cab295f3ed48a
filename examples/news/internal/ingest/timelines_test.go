package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

// read reads n posts, or up to io.EOF with n < 0, in steps of step.
func read(t *testing.T, tl *ingest.Timelines, n, step int) []string {
	t.Helper()
	var ids []string
	for n < 0 || len(ids) < n {
		posts, err := tl.Next(t.Context(), step)
		if errors.Is(err, io.EOF) {
			return ids
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(posts) == 0 || len(posts) > step {
			t.Fatalf("%d posts, asked for %d", len(posts), step)
		}
		for _, p := range posts {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

func TestEveryPostComesOnceAndOldestFirst(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 500, Rate: unlimited})
	got := read(t, timelines(t, ingest.Config{Server: w.PostsURL(), Limit: 500}), -1, 7)
	if want := w.Ledger().Served(); len(got) != 500 || !slices.Equal(got, want) {
		t.Errorf("read %d posts, served were %d, equal: %t", len(got), len(want), slices.Equal(got, want))
	}
}

func TestTheAPIIsCalledOnlyForPostsThatAreNotAtHand(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 500, Rate: unlimited})
	tl := timelines(t, ingest.Config{Server: w.PostsURL()})
	if n := w.Ledger().Counts().Calls; n != 0 {
		t.Errorf("%d calls before anybody asked", n)
	}
	read(t, tl, 1, 1)
	if n := w.Ledger().Counts().Calls; n != 3 {
		t.Errorf("%d calls for the first post, want one for each hashtag", n)
	}
	read(t, tl, 39, 1) // at least forty are at hand
	if n := w.Ledger().Counts().Calls; n != 3 {
		t.Errorf("%d calls, although a page was at hand", n)
	}
}

func TestReadingGoesOnAfterTheCursor(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 300, Rate: unlimited})
	all := read(t, timelines(t, ingest.Config{Server: w.PostsURL(), Limit: 300}), -1, 50)
	rest := read(t, timelines(t, ingest.Config{Server: w.PostsURL(), After: all[99], Limit: 200}), -1, 50)
	if !slices.Equal(rest, all[100:]) {
		t.Errorf("a second reader did not continue where the first stood: %d posts, first %s, want %d, %s", len(rest), rest[0], len(all[100:]), all[100])
	}
}

func TestAPostCarriesWhatTheNetworkSaid(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 50, Rate: unlimited})
	tl := timelines(t, ingest.Config{Server: w.PostsURL()})
	posts, err := tl.Next(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p := posts[0]
	if p.URL == "" || p.Account == "" || p.Author == "" || p.HTML == "" || len(p.Tags) == 0 || p.Language == "" ||
		p.CreatedAt.Year() != 2026 || p.CreatedAt.Location() != time.UTC {
		t.Errorf("%+v", p)
	}
}

func TestTheRateLimitIsKept(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 200, Rate: standin.Rate{Calls: 3, Window: 50 * time.Millisecond}})
	got := read(t, timelines(t, ingest.Config{Server: w.PostsURL(), Limit: 200}), -1, 50)
	if c := w.Ledger().Counts(); len(got) != 200 || c.Limited != 0 || c.Calls <= 3 {
		t.Errorf("%d posts, %+v", len(got), c)
	}
}

func TestARefusedCallIsMadeAgainWhenTheLimitIsOver(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 10, Rate: standin.Rate{Calls: 1, Window: 100 * time.Millisecond}})
	resp, err := http.Get(w.PostsURL() + "/api/v1/timelines/tag/programming") // somebody else used it up
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, timelines(t, ingest.Config{Server: w.PostsURL(), Limit: 10}), -1, 50); len(got) != 10 {
		t.Errorf("%d posts", len(got))
	}
	if w.Ledger().Counts().Limited == 0 {
		t.Error("no call was refused: the test tests nothing")
	}
}

func TestWaitingForTheRateLimitEndsWithItsContext(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 10, Rate: standin.Rate{Calls: 1, Window: time.Hour}})
	tl := timelines(t, ingest.Config{Server: w.PostsURL()})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	if _, err := tl.Next(ctx, 1); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestAFailedCallLosesNothing(t *testing.T) {
	w := serve(t, standin.Config{Seed: 3, Posts: 300, Rate: unlimited, Faults: standin.Faults{Down: 300}})
	tl := timelines(t, ingest.Config{Server: w.PostsURL(), Limit: 300})
	var got []string
	failures := 0
	for {
		posts, err := tl.Next(t.Context(), 50)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			failures++
			continue
		}
		for _, p := range posts {
			got = append(got, p.ID)
		}
	}
	if failures == 0 || !slices.Equal(got, w.Ledger().Served()) || len(got) != 300 {
		t.Errorf("%d posts after %d failures", len(got), failures)
	}
}

// script answers the calls for a hashtag one after the other with lists of ids;
// the last answer repeats.
type script map[string][][]int

func (s script) serve(t *testing.T) (address string, calls func(string) int) {
	t.Helper()
	counts := map[string]*atomic.Int64{}
	for tag := range s {
		counts[tag] = new(atomic.Int64)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/timelines/tag/{tag}", func(w http.ResponseWriter, r *http.Request) {
		tag := r.PathValue("tag")
		answers := s[tag]
		n := int(counts[tag].Add(1))
		ids := answers[min(n, len(answers))-1]
		page := []map[string]any{}
		for _, id := range slices.Backward(ids) {
			page = append(page, map[string]any{"id": strconv.Itoa(id), "content": "x", "created_at": "2026-01-01T00:00:00Z"})
		}
		if err := json.NewEncoder(w).Encode(page); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return server.URL, func(tag string) int { return int(counts[tag].Load()) }
}

func TestAPostThatAppearsBetweenTwoCallsIsNotOvertaken(t *testing.T) {
	address, _ := script{
		"x": {{}, {7}, {}}, // 7 appears after the first call, before 8 does in y
		"y": {{8}, {}},
	}.serve(t)
	tl := timelines(t, ingest.Config{Server: address, Hashtags: []string{"x", "y"}, Idle: time.Millisecond})
	if got := read(t, tl, 2, 1); !slices.Equal(got, []string{"7", "8"}) {
		t.Errorf("%v", got)
	}
}

func TestAtTheEndItAsksAgainForNewPosts(t *testing.T) {
	address, _ := script{"x": {{1}, {}, {}, {}, {2, 3}}, "y": {{}}}.serve(t)
	tl := timelines(t, ingest.Config{Server: address, Hashtags: []string{"x", "#y"}, Idle: time.Millisecond})
	if got := read(t, tl, 3, 5); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("%v", got)
	}
}

func TestAServerThatIgnoresTheCursorMakesNoLoop(t *testing.T) {
	address, calls := script{"x": {{1, 2, 3}}}.serve(t)
	tl := timelines(t, ingest.Config{Server: address, Hashtags: []string{"x"}, Idle: time.Millisecond})
	if got := read(t, tl, 3, 5); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if posts, err := tl.Next(ctx, 5); err == nil {
		t.Errorf("%v came again", posts)
	}
	if calls("x") < 2 {
		t.Error("it was not asked again")
	}
}

func TestWhatIsNoPostIsPassedOver(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("min_id") == "0" {
			_, _ = io.WriteString(w, `[{"id":"../../etc/passwd"},{"id":"4","content":"good"}]`)
			return
		}
		_, _ = io.WriteString(w, `[]`)
	}))
	t.Cleanup(server.Close)
	tl := timelines(t, ingest.Config{Server: server.URL, Hashtags: []string{"x"}})
	if got := read(t, tl, 1, 5); !slices.Equal(got, []string{"4"}) || tl.Skipped() != 1 {
		t.Errorf("%v, skipped %d", got, tl.Skipped())
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestBadConfigsAreRefused(t *testing.T) {
	for _, cfg := range []ingest.Config{
		{Hashtags: []string{"x"}},
		{Server: "http://127.0.0.1:1"},
		{Server: "http://127.0.0.1:1", Hashtags: []string{"x"}, After: "; DROP TABLE cursors"},
	} {
		if _, err := ingest.NewTimelines(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := post.Decode([]byte(`{}`)); err == nil {
		t.Error("an empty post was accepted")
	}
}
