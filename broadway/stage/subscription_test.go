package stage_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// "Queued events with lost producer": the cancel of a subscription in a
// producer-consumer is queued behind the events that it has not handled.
func TestCancelComesBehindUnhandledEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, mid, rec := &counter{}, &recorder{}, &recorder{}
		p, s, c := producer(t, src.fetch), middle(t, mid.double), consumer(t, rec.consume)
		l := subscribe(t, s, p, 100, 50)
		r := start(t, p, s, c)
		l.Cancel()
		synctest.Wait()
		if closed(l.Done()) || mid.chunks() != nil {
			t.Fatal("it did not wait for demand")
		}
		subscribe(t, c, s, 100, 50)
		<-l.Done()
		wantChunks(t, "middle", mid.chunks(), [][]int{seq(0, 50), seq(50, 100)})
		synctest.Wait()
		wantInts(t, "events", rec.events(), twice(seq(0, 100)))
		wantInts(t, "asks", src.asked(), []int{100})
		r.stop()
	})
}

// Without unhandled events a cancel needs no demand.
func TestCancelWithoutUnhandledEventsIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := producer(t, (&silent{}).fetch), middle(t, (&recorder{}).double)
		l := subscribe(t, s, p, 100, 50)
		r := start(t, p, s)
		l.Cancel()
		l.Cancel()
		<-l.Done()
		r.stop()
	})
}

// S-025, cancelled: the consumer goes on, and may subscribe anew.
func TestConsumerSurvivesItsSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, rec := &counter{limit: 100}, &recorder{}
		p, c := producer(t, src.fetch), consumer(t, rec.slow)
		r := start(t, p, c)
		for range 3 {
			l := subscribe(t, c, p, 10, 5)
			time.Sleep(1500 * time.Millisecond)
			l.Cancel()
			<-l.Done()
		}
		n := len(rec.events())
		time.Sleep(time.Minute)
		if len(rec.events()) != n {
			t.Fatal("it got events without a subscription")
		}
		subscribe(t, c, p, 10, 5)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "events", rec.events(), seq(0, 100))
	})
}

// Stages without a subscription end with the last producer: they have nothing to
// wait for.
func TestStagesWithoutASubscriptionEndWithTheProducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, c := producer(t, nil), middle(t, (&recorder{}).double), consumer(t, (&recorder{}).consume)
		r := start(t, p, s, c)
		l := subscribe(t, c, p, 10, 5)
		l.Cancel()
		<-l.Done()
		if r.ended() {
			t.Fatal("Run returned before the producer ended")
		}
		p.Close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// S-025, normal: the subscription ends with its producer, others go on, and the
// consumer ends with the last producer.
func TestConsumerSurvivesOneOfItsProducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short, long, rec := &counter{limit: 10}, &counter{limit: 20}, &recorder{}
		p, q, c := producer(t, short.fetch), producer(t, long.fetch), consumer(t, rec.slow)
		first := subscribe(t, c, p, 2, 1)
		last := subscribe(t, c, q, 2, 1)
		r := start(t, p, q, c)
		<-first.Done()
		if closed(last.Done()) {
			t.Fatal("both ended at once")
		}
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		got := rec.events()
		slices.Sort(got)
		want := append(seq(0, 10), seq(0, 20)...)
		slices.Sort(want)
		wantInts(t, "events", got, want)
	})
}

// S-006: a consumer that stands still holds up a broadcast; its cancel releases it.
func TestBroadcastRunsAtThePaceOfTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, fast, slow := &counter{limit: 100}, &recorder{}, &recorder{}
		release := make(chan struct{})
		p := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Broadcast[int]()})
		c := consumer(t, fast.consume)
		d := consumer(t, func(_ context.Context, events []int) error {
			slow.record(events)
			<-release
			return nil
		})
		l := subscribe(t, d, p, 10, 0)
		subscribe(t, c, p, 20, 0)
		r := start(t, p, c, d)
		wantChunks(t, "fast", fast.chunks(), [][]int{seq(0, 10)})
		wantChunks(t, "slow", slow.chunks(), [][]int{seq(0, 10)})
		wantInts(t, "asks", src.asked(), []int{10})
		l.Cancel()
		synctest.Wait()
		wantInts(t, "fast, after the cancel", fast.events(), seq(0, 100))
		if closed(l.Done()) {
			t.Fatal("the subscription is over although its handler runs")
		}
		close(release)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		wantInts(t, "slow", slow.events(), seq(0, 10))
	})
}

// S-005
func TestBroadcastHandsTheSameToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, one, two := &counter{limit: 40}, &recorder{}, &recorder{}
		p := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Broadcast[int]()})
		c, d := consumer(t, one.consume), consumer(t, two.consume)
		subscribe(t, c, p, 10, 0)
		subscribe(t, d, p, 20, 0)
		run(t, p, c, d)
		want := [][]int{seq(0, 10), seq(10, 20), seq(20, 30), seq(30, 40)}
		wantChunks(t, "one", one.chunks(), want)
		wantChunks(t, "two", two.chunks(), want)
		wantInts(t, "asks", src.asked(), repeat(10, 4))
	})
}

// S-028: each gets what its selector accepts, and one that accepts nothing does
// not hold up the others.
func TestSelectorsOfABroadcast(t *testing.T) {
	src, even, none, all := &counter{limit: 1000}, &recorder{}, &recorder{}, &recorder{}
	p := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Broadcast[int]()})
	a, b, c := consumer(t, even.consume), consumer(t, none.consume), consumer(t, all.consume)
	for _, s := range []struct {
		by      *stage.Consumer[int]
		select_ func(int) bool
	}{
		{a, func(n int) bool { return n%2 == 0 }},
		{b, func(int) bool { return false }},
		{c, func(int) bool { return true }},
	} {
		if _, err := stage.SubscribeWhere(s.by, p, stage.Demand(10), s.select_); err != nil {
			t.Fatal(err)
		}
	}
	run(t, p, a, b, c)
	var want []int
	for i := 0; i < 1000; i += 2 {
		want = append(want, i)
	}
	wantInts(t, "even", even.events(), want)
	wantInts(t, "none", none.events(), nil)
	wantInts(t, "all", all.events(), seq(0, 1000))
}

// One blocked partition of eight does not stall the others until its buffer is
// full; with a drop policy, not then either.
func TestBlockedPartitionDoesNotStallTheOthers(t *testing.T) {
	const partitions, buffer = 8, 50
	cases := []struct {
		name     string
		overflow stage.Overflow
		limit    int
		dropped  int64
	}{
		// Of the 400 for partition 0, 10 are in its consumer's hands.
		{"within its buffer", stage.Block, (buffer + 10) * partitions, 0},
		{"drop first", stage.DropFirst, 400 * partitions, 400 - buffer - 10},
		{"drop last", stage.DropLast, 400 * partitions, 400 - buffer - 10},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &counter{limit: tc.limit}
				p := producer(t, func(ctx context.Context, demand int) ([]int, error) {
					// Only what is blocked falls behind.
					time.Sleep(time.Second)
					return src.fetch(ctx, demand)
				}, stage.Options[int]{
					Dispatcher: stage.Partition(partitions, mod), Buffer: buffer, Overflow: tc.overflow,
				})
				stages, recs := []stage.Stage{p}, make([]*recorder, partitions)
				release := make(chan struct{})
				for i := range partitions {
					recs[i] = &recorder{}
					c := consumer(t, func(ctx context.Context, events []int) error {
						recs[i].record(events)
						if i == 0 {
							<-release
						}
						return nil
					})
					if _, err := stage.SubscribePartition(c, p, stage.Demand(10), i); err != nil {
						t.Fatal(err)
					}
					stages = append(stages, c)
				}
				r := start(t, stages...)
				time.Sleep(time.Hour)
				for i := 1; i < partitions; i++ {
					if n := len(recs[i].events()); n != tc.limit/partitions {
						t.Errorf("partition %d has %d of its %d events", i, n, tc.limit/partitions)
					}
				}
				if n := len(recs[0].chunks()); n != 1 {
					t.Errorf("the blocked partition has %d chunks, want its first", n)
				}
				close(release)
				if err := r.wait(); err != nil {
					t.Fatal(err)
				}
				if n := p.Dropped(); n != tc.dropped {
					t.Errorf("%d dropped, want %d", n, tc.dropped)
				}
				if n := len(recs[0].events()); n != tc.limit/partitions-int(tc.dropped) {
					t.Errorf("partition 0 has %d events in the end", n)
				}
			})
		})
	}
}

// With Block, a partition whose buffer is full makes the source wait, as its bound
// demands, and everything flows once it is released.
func TestFullPartitionMakesTheSourceWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &counter{limit: 1000}
		p := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Partition(2, mod), Buffer: 20})
		zero, one, release := &recorder{}, &recorder{}, make(chan struct{})
		c := consumer(t, func(ctx context.Context, events []int) error {
			<-release
			return zero.consume(ctx, events)
		})
		d := consumer(t, one.consume)
		for i, by := range []*stage.Consumer[int]{c, d} {
			if _, err := stage.SubscribePartition(by, p, stage.Demand(10), i); err != nil {
				t.Fatal(err)
			}
		}
		r := start(t, p, c, d)
		if n := p.Buffered(); n != 20 {
			t.Fatalf("%d buffered, want 20", n)
		}
		if n := len(src.asked()); n > 20 {
			t.Fatalf("%d fetches although the source must wait", n)
		}
		close(release)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if len(zero.events()) != 500 || len(one.events()) != 500 {
			t.Fatalf("%d and %d events, want 500 each", len(zero.events()), len(one.events()))
		}
		if !slices.IsSorted(zero.events()) || !slices.IsSorted(one.events()) {
			t.Fatal("a partition is out of order")
		}
	})
}

func TestSubscribeRefusesWhatCannotBe(t *testing.T) {
	type sub = func() error
	src, rec := &counter{}, &recorder{}
	plain := producer(t, src.fetch)
	wide := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Broadcast[int]()})
	parted := producer(t, src.fetch, stage.Options[int]{Dispatcher: stage.Partition(2, mod)})
	c := consumer(t, rec.consume)
	one, two := middle(t, rec.double), middle(t, rec.double)
	demand := stage.Demand(10)
	yes := func(int) bool { return true }
	first := func(_ *stage.Link, err error) error { return err }

	if err := errors.Join(
		first(stage.Subscribe(c, wide, demand)),
		first(stage.SubscribePartition(c, parted, demand, 1)),
		first(stage.Subscribe(two, one, demand)),
		// More than one to a stage that dispatches by demand is as good as any.
		first(stage.Subscribe(c, plain, demand)),
		first(stage.Subscribe(c, plain, demand)),
	); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		do   sub
		want error
	}{
		"broadcast, twice": {
			func() error { return first(stage.Subscribe(c, wide, demand)) }, stage.ErrAlreadySubscribed,
		},
		"partition, taken": {
			func() error { return first(stage.SubscribePartition(c, parted, demand, 1)) }, stage.ErrPartitionTaken,
		},
		"partition, too high": {
			func() error { return first(stage.SubscribePartition(c, parted, demand, 2)) }, nil,
		},
		"partition, negative": {
			func() error { return first(stage.SubscribePartition(c, parted, demand, -1)) }, nil,
		},
		"partition, not said": {
			func() error { return first(stage.Subscribe(c, parted, demand)) }, nil,
		},
		"partition of a stage without": {
			func() error { return first(stage.SubscribePartition(c, plain, demand, 0)) }, nil,
		},
		"selector, not broadcast": {
			func() error { return first(stage.SubscribeWhere(c, plain, demand, yes)) }, nil,
		},
		"selector, nil": {
			func() error { return first(stage.SubscribeWhere(one, wide, demand, nil)) }, nil,
		},
		"itself": {
			func() error { return first(stage.Subscribe(one, one, demand)) }, stage.ErrCycle,
		},
		"itself, through another": {
			func() error { return first(stage.Subscribe(one, two, demand)) }, stage.ErrCycle,
		},
	}
	for name, tc := range cases {
		err := tc.do()
		if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestSubscribeRefusesStagesThatEndedOrRunElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := producer(t, (&counter{limit: 1}).fetch), consumer(t, (&recorder{}).consume)
		q, d := producer(t, (&silent{}).fetch), consumer(t, (&recorder{}).consume)
		subscribe(t, c, p, 1, 0)
		r := start(t, p, q, c)
		if _, err := stage.Subscribe(d, q, stage.Demand(1)); !errors.Is(err, stage.ErrOtherRun) {
			t.Errorf("subscribed by a stage that does not run: %v", err)
		}
		if _, err := stage.Subscribe(c, p, stage.Demand(1)); !errors.Is(err, stage.ErrEnded) {
			t.Errorf("subscribed to a producer that ended: %v", err)
		}
		r.stop()
		if _, err := stage.Subscribe(c, q, stage.Demand(1)); !errors.Is(err, stage.ErrEnded) {
			t.Errorf("subscribed after Run: %v", err)
		}
	})
}

// N:M, and subscriptions that come and go while events flow: each event is handled
// once, whatever the interleaving.
func TestSubscribeAndCancelWhileEventsFlow(t *testing.T) {
	const producers, consumers, each = 3, 4, 20_000
	var stages []stage.Stage
	var sources []*stage.Producer[int]
	var mu sync.Mutex
	seen := map[int]int{}
	for i := range producers {
		src := &counter{limit: each}
		p := producer(t, func(ctx context.Context, demand int) ([]int, error) {
			events, err := src.fetch(ctx, demand)
			for j := range events {
				events[j] = events[j]*producers + i
			}
			return events, err
		})
		sources, stages = append(sources, p), append(stages, p)
	}
	var sinks []*stage.Consumer[int]
	for range consumers {
		c := consumer(t, func(_ context.Context, events []int) error {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				seen[e]++
			}
			return nil
		})
		sinks, stages = append(sinks, c), append(stages, c)
	}
	// One of them stays, so that the sources come to their end.
	for _, p := range sources {
		subscribe(t, sinks[0], p, 20, 10)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, c := range sinks[1:] {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				p := sources[(n+i)%producers]
				l, err := stage.Subscribe(c, p, stage.Demand(1+(n+i)%50))
				if err != nil {
					if !errors.Is(err, stage.ErrEnded) && !errors.Is(err, stage.ErrOtherRun) {
						t.Error(err)
						return
					}
					continue
				}
				l.Cancel()
				<-l.Done()
			}
		})
	}
	err := stage.Run(t.Context(), stages...)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != producers*each {
		t.Fatalf("%d different events, want %d", len(seen), producers*each)
	}
	for e, n := range seen {
		if n != 1 {
			t.Fatalf("event %d was handled %d times", e, n)
		}
	}
}
