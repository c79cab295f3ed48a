package broadwaytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// start runs cfg until the test ends, and gives the function that drains it.
func start(t *testing.T, cfg broadway.Config) (stop func() error) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	return func() error {
		cancel()
		return <-over
	}
}

func pass(context.Context, *broadway.Message) error { return nil }

func TestProducerTellsWhatItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broadwaytest.NewProducer(broadway.Traits{})
		stop := start(t, broadway.Config{
			Producers: []broadway.Producer{p},
			Processor: broadway.ProcessorConfig{Handler: pass, Concurrency: 2, MaxDemand: 3},
		})
		d, err := p.WaitAsk(t.Context())
		if err != nil || d.Messages < 1 {
			t.Fatalf("asked for %+v, %v", d, err)
		}
		p.Push("a", "b")
		if err := p.Acks.Wait(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := p.Asked(); !ok || p.Waiting() != 0 {
			t.Errorf("no Fetch waits, %d messages do", p.Waiting())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(p.Asks()) < 2 || p.Closes() != 1 || !p.Drained() || !p.Ref().Ended() {
			t.Errorf("asks %v, closed %d times, drained %v", p.Asks(), p.Closes(), p.Drained())
		}
	})
}

func TestProducerFailsAndBlocksAsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broadwaytest.NewProducer(broadway.Traits{})
		p.FailConnect(io.ErrUnexpectedEOF)
		p.FailFetch(io.ErrNoProgress)
		unblock := p.BlockFetch()
		p.Push("a")
		observer := &broadwaytest.ObserverRecorder{}
		stop := start(t, broadway.Config{
			Producers: []broadway.Producer{p}, Processor: broadway.ProcessorConfig{Handler: pass}, Observer: observer,
		})
		time.Sleep(time.Hour)
		if p.Waiting() != 1 || len(observer.Fetches()) != 0 {
			t.Errorf("a blocked Fetch returned %v", observer.Fetches())
		}
		unblock()
		if err := p.Acks.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if f := observer.Fetches(); !errors.Is(f[0].Err, io.ErrNoProgress) || f[1].Messages != 1 {
			t.Errorf("fetches %v", f)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestProducerKeepsDemandInBytes(t *testing.T) {
	p := broadwaytest.NewProducer(broadway.Traits{})
	p.PushItems(broadwaytest.Item{Size: 60}, broadwaytest.Item{Size: 50})
	_, err := p.Fetch(t.Context(), broadway.Demand{Messages: 2, Bytes: 50})
	if need, ok := broadway.NeededBytes(err); !ok || need != 60 {
		t.Errorf("Fetch: %v", err)
	}
	messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: 2, Bytes: 100})
	if err != nil || len(messages) != 1 {
		t.Errorf("%d messages, %v", len(messages), err)
	}
}

func TestProducerAtTheLimitOfItsReferenceWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broadwaytest.NewProducer(broadway.Traits{})
		if p.NewRef(2) == p.Ref() {
			t.Fatal("NewRef begins no new reference")
		}
		p.Push("a", "b", "c")
		if m, err := p.Fetch(t.Context(), broadway.Demand{Messages: 3, Bytes: 100}); err != nil || len(m) != 2 {
			t.Fatalf("%d messages, %v", len(m), err)
		}
		go func() {
			time.Sleep(time.Second)
			p.Ref().Untake(1)
		}()
		before := time.Now()
		m, err := p.Fetch(t.Context(), broadway.Demand{Messages: 3, Bytes: 100})
		if err != nil || len(m) != 1 || time.Since(before) < time.Second {
			t.Errorf("%d messages, %v, after %v", len(m), err, time.Since(before))
		}
	})
}

func TestAckRecorderTellsCallsAndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broadwaytest.NewProducer(broadway.Traits{})
		broken := errors.New("broken")
		p.Acks.Fail(broken)
		unblock := p.Acks.Block()
		observer := &broadwaytest.ObserverRecorder{}
		stop := start(t, broadway.Config{
			Producers: []broadway.Producer{p}, Observer: observer,
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
				if string(m.Payload) == "c" {
					return broadway.Reject(broken)
				}
				return nil
			}},
		})
		p.Push("a")
		synctest.Wait()
		p.Push("b", "c", "d")
		synctest.Wait()
		if calls := p.Acks.Calls(); len(calls) != 0 {
			t.Errorf("calls while blocked: %v", calls)
		}
		unblock()
		if err := p.Acks.Wait(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got, want := fmt.Sprint(p.Acks.Calls()), "[release(a) ack(b d; c)]"; got != want {
			t.Errorf("calls %s, want %s", got, want)
		}
		failed := p.Acks.Calls()[1].Failed[0]
		if failed.Result != broadwaytest.Failed || failed.Action != broadway.ActionDrop || !errors.Is(failed.Err, broken) {
			t.Errorf("failed as %+v", failed)
		}
		if n := p.Acks.Overlaps(); n != 0 {
			t.Errorf("%d calls overlapped", n)
		}
		if sum := observer.Total(); sum.Succeeded != 2 || sum.Failed != 1 || sum.Released != 1 {
			t.Errorf("told %+v", sum)
		}
	})
}

func TestAckRecorderNoticesOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &broadwaytest.AckRecorder{}
		unblock := r.Block()
		one, other := broadway.NewAckRef(r, nil, 0), broadway.NewAckRef(r, nil, 0)
		for _, ref := range []*broadway.AckRef{one, other, one} {
			go func() {
				if err := r.Ack(t.Context(), ref, nil, nil); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		unblock()
		synctest.Wait()
		if n := r.Overlaps(); n != 1 {
			t.Errorf("%d overlaps, want 1: calls for different references may overlap", n)
		}
	})
}

func TestReportAndDeadLetterRecordersFailOnCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broadwaytest.NewProducer(broadway.Traits{})
		reports, letters, observer := &broadwaytest.ReportRecorder{}, &broadwaytest.DeadLetterRecorder{}, &broadwaytest.ObserverRecorder{}
		broken := errors.New("broken")
		reports.Fail(broken, broadway.Reject(broken), nil)
		letters.Fail(broken)
		stop := start(t, broadway.Config{
			Producers: []broadway.Producer{p}, Observer: observer,
			Processor: broadway.ProcessorConfig{Handler: pass, Concurrency: 1},
			Batchers:  []broadway.BatcherConfig{{Reporter: reports.Report, Size: 1}},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
		})
		p.Push("a")
		if err := letters.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		p.Push("b")
		if err := p.Acks.Wait(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		attempts := [][]int{}
		for _, b := range reports.Batches() {
			attempts = append(attempts, b.Attempts)
		}
		if !slices.EqualFunc(attempts, [][]int{{1}, {2}, {1}}, slices.Equal) {
			t.Errorf("attempts %v", attempts)
		}
		if l := letters.Letters()[0]; l.Payload != "a" || l.Result != broadwaytest.DeadLettered || !errors.Is(l.Err, broken) {
			t.Errorf("letter %+v", l)
		}
		if r := observer.Retries(); len(r) != 1 || r[0].Stage != "default" || r[0].Payload != "a" {
			t.Errorf("retries %+v", r)
		}
	})
}
