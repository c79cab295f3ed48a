package stage_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// The asks and the chunks of one subscription, exactly. The S-numbers in these
// files are those of GenStage's own tests of the same behaviour.
func TestAsksAndChunksOfOneSubscription(t *testing.T) {
	cases := []struct {
		name         string
		subscription stage.Subscription
		limit        int
		asks, chunks []int
	}{
		// S-001
		{"default, 1000 and 500", stage.DefaultSubscription(), 2000,
			[]int{1000, 500, 500}, []int{500, 500, 500, 500}},
		// S-002
		{"max 100, min 80", stage.Subscription{MaxDemand: 100, MinDemand: 80}, 160,
			[]int{100, 20, 20, 20}, repeat(20, 8)},
		// S-003
		{"max 100, min 20", stage.Subscription{MaxDemand: 100, MinDemand: 20}, 360,
			[]int{100, 80, 100, 80}, []int{80, 20, 80, 80, 20, 80}},
		// S-004
		{"max 1, min 0", stage.Subscription{MaxDemand: 1}, 4,
			repeat(1, 4), repeat(1, 4)},
		{"max 10, min 0", stage.Subscription{MaxDemand: 10}, 40,
			repeat(10, 4), repeat(10, 4)},
		{"max 10, half of it", stage.Demand(10), 25,
			[]int{10, 5, 5, 5}, repeat(5, 5)},
		{"a source that ends within an ask", stage.Demand(10), 13,
			[]int{10, 5}, []int{5, 5, 3}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			src, rec := &counter{limit: tc.limit}, &recorder{}
			p, c := producer(t, src.fetch), consumer(t, rec.consume)
			if _, err := stage.Subscribe(c, p, tc.subscription); err != nil {
				t.Fatal(err)
			}
			run(t, p, c)
			wantInts(t, "asks", src.asked(), tc.asks)
			wantInts(t, "chunk sizes", rec.sizes(), tc.chunks)
			wantInts(t, "events", rec.events(), seq(0, tc.limit))
		})
	}
}

// A fetch that returns less than an ask is called again for the rest of it, and
// the consumer asks by what it handled, not by how it came.
func TestShortFetchIsAskedForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 20}, &recorder{}
		var asks []int
		p := producer(t, func(ctx context.Context, demand int) ([]int, error) {
			asks = append(asks, demand)
			return src.fetch(ctx, min(demand, 4))
		})
		c := consumer(t, rec.slow)
		subscribe(t, c, p, 10, 5)
		run(t, p, c)
		// 10 are asked for and come as 4, 4, 2. After 4 and 4 are handled, 2 are
		// left, so 8 are asked for: they come as 4 and 4. And so on.
		wantInts(t, "calls", asks, []int{10, 6, 2, 8, 4, 6})
		wantInts(t, "chunk sizes", rec.sizes(), []int{4, 4, 2, 4, 4, 2})
	})
}

func TestNothingIsFetchedWithoutDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &counter{}
		p, s := producer(t, src.fetch), middle(t, (&recorder{}).double)
		block := make(chan struct{})
		c := consumer(t, func(context.Context, []int) error { <-block; return nil })
		r := start(t, p, s, c)
		if asks := src.asked(); asks != nil {
			t.Fatalf("asked %v without a subscriber", asks)
		}
		subscribe(t, s, p, 10, 5)
		synctest.Wait()
		wantInts(t, "asks for a stage that nobody asks", src.asked(), []int{10})
		subscribe(t, c, s, 4, 2)
		synctest.Wait()
		// The middle handled 10 in two chunks and asked for 5 after each. Its
		// consumer took 4 of the 20 that came of it and blocks.
		wantInts(t, "asks while the consumer blocks", src.asked(), []int{10, 5, 5})
		close(block)
		r.stop()
	})
}

// S-008: the chunks and how they are split anew, through a stage that doubles. The
// consumer is slower than the rest, so what it asks for and when is exact too.
func TestChunksThroughAProducerConsumer(t *testing.T) {
	cases := []struct {
		name           string
		minDemand      int
		consumerFirst  bool
		middle         [][]int
		consumed       [][]int
		asked          []int
		consumedChunks int
	}{
		{"80 % min demand", 80, false,
			[][]int{seq(0, 20), seq(20, 40), seq(40, 60), seq(60, 80), seq(80, 100), seq(100, 120), seq(120, 140)},
			[][]int{
				twice(seq(0, 20)), twice(seq(20, 40)), twice(seq(40, 50)),
				twice(seq(50, 75)), twice(seq(75, 90)),
				twice(seq(90, 100)), twice(seq(100, 120)), twice(seq(120, 125)), twice(seq(125, 140)),
			},
			[]int{100, 20, 20, 20, 20, 20}, 9},
		{"20 % min demand", 20, false,
			[][]int{seq(0, 80), seq(80, 100), seq(100, 180)},
			[][]int{
				twice(seq(0, 25)), twice(seq(25, 50)), twice(seq(50, 75)), twice(seq(75, 100)),
				twice(seq(100, 125)),
			},
			[]int{100, 80}, 5},
		// S-009
		{"80 % min demand, the consumer subscribes first", 80, true,
			[][]int{seq(0, 20), seq(20, 40), seq(40, 60), seq(60, 80), seq(80, 100), seq(100, 120), seq(120, 140)},
			[][]int{
				twice(seq(0, 20)), twice(seq(20, 40)), twice(seq(40, 50)),
				twice(seq(50, 75)), twice(seq(75, 90)),
				twice(seq(90, 100)), twice(seq(100, 120)), twice(seq(120, 125)), twice(seq(125, 140)),
			},
			[]int{100, 20, 20, 20, 20, 20}, 9},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, mid, rec := &counter{}, &recorder{}, &recorder{}
				p, s, c := producer(t, src.fetch), middle(t, mid.double), consumer(t, rec.slow)
				subscriptions := []func(){
					func() { subscribe(t, s, p, 100, tc.minDemand) },
					func() { subscribe(t, c, s, 100, 50) },
				}
				if tc.consumerFirst {
					subscriptions[0], subscriptions[1] = subscriptions[1], subscriptions[0]
				}
				for _, f := range subscriptions {
					f()
				}
				r := start(t, p, s, c)
				for len(rec.chunks()) < tc.consumedChunks {
					rec.rest()
				}
				r.stop()
				wantChunks(t, "middle", mid.chunks()[:len(tc.middle)], tc.middle)
				wantChunks(t, "consumer", rec.chunks()[:tc.consumedChunks], tc.consumed)
				wantInts(t, "asks", src.asked()[:len(tc.asked)], tc.asked)
			})
		})
	}
}

// S-010
func TestStageThatDiscardsEverythingKeepsAsking(t *testing.T) {
	src, mid, rec := &counter{limit: 1020}, &recorder{}, &recorder{}
	p := producer(t, src.fetch)
	s := middle(t, func(_ context.Context, events []int) ([]int, error) {
		mid.record(events)
		return nil, nil
	})
	c := consumer(t, rec.consume)
	subscribe(t, s, p, 100, 80)
	subscribe(t, c, s, 100, 50)
	run(t, p, s, c)
	wantInts(t, "chunk sizes", mid.sizes(), repeat(20, 51))
	wantInts(t, "events handed on", rec.events(), nil)
}

// S-011
func TestStageStopsAskingWhenItsConsumerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, mid, rec := &counter{}, &recorder{}, &recorder{}
		p := producer(t, src.fetch)
		s := middle(t, func(_ context.Context, events []int) ([]int, error) {
			mid.record(events)
			return events, nil
		})
		c := consumer(t, func(ctx context.Context, events []int) error {
			rec.record(events)
			<-ctx.Done()
			return ctx.Err()
		})
		subscribe(t, s, p, 10, 8)
		subscribe(t, c, s, 10, 5)
		r := start(t, p, s, c)
		wantChunks(t, "middle", mid.chunks(), [][]int{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}})
		wantChunks(t, "consumer", rec.chunks(), [][]int{{0, 1}})
		wantInts(t, "asks", src.asked(), []int{10, 2, 2, 2, 2, 2})
		r.stop()
	})
}

// S-012
func TestPausedProducerKeepsAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 5}, &recorder{}
		p := producer(t, src.fetch)
		p.Pause()
		p.Pause()
		one, two := consumer(t, rec.slow), consumer(t, rec.slow)
		subscribe(t, one, p, 2, 1)
		subscribe(t, two, p, 2, 1)
		r := start(t, p, one, two)
		if asks := src.asked(); asks != nil {
			t.Fatalf("fetched %v while paused", asks)
		}
		p.Resume()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		// The asks of two consumers are not added up.
		wantInts(t, "asks", src.asked(), []int{2, 2, 1})
	})
}

// S-012: as above, while it runs.
func TestPauseWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 100}, &recorder{}
		p, c := producer(t, src.fetch), consumer(t, rec.slow)
		subscribe(t, c, p, 4, 0)
		r := start(t, p, c)
		p.Pause()
		rec.rest()
		rec.rest()
		wantInts(t, "events while paused", rec.events(), seq(0, 4))
		p.Resume()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), seq(0, 100))
	})
}

// S-013
func TestEventsEmittedWhilePausedKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		p, c := producer(t, nil), consumer(t, rec.consume)
		subscribe(t, c, p, 10, 5)
		r := start(t, p, c)
		p.Pause()
		for i := range 4 {
			if n, err := p.Emit(t.Context(), []int{i}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		synctest.Wait()
		wantInts(t, "events while paused", rec.events(), nil)
		if n := p.Buffered(); n != 4 {
			t.Fatalf("%d buffered, want 4", n)
		}
		p.Resume()
		p.Close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), seq(0, 4))
	})
}

func TestInvalidDemandIsAnErrorAtOnce(t *testing.T) {
	for _, s := range []stage.Subscription{
		{},
		{MaxDemand: 0, MinDemand: 0},
		{MaxDemand: -1},
		{MaxDemand: 10, MinDemand: 10},
		{MaxDemand: 10, MinDemand: 11},
		{MaxDemand: 10, MinDemand: -1},
		stage.Demand(0),
	} {
		p, c := producer(t, (&counter{}).fetch), consumer(t, (&recorder{}).consume)
		if l, err := stage.Subscribe(c, p, s); err == nil || l != nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}
