package broadwaytest

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/gobroadway/gobroadway/broadway"
)

// AcknowledgerProperties are the promises that TestAcknowledger holds the
// acknowledger of a producer to.
func AcknowledgerProperties(Features) []Property {
	return []Property{
		{"SettlesInAnyOrder", "messages may settle in any order, and one by one", settlesInAnyOrder},
		{"SettlesGroups", "one call settles many messages, in the order of their completion", settlesGroups},
		{"SettlesOnlyWhatIsNamed", "what a call does not name stays unsettled", settlesOnlyWhatIsNamed},
		{"TakesEmptyCalls", "a call without messages does nothing", takesEmptyCalls},
		{"SettlesReferencesAtOnce", "calls for different references may run at once", settlesReferencesAtOnce},
		{"HeedsItsContext", "a call under a context that has ended returns, and says whether it settled", heedsItsContext},
		{"TakesBothOutcomes", "one call may hold messages that succeeded and that failed, from processors and from batches", takesBothOutcomes},
		{"ReleasesWithoutSettling", "what is released is at the source again, with what was never fetched", releasesWithoutSettling},
		{"DrainLosesNothing", "a pipeline that drains in the middle has settled what it handled, and nothing else", drainLosesNothing},
	}
}

// shuffled is ds in an order that is no order, and always the same.
func shuffled(ds []delivery) []delivery {
	ds = slices.Clone(ds)
	for i := range ds {
		j := i + (i*7+3)%(len(ds)-i)
		ds[i], ds[j] = ds[j], ds[i]
	}
	return ds
}

func settlesInAnyOrder(k *check) {
	s := k.source()
	s.produce(20)
	c := s.open()
	for _, d := range shuffled(c.must(20)) {
		c.settle(d)
	}
	c.close()
	s.wantLeft(0)
}

func settlesGroups(k *check) {
	s := k.source()
	s.produce(40)
	c := s.open()
	groups := make(map[*broadway.AckRef][]delivery)
	for _, d := range shuffled(c.must(40)) {
		groups[d.Ref()] = append(groups[d.Ref()], d)
	}
	for _, group := range groups {
		c.settle(group[:len(group)/3]...)
		c.settle(group[len(group)/3:]...)
	}
	c.close()
	s.wantLeft(0)
}

func settlesOnlyWhatIsNamed(k *check) {
	s := k.source()
	all := s.produce(12)
	c := s.open()
	var named []delivery
	for i, d := range c.must(12) {
		if i%3 != 1 {
			named = append(named, d)
		}
	}
	c.settle(named...)
	c.close()
	rest := without(all, texts(named))
	if !k.Cumulative {
		s.wantLeft(len(rest))
	}
	c = s.open()
	again := c.try(len(rest), k.Timeout)
	for k.Cumulative && len(without(rest, texts(again))) > 0 {
		more := c.try(1, k.Timeout)
		if len(more) == 0 {
			break
		}
		again = append(again, more...)
	}
	k.wantSame("delivered again", texts(again), rest, k.Cumulative)
}

func takesEmptyCalls(k *check) {
	s := k.source()
	s.produce(2)
	c := s.open()
	ds := c.must(2)
	c.each(ds[:1], func(ctx context.Context, ref *broadway.AckRef, _ []*broadway.Message) {
		if err := ref.Acknowledger().Ack(ctx, ref, nil, nil); err != nil {
			k.Errorf("Ack of nothing: %v", err)
		}
		if r, ok := ref.Acknowledger().(broadway.Releaser); ok {
			if err := r.Release(ctx, ref, nil); err != nil {
				k.Errorf("Release of nothing: %v", err)
			}
		}
	})
	c.close()
	s.wantLeft(2)
}

func settlesReferencesAtOnce(k *check) {
	s := k.source()
	s.produce(60)
	c := s.open()
	groups := make(map[*broadway.AckRef][]delivery)
	for _, d := range c.must(60) {
		groups[d.Ref()] = append(groups[d.Ref()], d)
	}
	k.Logf("%d references", len(groups))
	var wg sync.WaitGroup
	for _, group := range groups {
		wg.Go(func() {
			for _, d := range group {
				c.settle(d)
			}
		})
	}
	wg.Wait()
	c.close()
	s.wantLeft(0)
}

func heedsItsContext(k *check) {
	s := k.source()
	all := s.produce(6)
	c := s.open()
	ds := c.must(6)
	var settled []string
	var mu sync.Mutex
	c.each(ds, func(ctx context.Context, ref *broadway.AckRef, run []*broadway.Message) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		err := ref.Acknowledger().Ack(ctx, ref, run, nil)
		mu.Lock()
		defer mu.Unlock()
		for _, m := range run {
			if err == nil {
				settled = append(settled, string(m.Payload))
			}
		}
	})
	uncount(ds)
	c.close()
	if len(settled) == len(all) {
		s.wantLeft(0)
		return
	}
	rest := without(all, settled)
	k.wantSame("delivered again after a failed Ack", texts(s.open().try(len(rest), k.Timeout)), rest, true)
}

// takesBothOutcomes fails some messages in their processor and some in their
// batch.
func takesBothOutcomes(k *check) {
	s := k.source()
	want := s.produce(40)
	cfg := failing(broadway.ActionDrop)
	cfg.Batchers = []broadway.BatcherConfig{{
		Size: 10,
		Reporter: func(_ context.Context, b *broadway.Batch) error {
			failures := new(broadway.BatchError)
			for _, m := range b.Messages {
				if strings.HasSuffix(string(m.Payload), "3") {
					failures.Fail(m, broadway.Reject(errRefused))
				}
			}
			return failures.Err()
		},
	}}
	s.runFlow(cfg, func(text string, _ int) bool { return strings.HasSuffix(text, "7") },
		func(handled []string) bool { return len(handled) >= len(want) }, 0)
	s.wantLeft(0)
	s.open().wantNothing()
}

func releasesWithoutSettling(k *check) {
	s := k.source()
	all := s.produce(15)
	c := s.open()
	ds := c.must(10)
	c.settle(ds[:4]...)
	if !c.release(ds[4:]...) {
		k.Logf("the acknowledger is no Releaser: what is released stays unsettled")
	}
	c.close()
	rest := without(all, texts(ds[:4]))
	s.wantLeft(len(rest))
	// One at a time: what came back more than once may be a suspect, see Crasher.
	c = s.open()
	var again []delivery
	for ds = c.try(1, k.Timeout); len(ds) > 0; ds = c.try(1, k.Quiet) {
		c.settle(ds...)
		again = append(again, ds...)
	}
	k.wantSame("delivered afterwards", texts(again), rest, false)
}

func drainLosesNothing(k *check) {
	s := k.source()
	all := s.produce(300)
	handled := s.runFlow(failing(broadway.ActionDrop), func(string, int) bool { return false },
		func(handled []string) bool { return len(handled) >= 100 }, 0)
	rest := without(all, handled)
	if !k.Cumulative {
		s.wantLeft(len(rest))
	}
	if len(rest) > 0 {
		again := texts(s.open().try(len(rest), k.Timeout))
		k.wantSame("delivered after the drain", again, rest, k.Cumulative)
	}
}
