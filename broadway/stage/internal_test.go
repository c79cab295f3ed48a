package stage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzQueue runs the buffer against a plain slice.
func FuzzQueue(f *testing.F) {
	f.Add(uint8(5), uint8(0), []byte{8, 4, 131, 2, 140})
	f.Add(uint8(5), uint8(1), []byte{5, 3, 130, 20, 129})
	f.Add(uint8(1), uint8(2), []byte{1, 1, 129, 3, 129})
	f.Fuzz(func(t *testing.T, bound, overflow uint8, ops []byte) {
		q := queue[int]{bound: int(bound)%20 + 1, overflow: Overflow(overflow % 3)}
		var model []int
		next := 0
		for _, op := range ops {
			if op >= 128 {
				n := min(int(op-128), len(model))
				if n == 0 {
					continue
				}
				if got := q.take(n); !slices.Equal(got, model[:n]) || cap(got) != n {
					t.Fatalf("took %v (cap %d), want %v", got, cap(got), model[:n])
				}
				model = model[n:]
			} else {
				events := make([]int, op)
				for i := range events {
					events[i] = next
					next++
				}
				left, dropped := q.put(slices.Clone(events))
				model = append(slices.Clip(model), events...)
				over := max(len(model)-q.bound, 0)
				wantLeft, wantDropped := []int(nil), over
				switch q.overflow {
				case DropFirst:
					model = model[over:]
				case DropLast:
					model = model[:len(model)-over]
				default:
					wantLeft, wantDropped = model[len(model)-over:], 0
					model = model[:len(model)-over]
				}
				if !slices.Equal(left, wantLeft) || dropped != wantDropped {
					t.Fatalf("left %v, dropped %d; want %v, %d", left, dropped, wantLeft, wantDropped)
				}
			}
			if q.size != len(model) || q.size > q.bound {
				t.Fatalf("holds %d, want %d within %d", q.size, len(model), q.bound)
			}
			for _, gone := range q.segments[:q.head] {
				if gone != nil {
					t.Fatal("it keeps events that were taken")
				}
			}
		}
	})
}

// FuzzAsks runs the queue of asks against a plain slice.
func FuzzAsks(f *testing.F) {
	f.Add([]byte{10, 15, 200, 3, 0, 200, 7})
	f.Add([]byte{1, 2, 3, 200, 4, 200, 5, 200, 200, 200, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var a asks
		var model []int
		sum := func() (n int) {
			for _, v := range model {
				n += v
			}
			return n
		}
		for _, op := range ops {
			if op < 200 {
				target := int(op)
				more := target > sum()
				if more {
					model = append(model, target-sum())
				}
				for sum() > target {
					last := len(model) - 1
					if model[last]--; model[last] == 0 {
						model = model[:last]
					}
				}
				if a.aim(target) != more {
					t.Fatalf("aim(%d) did not say %v", target, more)
				}
			} else {
				want := 0
				if len(model) > 0 {
					want, model = model[0], model[1:]
				}
				if got := a.pop(); got != want {
					t.Fatalf("popped %d, want %d", got, want)
				}
				if back := min(want, int(op-200)); back > 0 {
					a.unpop(back)
					model = append([]int{back}, model...)
				}
			}
			if !slices.Equal(a.sizes[a.head:], model) || a.sum != sum() {
				t.Fatalf("holds %v (sum %d), want %v", a.sizes[a.head:], a.sum, model)
			}
		}
	})
}

// No notification is lost: the sleeper sees each change that was made before its
// unpark.
func TestParkerLosesNoNotification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wakers, each = 4, 5000
		p := newParker()
		var mu sync.Mutex
		changes := 0
		var wg sync.WaitGroup
		for range wakers {
			wg.Go(func() {
				for range each {
					mu.Lock()
					changes++
					mu.Unlock()
					p.unpark()
				}
			})
		}
		for seen := 0; seen < wakers*each; {
			p.park() // a lost notification would block the bubble for ever
			mu.Lock()
			seen = changes
			mu.Unlock()
		}
		wg.Wait()
	})
}

// One credit too many, injected at either end of a subscription, fails Run.
func TestInjectedCreditFailsRun(t *testing.T) {
	cases := map[string]struct {
		inject func(l *link[int])
		op     string
	}{
		"one event that was not asked for": {
			func(l *link[int]) { l.to.push(l, []int{1}) }, "Take",
		},
		"one ask without credit": {
			func(l *link[int]) { l.from.ask(l, 1) }, "Take",
		},
		"one event settled twice": {
			func(l *link[int]) { l.credit.Return(1) }, "Return",
		},
		"one credit out of nowhere": {
			func(l *link[int]) { l.credit.taken-- }, "Return",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := NewProducer("p", func(_ context.Context, n int) ([]int, error) { return make([]int, n), nil }, Options[int]{})
				if err != nil {
					t.Fatal(err)
				}
				handled := 0
				var c *Consumer[int]
				c, err = NewConsumer("c", func(context.Context, []int) error {
					if handled++; handled == 3 {
						tc.inject(c.in.links[0])
					}
					time.Sleep(time.Second) // what was asked for arrives meanwhile
					if handled == 10 {
						return errors.New("it went unnoticed")
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Subscribe(c, p, Subscription{MaxDemand: 1}); err != nil {
					t.Fatal(err)
				}
				var credit *CreditError
				if err := Run(t.Context(), p, c); !errors.As(err, &credit) || credit.Op != tc.op {
					t.Fatalf("Run returned %v, want a credit error of %s", err, tc.op)
				}
			})
		})
	}
}

// Buffers and asks stay small while a source that is pushed serves all demand and
// its fetch function blocks.
func TestAsksStayBoundedWhileFetchBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewProducer("p", func(ctx context.Context, _ int) ([]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, Options[int]{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewConsumer("c", func(context.Context, []int) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Subscribe(c, p, Demand(10)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- Run(t.Context(), p, c) }()
		for range 1000 {
			if _, err := p.Emit(t.Context(), make([]int, 10)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if sum := p.out.asks.sum + p.out.inflight; sum > 10 {
			t.Fatalf("%d are asked of a source whose consumer wants at most 10", sum)
		}
		p.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A notification that comes before the sleep is kept, and several count as one.
func TestParkerKeepsOneNotification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParker()
		p.unpark()
		p.unpark()
		p.park() // blocks the bubble for ever if it was not kept
		woken := false
		go func() {
			p.park()
			woken = true
		}()
		synctest.Wait()
		if woken {
			t.Fatal("two notifications before one sleep counted twice")
		}
		p.unpark()
		synctest.Wait()
		if !woken {
			t.Fatal("it sleeps on")
		}
	})
}

// The rest of an ask that came back short is asked for before later asks.
func TestRestOfAnAskComesFirst(t *testing.T) {
	b := newBench(t, ByDemand[int](), 100)
	one, two := b.join(terms[int]{}), b.join(terms[int]{})
	b.out.ask(one, 10)
	b.out.ask(two, 8)
	if _, n := b.out.next(); n != 10 {
		t.Fatalf("asked for %d, want 10", n)
	}
	if err := b.out.answer(nil, []int{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	b.upstream(6, 8)
}

// gone is a dispatcher during whose subscribe the consumer stops.
type gone struct {
	byDemand[int]
	in *inlet[int]
}

func (g *gone) subscribe(l *link[int]) error {
	g.in.shut()
	return g.byDemand.subscribe(l)
}

// A consumer that stops while it is being subscribed leaves no link behind, to which
// events would be handed for nobody.
func TestSubscribeAndStopAtOnceLeaveNoLink(t *testing.T) {
	p, err := NewProducer[int]("p", nil, Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConsumer("c", func(context.Context, []int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	p.out.disp = &gone{byDemand: byDemand[int]{queue: queue[int]{bound: 10}}, in: &c.in}
	if _, err := Subscribe(c, p, Demand(10)); !errors.Is(err, ErrEnded) {
		t.Fatalf("Subscribe returned %v, want ErrEnded", err)
	}
	if n, _ := p.out.crowd(); n != 0 {
		t.Fatalf("%d links are left", n)
	}
}
