package broadway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// TestMessagesOverALimitReachNoHandler: at each limit a message passes, and one
// above it is dead-lettered as a reference, without a second attempt. The error
// has sizes, and nothing of the message.
func TestMessagesOverALimitReachNoHandler(t *testing.T) {
	headers := func(n, each int) (list []broadway.Header) {
		for i := range n {
			list = append(list, broadway.Header{Key: fmt.Sprintf("%04d", i), Value: []byte(strings.Repeat("s", each-4))})
		}
		return list
	}
	for name, step := range map[string]struct {
		limits   broadway.MessageLimits
		at, over broadway.Record
	}{
		"payload by default": {
			at: broadway.Record{Payload: make([]byte, 16<<20)}, over: broadway.Record{Payload: make([]byte, 16<<20+1)},
		},
		"key by default": {
			at: broadway.Record{Key: make([]byte, 64<<10)}, over: broadway.Record{Key: make([]byte, 64<<10+1)},
		},
		"headers by default": {
			at: broadway.Record{Headers: headers(1000, 4)}, over: broadway.Record{Headers: headers(1001, 4)},
		},
		"header bytes by default": {
			at: broadway.Record{Headers: headers(64, 1024)}, over: broadway.Record{Headers: headers(65, 1024)},
		},
		"chosen": {
			limits: broadway.MessageLimits{Payload: 10, Key: -1, Headers: -1, HeaderBytes: -1},
			at:     broadway.Record{Payload: make([]byte, 10), Key: make([]byte, 1<<20), Headers: headers(2000, 100)},
			over:   broadway.Record{Payload: make([]byte, 11), Key: []byte("secret")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			queue, dead := memory.NewQueue(memory.QueueConfig{}), memory.NewQueue(memory.QueueConfig{})
			if err := queue.Publish(t.Context(), step.at, step.over); err != nil {
				t.Fatal(err)
			}
			queue.CloseInput()
			handled := 0
			p := build(t, broadway.Config{
				Producers:     []broadway.Producer{memory.New(memory.Config{Queue: queue})},
				MessageLimits: step.limits,
				Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(context.Context, *broadway.Message) error {
					handled++
					return nil
				}},
				Failure: broadway.FailurePolicy{MaxAttempts: 5, Action: broadway.ActionDeadLetter, DeadLetter: &acknowledgers.DeadLetters{Publisher: dead}},
			})
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if handled != 1 {
				t.Errorf("%d handled", handled)
			}
			wantReference(t, dead)
		})
	}
}

// wantReference says whether the one message of dead is a small reference, whose
// reason is the limit.
func wantReference(t *testing.T, dead *memory.Queue) {
	t.Helper()
	messages, err := memory.New(memory.Config{Queue: dead}).Fetch(t.Context(), broadway.Demand{Messages: 2, Bytes: 1 << 30})
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d dead letters, %v", len(messages), err)
	}
	reason := ""
	headers := messages[0].Metadata.(broadway.Enveloped).MessageHeaders()
	for _, h := range headers {
		if h.Key == acknowledgers.HeaderReason {
			reason = string(h.Value)
		}
	}
	if !acknowledgers.IsReference(headers) || messages[0].Size() > 8<<10 {
		t.Errorf("the dead letter is no reference, or too large: %d bytes", messages[0].Size())
	}
	if !strings.Contains(reason, broadway.ErrOverLimit.Error()) || strings.Contains(reason, "secret") || strings.Contains(reason, "sss") {
		t.Errorf("the reason is %q", reason)
	}
}
