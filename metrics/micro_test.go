package metrics_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
	"github.com/gobroadway/gobroadway/metrics"
)

// eventOps tell an observer of what happens in a pipeline that it knows, and ask for the picture of it.
func eventOps(tb testing.TB) []micro.Op {
	m, registry := newMetrics(tb, metrics.Options{})
	o := m.Observer()
	retry := o.(broadway.RetryObserver)
	return []micro.Op{
		{Name: "fetched", Run: func() {
			o.Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Messages: 100, Bytes: 20_000, Duration: time.Millisecond})
		}},
		{Name: "fetched-at-the-end", Run: func() { o.Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Err: io.EOF}) }},
		{Name: "fetched-and-cancelled", Run: func() {
			o.Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Err: context.Canceled})
		}},
		{Name: "handled-100", Run: func() {
			o.Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 98, Failed: 2, Duration: 3 * time.Millisecond})
		}},
		{Name: "reported", Run: func() {
			o.Reported(broadway.ReportEvent{Pipeline: "p", Batcher: "store", Trigger: broadway.TriggerSize, Messages: 100, Bytes: 20_000, Duration: time.Millisecond})
		}},
		{Name: "settled", Run: func() { o.Settled(broadway.SettleEvent{Pipeline: "p", Succeeded: 98, Failed: 2}) }},
		{Name: "retrying", Run: func() { retry.Retrying("p", "store", nil, time.Second, io.ErrUnexpectedEOF) }},
		{Name: "gather", Allocs: micro.Unheld, Run: func() {
			if families, err := registry.Gather(); err != nil || len(families) == 0 {
				panic("nothing was gathered")
			}
		}},
	}
}

func BenchmarkObserver(b *testing.B) { micro.Benchmark(b, eventOps(b)) }

func TestAllocations(t *testing.T) { micro.Allocations(t, eventOps(t)) }
