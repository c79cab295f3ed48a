package broadway_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// stub is a producer that says of itself what a test wants, and never delivers.
type stub struct {
	traits  broadway.Traits
	connect func(context.Context) error
	fetch   func(context.Context, broadway.Demand) ([]*broadway.Message, error)
	closed  bool
}

func (s *stub) Describe(broadway.Limits) broadway.Traits { return s.traits }
func (s *stub) Close() error                             { s.closed = true; return nil }
func (s *stub) Connect(ctx context.Context) error {
	if s.connect == nil {
		return nil
	}
	return s.connect(ctx)
}
func (s *stub) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.fetch != nil {
		return s.fetch(ctx, d)
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestNewNamesEveryWrongFieldAtOnce breaks every rule there is.
func TestNewNamesEveryWrongFieldAtOnce(t *testing.T) {
	most := strconv.Itoa(math.MaxInt)
	rabbit := &stub{traits: broadway.Traits{Kind: "rabbitmq", Name: "orders", Broker: true, Prefetch: 50, AckTimeout: time.Minute}}
	report := func(context.Context, *broadway.Batch) error { return nil }
	for _, c := range []struct {
		name string
		cfg  broadway.Config
		want []string
	}{
		{"everything empty", broadway.Config{}, []string{
			"Producers: at least one is required",
			"Processor.Handler: is required",
		}},
		{"everything wrong", broadway.Config{
			Producers: []broadway.Producer{nil},
			Processor: broadway.ProcessorConfig{Concurrency: -1, MaxDemand: 5, MinDemand: 5, Timeout: -1, MaxStuck: -2, Unordered: true,
				PartitionBy: func(*broadway.Message) uint64 { return 0 }},
			Batchers: []broadway.BatcherConfig{
				{Size: -1, Bytes: -1, Timeout: -2, Concurrency: -1, ReportTimeout: -1},
				{Reporter: report, RetryStuck: true},
			},
			Failure: broadway.FailurePolicy{MaxAttempts: -1, Action: broadway.ActionDeadLetter,
				Backoff: broadway.Backoff{Initial: -1, Factor: 0.5, Jitter: 2}},
			MaxUnsettled: -1, MaxUnsettledBytes: -1, DrainTimeout: -1,
		}, []string{
			"Producers[0]: must not be nil",
			"Processor.Handler: is required",
			"Processor.Concurrency: -1: must be between 1 and ",
			"Processor.MinDemand: 5: must be at least 0 and less than MaxDemand, which is 5",
			"Processor.Timeout: -1ns: ",
			"Processor.MaxStuck: -2: ",
			"Processor.Unordered: true: cannot be combined",
			"Batchers[0].Reporter: is required",
			"Batchers[0].Concurrency: -1: ",
			"Batchers[0].Size: -1: ",
			"Batchers[0].Bytes: -1: ",
			"Batchers[0].Timeout: -2ns: ",
			"Batchers[0].ReportTimeout: -1ns: ",
			"Batchers[1].RetryStuck: true: needs a time-out",
			"Batchers[1].Name: default: is used twice",
			"Failure.MaxAttempts: -1: ",
			"Failure.Backoff.Initial: -1ns: ",
			"Failure.Backoff.Factor: 0.5: ",
			"Failure.Backoff.Jitter: 2: ",
			"Failure.DeadLetter: is required with the action dead_letter",
			"MaxUnsettled: -1: ",
			"MaxUnsettledBytes: -1: ",
			"DrainTimeout: -1ns: ",
		}},
		{"slips of the finger", broadway.Config{
			Producers: []broadway.Producer{rabbit},
			Processor: broadway.ProcessorConfig{Handler: nothing, Concurrency: math.MaxInt, MaxDemand: math.MaxInt},
			Batchers:  []broadway.BatcherConfig{{Size: math.MaxInt, Concurrency: math.MaxInt, Reporter: report}},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionDrop, MaxAttempts: math.MaxInt, Backoff: broadway.Backoff{Initial: time.Nanosecond, Max: 1}},
		}, []string{
			"Processor.Concurrency: " + most + ": ",
			"Processor.MaxDemand: " + most + ": ",
			"Batchers[0].Size: " + most + ": must be between",
			"Batchers[0].Size: " + most + ": a batch can never fill",
			"Batchers[0].Concurrency: " + most + ": ",
			"Failure.MaxAttempts: " + most + ": ",
		}},
		{"a broker needs a policy, a batch must be able to fill, backoff must fit", broadway.Config{
			Producers: []broadway.Producer{rabbit},
			Processor: broadway.ProcessorConfig{Handler: nothing},
			Batchers:  []broadway.BatcherConfig{{Size: 100, Reporter: report}},
			Failure:   broadway.FailurePolicy{MaxAttempts: 5, Backoff: broadway.Backoff{Initial: 10 * time.Second, Max: time.Minute}},
		}, []string{
			"Failure.Action: is required: Producers[0] (rabbitmq)",
			"Failure.Backoff: ",
			"Batchers[0].Size: 100: a batch can never fill: the batcher holds no more than 50 messages",
		}},
		{"an action that the source cannot do", broadway.Config{
			Producers: []broadway.Producer{rabbit},
			Processor: broadway.ProcessorConfig{Handler: nothing},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPartition},
		}, []string{"Failure.Action: stop_partition: Producers[0] (rabbitmq) cannot do that"}},
		{"a bound below what is prefetched", broadway.Config{
			Producers:    []broadway.Producer{rabbit, memory.New(memory.Config{})},
			Processor:    broadway.ProcessorConfig{Handler: nothing},
			Failure:      broadway.FailurePolicy{Action: broadway.ActionDrop},
			MaxUnsettled: 50,
		}, []string{"MaxUnsettled: 50: must be at least 51"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := broadway.New(c.cfg)
			if err == nil {
				t.Fatal("it was accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(c.want), err)
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+err.Error(), "\n"+want) {
					t.Errorf("not reported: %s\nin:\n%v", want, err)
				}
			}
			var field *broadway.FieldError
			if !errors.As(err, &field) || field.Field == "" {
				t.Error("the mistakes are not *FieldError")
			}
		})
	}
}

// TestAnUnreachableBrokerIsSaidRetriedAndVisible fails the first connections.
func TestAnUnreachableBrokerIsSaidRetriedAndVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		refused, tries := errors.New("connection refused"), 0
		source := &stub{
			traits:  broadway.Traits{Kind: "kafka", Name: "orders"},
			connect: func(context.Context) error { tries++; return refused },
		}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: nothing},
			Logger:    slog.New(slog.NewTextHandler(&log, nil)),
		})
		stop := background(t, p)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		st := p.Stats()
		if st.State != broadway.StateConnecting || !errors.Is(st.Err, refused) || !errors.Is(st.Producers[0].Err, refused) ||
			!strings.Contains(st.WaitingFor, "orders") {
			t.Errorf("stats: %+v", st)
		}
		if tries < 15 || tries > 40 { // 1 s doubling to 30 s
			t.Errorf("tried %d times in 10 minutes", tries)
		}
		if err := stop(); err != nil || !source.closed {
			t.Errorf("stopped with %v, closed %v", err, source.closed)
		}
		if !strings.Contains(log.String(), "cannot connect") || !strings.Contains(log.String(), "connection refused") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestFailFastEndsRunAtTheFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{&stub{connect: func(context.Context) error { return refused }}, memory.New(memory.Config{})},
			Processor: broadway.ProcessorConfig{Handler: nothing},
			FailFast:  true,
		})
		if err := p.Run(t.Context()); !errors.Is(err, refused) {
			t.Errorf("err: %v", err)
		}
	})
}

// TestAProducerThatReturnsMoreThanWasAskedStopsThePipeline, and what it returned
// is not handled.
func TestAProducerThatReturnsMoreThanWasAskedStopsThePipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := broadway.NewAckRef(nil, nil, 0)
		source := &stub{fetch: func(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
			n := ref.Take(d.Messages + 1)
			out := make([]*broadway.Message, n)
			for i := range out {
				out[i] = broadway.NewMessage(ref, int64(i), nil)
			}
			return out, nil
		}}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
				t.Error("a message over the demand was handled")
				return nil
			}},
		})
		if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "for a demand of") {
			t.Errorf("err: %v", err)
		}
		if ref.Unsettled() != 0 {
			t.Errorf("%d messages are still taken", ref.Unsettled())
		}
	})
}

func TestAPipelineRunsOnce(t *testing.T) {
	p := run(t, broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(1)})},
		Processor: broadway.ProcessorConfig{Handler: nothing},
	})
	if err := p.Run(t.Context()); !errors.Is(err, broadway.ErrRunning) {
		t.Errorf("err: %v", err)
	}
}

// The waits between so many attempts cannot be added up one by one.
func TestNewReturnsForAnyMaxAttempts(t *testing.T) {
	_, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{&stub{traits: broadway.Traits{AckTimeout: time.Minute}}},
		Processor: broadway.ProcessorConfig{Handler: nothing}, Failure: broadway.FailurePolicy{Action: broadway.ActionDrop, MaxAttempts: math.MaxInt},
	})
	if err == nil || !strings.Contains(err.Error(), "MaxAttempts") {
		t.Errorf("New: %v", err)
	}
}

func TestTheSameProducerTwiceIsAMistake(t *testing.T) {
	src := memory.New(memory.Config{})
	if _, err := broadway.New(broadway.Config{Producers: []broadway.Producer{src, src}, Processor: broadway.ProcessorConfig{Handler: nothing}}); err == nil || !strings.Contains(err.Error(), "Producers[1]") {
		t.Errorf("New: %v", err)
	}
}

// Waits between the attempts of both stages count against the ack time-out.
func TestTheBackoffOfBothStagesMustFit(t *testing.T) {
	src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: 10 * time.Second})
	_, err := broadway.New(broadway.Config{Producers: []broadway.Producer{src}, Processor: broadway.ProcessorConfig{Handler: nothing},
		Batchers: []broadway.BatcherConfig{{Reporter: reportNothing}},
		Failure:  broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: 4 * time.Second, Max: 4 * time.Second, Jitter: -1}}})
	if err == nil {
		t.Error("waits of 4 s at each of two stages pass half of 10 s")
	}
}
