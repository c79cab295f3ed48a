package ingest_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
)

// memory is a CursorStore that keeps what a database would.
type memory struct {
	mu   sync.Mutex
	pos  ingest.Position
	fail error
}

func (m *memory) LoadCursor(context.Context, string) (ingest.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pos, m.fail
}

func (m *memory) SaveCursor(_ context.Context, _ string, pos ingest.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil && pos.Settled > m.pos.Settled {
		m.pos = pos
	}
	return m.fail
}

func TestTheCursorPassesNoUnsettledPost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := &memory{pos: ingest.Position{After: "100", Settled: 7}}
		c, err := ingest.LoadCursor(context.Background(), store, "x")
		if err != nil {
			t.Fatal(err)
		}
		var given []string
		settled := map[string]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				id := strconv.Itoa(101 + len(given))
				given = append(given, id)
				c.Give(id)
			case 1:
				if err := c.Settle(context.Background(), "1", "stranger"); err != nil {
					t.Fatal(err)
				}
			default:
				if len(given) == 0 {
					continue
				}
				id := rapid.SampledFrom(given).Draw(t, "settle")
				settled[id] = true
				if err := c.Settle(context.Background(), id); err != nil {
					t.Fatal(err)
				}
			}
			want := ingest.Position{After: "100", Settled: 7}
			for _, id := range given {
				if !settled[id] {
					break
				}
				want = ingest.Position{After: id, Settled: want.Settled + 1}
			}
			if got := c.Position(); got != want || store.pos != want {
				t.Fatalf("cursor %+v, saved %+v, want %+v", got, store.pos, want)
			}
		}
	})
}

func TestACursorThatCannotBeSavedSaysSo(t *testing.T) {
	store := &memory{}
	c, err := ingest.LoadCursor(t.Context(), store, "x")
	if err != nil {
		t.Fatal(err)
	}
	store.fail = errors.New("disk full")
	c.Give("1")
	if err := c.Settle(t.Context(), "1"); !errors.Is(err, store.fail) {
		t.Error(err)
	}
	if _, err := ingest.LoadCursor(t.Context(), store, "x"); !errors.Is(err, store.fail) {
		t.Error(err)
	}
}

func TestTheWindowIsNeverOverdrawn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.IntRange(1, 20).Draw(t, "bound")
		already := rapid.IntRange(0, 30).Draw(t, "already")
		w := ingest.NewWindow(bound, already)
		out, highest := already, already
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		for range 50 {
			n := rapid.IntRange(1, 10).Draw(t, "n")
			if rapid.Bool().Draw(t, "take") {
				got, err := w.Take(cancelled, n)
				if want := max(min(n, bound-out), 0); got != want || (err != nil) != (got == 0) {
					t.Fatalf("took %d, %v; want %d", got, err, want)
				}
				out += got
			} else {
				w.Return(n)
				out = max(out-n, 0)
			}
			highest = max(highest, out)
			if w.Out() != out || w.Highest() != highest || (out > bound && out > already) {
				t.Fatalf("out %d, highest %d; want %d, %d", w.Out(), w.Highest(), out, highest)
			}
		}
	})
}

func TestTheWindowWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ingest.NewWindow(2, 2)
		got := make(chan int, 3)
		for range 2 {
			go func() {
				n, err := w.Take(t.Context(), 5)
				if err != nil {
					t.Error(err)
				}
				got <- n
			}()
		}
		empty := make(chan error, 1)
		go func() { empty <- w.Empty(t.Context()) }()
		synctest.Wait()
		if len(got) > 0 || len(empty) > 0 {
			t.Fatal("somebody did not wait")
		}
		w.Return(1)
		synctest.Wait()
		w.Return(1)
		synctest.Wait()
		if len(got) != 2 || len(empty) > 0 {
			t.Fatalf("%d woke up", len(got))
		}
		w.Return(2)
		if err := <-empty; err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingForTheWindowEndsWithItsContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	w := ingest.NewWindow(1, 1)
	if _, err := w.Take(ctx, 1); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := w.Empty(ctx); !errors.Is(err, stop) {
		t.Error(err)
	}
}
