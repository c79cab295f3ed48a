package stage_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// event is what the benchmarks move: a message as the stages see it, by pointer.
type event struct{ n int }

// source returns a fetch function over n events, which are made before the clock
// starts: what is measured is the moving.
func source(n int) func(context.Context, int) ([]*event, error) {
	const window = 1 << 16
	events := make([]*event, window)
	for i := range events {
		events[i] = &event{n: 1}
	}
	at := 0
	return func(_ context.Context, demand int) ([]*event, error) {
		if n == 0 {
			return nil, io.EOF
		}
		k := min(demand, n, window-at)
		chunk := events[at : at+k : at+k]
		at = (at + k) % window
		n -= k
		return chunk, nil
	}
}

func sum(total *int) func(context.Context, []*event) error {
	return func(_ context.Context, events []*event) error {
		for _, e := range events {
			*total += e.n
		}
		return nil
	}
}

func reportRate(b *testing.B, events int) {
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(0, "ns/op")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func benchmarkTwo(b *testing.B, demand int) {
	total := 0
	p := must(stage.NewProducer("p", source(b.N), stage.Options[*event]{}))
	c := must(stage.NewConsumer("c", sum(&total)))
	must(stage.Subscribe(c, p, stage.Demand(demand)))
	b.ReportAllocs()
	b.ResetTimer()
	if err := stage.Run(b.Context(), p, c); err != nil || total != b.N {
		b.Fatalf("%v, %d of %d events", err, total, b.N)
	}
	reportRate(b, b.N)
}

func benchmarkThree(b *testing.B, demand int) {
	total := 0
	same := func(_ context.Context, events []*event) ([]*event, error) { return events, nil }
	p := must(stage.NewProducer("p", source(b.N), stage.Options[*event]{}))
	pc := must(stage.NewProducerConsumer("pc", same, stage.Options[*event]{}))
	c := must(stage.NewConsumer("c", sum(&total)))
	must(stage.Subscribe(pc, p, stage.Demand(demand)))
	must(stage.Subscribe(c, pc, stage.Demand(demand)))
	b.ReportAllocs()
	b.ResetTimer()
	if err := stage.Run(b.Context(), p, pc, c); err != nil || total != b.N {
		b.Fatalf("%v, %d of %d events", err, total, b.N)
	}
	reportRate(b, b.N)
}

// The peer: bare channels, producer -> workers -> batcher -> counter.
func benchmarkChannels(b *testing.B, workers, size int) {
	fetch := source(b.N)
	in, mid, out := make(chan []*event, workers), make(chan []*event, workers), make(chan []*event, 1)
	b.ReportAllocs()
	b.ResetTimer()
	var all, pool sync.WaitGroup
	all.Go(func() {
		defer close(in)
		for {
			events, err := fetch(b.Context(), size)
			if err != nil {
				return
			}
			in <- events
		}
	})
	for range workers {
		pool.Go(func() {
			for events := range in {
				mid <- events
			}
		})
	}
	all.Go(func() {
		pool.Wait()
		close(mid)
	})
	all.Go(func() {
		defer close(out)
		batch := make([]*event, 0, 100)
		for events := range mid {
			for _, e := range events {
				if batch = append(batch, e); len(batch) == 100 {
					out <- batch
					batch = make([]*event, 0, 100)
				}
			}
		}
		out <- batch
	})
	total := 0
	for batch := range out {
		for _, e := range batch {
			total += e.n
		}
	}
	all.Wait()
	if total != b.N {
		b.Fatalf("%d of %d events", total, b.N)
	}
	reportRate(b, b.N)
}

func BenchmarkProducerConsumer(b *testing.B) {
	b.Run("demand=1000", func(b *testing.B) { benchmarkTwo(b, 1000) })
	b.Run("demand=10", func(b *testing.B) { benchmarkTwo(b, 10) })
}

func BenchmarkProducerMiddleConsumer(b *testing.B) {
	b.Run("demand=1000", func(b *testing.B) { benchmarkThree(b, 1000) })
	b.Run("demand=10", func(b *testing.B) { benchmarkThree(b, 10) })
}

func BenchmarkBareChannels(b *testing.B) {
	b.Run("workers=2/slice=100", func(b *testing.B) { benchmarkChannels(b, 2, 100) })
	b.Run("workers=10/slice=10", func(b *testing.B) { benchmarkChannels(b, 10, 10) })
}
