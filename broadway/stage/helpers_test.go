package stage_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// counter is a source of 0, 1, 2, … It fetches what it is asked for, up to limit,
// and remembers each ask.
type counter struct {
	limit int // 0: none

	mu   sync.Mutex
	next int
	asks []int
}

func (c *counter) fetch(_ context.Context, demand int) ([]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks = append(c.asks, demand)
	n := demand
	if c.limit > 0 {
		n = min(n, c.limit-c.next)
	}
	events := seq(c.next, c.next+n)
	c.next += n
	if c.limit > 0 && c.next == c.limit {
		return events, io.EOF
	}
	return events, nil
}

func (c *counter) asked() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asks)
}

// silent is a source that has nothing, and remembers each ask.
type silent struct {
	mu   sync.Mutex
	asks []int
}

func (s *silent) fetch(ctx context.Context, demand int) ([]int, error) {
	s.mu.Lock()
	s.asks = append(s.asks, demand)
	s.mu.Unlock()
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *silent) asked() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asks)
}

// recorder remembers the chunks that a stage was given.
type recorder struct {
	mu  sync.Mutex
	got [][]int
}

func (r *recorder) record(events []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, slices.Clone(events))
}

func (r *recorder) consume(_ context.Context, events []int) error {
	r.record(events)
	return nil
}

func (r *recorder) chunks() [][]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *recorder) events() []int { return slices.Concat(r.chunks()...) }

func (r *recorder) sizes() []int {
	var sizes []int
	for _, c := range r.chunks() {
		sizes = append(sizes, len(c))
	}
	return sizes
}

// slow is consume in virtual time: it lets everything else come to rest first.
func (r *recorder) slow(_ context.Context, events []int) error {
	r.record(events)
	time.Sleep(time.Second)
	return nil
}

// rest sleeps for one call of slow.
func (r *recorder) rest() { time.Sleep(time.Second) }

// double is the function of a stage that hands on each event twice.
func (r *recorder) double(_ context.Context, events []int) ([]int, error) {
	r.record(events)
	return twice(events), nil
}

func twice(events []int) []int {
	doubled := make([]int, 0, 2*len(events))
	for _, e := range events {
		doubled = append(doubled, e, e)
	}
	return doubled
}

// seq returns from, from+1, … to-1.
func seq(from, to int) []int {
	events := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		events = append(events, i)
	}
	return events
}

func repeat(v, n int) []int { return slices.Repeat([]int{v}, n) }

func producer(t testing.TB, fetch func(context.Context, int) ([]int, error), o ...stage.Options[int]) *stage.Producer[int] {
	t.Helper()
	o = append(o, stage.Options[int]{})
	p, err := stage.NewProducer("producer", fetch, o[0])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func middle(t testing.TB, handle func(context.Context, []int) ([]int, error), o ...stage.Options[int]) *stage.ProducerConsumer[int, int] {
	t.Helper()
	o = append(o, stage.Options[int]{})
	s, err := stage.NewProducerConsumer("middle", handle, o[0])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func consumer(t testing.TB, handle func(context.Context, []int) error) *stage.Consumer[int] {
	t.Helper()
	c, err := stage.NewConsumer("consumer", handle)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func subscribe(t testing.TB, by stage.Sink[int], from stage.Source[int], maxDemand, minDemand int) *stage.Link {
	t.Helper()
	l, err := stage.Subscribe(by, from, stage.Subscription{MaxDemand: maxDemand, MinDemand: minDemand})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func run(t testing.TB, stages ...stage.Stage) {
	t.Helper()
	if err := stage.Run(t.Context(), stages...); err != nil {
		t.Fatalf("Run: %v", err)
	}
}

// running runs stages in the background of a synctest bubble. stop cancels Run's
// context and returns what Run returned; wait returns that without cancelling.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(t testing.TB, stages ...stage.Stage) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = stage.Run(ctx, stages...)
	}()
	synctest.Wait()
	return r
}

func (r *running) wait() error {
	<-r.done
	r.cancel()
	return r.err
}

func (r *running) stop() error {
	r.cancel()
	return r.wait()
}

func (r *running) ended() bool {
	synctest.Wait()
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func wantInts(t testing.TB, what string, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func wantChunks(t testing.TB, what string, got, want [][]int) {
	t.Helper()
	if !slices.EqualFunc(got, want, slices.Equal[[]int]) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
