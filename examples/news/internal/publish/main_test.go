package publish_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hasty is impatient enough for tests.
var hasty = publish.Patience{Timeout: 2 * time.Second, Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond}

// serve runs a world until the test ends.
func serve(t *testing.T, cfg standin.Config) *standin.World {
	t.Helper()
	cfg.Rate = standin.Rate{Calls: 1 << 30, Window: time.Hour}
	w, err := standin.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return w
}

func client(t *testing.T, w *standin.World) *http.Client {
	t.Helper()
	c := publish.NewClient(w.Addresses()...)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// posts reads n posts of w.
func posts(t *testing.T, w *standin.World, n int) []post.Post {
	t.Helper()
	tl, err := ingest.NewTimelines(ingest.Config{Server: w.PostsURL(), Hashtags: standin.Hashtags()})
	if err != nil {
		t.Fatal(err)
	}
	var list []post.Post
	for len(list) < n {
		next, err := tl.Next(t.Context(), n-len(list))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, next...)
	}
	return list
}

func site(t *testing.T, dir string) *publish.Site {
	t.Helper()
	s, err := publish.OpenSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func renderer(t *testing.T) *render.Renderer {
	t.Helper()
	r, err := render.New()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// journal is a Journal in memory that can fail.
type journal struct {
	mu   sync.Mutex
	kept map[string][]post.Publication
	fail int // so many calls of Remember
}

var errDisk = errors.New("disk full")

func (j *journal) Outcomes(_ context.Context, id string) ([]post.Publication, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kept[id], nil
}

func (j *journal) Remember(_ context.Context, p post.Publication) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail > 0 {
		j.fail--
		return errDisk
	}
	if j.kept == nil {
		j.kept = map[string][]post.Publication{}
	}
	j.kept[p.Post] = append(j.kept[p.Post], p)
	return nil
}

// platform is a Platform whose behaviour is a function of the attempt, from 1.
type platform struct {
	name string
	do   func(ctx context.Context, attempt int, key string) (string, error)

	mu       sync.Mutex
	attempts int
}

func (p *platform) Name() string   { return p.name }
func (p *platform) Format() string { return render.Text }

func (p *platform) Publish(ctx context.Context, _ *render.Article, key string) (string, error) {
	p.mu.Lock()
	p.attempts++
	n := p.attempts
	p.mu.Unlock()
	return p.do(ctx, n, key)
}

func onePost() post.Post {
	return post.Post{
		ID: "42", URL: "https://social.example/@a/42", Account: "a@social.example", Author: "A", Tags: []string{"x"},
		CreatedAt: time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC), HTML: "<p>" + strings.Repeat("word ", 30) + "</p>",
	}
}
