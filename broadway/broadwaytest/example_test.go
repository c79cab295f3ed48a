package broadwaytest_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// shout is the pipeline of a program that is to be tested.
func shout() broadway.Config {
	return broadway.Config{
		Logger: slog.New(slog.DiscardHandler),
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			if len(m.Payload) == 0 {
				return broadway.Reject(errors.New("nothing to shout"))
			}
			m.Value = strings.ToUpper(string(m.Payload))
			m.BatchKey = string(bytes.ToLower(m.Payload[:1]))
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{
			Reporter: func(context.Context, *broadway.Batch) error { return nil },
		}},
	}
}

func TestRunMessageTellsWhatBecameOfIt(t *testing.T) {
	got := broadwaytest.RunMessage(t, shout(), broadwaytest.Item{Payload: []byte("Hello")})
	if got.Result != broadwaytest.Succeeded || got.Value != "HELLO" || got.BatchKey != "h" {
		t.Errorf("got %+v", got)
	}
	got = broadwaytest.RunMessage(t, shout(), broadwaytest.Item{})
	if got.Result != broadwaytest.Failed || got.Err == nil || got.Action != broadway.ActionDrop {
		t.Errorf("got %+v", got)
	}
}

func TestRunBatchKeepsMessagesTogether(t *testing.T) {
	cfg := shout()
	reports := &broadwaytest.ReportRecorder{}
	cfg.Batchers[0].Reporter = reports.Report
	cfg.Processor.Concurrency = 1
	got := broadwaytest.RunBatch(t, cfg,
		broadwaytest.Item{Payload: []byte("aa")}, broadwaytest.Item{Payload: []byte("b")}, broadwaytest.Item{},
		broadwaytest.Item{Payload: []byte("A")})
	var results []broadwaytest.Result
	for _, s := range got {
		results = append(results, s.Result)
	}
	if got[0].Payload != "aa" || results[2] != broadwaytest.Failed || results[3] != broadwaytest.Succeeded {
		t.Errorf("got %v", results)
	}
	var batches []string
	for _, b := range reports.Batches() {
		batches = append(batches, b.String())
	}
	slices.Sort(batches) // the drain closes both
	if all := strings.Join(batches, " "); all != "default[aa A] default[b]" {
		t.Errorf("batches %v", batches)
	}
}
