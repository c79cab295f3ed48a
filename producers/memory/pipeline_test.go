package memory_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// runFailing runs p to its end; the handler rejects the payloads of bad.
func runFailing(t *testing.T, p *memory.Producer, action broadway.Action, bad ...string) error {
	t.Helper()
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{p},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			for _, b := range bad {
				if string(m.Payload) == b {
					return broadway.Reject(errors.New("bad"))
				}
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{Action: action},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Run(t.Context())
}

// A stopped partition is left alone; the others go on, and a finite source does
// not end as if nothing had happened.
func TestStoppedPartitionIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memory.NewQueue(memory.QueueConfig{Name: "orders", Partitions: 2, Capacity: 2000})
		if err := q.Push(t.Context(), payloads(2000)...); err != nil { // the even ones in partition 0
			t.Fatal(err)
		}
		q.CloseInput()
		p := memory.New(memory.Config{Queue: q})
		err := runFailing(t, p, broadway.ActionStopPartition, "0010")
		if err == nil || !strings.Contains(err.Error(), "partition 0 of orders is stopped") {
			t.Errorf("Run: %v", err)
		}
		c := q.Counts()
		if c.Stopped != 1 || c.Succeeded < 1000 || c.Succeeded > 1995 {
			t.Errorf("counts %+v", c)
		}
		if lag := q.Lag(); lag[1].Messages != 0 || lag[0].Messages != 2000-c.Succeeded {
			t.Errorf("lag %+v, after %d succeeded", lag, c.Succeeded)
		}
		if m := fetch(t, memory.New(memory.Config{Queue: q}), 1)[0]; string(m.Payload) != "0010" {
			t.Errorf("the next producer gets %q first", m.Payload)
		}
	})
}

// The hook is told of each outcome once.
func TestSettledTellsEachOutcome(t *testing.T) {
	for action, want := range map[broadway.Action]memory.Outcome{
		broadway.ActionDrop:   memory.Dropped,
		broadway.ActionReject: memory.Rejected,
	} {
		var mu sync.Mutex
		told := map[string][]memory.Outcome{}
		p := memory.New(memory.Config{
			Payloads: payloads(10),
			QueueConfig: memory.QueueConfig{Settled: func(o memory.Outcome, m *broadway.Message) {
				mu.Lock()
				defer mu.Unlock()
				told[string(m.Payload)] = append(told[string(m.Payload)], o)
			}},
		})
		if err := runFailing(t, p, action, "0003"); err != nil {
			t.Fatal(err)
		}
		for _, payload := range payloads(10) {
			o := memory.Succeeded
			if string(payload) == "0003" {
				o = want
			}
			if got := told[string(payload)]; len(got) != 1 || got[0] != o {
				t.Errorf("%s: told %v of %s, want %v", action, got, payload, o)
			}
		}
		if c := p.Counts(); c.Settled() != 10 || c.Delivered != 10 {
			t.Errorf("%s: counts %+v", action, c)
		}
	}
}
