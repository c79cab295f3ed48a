package rabbitmq

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// watermillSubscriber is Watermill's subscriber, without its router.
func watermillSubscriber(prefetch int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (out measure.Output, err error) {
		cfg := amqp.NewDurableQueueConfig(in.RabbitMQ)
		cfg.Consume.Qos.PrefetchCount = prefetch
		subscriber, err := amqp.NewSubscriber(cfg, watermill.NopLogger{})
		if err != nil {
			return out, err
		}
		start := time.Now()
		messages, err := subscriber.Subscribe(ctx, in.Queue)
		if err != nil {
			return out, err
		}
		for m := range messages {
			out.Sum += measure.Read(m.Payload)
			out.Messages++
			m.Ack()
			if out.Messages == in.Messages {
				break
			}
		}
		out.Elapsed = time.Since(start)
		return out, subscriber.Close()
	}
}
