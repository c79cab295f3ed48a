package broadwaytest

import (
	"context"
	"errors"
	"io"

	"github.com/gobroadway/gobroadway/broadway"
)

func demandProperties() []Property {
	return []Property{
		{"NeverOverDemand", "Fetch returns at least one message and no more than were asked for", neverOverDemand},
		{"NeverOverBytes", "what Fetch returns weighs no more than was asked for, and a message that is too big says how much it needs", neverOverBytes},
		{"NothingWithoutDemand", "what was not asked for stays at the source, and is not counted as taken", nothingWithoutDemand},
		{"BlocksUntilThereIsOne", "Fetch of an empty source blocks, and wakes for the first message", blocksUntilThereIsOne},
		{"CancelReturns", "Fetch returns when its context ends, with its cause", cancelReturns},
		{"CancelLosesNothing", "a message that arrives while Fetch is cancelled is not lost: a later Fetch returns it", cancelLosesNothing},
	}
}

func neverOverDemand(k *check) {
	s := k.source()
	want := s.produce(40)
	c := s.open()
	var got []string
	for asks := []int{1, 2, 5, 1, 13, 3}; len(got) < len(want); asks = append(asks[1:], asks[0]) {
		f := c.once(broadway.Demand{Messages: asks[0], Bytes: plenty})
		if f.err != nil {
			k.Fatalf("Fetch: %v, after %d messages", f.err, len(got))
		}
		if n := len(f.deliveries); n < 1 || n > asks[0] {
			k.Fatalf("Fetch returned %d messages, asked for %d", n, asks[0])
		}
		got = append(got, texts(f.deliveries)...)
		c.settle(f.deliveries...)
	}
	k.wantSame("fetched", got, want, false)
}

func neverOverBytes(k *check) {
	s := k.source()
	want := s.produceSized(20, 1000)
	c := s.open()
	got := c.must(1)
	c.settle(got...)
	room := got[0].Size() * 5 / 2
	if tooBig := c.once(broadway.Demand{Messages: 20, Bytes: 1}); tooBig.err == nil {
		k.Fatalf("a demand of 1 byte gave %d messages", len(tooBig.deliveries))
	} else if need, ok := broadway.NeededBytes(tooBig.err); !ok || need < 1000 {
		k.Fatalf("a demand of 1 byte gave the error %v, which does not ask for enough bytes", tooBig.err)
	}
	for len(got) < len(want) {
		f := c.once(broadway.Demand{Messages: 20, Bytes: room})
		if need, ok := broadway.NeededBytes(f.err); ok && need > room {
			room = need
			continue
		}
		if f.err != nil {
			k.Fatalf("Fetch: %v, after %d messages", f.err, len(got))
		}
		var weight int64
		for _, d := range f.deliveries {
			weight += d.Size()
		}
		if weight > room {
			k.Fatalf("Fetch returned %d bytes, asked for %d", weight, room)
		}
		got = append(got, f.deliveries...)
		c.settle(f.deliveries...)
	}
	k.wantSame("fetched", texts(got), want, false)
}

func nothingWithoutDemand(k *check) {
	s := k.source()
	s.produce(20)
	c := s.open()
	c.wantHandedOut(0)
	first := c.must(1)
	c.wantClaimed(len(first))
	c.wantHandedOut(len(first))
	second := c.must(3)
	c.wantClaimed(len(first) + len(second))
	c.wantHandedOut(len(first) + len(second))
}

// wantClaimed compares what the references count as unsettled with what Fetch
// returned.
func (c *client) wantClaimed(n int) {
	c.Helper()
	claimed := 0
	for _, ref := range c.refs {
		claimed += ref.Unsettled()
	}
	if claimed != n {
		c.Fatalf("%d messages were claimed with AckRef.Take, Fetch returned %d", claimed, n)
	}
}

// wantHandedOut asks the source, if it can tell, whether it has handed out more
// than n messages and the standing reservation of the producer.
func (c *client) wantHandedOut(n int) {
	c.Helper()
	meter, ok := c.Source.(Meter)
	if !ok {
		return
	}
	c.sleep()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	out, err := meter.HandedOut(ctx)
	if err != nil {
		c.Fatalf("the source does not tell what it handed out: %v", err)
	}
	if out > n+c.traits.Prefetch {
		c.Fatalf("the source handed out %d messages, for %d asked and a prefetch of %d", out, n, c.traits.Prefetch)
	}
}

func blocksUntilThereIsOne(k *check) {
	s := k.source()
	c := s.open()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := c.start(ctx, broadway.Demand{Messages: 10, Bytes: plenty})
	c.sleep()
	select {
	case f := <-done:
		k.Fatalf("Fetch of an empty source returned %d messages and the error %v", len(f.deliveries), f.err)
	default:
	}
	want := s.produce(1)
	f, ok := c.await(done)
	if !ok {
		k.Fatalf("Fetch did not wake for a message")
	}
	k.wantSame("fetched", texts(f.deliveries), want, false)
}

func cancelReturns(k *check) {
	s := k.source()
	c := s.open()
	cause := errors.New("the pipeline stops")
	ctx, cancel := context.WithCancelCause(context.Background())
	done := c.start(ctx, broadway.Demand{Messages: 10, Bytes: plenty})
	c.sleep()
	early := len(done) > 0 // what BlocksUntilThereIsOne finds
	cancel(cause)
	f, ok := c.await(done)
	switch {
	case !ok:
		k.Fatalf("Fetch does not return when its context ends")
	case !early && !errors.Is(f.err, cause):
		k.Errorf("a cancelled Fetch returned the error %v, want the cause of its context", f.err)
	}
}

// cancelLosesNothing cancels Fetch just before and just after a message arrives.
func cancelLosesNothing(k *check) {
	s := k.source()
	c := s.open()
	var want, got []string
	for i := range 20 {
		payload := []byte{'m', byte('A' + i)}
		want = append(want, string(payload))
		ctx, cancel := context.WithCancel(context.Background())
		done := c.start(ctx, broadway.Demand{Messages: 10, Bytes: plenty})
		c.pause()
		if i%2 == 0 {
			s.produceOne(payload)
			cancel()
		} else {
			cancel()
			s.produceOne(payload)
		}
		f, ok := c.await(done)
		if !ok {
			k.Fatalf("Fetch does not return")
		}
		if f.err != nil && len(f.deliveries) > 0 {
			k.Fatalf("Fetch returned %d messages and the error %v", len(f.deliveries), f.err)
		}
		got = append(got, texts(f.deliveries)...)
	}
	got = append(got, texts(c.try(len(want)-len(got), k.Timeout))...)
	k.wantSame("fetched in all", got, want, false)
}

func endsWithEOF(k *check) {
	s := k.source()
	want := s.produce(5)
	c := s.open()
	got := texts(c.must(4))
	finisher, ok := s.Source.(Finisher)
	if !ok {
		k.Fatalf("the source is not a Finisher, which Features.Finite requires")
	}
	ctx, cancel := context.WithTimeout(context.Background(), k.Timeout)
	defer cancel()
	if err := finisher.Finish(ctx); err != nil {
		k.Fatalf("Finish: %v", err)
	}
	for len(got) < len(want) {
		f := c.once(broadway.Demand{Messages: 10, Bytes: plenty})
		if f.err != nil {
			k.Fatalf("Fetch: %v, after %d messages", f.err, len(got))
		}
		got = append(got, texts(f.deliveries)...)
	}
	k.wantSame("fetched", got, want, false)
	if f := c.once(broadway.Demand{Messages: 10, Bytes: plenty}); !errors.Is(f.err, io.EOF) {
		k.Errorf("Fetch at the end returned the error %v, want io.EOF", f.err)
	}
}
