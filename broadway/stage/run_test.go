package stage_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

var errBoom = errors.New("boom")

// A chain of all three kinds, that ends by itself, drains: nothing is lost and Run
// returns nil.
func TestRunDrainsWhenTheSourceEnds(t *testing.T) {
	src, rec := &counter{limit: 12_345}, &recorder{}
	p, s, c := producer(t, src.fetch), middle(t, (&recorder{}).double), consumer(t, rec.consume)
	subscribe(t, s, p, 100, 50)
	subscribe(t, c, s, 30, 10)
	run(t, p, s, c)
	wantInts(t, "events", rec.events(), twice(seq(0, 12_345)))
}

// S-025, abnormal: an error of any function ends Run, which names the stage.
func TestRunReturnsTheErrorOfAFunction(t *testing.T) {
	ok := &recorder{}
	fail := func() error { return errBoom }
	cases := map[string]struct {
		fetch  func(context.Context, int) ([]int, error)
		middle func(context.Context, []int) ([]int, error)
		handle func(context.Context, []int) error
		name   string
	}{
		"producer": {
			fetch: func(context.Context, int) ([]int, error) { return []int{1}, fail() },
			name:  "producer",
		},
		"producer-consumer": {
			middle: func(context.Context, []int) ([]int, error) { return nil, fail() },
			name:   "middle",
		},
		"consumer": {
			handle: func(context.Context, []int) error { return fail() },
			name:   "consumer",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.fetch == nil {
				tc.fetch = (&counter{}).fetch
			}
			if tc.middle == nil {
				tc.middle = ok.double
			}
			if tc.handle == nil {
				tc.handle = ok.consume
			}
			p, s, c := producer(t, tc.fetch), middle(t, tc.middle), consumer(t, tc.handle)
			subscribe(t, s, p, 10, 5)
			subscribe(t, c, s, 10, 5)
			err := stage.Run(t.Context(), p, s, c)
			var named *stage.Error
			if !errors.Is(err, errBoom) || !errors.As(err, &named) || named.Stage != tc.name {
				t.Fatalf("Run returned %v, want boom of %q", err, tc.name)
			}
		})
	}
}

func TestRunReturnsPanicsAndGoexit(t *testing.T) {
	cases := map[string]struct {
		handle func(context.Context, []int) error
		check  func(err error) bool
	}{
		"panic": {
			func(context.Context, []int) error { panic("ouch") },
			func(err error) bool {
				var p *stage.PanicError
				return errors.As(err, &p) && p.Value == "ouch" && strings.Contains(string(p.Stack), "run_test.go")
			},
		},
		"panic with an error": {
			func(context.Context, []int) error { panic(errBoom) },
			func(err error) bool { return errors.Is(err, errBoom) },
		},
		"Goexit": {
			func(context.Context, []int) error { runtime.Goexit(); return nil },
			func(err error) bool { return errors.Is(err, stage.ErrGoexit) },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p, c := producer(t, (&counter{}).fetch), consumer(t, tc.handle)
			subscribe(t, c, p, 10, 5)
			if err := stage.Run(t.Context(), p, c); !tc.check(err) {
				t.Fatalf("Run returned %v", err)
			}
		})
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &silent{}
		p := producer(t, src.fetch)
		s := middle(t, (&recorder{}).double)
		c := consumer(t, (&recorder{}).consume)
		subscribe(t, s, p, 10, 5)
		l := subscribe(t, c, s, 10, 5)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errBoom)
		defer cancel()
		if err := stage.Run(ctx, p, s, c); !errors.Is(err, errBoom) {
			t.Fatalf("Run returned %v, want the cause", err)
		}
		if !closed(l.Done()) {
			t.Error("a subscription is not over although Run returned")
		}
	})
}

// A handler that runs while Run is stopped is waited for, and is the last.
func TestRunWaitsForRunningFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{}, &recorder{}
		p := producer(t, src.fetch)
		c := consumer(t, func(_ context.Context, events []int) error {
			time.Sleep(time.Minute) // heeds no context
			rec.record(events)
			return nil
		})
		subscribe(t, c, p, 10, 5)
		r := start(t, p, c)
		r.cancel()
		if r.ended() {
			t.Fatal("Run returned before its function")
		}
		if err := r.wait(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		wantChunks(t, "chunks", rec.chunks(), [][]int{seq(0, 5)})
	})
}

func TestCloseInterruptsFetchAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		p := producer(t, func(ctx context.Context, demand int) ([]int, error) {
			<-ctx.Done()
			return []int{7, 8}, ctx.Err() // what it has at hand
		})
		c := consumer(t, rec.slow)
		subscribe(t, c, p, 10, 9)
		r := start(t, p, c)
		p.Close()
		p.Close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), []int{7, 8})
	})
}

func TestFetchMustKeepItsContract(t *testing.T) {
	cases := map[string]struct {
		fetch func(context.Context, int) ([]int, error)
		want  error
	}{
		"more than asked for": {
			func(_ context.Context, n int) ([]int, error) { return make([]int, n+1), nil }, stage.ErrOverDemand,
		},
		"nothing, again and again": {
			func(context.Context, int) ([]int, error) { return nil, nil }, io.ErrNoProgress,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{}
			p, c := producer(t, tc.fetch), consumer(t, rec.consume)
			subscribe(t, c, p, 10, 5)
			if err := stage.Run(t.Context(), p, c); !errors.Is(err, tc.want) {
				t.Fatalf("Run returned %v, want %v", err, tc.want)
			}
			wantInts(t, "events", rec.events(), nil)
		})
	}
}

// S-030: 10 of as many as there are. Whoever is asked by nobody else ends too.
func TestConsumerThatWantsNoMoreEndsItsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{}, &recorder{}
		p, s := producer(t, src.fetch), middle(t, (&recorder{}).double)
		c := consumer(t, func(ctx context.Context, events []int) error {
			if err := rec.slow(ctx, events); err != nil {
				return err
			}
			if len(rec.events()) >= 10 {
				return stage.ErrStop
			}
			return nil
		})
		waiting := &silent{}
		q := producer(t, waiting.fetch)
		subscribe(t, s, p, 10, 5)
		subscribe(t, c, s, 10, 5)
		subscribe(t, c, q, 10, 5)
		run(t, p, s, q, c)
		wantInts(t, "events", rec.events(), twice(seq(0, 5)))
		wantInts(t, "asks of the blocked one", waiting.asked(), []int{10})
	})
}

// S-030: all of 300 although more is wanted; other consumers go on when one stops.
func TestOthersGoOnWhenOneConsumerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 300}, &recorder{}
		p := producer(t, src.fetch)
		stops := consumer(t, func(_ context.Context, events []int) error { return stage.ErrStop })
		c := consumer(t, rec.slow)
		subscribe(t, c, p, 100, 50)
		subscribe(t, stops, p, 10, 5)
		run(t, p, stops, c)
		// 10 went to the one that stopped and wanted none.
		if n := len(rec.events()); n != 290 {
			t.Fatalf("%d events, want 290", n)
		}
	})
}

// What nobody is there to take is reported, not lost in silence and not waited for.
func TestRunReportsEventsThatNobodyTakes(t *testing.T) {
	t.Run("of a producer", func(t *testing.T) {
		p := producer(t, nil)
		emit(t, p, 1, 2, 3)
		p.Close()
		wantUndelivered(t, stage.Run(t.Context(), p), 3)
	})
	t.Run("of a partition", func(t *testing.T) {
		// The other partition is drained nevertheless.
		synctest.Test(t, func(t *testing.T) {
			rec := &recorder{}
			p := producer(t, nil, stage.Options[int]{Dispatcher: stage.Partition(2, mod)})
			c := consumer(t, rec.slow)
			if _, err := stage.SubscribePartition(c, p, stage.Demand(4), 0); err != nil {
				t.Fatal(err)
			}
			emit(t, p, seq(0, 15)...)
			p.Close()
			wantUndelivered(t, stage.Run(t.Context(), p, c), 7)
			wantInts(t, "events of the other", rec.events(), []int{0, 2, 4, 6, 8, 10, 12, 14})
		})
	})
	t.Run("of a producer-consumer", func(t *testing.T) {
		p, s := producer(t, (&counter{limit: 10}).fetch), middle(t, (&recorder{}).double)
		subscribe(t, s, p, 10, 5)
		wantUndelivered(t, stage.Run(t.Context(), p, s), 10)
	})
}

func wantUndelivered(t *testing.T, err error, n int) {
	t.Helper()
	var u *stage.UndeliveredError
	if !errors.As(err, &u) || u.Events != n {
		t.Fatalf("Run returned %v, want %d undelivered events", err, n)
	}
}

func mod(n int) uint64 { return uint64(n) }

func TestRunRefusesWhatItCannotRun(t *testing.T) {
	newPair := func() (*stage.Producer[int], *stage.Consumer[int]) {
		p, c := producer(t, (&counter{limit: 1}).fetch), consumer(t, (&recorder{}).consume)
		subscribe(t, c, p, 1, 0)
		return p, c
	}
	p, c := newPair()
	if err := stage.Run(t.Context(), p, c, p); err == nil {
		t.Error("a stage was run twice at once")
	}
	if err := stage.Run(t.Context(), c); !errors.Is(err, stage.ErrOtherRun) {
		t.Errorf("a consumer was run without its producer: %v", err)
	}
	if err := stage.Run(t.Context(), p); !errors.Is(err, stage.ErrOtherRun) {
		t.Errorf("a producer was run without its consumer: %v", err)
	}
	// A refused Run leaves them as they were.
	run(t, p, c)
	if err := stage.Run(t.Context(), p, c); err == nil {
		t.Error("a stage was run again")
	}
	if err := stage.Run(t.Context()); err != nil {
		t.Errorf("running nothing: %v", err)
	}
}
