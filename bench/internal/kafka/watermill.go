package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// watermillSubscriber is Watermill's subscriber, without its router. It does not stop at the end of the topic: a slow peer drains a
// topic that is smaller.
func watermillSubscriber(ctx context.Context, in measure.Input) (measure.Output, error) {
	cfg := wm.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	subscriber, err := wm.NewSubscriber(wm.SubscriberConfig{
		Brokers: []string{in.Kafka}, Unmarshaler: wm.DefaultMarshaler{}, ConsumerGroup: in.Group, OverwriteSaramaConfig: cfg,
	}, watermill.NopLogger{})
	if err != nil {
		return measure.Output{}, err
	}
	start := time.Now()
	messages, err := subscriber.Subscribe(ctx, in.Topic)
	if err != nil {
		return measure.Output{}, err
	}
	var t tally
	for m := range messages {
		t.add(1, measure.Read(m.Payload))
		m.Ack()
		if t.messages() == in.Messages {
			break
		}
	}
	out := t.output(start)
	return out, subscriber.Close()
}
