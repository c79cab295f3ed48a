package stage

import (
	"slices"
	"testing"
)

// bench is an outlet without goroutines: the test is the producer that answers
// asks and the consumers that look into their inlets.
type bench struct {
	t     *testing.T
	out   *outlet[int]
	asked int // what was fetched and not answered
}

func newBench(t *testing.T, d Dispatcher[int], buffer int) *bench {
	t.Helper()
	out, err := Options[int]{Dispatcher: d, Buffer: buffer}.newOutlet()
	if err != nil {
		t.Fatal(err)
	}
	out.owner = &node{name: "bench", parker: newParker()}
	out.pulls = true
	return &bench{t: t, out: out}
}

func (b *bench) join(t terms[int]) *link[int] {
	b.t.Helper()
	in := &inlet[int]{owner: &node{parker: newParker()}}
	l := &link[int]{from: b.out, to: in, terms: t, credit: NewCredit(1 << 30), done: make(chan struct{})}
	l.credit.Reserve(l.credit.Bound())
	if err := b.out.subscribe(l, 0); err != nil {
		b.t.Fatal(err)
	}
	return l
}

// upstream fetches every ask that waits and compares their sizes.
func (b *bench) upstream(want ...int) {
	b.t.Helper()
	var got []int
	for {
		what, n := b.out.next()
		if what != fetch {
			break
		}
		got = append(got, n)
		// As if it had not answered yet: the asks of this test overlap.
		b.asked += n
		b.out.inflight = b.asked
	}
	if !slices.Equal(got, want) {
		b.t.Fatalf("asked upstream %v, want %v", got, want)
	}
}

// emit answers what was asked for, in part.
func (b *bench) emit(events ...int) {
	b.t.Helper()
	b.asked -= len(events)
	b.out.inflight = len(events)
	if _, err := b.out.emit(nil, events, true); err != nil {
		b.t.Fatal(err)
	}
	b.out.mu.Lock()
	b.out.inflight = max(b.asked, 0)
	b.out.rebalance()
	b.out.mu.Unlock()
}

// got compares what a consumer was handed, in one delivery each.
func (b *bench) got(l *link[int], want ...[]int) {
	b.t.Helper()
	var got [][]int
	for _, d := range l.to.take(nil) {
		got = append(got, d.events)
	}
	if !slices.EqualFunc(got, want, slices.Equal[[]int]) {
		b.t.Fatalf("handed over %v, want %v", got, want)
	}
}

func (b *bench) held(want int) {
	b.t.Helper()
	if got := b.out.held(); got != want {
		b.t.Fatalf("%d held, want %d", got, want)
	}
}

func TestByDemandServesTheMostDemandFirst(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one, two, three := b.join(terms[int]{}), b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 4)
	b.out.ask(two, 2)
	b.out.ask(three, 3)
	b.out.ask(three, 2)
	b.out.ask(two, 4)
	b.upstream(4, 2, 3, 2, 4)
	b.emit(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	b.got(two, []int{1, 2, 3, 4, 5, 6})
	b.got(three, []int{7, 8, 9, 10, 11})
	b.got(one, []int{12, 13, 14, 15})
}

func TestByDemandEqualsTakeTurns(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 3)
	b.out.ask(two, 3)
	b.upstream(3, 3)
	b.emit(1, 2)
	b.got(one, []int{1, 2})
	b.emit(3, 4)
	b.got(two, []int{3, 4})
	b.emit(5, 6)
	b.got(one, []int{5})
	b.got(two, []int{6})
}

func TestByDemandHoldsWhatNobodyAskedFor(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one := b.join(terms[int]{})
	b.out.ask(one, 3)
	b.upstream(3)
	b.emit(1)
	b.got(one, []int{1})
	b.out.ask(one, 3)
	b.upstream(3)
	b.emit(2, 3, 4, 5, 6, 7, 8)
	b.got(one, []int{2, 3, 4, 5, 6})
	b.held(2)
	// What is held comes first, and is not asked for.
	b.out.ask(one, 3)
	b.got(one, []int{7, 8})
	b.upstream(1)
}

func TestByDemandReusesTheDemandOfACancelledConsumer(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one := b.join(terms[int]{})
	b.out.ask(one, 10)
	b.upstream(10)
	b.out.cancel(one, false)
	two := b.join(terms[int]{})
	b.out.ask(two, 5)
	b.upstream() // of the 10
	b.out.ask(two, 7)
	b.upstream(2) // 5 of the 10, and 2 more
	b.emit(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	b.got(two, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
}

func TestByDemandHandsTheShareOfACancelledConsumerToTheRest(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 3)
	b.out.ask(two, 3)
	b.upstream(3, 3)
	b.out.cancel(one, false)
	b.emit(1, 2, 3, 4, 5)
	b.got(two, []int{1, 2, 3})
	b.held(2)
	b.out.ask(two, 4) // 2 are held, 1 is on its way
	b.got(two, []int{4, 5})
	b.upstream(1)
}

// An ask that nobody fetched for is simply taken back.
func TestCancelTakesBackAsksThatWereNotFetched(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 4)
	b.out.ask(two, 6)
	b.out.cancel(two, false)
	b.upstream(4)
}

// S-005, S-007
func TestBroadcastAsksForTheLeastDemand(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 3)
	b.upstream()
	b.out.ask(two, 2)
	b.upstream(2)
	b.emit(1, 2)
	b.got(one, []int{1, 2})
	b.got(two, []int{1, 2})
	b.out.ask(two, 2)
	b.upstream(1)
	b.emit(3, 4)
	b.got(one, []int{3})
	b.got(two, []int{3})
	b.held(1)
	b.emit(5)
	b.got(one)
	b.got(two)
	b.held(2)
}

// S-028: a late subscriber sees no event that was handed on before it asked, and
// the others wait for it.
func TestBroadcastWaitsForALateSubscriber(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	one := b.join(terms[int]{})
	b.out.ask(one, 10)
	b.upstream(10)
	b.emit(1, 2, 3)
	b.got(one, []int{1, 2, 3})
	late := b.join(terms[int]{})
	b.emit(4, 5)
	b.got(one)
	b.out.ask(late, 20)
	b.upstream() // 7 are common: 2 are held, 5 on their way
	b.got(one, []int{4, 5})
	b.got(late, []int{4, 5})
	b.emit(6, 7, 8, 9, 10)
	b.got(one, []int{6, 7, 8, 9, 10})
	b.got(late, []int{6, 7, 8, 9, 10})
}

// S-006, S-028
func TestBroadcastGoesOnWhenTheSlowestCancels(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 10)
	b.upstream()
	b.out.cancel(two, false)
	b.upstream(10)
	b.out.ask(one, 10)
	b.upstream(10)
}

func TestBroadcastHandsOverWhatIsHeldWhenTheSlowestCancels(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	one := b.join(terms[int]{})
	b.out.ask(one, 10)
	b.upstream(10)
	two := b.join(terms[int]{})
	b.emit(1, 2, 3)
	b.got(one)
	b.out.cancel(two, false)
	b.got(one, []int{1, 2, 3})
}

// S-028
func TestBroadcastReusesEventsForAnotherSubscriber(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	one := b.join(terms[int]{})
	b.out.ask(one, 10)
	b.upstream(10)
	b.out.cancel(one, false)
	two := b.join(terms[int]{})
	b.out.ask(two, 5)
	b.upstream()
	b.emit(1, 2, 3)
	b.got(two, []int{1, 2, 3})
}

// S-028: a rejected event does not count, and is asked for anew.
func TestBroadcastAsksAnewForRejectedEvents(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	odd := b.join(terms[int]{selector: func(n int) bool { return n%2 == 1 }})
	small := b.join(terms[int]{selector: func(n int) bool { return n < 4 }})
	b.out.ask(odd, 4)
	b.out.ask(small, 4)
	b.upstream(4)
	b.emit(1, 2, 3, 4)
	b.got(odd, []int{1, 3})
	b.got(small, []int{1, 2, 3})
	// They have 2 and 1 of their 4: 1 is common, so 1 is asked for.
	if odd.demand != 2 || small.demand != 1 {
		t.Fatalf("demands are %d and %d, want 2 and 1", odd.demand, small.demand)
	}
	b.upstream(1)
}

// All that is held is looked at, although each look rejects most of it.
func TestBroadcastLooksAtAllThatIsHeld(t *testing.T) {
	b := newBench(t, Broadcast[int](), 100)
	tens := b.join(terms[int]{selector: func(n int) bool { return n%10 == 0 }})
	b.emit(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	b.held(12)
	b.out.ask(tens, 2)
	b.got(tens, []int{10})
	b.held(0)
	b.upstream(1)
}

func even(n int) uint64 { return uint64(n % 2) }

func TestPartitionsGetTheirOwn(t *testing.T) {
	b := newBench(t, Partition(2, even), 100)
	zero, one := b.join(terms[int]{partition: 0}), b.join(terms[int]{partition: 1})
	b.out.ask(zero, 4)
	b.out.ask(one, 4)
	b.upstream(4, 4)
	b.emit(1, 2, 3, 4, 5, 6, 7, 8)
	b.got(zero, []int{2, 4, 6, 8})
	b.got(one, []int{1, 3, 5, 7})
	b.held(0)
}

// What comes for a partition without demand is held, and asked for once more for
// those that have demand.
func TestPartitionsAskOnceMoreForTheOthers(t *testing.T) {
	b := newBench(t, Partition(2, even), 100)
	zero, one := b.join(terms[int]{partition: 0}), b.join(terms[int]{partition: 1})
	b.out.ask(zero, 5)
	b.out.ask(one, 5)
	b.upstream(5, 5)
	b.emit(2, 4, 6, 8, 10, 12, 14)
	b.got(zero, []int{2, 4, 6, 8, 10})
	b.held(2)
	// 3 are on their way; partition 1 still wants 5.
	b.upstream(2)
	b.out.ask(zero, 5)
	b.got(zero, []int{12, 14})
	b.upstream(3)
}

func TestPartitionKeepsEventsForALaterSubscriber(t *testing.T) {
	b := newBench(t, Partition(2, even), 100)
	one := b.join(terms[int]{partition: 1})
	b.out.ask(one, 2)
	b.upstream(2)
	b.emit(2, 4)
	b.held(2)
	zero := b.join(terms[int]{partition: 0})
	b.out.ask(zero, 5)
	b.got(zero, []int{2, 4})
	b.emit(6)
	b.out.cancel(zero, false)
	b.got(zero, []int{6}, nil)
	b.emit(8)
	b.held(1)
	again := b.join(terms[int]{partition: 0})
	b.out.ask(again, 1)
	b.got(again, []int{8})
}

func TestPartitionReusesTheDemandOfACancelledConsumer(t *testing.T) {
	b := newBench(t, Partition(2, even), 100)
	zero := b.join(terms[int]{partition: 0})
	b.out.ask(zero, 10)
	b.upstream(10)
	b.out.cancel(zero, false)
	one := b.join(terms[int]{partition: 1})
	b.out.ask(one, 5)
	b.upstream()
	b.out.ask(one, 7)
	b.upstream(2)
}

// S-012, S-013, for each dispatcher: neither an ask nor an event is handed on while
// paused, in whatever order they come, and all is at once afterwards.
func TestPauseHoldsEverything(t *testing.T) {
	for name, d := range map[string]Dispatcher[int]{
		"by demand": ByDemand[int](),
		"broadcast": Broadcast[int](),
		"partition": Partition(1, even),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, d, 100)
			l := b.join(terms[int]{})
			b.out.ask(l, 2)
			b.out.pause(true)
			b.emit(1, 2, 3)
			b.out.ask(l, 4)
			b.got(l)
			b.held(3)
			b.upstream()
			b.out.pause(false)
			b.got(l, []int{1, 2, 3})
			b.held(0)
			b.upstream(3)
		})
	}
}
