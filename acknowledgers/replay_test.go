package acknowledgers_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// drawer is a queue with n dead letters, from the origin that origin says.
func drawer(t *testing.T, n int, origin func(int) string) *memory.Queue {
	t.Helper()
	dead := memory.NewQueue(memory.QueueConfig{Name: "dead"})
	d := &acknowledgers.DeadLetters{Publisher: dead}
	for i := range n {
		m := letter(t, int64(i), fmt.Append(nil, i), envelope{fmt.Sprint(i), origin(i), []byte("k"), []broadway.Header{{Key: "mine", Value: []byte{0xff}}}})
		if i%10 == 9 {
			m.Payload = make([]byte, 2000)
			d.MaxBytes = 100
		}
		if err := d.DeadLetter(t.Context(), []*broadway.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	return dead
}

// all is what is in a queue.
func all(t *testing.T, q *memory.Queue) (list []*broadway.Message) {
	t.Helper()
	p := memory.New(memory.Config{Queue: q})
	for _, l := range q.Lag() {
		for left := l.Messages; left > 0; {
			got, err := p.Fetch(t.Context(), broadway.Demand{Messages: int(left), Bytes: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, got...)
			left -= int64(len(got))
		}
	}
	return list
}

func TestReplayPutsLettersBack(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	for name, c := range map[string]struct {
		replay     acknowledgers.Replay
		want       acknowledgers.Replayed
		left, back int
	}{
		"all but references":  {acknowledgers.Replay{}, acknowledgers.Replayed{Back: 90, Rest: 10, References: 10}, 10, 90},
		"references are gone": {acknowledgers.Replay{Rest: acknowledgers.PassOver}, acknowledgers.Replayed{Back: 90, Rest: 10, References: 10}, 0, 90},
		"some": {acknowledgers.Replay{Match: func(l acknowledgers.Letter) bool {
			return l.Attempts == 1 && strings.HasSuffix(l.ID, "3") && !l.Time.IsZero()
		}},
			acknowledgers.Replayed{Back: 10, Rest: 90, References: 10}, 90, 10},
		"a few":      {acknowledgers.Replay{Limit: 7}, acknowledgers.Replayed{Back: 7}, 93, 7},
		"to nowhere": {acknowledgers.Replay{Destination: func(acknowledgers.Letter) string { return "" }}, acknowledgers.Replayed{Rest: 100, References: 10}, 100, 0},
		"by stage":   {acknowledgers.Replay{Match: func(l acknowledgers.Letter) bool { return l.Stage != "processor" }}, acknowledgers.Replayed{Rest: 100, References: 10}, 100, 0},
		"of one origin": {acknowledgers.Replay{Match: func(l acknowledgers.Letter) bool { return l.Origin == "elsewhere" }},
			acknowledgers.Replayed{Rest: 100, References: 10}, 100, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			dead := drawer(t, 100, func(int) string { return "work" })
			work := memory.NewQueue(memory.QueueConfig{Name: "work"})
			c.replay.Source, c.replay.Publisher, c.replay.Back, c.replay.Logger = memory.New(memory.Config{Queue: dead}), work, dead, quiet
			got, err := c.replay.Run(t.Context())
			if err != nil || c.replay.Limit == 0 && got != c.want || got.Back != c.want.Back {
				t.Fatalf("%s: %+v, %v", name, got, err)
			}
			left, back := all(t, dead), all(t, work)
			if len(left) != c.left || len(back) != c.back {
				t.Errorf("%s: %d are left and %d are back", name, len(left), len(back))
			}
			for _, m := range back {
				e := m.Metadata.(broadway.Enveloped)
				if h := e.MessageHeaders(); len(h) != 1 || h[0].Key != "mine" || !bytes.Equal(h[0].Value, []byte{0xff}) || string(e.MessageKey()) != "k" {
					t.Errorf("%s: put back with %q", name, h)
				}
			}
			for _, m := range left {
				if l := acknowledgers.ReadLetter(m); l.Origin != "work" || l.Reference != strings.HasSuffix(l.ID, "9") {
					t.Errorf("%s: left as %+v", name, l)
				}
			}
		})
	}
}

// What fails again while the replay runs does not keep it running.
func TestReplayEndsThoughLettersComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := drawer(t, 9, func(int) string { return "work" })
		work := memory.NewQueue(memory.QueueConfig{Name: "work"})
		stop := startFailing(t, work, &acknowledgers.DeadLetters{Publisher: dead})
		got, err := acknowledgers.Replay{Source: memory.New(memory.Config{Queue: dead}), Publisher: work, Logger: slog.New(slog.DiscardHandler)}.Run(t.Context())
		if err != nil || got.Back < 9 {
			t.Errorf("%+v, %v", got, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if n := len(all(t, dead)); n != 9 {
			t.Errorf("%d letters after 9 have failed again", n)
		}
	})
}

// What cannot be put back stays, whatever the reason.
func TestReplayLosesNothing(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	synctest.Test(t, func(t *testing.T) {
		dead := drawer(t, 20, func(int) string { return "work" })
		away := &shelf{refuse: func([]broadway.Record) error { return io.ErrClosedPipe }}
		replay := acknowledgers.Replay{Source: memory.New(memory.Config{Queue: dead}), Publisher: away, Back: dead, Logger: quiet}
		if got, err := replay.Run(t.Context()); !errors.Is(err, io.ErrClosedPipe) || got.Back != 0 {
			t.Errorf("to a broker that is away: %+v, %v", got, err)
		}
		if n := len(all(t, dead)); n != 20 {
			t.Errorf("%d of 20 are left", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dead := drawer(t, 9, func(int) string { return "work" })
		narrow := &shelf{}
		narrow.refuse = func(records []broadway.Record) error {
			errs := make([]error, len(records))
			for i, r := range records {
				if string(r.Payload) == "5" {
					errs[i] = broadway.ErrTooLarge
				}
			}
			if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
				return &broadway.PublishError{Errs: errs}
			}
			return nil
		}
		got, err := acknowledgers.Replay{Source: memory.New(memory.Config{Queue: dead}), Publisher: narrow, Back: dead, Logger: quiet}.Run(t.Context())
		if err != nil || got != (acknowledgers.Replayed{Back: 8, Rest: 1, TooLarge: 1}) {
			t.Errorf("one that is too large by now: %+v, %v", got, err)
		}
		if n := len(all(t, dead)); n != 1 {
			t.Errorf("%d are left", n)
		}
	})
	synctest.Test(t, func(t *testing.T) { // for ever, and over an outage
		dead := drawer(t, 9, func(int) string { return "work" })
		start, work := time.Now(), memory.NewQueue(memory.QueueConfig{Name: "work"})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		flaky := publishFunc(func(ctx context.Context, records ...broadway.Record) error {
			if time.Since(start) < time.Hour {
				return io.ErrClosedPipe
			}
			return work.Publish(ctx, records...)
		})
		got, err := acknowledgers.Replay{Source: memory.New(memory.Config{Queue: dead}), Publisher: flaky, Follow: true, Logger: quiet}.Run(ctx)
		if err != nil || got.Back != 9 || time.Since(start) < 2*time.Hour {
			t.Errorf("over an outage: %+v, %v", got, err)
		}
	})
}

type publishFunc func(context.Context, ...broadway.Record) error

func (f publishFunc) Publish(ctx context.Context, r ...broadway.Record) error { return f(ctx, r...) }
func (f publishFunc) Close() error                                            { return nil }

func TestReplayNamesWhatItNeeds(t *testing.T) {
	if _, err := (acknowledgers.Replay{Source: memory.New(memory.Config{})}).Run(t.Context()); err == nil {
		t.Error("it runs without a Publisher")
	}
	if _, err := (acknowledgers.Replay{Publisher: &shelf{}}).Run(t.Context()); err == nil {
		t.Error("it runs without a Source")
	}
}

// A connection that breaks while letters are published makes them come again. They
// are not more letters than before: the replay ends, and loses none.
func TestReplayEndsOverCutConnections(t *testing.T) {
	for _, limit := range []int64{0, 150} {
		synctest.Test(t, func(t *testing.T) {
			dead := drawer(t, 200, func(int) string { return "work" })
			source, work := memory.New(memory.Config{Queue: dead}), memory.NewQueue(memory.QueueConfig{Name: "work"})
			var cuts atomic.Int64
			cutting := publishFunc(func(ctx context.Context, records ...broadway.Record) error {
				if cuts.Add(1) <= 5 {
					source.Cut() // so that what this call confirms cannot be settled
				}
				return work.Publish(ctx, records...)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			got, err := acknowledgers.Replay{
				Source: source, Publisher: cutting, Limit: limit, Rest: acknowledgers.PassOver, Logger: slog.New(slog.DiscardHandler),
			}.Run(ctx)
			if err != nil || ctx.Err() != nil || got.Back < cmp.Or(limit, 180) {
				t.Errorf("limit %d: %+v, %v, %v", limit, got, err, ctx.Err())
			}
			there := map[string]bool{}
			for _, m := range append(all(t, dead), all(t, work)...) {
				there[string(m.Payload)] = true
			}
			delete(there, string(make([]byte, acknowledgers.MaxReferencePayload))) // references look alike
			if len(there) != 180 {
				t.Errorf("%d of 180 letters are left, or back", len(there))
			}
		})
	}
}
