package main

import (
	"context"
	"sync"
	"sync/atomic"
)

// pushBound is where the pushed queue gives up: memory has an end.
const pushBound = 500

// pushed runs the costs behind plain channels: A fetches as fast as it can and
// throws away what the queue has no room for.
func pushed(ctx context.Context, o options) (result, error) {
	c := &costs{unit: o.unit, offered: o.posts}
	queue, done := make(chan struct{}, pushBound), make(chan struct{}, pushBound)
	var highest atomic.Int64
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	var samples []sample
	watcher.Go(func() { samples = c.watch(func() int { return len(queue) + len(done) }, stop) })

	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(queue)
		for n := c.fetch(ctx, page); n > 0; n = c.fetch(ctx, page) {
			for range n {
				select {
				case queue <- struct{}{}:
				default: // dropped
				}
			}
			highest.Store(max(highest.Load(), int64(len(queue))))
		}
	})
	stages.Go(func() {
		defer close(done)
		var pool sync.WaitGroup
		for range workers {
			pool.Go(func() {
				for post := range queue {
					if c.republish(ctx) != nil {
						return
					}
					done <- post
				}
			})
		}
		pool.Wait()
	})
	stages.Go(func() { reportPushed(ctx, c, done) })
	stages.Wait()
	close(stop)
	watcher.Wait()
	return c.result(samples, int(highest.Load()), pushBound), context.Cause(ctx)
}

// reportPushed reports what comes, in batches of what is there.
func reportPushed(ctx context.Context, c *costs, done <-chan struct{}) {
	for range done {
		n := 1
		for ; n < reportBatch; n++ {
			if _, ok := <-done; !ok {
				break
			}
		}
		if c.report(ctx, n) != nil {
			break
		}
	}
	for range done {
		continue // cancelled: let the workers go
	}
}
