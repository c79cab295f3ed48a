package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// bare is so many goroutines that do the sleep and nothing else: the limit of what a consumer with as many workers can reach.
func bare(goroutines int, sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(_ context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		var next atomic.Int64
		var t tally
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				for {
					i := next.Add(1)
					if i > int64(in.Messages) {
						return
					}
					time.Sleep(sleep)
					t.add(1, uint64(i))
				}
			})
		}
		all.Wait()
		return t.output(start), nil
	}
}
