package inproc

import (
	"context"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// message is what bare channels move.
type message struct {
	payload []byte
	value   uint64
}

const batchSize = 100

// channels is producer -> workers -> batcher -> counter over bare channels, in slices of size, by so many workers.
func channels(workers, size int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(_ context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		made, handled, batches := make(chan []message, workers), make(chan []message, workers), make(chan []message, 1)
		var all, pool sync.WaitGroup
		all.Go(func() { makeSlices(made, in.Messages, size) })
		for range workers {
			pool.Go(func() {
				for chunk := range made {
					for i := range chunk {
						chunk[i].value = measure.Read(chunk[i].payload)
					}
					handled <- chunk
				}
			})
		}
		all.Go(func() { pool.Wait(); close(handled) })
		all.Go(func() { batchSlices(handled, batches) })
		var out measure.Output
		for batch := range batches {
			for i := range batch {
				out.Sum += batch[i].value
			}
			out.Messages += len(batch)
		}
		all.Wait()
		out.Elapsed = time.Since(start)
		return out, nil
	}
}

func makeSlices(to chan<- []message, n, size int) {
	defer close(to)
	for at := 0; at < n; at += size {
		k := min(size, n-at)
		slab := measure.Slab(at, k)
		chunk := make([]message, k)
		for i := range chunk {
			chunk[i].payload = slab[i*measure.Payload : (i+1)*measure.Payload]
		}
		to <- chunk
	}
}

func batchSlices(from <-chan []message, to chan<- []message) {
	defer close(to)
	batch := make([]message, 0, batchSize)
	for chunk := range from {
		for i := range chunk {
			if batch = append(batch, chunk[i]); len(batch) == batchSize {
				to <- batch
				batch = make([]message, 0, batchSize)
			}
		}
	}
	if len(batch) > 0 {
		to <- batch
	}
}

// singles is the same one message at a time, over buffered channels.
func singles(workers int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(_ context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		made, handled := make(chan *message, batchSize), make(chan *message, batchSize)
		batches := make(chan []*message, 1)
		var all, pool sync.WaitGroup
		all.Go(func() {
			defer close(made)
			for i := range in.Messages {
				made <- &message{payload: measure.Slab(i, 1)}
			}
		})
		for range workers {
			pool.Go(func() {
				for m := range made {
					m.value = measure.Read(m.payload)
					handled <- m
				}
			})
		}
		all.Go(func() { pool.Wait(); close(handled) })
		all.Go(func() { batchSingles(handled, batches) })
		var out measure.Output
		for batch := range batches {
			for _, m := range batch {
				out.Sum += m.value
			}
			out.Messages += len(batch)
		}
		all.Wait()
		out.Elapsed = time.Since(start)
		return out, nil
	}
}

func batchSingles(from <-chan *message, to chan<- []*message) {
	defer close(to)
	batch := make([]*message, 0, batchSize)
	for m := range from {
		if batch = append(batch, m); len(batch) == batchSize {
			to <- batch
			batch = make([]*message, 0, batchSize)
		}
	}
	if len(batch) > 0 {
		to <- batch
	}
}
