package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/store"
)

func open(t *testing.T, source string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), source)
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

func publication(id, platform string) post.Publication {
	return post.Publication{
		Post: id, Platform: platform, Format: "text", Key: "k-" + id + platform, Outcome: post.Published,
		At: time.Date(2026, 1, 5, 8, 0, 0, 100_000_000, time.UTC), Latency: 1500 * time.Microsecond, Attempts: 2, RemoteID: "7",
	}
}

// promises are what A, B and C rely on, whichever database it is.
func promises(t *testing.T, fresh func(*testing.T) string) {
	t.Run("a cursor only moves forward", func(t *testing.T) {
		s := open(t, fresh(t))
		pos, err := s.LoadCursor(t.Context(), "posts")
		if err != nil || pos != (ingest.Position{}) {
			t.Fatalf("%+v, %v", pos, err)
		}
		for _, save := range []ingest.Position{{After: "10", Settled: 1}, {After: "30", Settled: 3}, {After: "20", Settled: 2}} {
			if err := s.SaveCursor(t.Context(), "posts", save); err != nil {
				t.Fatal(err)
			}
		}
		if pos, err = s.LoadCursor(t.Context(), "posts"); err != nil || pos != (ingest.Position{After: "30", Settled: 3}) {
			t.Errorf("%+v, %v", pos, err)
		}
		if pos, err = s.LoadCursor(t.Context(), "other"); err != nil || pos != (ingest.Position{}) {
			t.Errorf("another source: %+v, %v", pos, err)
		}
	})
	t.Run("the first outcome stays", func(t *testing.T) {
		s := open(t, fresh(t))
		first := publication("1", "site")
		second := first
		second.Outcome, second.Error = post.GivenUp, "too late"
		other := publication("1", "webhook")
		other.Outcome, other.RemoteID, other.Error = post.GivenUp, "", "they said: \x00\xff no — 'nie'; DROP TABLE outcomes"
		for _, p := range []post.Publication{first, second, other} {
			if err := s.Remember(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		other.Error = "they said: \uFFFD no — 'nie'; DROP TABLE outcomes"
		got, err := s.Outcomes(t.Context(), "1")
		if diff := cmp.Diff([]post.Publication{first, other}, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
		if got, err := s.Outcomes(t.Context(), "2"); len(got) != 0 || err != nil {
			t.Errorf("an unknown post: %v, %v", got, err)
		}
	})
	t.Run("a report writes each row once", func(t *testing.T) {
		s := open(t, fresh(t))
		var list []post.Publication
		for i := range 1100 { // more than two statements
			list = append(list, publication(fmt.Sprint(1000+i), "site"))
		}
		for _, c := range []struct{ in, fresh []post.Publication }{{list[:700], list[:700]}, {list, list[700:]}, {nil, nil}} {
			fresh, err := s.Report(t.Context(), c.in)
			if diff := cmp.Diff(c.fresh, fresh); diff != "" || err != nil {
				t.Fatal(diff, err)
			}
		}
		got, err := s.Publications(t.Context())
		if diff := cmp.Diff(list, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
	t.Run("a report is all or nothing", func(t *testing.T) {
		s := open(t, fresh(t))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Report(ctx, []post.Publication{publication("1", "site")}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got, err := s.Publications(t.Context()); len(got) != 0 || err != nil {
			t.Error(got, err)
		}
	})
	t.Run("many write at once", func(t *testing.T) {
		s := open(t, fresh(t))
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for i := range 25 {
					p := publication(fmt.Sprint(worker*100+i+1), "site")
					if err := s.Remember(t.Context(), p); err != nil {
						t.Error(err)
					}
					if _, err := s.Report(t.Context(), []post.Publication{p, publication("1", "site")}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got, err := s.Publications(t.Context()); len(got) != 200 || err != nil {
			t.Errorf("%d rows, %v", len(got), err)
		}
	})
	t.Run("everything is there after a restart", func(t *testing.T) {
		source := fresh(t)
		first, err := store.Open(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		name, err := first.Identity(t.Context())
		if err != nil || len(name) < 8 {
			t.Fatal(name, err)
		}
		if err := first.Remember(t.Context(), publication("1", "site")); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := open(t, source)
		if again, err := second.Identity(t.Context()); again != name || err != nil {
			t.Errorf("%q became %q, %v", name, again, err)
		}
		if got, err := second.Outcomes(t.Context(), "1"); len(got) != 1 || err != nil {
			t.Error(got, err)
		}
	})
}

func TestSQLite(t *testing.T) {
	promises(t, func(t *testing.T) string { return filepath.Join(t.TempDir(), "odd name?#%20 źdźbło.db") })
}

func TestASQLiteFileIsForItsOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // no such modes there
	}
	path := filepath.Join(t.TempDir(), "news.db")
	s := open(t, path)
	if err := s.Remember(t.Context(), publication("1", "site")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	if s.Name() != path {
		t.Errorf("it is called %s", s.Name())
	}
}

func TestADatabaseThatCannotBeOpenedSaysWhyAndKeepsThePassword(t *testing.T) {
	for _, source := range []string{
		filepath.Join(t.TempDir(), "no", "such", "folder.db"),
		"postgres://news:s3cret@127.0.0.1:1/news?connect_timeout=1",
		"postgres://news:s3cret@[::1/news",
		"postgres://news:s3cret@127.0.0.1:1/news?sslmode=perhaps",
	} {
		s, err := store.Open(t.Context(), source)
		if err == nil {
			t.Errorf("%s was opened: %v", source, s.Close())
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}
