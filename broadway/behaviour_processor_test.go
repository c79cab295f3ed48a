package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// B-020: two messages and batches of two: both are handled, are one batch, in
// order, and are acknowledged.
func TestTwoMessagesMakeOneBatch(t *testing.T) {
	handled := &handledBy{}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			handled.add(m)
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 2}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1", "2")
		wantResults(t, p.settled(2), "1:succeeded 2:succeeded")
		if got := p.batches(1); !slices.Equal(got, []string{"default[1 2] size"}) || len(handled.all()) != 2 {
			t.Errorf("handled %v, batches %v", handled.all(), got)
		}
	})
}

// B-021, B-022: a message carries the metadata that it came with, or none.
func TestMetadataReachesTheHandler(t *testing.T) {
	seen := make(chan any, 2)
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			seen <- m.Metadata
			return nil
		}},
	}, func(t *testing.T, p *pipe) {
		p.source.PushItems(broadwaytest.Item{Metadata: "here"}, broadwaytest.Item{})
		p.settled(1)
		if first, second := <-seen, <-seen; first != "here" || second != nil {
			t.Errorf("metadata %v and %v", first, second)
		}
	})
}

// B-023, B-024: a message settles with the acknowledger, and within the
// reference, that it was born with.
func TestMessagesSettleWithinTheirReference(t *testing.T) {
	behaviour(t, broadway.Config{}, func(t *testing.T, p *pipe) {
		p.source.Push("1")
		p.settled(1)
		first := p.source.NewRef(0)
		p.source.Push("2")
		p.settled(2)
		calls := p.source.Acks.Calls()
		if len(calls) != 2 || calls[0].Ref != first || calls[1].Ref != p.source.Ref() || first == p.source.Ref() {
			t.Errorf("calls %v", calls)
		}
	})
}

// B-028: what succeeds reaches its batch, and is acknowledged as succeeded;
// what its handler fails does not.
func TestOnlySuccessesReachTheBatch(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: failing("2", broadway.Reject(errNo))},
		Batchers:  []broadway.BatcherConfig{{Size: 3}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 4)...)
		got := p.settled(4)
		wantResults(t, got, "1:succeeded 2:failed 3:succeeded 4:succeeded")
		wantSet(t, p.batches(1), "default[1 3 4] size")
		if !errors.Is(got["2"].Err, errNo) {
			t.Errorf("2 failed with %v", got["2"].Err)
		}
	})
}

var errNo = errors.New("no")

// failing is a handler that fails one payload.
func failing(payload string, err error) broadway.Processor {
	return func(_ context.Context, m *broadway.Message) error {
		if string(m.Payload) == payload {
			return err
		}
		return nil
	}
}

// B-031, B-064: a panic fails its message, with what it panicked with and where;
// the others succeed.
func TestAPanicFailsItsMessageOnly(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			if string(m.Payload) == "2" {
				panicHere()
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{MaxAttempts: 1},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 3)...)
		got := p.settled(3)
		wantResults(t, got, "1:succeeded 2:failed 3:succeeded")
		var pe *broadway.PanicError
		if !errors.As(got["2"].Err, &pe) || pe.Value != "oops" || !strings.Contains(string(pe.Stack), "panicHere") {
			t.Errorf("2 failed with %v", got["2"].Err)
		}
		if strings.Contains(got["2"].Err.Error(), "panicHere") {
			t.Error("the error text has the stack in it")
		}
	})
}

func panicHere() { panic("oops") }

// B-036, B-074: a handler that ends its goroutine fails its message; the worker
// is replaced, and later messages are handled.
func TestAHandlerThatExitsFailsItsMessageOnly(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			if odd(m) {
				runtime.Goexit()
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{MaxAttempts: 1},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 4)...)
		got := p.settled(4)
		wantResults(t, got, "1:failed 2:succeeded 3:failed 4:succeeded")
		if !errors.Is(got["1"].Err, broadway.ErrGoexit) {
			t.Errorf("1 failed with %v", got["1"].Err)
		}
	})
}

// A handler that names a batcher that is not there fails its message, and does
// not retry it; one that also fails is failed by its own error.
func TestAnUnknownBatcherFailsTheMessage(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			m.Batcher = "nowhere"
			if odd(m) {
				return broadway.Reject(errNo)
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Name: "somewhere"}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1", "2")
		got := p.settled(2)
		wantResults(t, got, "1:failed 2:failed")
		if !errors.Is(got["1"].Err, errNo) || !errors.Is(got["2"].Err, broadway.ErrUnknownBatcher) {
			t.Errorf("failed with %v and %v", got["1"].Err, got["2"].Err)
		}
		if !strings.Contains(got["2"].Err.Error(), `"nowhere"`) || got["2"].Attempt != 1 {
			t.Errorf("attempt %d, error %v", got["2"].Attempt, got["2"].Err)
		}
	})
}

// B-038 … B-040: without batchers messages settle after their processor, failed
// ones as failed; with room for one message they come and settle one by one.
func TestWithoutBatchersEachVisitSettles(t *testing.T) {
	behaviour(t, broadway.Config{
		MaxUnsettled: 1,
		Processor:    broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 1, Handler: failing("2", broadway.Reject(errNo))},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1", "2", "3")
		p.settled(3)
		if got := fmt.Sprint(p.source.Acks.Calls()); got != "[ack(1) ack(; 2) ack(3)]" {
			t.Errorf("calls %s", got)
		}
		for _, d := range p.source.Asks() {
			if d.Messages != 1 {
				t.Errorf("asked for %d messages", d.Messages)
			}
		}
		for _, stage := range p.pipeline.Topology() {
			if stage.Kind == "batcher" || stage.Kind == "reporter" {
				t.Errorf("there is a %s", stage.Kind)
			}
		}
	})
}

// B-072: an error of the producer does no harm to what is in the pipeline, and
// it is asked again.
func TestAProducerErrorIsWaitedOut(t *testing.T) {
	behaviour(t, broadway.Config{Batchers: []broadway.BatcherConfig{{Size: 3, Timeout: -1}}}, func(t *testing.T, p *pipe) {
		if _, err := p.source.WaitAsk(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.source.FailFetch(errNo, errNo)
		p.source.Push("1")
		synctest.Wait()
		if err := p.pipeline.Stats().Err; !errors.Is(err, errNo) {
			t.Errorf("the failing fetch is not told: %v", err)
		}
		p.source.Push("2", "3")
		wantResults(t, p.settled(3), "1:succeeded 2:succeeded 3:succeeded")
		synctest.Wait()
		if err := p.pipeline.Stats().Err; err != nil {
			t.Errorf("unhealthy after the errors are over: %v", err)
		}
		failures := 0
		for _, f := range p.observer.Fetches() {
			if errors.Is(f.Err, errNo) {
				failures++
			}
		}
		if failures != 2 {
			t.Errorf("the observer was told of %d failed fetches", failures)
		}
	})
}

// The pool asks for what it can take, and asks again when it has sunk to its low
// mark (A.11: max 10, min 5).
func TestThePoolAsksInChunks(t *testing.T) {
	var release chan struct{}
	behaviour(t, broadway.Config{
		MaxUnsettled: 1000,
		Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 10, MinDemand: 5, Handler: func(context.Context, *broadway.Message) error {
			<-release
			return nil
		}},
	}, func(t *testing.T, p *pipe) {
		release = make(chan struct{})
		d, err := p.source.WaitAsk(t.Context())
		if err != nil || d.Messages != 10 {
			t.Fatalf("first asked for %d messages, %v", d.Messages, err)
		}
		p.source.Push(numbers(1, 10)...)
		synctest.Wait()
		if _, ok := p.source.Asked(); ok {
			t.Errorf("asked for more with 9 queued: %v", p.source.Asks())
		}
		for range 4 {
			release <- struct{}{}
			synctest.Wait()
		}
		if d, ok := p.source.Asked(); !ok || d.Messages != 5 {
			t.Errorf("with 5 queued asked for %d, %v", d.Messages, ok)
		}
		close(release)
		p.settled(10)
	})
}
