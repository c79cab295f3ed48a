package inproc

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// watermillChannel is Watermill's router on its in-process channel, with so many handlers. A publish waits for its acknowledgement, or
// for nothing, in which case all messages pile up in memory.
func watermillChannel(handlers int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		pubsub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: batchSize, BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
		var out measure.Output
		var sum, count atomic.Uint64
		done := make(chan struct{})
		messages, err := pubsub.Subscribe(ctx, "t")
		if err != nil {
			return out, err
		}
		for range handlers {
			go func() {
				for m := range messages {
					sum.Add(measure.Read(m.Payload))
					m.Ack()
					if count.Add(1) == uint64(in.Messages) {
						close(done)
					}
				}
			}()
		}
		start := time.Now()
		failed := make(chan error, handlers)
		for part := range handlers {
			go func() {
				for i := part; i < in.Messages; i += handlers {
					if err := pubsub.Publish("t", wm.NewMessage(watermill.NewUUID(), measure.Slab(i, 1))); err != nil {
						failed <- err
						return
					}
				}
			}()
		}
		select {
		case <-done:
		case err := <-failed:
			return out, err
		}
		return measure.Output{Messages: int(count.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, pubsub.Close()
	}
}
