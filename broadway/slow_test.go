package broadway_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// a slow (not blocked) batcher of two with most of the traffic: every message is handled once.
func TestSlowBatcherOfTwoHandlesEachMessageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		var handled atomic.Int64
		src := memory.New(memory.Config{Payloads: payloads(n)})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src},
			Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
				handled.Add(1)
				m.Batcher = "a"
				if number(m)%10 == 0 {
					m.Batcher = "b"
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{
				{Name: "a", Reporter: func(context.Context, *broadway.Batch) error { time.Sleep(time.Second); return nil }},
				{Name: "b", Reporter: reportNothing}},
		})
		start := time.Now()
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		st := p.Stats()
		if handled.Load() != n {
			t.Errorf("%d handlings of %d messages in %v, released %d", handled.Load(), n, time.Since(start), st.Released)
		}
	})
}
