package broadway_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// A message with as many attempts behind it as are allowed is given up by the
// policy's action, and nothing of the user's sees it before: neither the handler,
// nor PartitionBy, nor a reporter. One with less is handled with its Attempt, which
// later ones count on from.
func TestAttemptsOverCrashesAreCounted(t *testing.T) {
	for name, partitionBy := range map[string]func(*broadway.Message) uint64{
		"unordered": nil,
		"ordered": func(m *broadway.Message) uint64 {
			if string(m.Payload) == "poison" {
				panic("it was seen")
			}
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			handled := &handledBy{}
			letters := &letterer{}
			var attempts []int
			behaviour(t, broadway.Config{
				Processor: broadway.ProcessorConfig{Concurrency: 1, PartitionBy: partitionBy, Handler: func(_ context.Context, m *broadway.Message) error {
					handled.add(m)
					attempts = append(attempts, m.Attempt)
					return errFail
				}},
				Batchers: []broadway.BatcherConfig{{Size: 10}},
				Failure:  broadway.FailurePolicy{MaxAttempts: 3, Action: broadway.ActionDeadLetter, DeadLetter: letters},
			}, func(t *testing.T, p *pipe) {
				p.source.PushItems(
					broadwaytest.Item{Payload: []byte("poison"), Attempt: 4},
					broadwaytest.Item{Payload: []byte("suspect"), Attempt: 2},
				)
				wantResults(t, p.settled(2), "poison:dead-lettered suspect:dead-lettered")
				synctest.Wait()
				if got := handled.all(); len(got) != 2 || got[0] != "suspect" || attempts[0] != 2 || attempts[1] != 3 {
					t.Errorf("handled %v with the attempts %v", got, attempts)
				}
				for _, l := range letters.Letters() {
					if exhausted := errors.Is(l.Err, broadway.ErrAttemptsExhausted); l.Attempt != 3 || exhausted != (l.Payload == "poison") {
						t.Errorf("dead letter %s: attempt %d, %v", l.Payload, l.Attempt, l.Err)
					}
				}
				if len(p.reports.Batches()) != 0 {
					t.Errorf("reported %v", p.reports.Batches())
				}
			})
		})
	}
}

// Whatever the action is, it is taken without a handling.
func TestExhaustedAttemptsTakeThePolicysAction(t *testing.T) {
	for action, want := range map[broadway.Action]string{
		broadway.ActionDrop: "failed", broadway.ActionReject: "failed", broadway.ActionRequeueOnce: "failed",
		broadway.ActionStopPartition: "failed",
	} {
		t.Run(action.String(), func(t *testing.T) {
			behaviour(t, broadway.Config{
				Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
					t.Error("handled")
					return nil
				}},
				Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: action},
			}, func(t *testing.T, p *pipe) {
				p.source.PushItems(broadwaytest.Item{Payload: []byte("1"), Attempt: 2, Redelivered: true})
				got := p.settled(1)["1"]
				if got.Result.String() != want || !errors.Is(got.Err, broadway.ErrAttemptsExhausted) {
					t.Errorf("%v because of %v", got.Result, got.Err)
				}
			})
		})
	}
}
