package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
	"github.com/gobroadway/gobroadway/examples/news/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flags parses a command line, with everything in a folder of the test.
func flags(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parse(append([]string{"-dir", t.TempDir(), "-json", "-metrics", ""}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// news runs the program and reads the last line that it prints.
func news(ctx context.Context, t *testing.T, o options) (summary, error) {
	t.Helper()
	var out, screen bytes.Buffer
	err := run(ctx, o, &out, &screen)
	if screen.Len() > 0 {
		t.Logf("on the screen: %s", screen.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var s summary
	if decodeErr := json.Unmarshal([]byte(lines[len(lines)-1]), &s); decodeErr != nil && err == nil {
		t.Fatalf("%v in %q", decodeErr, out.String())
	}
	return s, err
}

// whole fails unless n posts went through without loss.
func whole(t *testing.T, s summary, n int) {
	t.Helper()
	if s.Posts != n || s.Lost != 0 || s.Duplicates != 0 || s.Rows != 3*n {
		t.Errorf("posts %d, lost %d, duplicates %d, rows %d; want %d, 0, 0, %d", s.Posts, s.Lost, s.Duplicates, s.Rows, n, 3*n)
	}
	total := 0
	for _, count := range s.Published {
		total += count
	}
	if total+s.DeadLetters != 3*n || len(s.Published) != 3 {
		t.Errorf("published %v and given up %d", s.Published, s.DeadLetters)
	}
	for _, format := range render.Formats() {
		if s.Renderings[format] != n {
			t.Errorf("%d of %s", s.Renderings[format], format)
		}
	}
	if len(s.Queues) == 0 {
		t.Error("no queues")
	}
	for _, q := range s.Queues {
		if q.Highest > q.Bound || q.Bound == 0 || q.Highest == 0 {
			t.Errorf("%+v", q)
		}
	}
}

func TestEveryPostGoesThrough(t *testing.T) {
	for _, queue := range []string{queueNone, queueEmbedded} {
		t.Run(queue, func(t *testing.T) {
			s, err := news(t.Context(), t, flags(t, "-queue", queue, "-posts", "100"))
			if err != nil {
				t.Fatal(err)
			}
			whole(t, s, 100)
			if s.Retries == 0 || s.DeadLetters != 0 || s.Queue != queue || s.Seconds <= 0 {
				t.Errorf("%+v", s)
			}
			// Three hashtags, pages of forty, one or two calls more to see an end.
			if s.Calls < 3 || s.Calls > 20 {
				t.Errorf("%d API calls for 100 posts", s.Calls)
			}
		})
	}
}

func TestABThatDropsOnePostInAHundredIsFoundOut(t *testing.T) {
	o := flags(t, "-queue", "none", "-posts", "100", "-faults", "none")
	var count atomic.Int64
	o.around = func(b broadway.Processor) broadway.Processor {
		return func(ctx context.Context, m *broadway.Message) error {
			if count.Add(1) == 50 {
				m.Value = []post.Publication{} // "done"
				return nil
			}
			return b(ctx, m)
		}
	}
	s, err := news(t.Context(), t, o)
	if s.Lost != 1 || s.Posts != 100 || s.Rows != 3*99 || err == nil || !strings.Contains(err.Error(), "1 post lost") {
		t.Errorf("lost %d of %d, %d rows: %v", s.Lost, s.Posts, s.Rows, err)
	}
}

func TestABThatPanicsIsReportedAsGivenUp(t *testing.T) {
	o := flags(t, "-queue", "none", "-posts", "40", "-faults", "none")
	var bad atomic.Pointer[string]
	o.around = func(b broadway.Processor) broadway.Processor {
		return func(ctx context.Context, m *broadway.Message) error {
			id := m.ID()
			bad.CompareAndSwap(nil, &id)
			if id == *bad.Load() {
				panic("cannot read this one")
			}
			return b(ctx, m)
		}
	}
	s, err := news(t.Context(), t, o)
	if err != nil || s.Lost != 0 || s.DeadLetters != 3 || s.Rows != 120 || s.Published["site"] != 39 {
		t.Errorf("%+v, %v", s, err)
	}
	rows := reported(t, s.Database)
	if n := len(slices.DeleteFunc(rows, func(p post.Publication) bool { return p.Outcome != post.GivenUp || p.Post != *bad.Load() })); n != 3 {
		t.Errorf("%d rows say so", n)
	}
}

func reported(t *testing.T, database string) []post.Publication {
	t.Helper()
	db, err := store.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.Publications(t.Context())
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestPostsThatPlatformsRefuseAreRowsToo(t *testing.T) {
	s, err := news(t.Context(), t, flags(t, "-queue", "none", "-posts", "100", "-faults", "harsh", "-seed", "2"))
	if err != nil {
		t.Fatal(err)
	}
	whole(t, s, 100)
	if s.DeadLetters == 0 {
		t.Error("nothing was refused: the test tests nothing")
	}
}

func TestAnInterruptDrainsAndTheNextRunContinues(t *testing.T) {
	for _, queue := range []string{queueNone, queueEmbedded} {
		t.Run(queue, func(t *testing.T) {
			o := flags(t, "-queue", queue, "-posts", "80", "-faults", "none", "-workers", "4")
			ctx, interrupt := context.WithCancel(t.Context())
			var count atomic.Int64
			o.around = func(b broadway.Processor) broadway.Processor {
				return func(ctx context.Context, m *broadway.Message) error {
					if count.Add(1) == 20 {
						interrupt()
					}
					return b(ctx, m)
				}
			}
			first, err := news(ctx, t, o)
			if err != nil || !first.Interrupted || first.Lost != 0 || first.Posts < 20 || first.Posts >= 80 || first.Rows != 3*first.Posts {
				t.Fatalf("%+v, %v", first, err)
			}
			o.around = nil
			second, err := news(t.Context(), t, o)
			if err != nil || second.Interrupted {
				t.Fatalf("%+v, %v", second, err)
			}
			whole(t, second, 80)
			third, err := news(t.Context(), t, o)
			if err != nil || third.Calls != 0 || third.Posts != 80 || third.Rows != 240 || third.Lost != 0 {
				t.Errorf("there was nothing left to do: %+v, %v", third, err)
			}
			if !maps.Equal(third.Published, second.Published) {
				t.Errorf("%v became %v", second.Published, third.Published)
			}
		})
	}
}

func TestASlowBStopsTheCallsOfA(t *testing.T) {
	for _, queue := range []string{queueNone, queueEmbedded} {
		t.Run(queue, func(t *testing.T) {
			o := flags(t, "-queue", queue, "-posts", "2000", "-faults", "none", "-workers", "4")
			entered, release := make(chan struct{}, 4), make(chan struct{})
			o.around = func(b broadway.Processor) broadway.Processor {
				return func(ctx context.Context, m *broadway.Message) error {
					select {
					case entered <- struct{}{}:
					default:
					}
					<-release
					return b(ctx, m)
				}
			}
			s, err := open(t.Context(), o, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.flow(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.run(ctx) }()
			for range cap(entered) {
				<-entered
			}
			stuck(t, f)
			bound := 0
			for _, q := range f.queues() {
				bound = max(bound, q.Bound)
			}
			// A page of each hashtag may be at hand beyond what was handed out.
			if served := len(s.world.Ledger().Served()); served > bound+3*40 {
				t.Errorf("%d posts were downloaded, the bound is %d", served, bound)
			}
			cancel()
			close(release)
			if err := errors.Join(<-done, f.close(), s.close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// stuck waits until A has stopped fetching, although there is more.
func stuck(t *testing.T, f flow) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if q, is := f.(*queued); is {
			if q.window.Out() == q.window.Bound() {
				return
			}
			continue
		}
		if a := f.pipelines()[0].Stats().Producers[0]; a.Asked == 0 && a.Fetched > 0 {
			return
		}
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"-posts", "0"}, {"-posts", "100000"}, {"-queue", "sqs"}, {"-faults", "some"}, {"-workers", "0"}, {"stray"}, {"-unknown"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	if _, err := parse([]string{"-posts", "0", "-queue", "sqs"}, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "-posts") || !strings.Contains(err.Error(), "-queue") {
		t.Errorf("not every mistake is named: %v", err)
	}
}

func TestTheSummaryCanBeRead(t *testing.T) {
	o := flags(t, "-queue", "none", "-posts", "20", "-faults", "none")
	o.json = false
	var out, screen bytes.Buffer
	if err := run(t.Context(), o, &out, &screen); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20 posts", "pdf 20", "mastodon 20", "60 rows", "0 lost", "file:///", "index.html"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if screen.Len() > 0 {
		t.Errorf("noise on what is no terminal: %s", screen.String())
	}
}

func TestADatabaseFindsItsSiteAgain(t *testing.T) {
	database := t.TempDir() + "/x.db"
	o, err := parse([]string{"-database", database, "-json", "-metrics", "", "-queue", "none", "-posts", "20", "-faults", "none"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := news(t.Context(), t, o)
		if err != nil || s.Posts != 20 || s.Rows != 60 || s.Lost != 0 || s.Database != database || s.Site != database+".d/site" {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

// noticeboard is a screen that can be read while it is written.
type noticeboard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *noticeboard) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *noticeboard) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestMetricsCanBePolledWhileItRuns(t *testing.T) {
	o := flags(t, "-queue", "embedded", "-posts", "75", "-faults", "none", "-metrics", "127.0.0.1:0", "-workers", "4")
	screen := &noticeboard{}
	var count atomic.Int64
	scraped := make(chan string, 1)
	o.around = func(b broadway.Processor) broadway.Processor {
		return func(ctx context.Context, m *broadway.Message) error {
			if count.Add(1) == 70 { // a batch of fifty is full, and will be reported
				page := scrape(ctx, t, screen)
				for !strings.Contains(page, "news_publications_total{") && !t.Failed() {
					page = scrape(ctx, t, screen)
				}
				scraped <- page
			}
			return b(ctx, m)
		}
	}
	if err := run(t.Context(), o, io.Discard, screen); err != nil {
		t.Fatal(err)
	}
	got := <-scraped
	for _, want := range []string{
		`news_publications_total{format="html",outcome="published",platform="site"}`, `news_publication_seconds_bucket{platform="mastodon"`,
		`broadway_fetched_messages_total{pipeline="ingest"`, `broadway_unsettled_messages_bound{pipeline="news"}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
}

// scrape reads the metrics at the address on the screen.
func scrape(ctx context.Context, t *testing.T, screen *noticeboard) string {
	_, address, found := strings.Cut(screen.String(), "metrics: ")
	if !found {
		t.Errorf("no address on the screen: %s", screen)
		return ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSpace(address), nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Error(err)
	}
	return string(body)
}
