package broadway_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// E5: what a reporter says about its batch, over 1,000 batches of ten: the outcome
// of each of 10,000 messages is counted. Every third batch is spoiled, so that the
// others show that nothing spreads.
func TestTheContractOfBatchesOverAThousand(t *testing.T) {
	const batches, size = 1000, 10
	named := func(e *broadway.BatchError, ms ...*broadway.Message) error {
		for _, m := range ms {
			e.Fail(m, broadway.Reject(errFail))
		}
		return e
	}
	var before *broadway.Message // of another batch
	for name, c := range map[string]struct {
		report func(*broadway.Batch) error
		failed int // of each spoiled batch
	}{
		"names some":           {func(b *broadway.Batch) error { return named(new(broadway.BatchError), b.Messages[2:5]...) }, 3},
		"names none":           {func(*broadway.Batch) error { return new(broadway.BatchError) }, 0},
		"names one twice":      {func(b *broadway.Batch) error { return named(new(broadway.BatchError), b.Messages[3], b.Messages[3]) }, size},
		"names one of another": {func(b *broadway.Batch) error { return named(new(broadway.BatchError), b.Messages[0], before) }, size},
		"names nil":            {func(*broadway.Batch) error { return named(new(broadway.BatchError), nil) }, size},
		"panics":               {func(*broadway.Batch) error { panic("oops") }, size},
		"exits":                {func(*broadway.Batch) error { runtime.Goexit(); return nil }, size},
		"fails":                {func(*broadway.Batch) error { return errFail }, size},
		"cuts its slice": {func(b *broadway.Batch) error {
			b.Messages = b.Messages[:1]
			return nil
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := broadwaytest.NewProducer(broadway.Traits{})
				for range batches * size {
					source.Push("x")
				}
				source.End()
				n, spoiled := 0, 0
				p := build(t, broadway.Config{
					Producers: []broadway.Producer{source},
					Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 100, Handler: nothing},
					Batchers: []broadway.BatcherConfig{{Size: size, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
						n++
						if n%3 == 0 && len(b.Messages) == size {
							spoiled++
							return c.report(b)
						}
						before = b.Messages[0]
						return nil
					}}},
					Failure: broadway.FailurePolicy{MaxAttempts: 1},
					Logger:  quiet,
				})
				if err := p.Run(t.Context()); err != nil {
					t.Error(err)
				}
				st := p.Stats()
				failed := int64(spoiled * c.failed)
				if n < batches || spoiled < batches/4 || st.Failed != failed || st.Succeeded != batches*size-failed {
					t.Errorf("%d batches; %d succeeded, %d failed; want %d failed, of %d", n, st.Succeeded, st.Failed, failed, batches*size)
				}
				if st.SettledTwice != 0 || st.Unsettled != 0 || len(source.Acks.Settled()) != batches*size {
					t.Errorf("%d settles, %d twice, %d unsettled", len(source.Acks.Settled()), st.SettledTwice, st.Unsettled)
				}
			})
		})
	}
}

// exiter is an acknowledger whose calls end their goroutine, as often as it is told.
type exiter struct {
	*broadwaytest.AckRecorder
	acks, releases int
}

func (e *exiter) Ack(ctx context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	if e.acks--; e.acks >= 0 {
		runtime.Goexit()
	}
	return e.AckRecorder.Ack(ctx, ref, ok, failed)
}

func (e *exiter) Release(ctx context.Context, ref *broadway.AckRef, messages []*broadway.Message) error {
	if e.releases--; e.releases >= 0 {
		runtime.Goexit()
	}
	return e.AckRecorder.Release(ctx, ref, messages)
}

// TestAnAcknowledgerThatExitsEndsNoSettler has Ack and Release end their goroutine,
// one after the other for the same group: its credit is returned, and what comes
// later is settled.
func TestAnAcknowledgerThatExitsEndsNoSettler(t *testing.T) {
	acks := &exiter{AckRecorder: new(broadwaytest.AckRecorder), acks: 2, releases: 1}
	behaviour(t, broadway.Config{}, func(t *testing.T, p *pipe) {
		p.source.Acks.Next = acks
		for _, payload := range []string{"1", "2", "3"} {
			p.source.Push(payload)
			synctest.Wait()
		}
		st := p.pipeline.Stats()
		if st.Released != 2 || st.Succeeded != 1 || st.Unsettled != 0 {
			t.Errorf("%d released, %d succeeded, %d unsettled", st.Released, st.Succeeded, st.Unsettled)
		}
		if calls := acks.Calls(); len(calls) != 2 || calls[0].String() != "release(2)" || calls[1].String() != "ack(3)" {
			t.Errorf("calls %v", calls)
		}
	})
}
