package broadwaytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

const (
	plenty    = 64 << 20
	unsettled = 1000
)

// check is one run of a property.
type check struct {
	testing.TB
	Features
	newSource func(testing.TB) Source
}

// source makes a fresh source.
func (k *check) source() *sourceCheck {
	return &sourceCheck{check: k, Source: k.newSource(k.TB)}
}

// sourceCheck is a source with the failures of its own methods told to the test.
type sourceCheck struct {
	*check
	Source
}

// produce puts payloads at the source, which are all different, and lists them.
func (s *sourceCheck) produce(n int) []string {
	s.Helper()
	return s.produceSized(n, 0)
}

// produceSized is produce with payloads of at least size bytes.
func (s *sourceCheck) produceSized(n, size int) []string {
	s.Helper()
	texts, payloads := make([]string, n), make([][]byte, n)
	for i := range n {
		payload := fmt.Appendf(nil, "message %03d", i)
		for len(payload) < size {
			payload = append(payload, '.')
		}
		payloads[i], texts[i] = payload, string(payload)
	}
	s.produceOne(payloads...)
	return texts
}

func (s *sourceCheck) produceOne(payloads ...[]byte) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	if err := s.Produce(ctx, payloads...); err != nil {
		s.Fatalf("the source does not take messages: %v", err)
	}
}

// wantLeft waits until the source counts want messages as left.
func (s *sourceCheck) wantLeft(want int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	for {
		left, err := s.Left(ctx)
		if err == nil && left == want {
			return
		}
		select {
		case <-time.After(s.Quiet / 10):
		case <-ctx.Done():
			s.Errorf("the source has %d messages left (error %v), want %d", left, err, want)
			return
		}
	}
}

// client plays the pipeline for one producer.
type client struct {
	*sourceCheck
	producer broadway.Producer
	traits   broadway.Traits
	refs     []*broadway.AckRef // of all that was fetched
	early    []delivery         // fetched, and not looked at by the test
	fetches  sync.WaitGroup
	closed   bool
}

// delivery is one message, with what must not change about it. text is a copy.
type delivery struct {
	*broadway.Message
	text string
}

// open connects a producer.
func (s *sourceCheck) open() *client {
	s.Helper()
	c := &client{sourceCheck: s, producer: s.Open(s.TB)}
	if v, ok := c.producer.(broadway.Validator); ok {
		if err := v.Validate(); err != nil {
			s.Fatalf("Validate: %v", err)
		}
	}
	if d, ok := c.producer.(broadway.Describer); ok {
		c.traits = d.Describe(broadway.Limits{
			MaxUnsettled: unsettled, MaxUnsettledBytes: plenty, Share: unsettled,
		})
	}
	s.Cleanup(func() {
		c.close()
		c.fetches.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		s.Fatalf("Connect: %v", err)
	}
	return c
}

func (c *client) connect(ctx context.Context) error {
	connector, ok := c.producer.(broadway.Connector)
	if !ok {
		return nil
	}
	for {
		err := connector.Connect(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(c.Quiet):
		case <-ctx.Done():
		}
	}
}

// fetched is what one Fetch returned.
type fetched struct {
	deliveries []delivery
	err        error
}

// start calls Fetch beside the test.
func (c *client) start(ctx context.Context, d broadway.Demand) <-chan fetched {
	done := make(chan fetched, 1)
	c.fetches.Go(func() {
		messages, err := c.producer.Fetch(ctx, d)
		f := fetched{err: err}
		for _, m := range messages {
			f.deliveries = append(f.deliveries, delivery{m, string(m.Payload)})
		}
		done <- f
	})
	return done
}

// await waits for the end of a Fetch, and says whether it came in time.
func (c *client) await(done <-chan fetched) (fetched, bool) {
	select {
	case f := <-done:
		for _, d := range f.deliveries {
			if !slices.Contains(c.refs, d.Ref()) {
				c.refs = append(c.refs, d.Ref())
			}
		}
		return f, true
	case <-time.After(c.Timeout):
		return fetched{}, false
	}
}

// try fetches until n messages have come, or nothing more comes within wait.
func (c *client) try(n int, wait time.Duration) []delivery {
	c.Helper()
	all := c.early
	c.early = nil
	for giveUp := time.Now().Add(wait); len(all) < n; {
		ctx, cancel := context.WithDeadline(context.Background(), giveUp)
		f, ok := c.await(c.start(ctx, broadway.Demand{Messages: n - len(all), Bytes: plenty}))
		over := ctx.Err() != nil
		cancel()
		all = append(all, f.deliveries...)
		switch {
		case !ok || over:
			return all
		case f.err != nil:
			c.pause() // as a pipeline does
		case len(f.deliveries) == 0:
			c.Fatalf("Fetch returned no message and no error")
		default:
			giveUp = time.Now().Add(wait)
		}
	}
	return all
}

// sleep watches for a while.
func (c *client) sleep() { <-time.After(c.Quiet) }

// pause is a short wait.
func (c *client) pause() { <-time.After(c.Quiet / 10) }

// must fetches n messages.
func (c *client) must(n int) []delivery {
	c.Helper()
	all := c.try(n, c.Timeout)
	if len(all) < n {
		c.Fatalf("%d of %d messages came", len(all), n)
	}
	return all
}

// once calls Fetch once, and gives up when it does not return.
func (c *client) once(d broadway.Demand) fetched {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	f, ok := c.await(c.start(ctx, d))
	if !ok || f.err != nil && ctx.Err() != nil { // its context ends as await's time does: either may come first
		c.Fatalf("Fetch of %+v did not return", d)
	}
	return f
}

// wantNothing watches that no message comes.
func (c *client) wantNothing() {
	c.Helper()
	if more := c.try(1, c.Quiet); len(more) > 0 {
		c.Errorf("%q came, where nothing was left", more[0].text)
	}
}

// settle acknowledges ds as succeeded: one call for each run of one reference.
func (c *client) settle(ds ...delivery) {
	c.Helper()
	c.each(ds, func(ctx context.Context, ref *broadway.AckRef, run []*broadway.Message) {
		if err := ref.Acknowledger().Ack(ctx, ref, run, nil); err != nil {
			c.Errorf("Ack of %d messages: %v", len(run), err)
		}
	})
	uncount(ds)
}

// settleStale settles what belongs to an ended reference. The pipeline would
// not, except in the instant in which the reference ends.
func (c *client) settleStale(ds []delivery) {
	c.Helper()
	c.each(ds, func(ctx context.Context, ref *broadway.AckRef, run []*broadway.Message) {
		if err := ref.Acknowledger().Ack(ctx, ref, run, nil); err != nil {
			c.Logf("Ack for an ended reference: %v", err)
		}
	})
}

// release gives ds back unprocessed; false when the source cannot.
func (c *client) release(ds ...delivery) bool {
	c.Helper()
	if _, ok := ds[0].Ref().Acknowledger().(broadway.Releaser); !ok {
		return false
	}
	c.each(ds, func(ctx context.Context, ref *broadway.AckRef, run []*broadway.Message) {
		if err := ref.Acknowledger().(broadway.Releaser).Release(ctx, ref, run); err != nil {
			c.Errorf("Release of %d messages: %v", len(run), err)
		}
	})
	uncount(ds)
	return true
}

// each calls f for each run of one reference, and fails when it does not return.
func (c *client) each(ds []delivery, f func(context.Context, *broadway.AckRef, []*broadway.Message)) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	c.within("settling", func() {
		for len(ds) > 0 {
			ref, n := ds[0].Ref(), 1
			for n < len(ds) && ds[n].Ref() == ref {
				n++
			}
			f(ctx, ref, messages(ds[:n]))
			ds = ds[n:]
		}
	})
}

// uncount tells the references that ds have settled, as the pipeline does.
func uncount(ds []delivery) {
	for _, d := range ds {
		if d.Ref().Unsettled() > 0 {
			d.Ref().Untake(1)
		}
	}
}

// within fails the test when f takes longer than the time-out.
func (c *client) within(what string, f func()) {
	c.Helper()
	done := make(chan struct{})
	c.fetches.Go(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
	case <-time.After(c.Timeout):
		c.Errorf("%s does not return", what)
	}
}

// close drains and closes the producer: what is unsettled stays so.
func (c *client) close() {
	c.Helper()
	if c.closed {
		return
	}
	c.closed = true
	if d, ok := c.producer.(broadway.Drainer); ok {
		c.within("Drain", func() {
			ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
			defer cancel()
			if err := d.Drain(ctx); err != nil {
				c.Errorf("Drain: %v", err)
			}
		})
	}
	c.within("Close", func() {
		if err := c.producer.Close(); err != nil {
			c.Errorf("Close: %v", err)
		}
	})
}

// awaitEnd waits until the references of ds have ended.
func (c *client) awaitEnd(ds []delivery) {
	c.Helper()
	for deadline := time.Now().Add(c.Timeout); ; c.pause() {
		if !slices.ContainsFunc(ds, func(d delivery) bool { return !d.Ref().Ended() }) {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("the references of a session that is over have not ended")
		}
	}
}

func messages(ds []delivery) []*broadway.Message {
	ms := make([]*broadway.Message, len(ds))
	for i, d := range ds {
		ms[i] = d.Message
	}
	return ms
}

func texts(ds []delivery) []string {
	s := make([]string, len(ds))
	for i, d := range ds {
		s[i] = d.text
	}
	return s
}

// without is what is in all and not in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// wantSame compares what came with what should, in any order; surplus says
// whether messages that were settled may have come, too.
func (k *check) wantSame(what string, got, want []string, surplus bool) {
	k.Helper()
	if missing := without(want, got); len(missing) > 0 {
		k.Errorf("%s: %d messages did not come, the first is %q", what, len(missing), missing[0])
	}
	if alien := without(got, want); len(alien) > 0 && !surplus {
		k.Errorf("%s: %d messages came that should not, the first is %q", what, len(alien), alien[0])
	}
	if len(got) > len(want) && !surplus {
		k.Errorf("%s: %d messages came, want %d", what, len(got), len(want))
	}
}
