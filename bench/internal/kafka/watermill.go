package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	wm "github.com/gobroadway/gobroadway/bench/internal/watermill"
)

// watermillSubscriber is Watermill's subscriber, without its router. One reader was as fast as several.
func watermillSubscriber(ctx context.Context, in measure.Input) (measure.Output, error) {
	subscriber, err := newSubscriber(in)
	if err != nil {
		return measure.Output{}, err
	}
	return wm.Drain(ctx, in, subscriber, in.Topic, 1)
}

// watermillRouter is Watermill's router.
func watermillRouter(sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		subscriber, err := newSubscriber(in)
		if err != nil {
			return measure.Output{}, err
		}
		return wm.Route(ctx, in, subscriber, in.Topic, sleep)
	}
}

// newSubscriber has Watermill's settings, with a protocol that the broker need not convert to.
func newSubscriber(in measure.Input) (*wmkafka.Subscriber, error) {
	cfg := wmkafka.DefaultSaramaSubscriberConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	return wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
		Brokers: []string{in.Kafka}, Unmarshaler: wmkafka.DefaultMarshaler{}, ConsumerGroup: in.Group, OverwriteSaramaConfig: cfg,
	}, watermill.NopLogger{})
}
