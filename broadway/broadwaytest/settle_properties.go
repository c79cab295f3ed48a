package broadwaytest

import (
	"context"

	"github.com/gobroadway/gobroadway/broadway"
)

func settleProperties() []Property {
	return []Property{
		{"RedeliversReleased", "what is released is delivered again, and what was settled is not", redeliversReleased},
		{"SettlesOnce", "a settle is sent once, and leaves the session as it is", settlesOnce},
		{"SettlesWhileFetchWaits", "Ack does not wait for a Fetch that blocks", settlesWhileFetchWaits},
		{"StaleSettleIsNotSent", "a settle of an ended reference does not reach the source", staleSettleIsNotSent},
	}
}

func redeliversReleased(k *check) {
	s := k.source()
	s.produce(5)
	c := s.open()
	first := c.must(5)
	c.settle(first[:3]...)
	if !c.release(first[3:]...) {
		k.Logf("the acknowledger is no Releaser: what is released stays unsettled")
		return
	}
	again := c.try(len(first)-3, k.Timeout)
	k.wantSame("delivered again", texts(again), texts(first[3:]), false)
	c.settle(again...)
	c.close()
	s.wantLeft(0)
}

func settlesOnce(k *check) {
	s := k.source()
	s.produce(10)
	c := s.open()
	got := c.must(10)
	for _, d := range got {
		c.settle(d)
	}
	c.sleep()
	for _, d := range got {
		if d.Ref().Ended() {
			k.Fatalf("the session ended after its messages were settled")
		}
	}
	s.produceOne([]byte("one more"))
	more := c.must(1)
	k.wantSame("fetched afterwards", texts(more), []string{"one more"}, false)
	c.settle(more...)
	c.close()
	s.wantLeft(0)
	s.wantSettles(len(got) + len(more))
}

// wantSettles asks the source, if it can tell, how many settles it has seen.
func (s *sourceCheck) wantSettles(n int) {
	s.Helper()
	counter, ok := s.Source.(SettleCounter)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	if settles, err := counter.Settles(ctx); err != nil || settles != n {
		s.Errorf("the source saw %d settles (error %v), want %d", settles, err, n)
	}
}

func settlesWhileFetchWaits(k *check) {
	s := k.source()
	s.produce(3)
	c := s.open()
	got := c.must(3)
	ctx, cancel := context.WithCancel(context.Background())
	done := c.start(ctx, broadway.Demand{Messages: 10, Bytes: plenty})
	c.sleep()
	c.settle(got...)
	cancel()
	c.await(done)
	c.close()
	s.wantLeft(0)
}

// staleSettleIsNotSent ends the session twice. A settle of the first one is sent
// before the messages come again, and, when the next session holds them under
// the same positions, after.
func staleSettleIsNotSent(k *check) {
	s := k.source()
	s.produce(5)
	c := s.open()
	first := c.must(5)
	c = c.nextSession(first)
	c.settleStale(first)
	second := c.try(len(first), k.Timeout)
	k.wantSame("delivered again after a stale settle", texts(second), texts(first), false)
	for _, d := range second {
		if d.Ref() == first[0].Ref() {
			k.Fatalf("%q was delivered again within a reference that has ended", d.text)
		}
	}
	c.settleStale(first)
	c = c.nextSession(second)
	third := c.try(len(first), k.Timeout)
	k.wantSame("delivered again after another stale settle", texts(third), texts(first), false)
	c.settle(third...)
	c.close()
	s.wantLeft(0)
}

// nextSession ends the session that fetched ds, by a cut if the source can be
// cut, and gives the client of the next one.
func (c *client) nextSession(ds []delivery) *client {
	c.Helper()
	cutter, ok := c.Source.(Cutter)
	if !ok {
		c.close()
		c.awaitEnd(ds)
		return c.open()
	}
	// A Fetch runs meanwhile: it may be what notices the cut.
	fetching, stop := context.WithCancel(context.Background())
	done := c.start(fetching, broadway.Demand{Messages: 1, Bytes: plenty})
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	if err := cutter.Cut(ctx); err != nil {
		c.Fatalf("the source cannot be cut: %v", err)
	}
	c.awaitEnd(ds)
	stop()
	f, _ := c.await(done)
	c.early = f.deliveries
	return c
}
