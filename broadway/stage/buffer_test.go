package stage_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

func emit(t testing.TB, p *stage.Producer[int], events ...int) {
	t.Helper()
	if n, err := p.Emit(t.Context(), events); n != len(events) || err != nil {
		t.Fatalf("Emit(%v) = %d, %v", events, n, err)
	}
}

// S-015
func TestBufferServesAsksBeforeTheFetchFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 7}, &recorder{}
		p, c := producer(t, src.fetch), consumer(t, rec.consume)
		emit(t, p, -1, -2, -3)
		emit(t, p, -4, -5)
		subscribe(t, c, p, 4, 0)
		run(t, p, c)
		wantChunks(t, "chunks", rec.chunks(), [][]int{{-1, -2, -3, -4}, {-5}, {0, 1, 2}, {3, 4, 5, 6}})
		wantInts(t, "asks", src.asked(), []int{3, 4})
	})
}

// S-016, S-017, S-019: what is dropped is counted and told.
func TestOverflowDropsByChoice(t *testing.T) {
	cases := []struct {
		name     string
		overflow stage.Overflow
		emits    [][]int
		kept     []int
		told     []int
	}{
		{"drop last keeps the first", stage.DropLast, [][]int{{0, 1, 2, 3, 4}, {5, 6, 7}}, seq(0, 5), []int{3}},
		{"drop first keeps the last", stage.DropFirst, [][]int{{0, 1, 2, 3, 4}, {5, 6, 7}}, seq(3, 8), []int{3}},
		{"drop last, all at once", stage.DropLast, [][]int{seq(0, 8)}, seq(0, 5), []int{3}},
		{"drop first, all at once", stage.DropFirst, [][]int{seq(0, 8)}, seq(3, 8), []int{3}},
		{"drop first, more than the buffer", stage.DropFirst, [][]int{seq(0, 3), seq(3, 13)}, seq(8, 13), []int{8}},
		{"drop last, one by one", stage.DropLast, [][]int{seq(0, 4), {4}, {5}, {6}}, seq(0, 5), []int{1, 1}},
		{"drop first, one by one", stage.DropFirst, [][]int{seq(0, 4), {4}, {5}, {6}}, seq(2, 7), []int{1, 1}},
		{"nothing to drop", stage.DropFirst, [][]int{seq(0, 5)}, seq(0, 5), nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var told []int
			p := producer(t, nil, stage.Options[int]{
				Buffer: 5, Overflow: tc.overflow,
				Discarded: func(n int) { told = append(told, n) },
			})
			for _, events := range tc.emits {
				emit(t, p, events...)
			}
			wantInts(t, "told", told, tc.told)
			sum := 0
			for _, n := range told {
				sum += n
			}
			if p.Dropped() != int64(sum) {
				t.Errorf("Dropped() = %d, want %d", p.Dropped(), sum)
			}
			// S-022
			if p.Buffered() != len(tc.kept) {
				t.Errorf("Buffered() = %d, want %d", p.Buffered(), len(tc.kept))
			}
			rec := &recorder{}
			c := consumer(t, rec.consume)
			subscribe(t, c, p, 4, 0)
			p.Close()
			run(t, p, c)
			wantInts(t, "events", rec.events(), tc.kept)
		})
	}
}

func TestEmitBlocksWhileTheBufferIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		p, c := producer(t, nil, stage.Options[int]{Buffer: 5}), consumer(t, rec.consume)
		done := make(chan struct{})
		go func() {
			defer close(done)
			emit(t, p, seq(0, 12)...)
			p.Close()
		}()
		synctest.Wait()
		if closed(done) || p.Buffered() != 5 {
			t.Fatalf("it did not wait with a full buffer: %d are buffered", p.Buffered())
		}
		subscribe(t, c, p, 4, 0)
		synctest.Wait()
		if closed(done) || p.Buffered() != 5 {
			t.Fatalf("it did not fill up after 4 were taken: %d are buffered", p.Buffered())
		}
		r := start(t, p, c)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), seq(0, 12))
	})
}

func TestBlockedEmitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := producer(t, nil, stage.Options[int]{Buffer: 5})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n, err := p.Emit(ctx, seq(0, 8))
		if n != 5 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Emit = %d, %v; want 5 and the deadline", n, err)
		}
	})
}

func TestBlockedEmitEndsWithTheStage(t *testing.T) {
	ends := map[string]func(p *stage.Producer[int], r *running){
		"Close":  func(p *stage.Producer[int], _ *running) { p.Close() },
		"cancel": func(_ *stage.Producer[int], r *running) { r.cancel() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := producer(t, nil, stage.Options[int]{Buffer: 5})
				c := consumer(t, func(ctx context.Context, _ []int) error {
					<-ctx.Done() // takes 1 event and no more
					return ctx.Err()
				})
				subscribe(t, c, p, 1, 0)
				r := start(t, p, c)
				result := make(chan error, 1)
				go func() {
					_, err := p.Emit(context.Background(), seq(0, 8))
					result <- err
				}()
				synctest.Wait()
				end(p, r)
				if err := <-result; !errors.Is(err, stage.ErrEnded) {
					t.Fatalf("Emit returned %v, want ErrEnded", err)
				}
				if _, err := p.Emit(context.Background(), seq(0, 1)); !errors.Is(err, stage.ErrEnded) {
					t.Fatalf("a later Emit returned %v, want ErrEnded", err)
				}
				r.stop()
			})
		})
	}
}

func TestEmitIsRefusedAfterClose(t *testing.T) {
	p := producer(t, nil)
	emit(t, p, 1)
	p.Close()
	if n, err := p.Emit(t.Context(), []int{2}); n != 0 || !errors.Is(err, stage.ErrEnded) {
		t.Fatalf("Emit = %d, %v; want 0 and ErrEnded", n, err)
	}
	if n := p.Buffered(); n != 1 {
		t.Fatalf("%d buffered, want 1", n)
	}
}

// S-024: when Emit returned, its events are with the consumer, before anything
// that the same goroutine does next.
func TestEmittedEventsAreHandedOverWhenEmitReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		p, c := producer(t, nil), consumer(t, rec.consume)
		l := subscribe(t, c, p, 10, 0)
		r := start(t, p, c)
		emit(t, p, 1, 2, 3)
		l.Cancel()
		<-l.Done()
		wantInts(t, "events", rec.events(), []int{1, 2, 3})
		r.stop()
	})
}

// A stage in the middle that makes more of its events than its consumer asks for
// waits before the next chunk, with its buffer full.
func TestMiddleStopsWhileItsBufferIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, mid, rec := &counter{limit: 100}, &recorder{}, &recorder{}
		p := producer(t, src.fetch)
		s := middle(t, func(_ context.Context, events []int) ([]int, error) {
			mid.record(events)
			return slices.Repeat(events, 10), nil
		}, stage.Options[int]{Buffer: 7})
		highest := 0
		c := consumer(t, func(ctx context.Context, events []int) error {
			err := rec.slow(ctx, events)
			highest = max(highest, s.Buffered())
			return err
		})
		subscribe(t, s, p, 20, 10)
		subscribe(t, c, s, 2, 0)
		r := start(t, p, s, c)
		// One chunk of 10 made 100 events: 2 are handed over, 7 held, and the
		// stage waits with the rest in hand.
		wantInts(t, "chunk sizes", mid.sizes(), []int{10})
		if s.Buffered() != 7 {
			t.Fatalf("%d are buffered, want 7", s.Buffered())
		}
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if n := len(rec.events()); n != 1000 || highest != 7 {
			t.Fatalf("%d events, at most %d buffered; want 1000 and 7", n, highest)
		}
	})
}

// What a source brings while it is fetched for a consumer that cancels meanwhile
// is bounded too: the source waits.
func TestFetchedEventsWaitForRoomToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		src, rec := &counter{limit: 20}, &recorder{}
		p := producer(t, func(ctx context.Context, demand int) ([]int, error) {
			<-release
			return src.fetch(ctx, demand)
		}, stage.Options[int]{Buffer: 3})
		c := consumer(t, rec.consume)
		l := subscribe(t, c, p, 10, 0)
		r := start(t, p, c)
		l.Cancel()
		close(release)
		synctest.Wait()
		if p.Buffered() != 3 {
			t.Fatalf("%d are buffered, want 3", p.Buffered())
		}
		subscribe(t, c, p, 10, 0)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), seq(0, 20))
		wantInts(t, "asks", src.asked(), []int{10, 10})
	})
}

func TestInvalidOptionsAreErrorsAtOnce(t *testing.T) {
	fetch := (&counter{}).fetch
	for name, o := range map[string]stage.Options[int]{
		"negative buffer":  {Buffer: -1},
		"unknown overflow": {Overflow: 3},
		"no partitions":    {Dispatcher: stage.Partition(0, func(int) uint64 { return 0 })},
		"no hash":          {Dispatcher: stage.Partition[int](3, nil)},
	} {
		if _, err := stage.NewProducer("p", fetch, o); err == nil {
			t.Errorf("%s: NewProducer accepted it", name)
		}
		if _, err := stage.NewProducerConsumer("m", (&recorder{}).double, o); err == nil {
			t.Errorf("%s: NewProducerConsumer accepted it", name)
		}
	}
	if _, err := stage.NewConsumer[int]("c", nil); err == nil {
		t.Error("NewConsumer accepted no function")
	}
	if _, err := stage.NewProducerConsumer[int, int]("m", nil, stage.Options[int]{}); err == nil {
		t.Error("NewProducerConsumer accepted no function")
	}
}
