package rabbitmq

import (
	"context"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	wm "github.com/gobroadway/gobroadway/bench/internal/watermill"
)

// watermillSubscriber is Watermill's subscriber, without its router: so many subscriptions share the connection and the prefetch. Two
// were faster than one, five and twenty.
func watermillSubscriber(prefetch, subscriptions int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		subscriber, err := newSubscriber(in, prefetch/subscriptions)
		if err != nil {
			return measure.Output{}, err
		}
		return wm.Drain(ctx, in, subscriber, in.Queue, subscriptions)
	}
}

// watermillRouter is Watermill's router.
func watermillRouter(prefetch int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		subscriber, err := newSubscriber(in, prefetch)
		if err != nil {
			return measure.Output{}, err
		}
		return wm.Route(ctx, in, subscriber, in.Queue, 0)
	}
}

func newSubscriber(in measure.Input, prefetch int) (*amqp.Subscriber, error) {
	cfg := amqp.NewDurableQueueConfig(in.RabbitMQ)
	cfg.Consume.Qos.PrefetchCount = prefetch
	return amqp.NewSubscriber(cfg, watermill.NopLogger{})
}
