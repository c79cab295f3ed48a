package stage_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// event is what the benchmarks move, by pointer: as large as a small message.
type event struct {
	n int
	_ [192]byte
}

// source returns a fetch function over n events. They are made before the clock
// starts, so that only the moving is measured, or as they are fetched, in the way
// that a client makes messages: one slice and one event each.
func source(n int, fresh bool) func(context.Context, int) ([]*event, error) {
	const window = 1 << 16
	var events []*event
	for range window {
		if fresh {
			break
		}
		events = append(events, &event{n: 1})
	}
	at := 0
	return func(_ context.Context, demand int) ([]*event, error) {
		if n == 0 {
			return nil, io.EOF
		}
		k := min(demand, n)
		if fresh {
			n -= k
			return makeEvents(k), nil
		}
		k = min(k, window-at)
		chunk := events[at : at+k : at+k]
		at = (at + k) % window
		n -= k
		return chunk, nil
	}
}

func makeEvents(n int) []*event {
	events := make([]*event, n)
	for i := range events {
		events[i] = &event{n: 1}
	}
	return events
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

func benchmarkTwo(b *testing.B, demand int, fresh bool) {
	total := 0
	p := must(stage.NewProducer("p", source(b.N, fresh), stage.Options[*event]{}))
	c := must(stage.NewConsumer("c", sum(&total)))
	must(stage.Subscribe(c, p, stage.Demand(demand)))
	b.ReportAllocs()
	b.ResetTimer()
	if err := stage.Run(b.Context(), p, c); err != nil || total != b.N {
		b.Fatalf("%v, %d of %d events", err, total, b.N)
	}
	reportRate(b, b.N)
}

func benchmarkThree(b *testing.B, demand int, fresh bool) {
	total := 0
	same := func(_ context.Context, events []*event) ([]*event, error) { return events, nil }
	p := must(stage.NewProducer("p", source(b.N, fresh), stage.Options[*event]{}))
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
func benchmarkChannels(b *testing.B, workers, size int, fresh bool) {
	fetch := source(b.N, fresh)
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

// The names sort the peers beside what they compare with. Only ratios within one
// run mean something, and only with -count: the machine's speed drifts.
func BenchmarkStages(b *testing.B) {
	for _, fresh := range []bool{false, true} {
		kind := map[bool]string{false: "made-before", true: "made-on-fetch"}[fresh]
		b.Run(kind+"/large/channels-2x100", func(b *testing.B) { benchmarkChannels(b, 2, 100, fresh) })
		b.Run(kind+"/large/two-stages-1000", func(b *testing.B) { benchmarkTwo(b, 1000, fresh) })
		b.Run(kind+"/large/three-stages-1000", func(b *testing.B) { benchmarkThree(b, 1000, fresh) })
		b.Run(kind+"/small/channels-10x10", func(b *testing.B) { benchmarkChannels(b, 10, 10, fresh) })
		b.Run(kind+"/small/two-stages-10", func(b *testing.B) { benchmarkTwo(b, 10, fresh) })
		b.Run(kind+"/small/three-stages-10", func(b *testing.B) { benchmarkThree(b, 10, fresh) })
	}
}
