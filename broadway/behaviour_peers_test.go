package broadway_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// M-044: a panic with nil is a panic, in a handler and in a reporter.
func TestAPanicWithNilFailsItsMessages(t *testing.T) {
	for _, stage := range []string{"processor", "default"} {
		t.Run(stage, func(t *testing.T) {
			src := broadwaytest.NewProducer(broadway.Traits{})
			src.Push("a")
			src.End()
			blow := func(at string) {
				if at == stage {
					panic(nil)
				}
			}
			run(t, broadway.Config{
				Producers: []broadway.Producer{src}, Logger: quiet,
				Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { blow("processor"); return nil }},
				Batchers:  []broadway.BatcherConfig{{Reporter: func(context.Context, *broadway.Batch) error { blow("default"); return nil }}},
				Failure:   broadway.FailurePolicy{MaxAttempts: 1},
			})
			settled := src.Acks.Settled()
			if len(settled) != 1 || settled[0].Result != broadwaytest.Failed {
				t.Fatalf("settled %v", settled)
			}
			var broken *broadway.PanicError
			if !errors.As(settled[0].Err, &broken) {
				t.Errorf("failed by %v", settled[0].Err)
			}
		})
	}
}

// M-018, M-020: a drain waits for what runs and, when it is clean, logs nothing that
// anybody would have to look at.
func TestACleanDrainLogsNoWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, log := broadwaytest.NewProducer(broadway.Traits{AckTimeout: time.Hour}), &logBook{}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Logger: slog.New(slog.NewTextHandler(log, nil)),
			Processor: broadway.ProcessorConfig{Concurrency: 2, Timeout: time.Minute, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(10 * time.Second)
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 100, Timeout: -1, Reporter: func(context.Context, *broadway.Batch) error {
				time.Sleep(time.Second)
				return nil
			}}},
		})
		src.Push("a", "b", "c")
		stop := background(t, p)
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := outcome(src, broadwaytest.Succeeded); got != "a b c" {
			t.Errorf("%q were acknowledged", got)
		}
		if text := log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
			t.Errorf("a clean drain logged:\n%s", text)
		}
	})
}

// W-014: what comes back from the source after a drain gave it up is what was
// not settled, and nothing else.
func TestWhatADrainGivesBackIsWhatWasNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Logger: quiet, DrainTimeout: 10 * time.Second,
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: holdMessage},
		})
		src.Push("a", "b", "1!", "c", "d")
		stop := background(t, p)
		synctest.Wait()
		if err := stop(); !errors.Is(err, broadway.ErrDrainTimeout) {
			t.Errorf("Run: %v", err)
		}
		if ok, back := outcome(src, broadwaytest.Succeeded), outcome(src, broadwaytest.Released); ok != "1! a b" || back != "c d" {
			t.Errorf("%q were acknowledged and %q given back", ok, back)
		}
	})
}
