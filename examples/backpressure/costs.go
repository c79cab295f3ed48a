package main

import (
	"context"
	"sync/atomic"
	"time"
)

// page is the most posts that one API call returns.
const page = 20

// workers is how many posts B republishes at once.
const workers = 4

// reportBatch is how many posts C reports at once.
const reportBatch = 20

// costs are the three handlers, shared by both runs, and what they count.
type costs struct {
	unit     time.Duration
	offered  int // posts that the API has
	produced atomic.Int64
	calls    atomic.Int64
	reported atomic.Int64
}

// fetch is A's API: up to n posts, at most a page, at 1 unit a post. Fewer than
// asked for, or none, say that there are no more. Called by one goroutine.
func (c *costs) fetch(ctx context.Context, n int) int {
	n = min(n, page, c.offered-int(c.produced.Load()))
	c.calls.Add(1)
	if c.spend(ctx, n) != nil {
		return 0
	}
	c.produced.Add(int64(n))
	return n
}

// republish is B: 10 units for one post.
func (c *costs) republish(ctx context.Context) error { return c.spend(ctx, 10) }

// report is C: 2 units for each of n posts.
func (c *costs) report(ctx context.Context, n int) error {
	if err := c.spend(ctx, 2*n); err != nil {
		return err
	}
	c.reported.Add(int64(n))
	return nil
}

// spend takes n units of time, as a remote service would.
func (c *costs) spend(ctx context.Context, n int) error {
	timer := time.NewTimer(time.Duration(n) * c.unit)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch samples a run until stop is closed.
func (c *costs) watch(queued func() int, stop <-chan struct{}) []sample {
	start := time.Now()
	ticker := time.NewTicker(max(10*c.unit, time.Millisecond))
	defer ticker.Stop()
	var samples []sample
	for {
		samples = append(samples, sample{at: time.Since(start), queued: queued(), calls: c.calls.Load()})
		select {
		case <-ticker.C:
		case <-stop:
			return append(samples, sample{at: time.Since(start), queued: queued(), calls: c.calls.Load()})
		}
	}
}

// result counts what was done, and what was lost on the way.
func (c *costs) result(samples []sample, highest, bound int) result {
	produced, reported := int(c.produced.Load()), int(c.reported.Load())
	return result{
		Produced: produced, Calls: c.calls.Load(), Highest: highest, Bound: bound, Dropped: produced - reported,
		Seconds: samples[len(samples)-1].at.Seconds(), samples: samples,
	}
}
