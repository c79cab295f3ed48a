package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// latencyPrefetch is how many messages may be on their way to a consumer.
const latencyPrefetch = 500

// consumer consumes all messages of a round at url, and acknowledges them; done is closed when all of its acknowledgements came by.
type consumer func(ctx context.Context, url string, in measure.Input, done <-chan struct{}) error

func latency(rate int) measure.Workload {
	const self, each = "broadway", "amqp091-go, ack each"
	w := measure.Workload{
		Name:  fmt.Sprintf("latency-rabbitmq-%d", rate),
		Title: fmt.Sprintf("RabbitMQ latency, %d a second, no batcher", rate),
		Does: "A producer in the same process publishes a persistent message to a classic durable queue whenever one is due, without confirms, and a consumer with a prefetch of 500 " +
			"reads it. Each counts from when it was due until the frame that acknowledges it is on its way to the broker: a relay before the broker looks at the frames of all systems, since some write " +
			"them later than they say. The difference to the raw client is what a framework adds.",
		Messages: 10 * rate, Least: max(rate, 2000), Rounds: 5,
		Needs: measure.Needs{RabbitMQ: true, Empty: true},
		Systems: []measure.System{
			{Name: self, Run: late(rate, oursLate)},
			{Name: each, Version: clientVersion, Run: late(rate, rawLate)},
			{Name: "watermill subscriber", Version: watermillVersion, Run: late(rate, watermillLate)},
		},
	}
	if rate >= 10_000 {
		w.Targets = []measure.Target{
			{System: self, Peer: each, Measure: "p50", Difference: true, AtMost: 0.2},
			{System: self, Peer: each, Measure: "p99", Difference: true, AtMost: 1},
		}
	}
	return w
}

// late measures c at a rate.
func late(rate int, c consumer) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (out measure.Output, err error) {
		connection, err := amqp091.Dial(in.RabbitMQ)
		if err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, connection.Close()) }()
		channel, err := connection.Channel()
		if err != nil {
			return out, err
		}
		l := measure.NewLatency(in.Messages, rate, 1)
		return l.Run(ctx, func(i int) error {
			return channel.PublishWithContext(ctx, "", in.Queue, false, false,
				amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: measure.Slab(i, 1)})
		}, func(ctx context.Context) error {
			return through(ctx, in.RabbitMQ, l.Settle, func(ctx context.Context, url string) error { return c(ctx, url, in, l.Done()) })
		})
	}
}

// errMissing is what a message that is not whole ends a consumer with.
var errMissing = errors.New("a message is not whole, or the consumer has ended")

// oursLate is this project without a batcher.
func oursLate(ctx context.Context, url string, in measure.Input, done <-chan struct{}) error {
	return ours.Until(ctx, broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{
			URL: url, Queue: in.Queue, Prefetch: latencyPrefetch, Logger: ours.Quiet(),
		})},
		Processor: broadway.ProcessorConfig{Handler: ours.Handler(measure.Payload, 0)},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionReject},
	}, done)
}

// rawLate is a loop on amqp091-go that acknowledges each message.
func rawLate(ctx context.Context, url string, in measure.Input, _ <-chan struct{}) (err error) {
	connection, err := amqp091.Dial(url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(latencyPrefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.ConsumeWithContext(ctx, in.Queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for range in.Messages {
		d := <-deliveries
		if measure.Read(d.Body) == 0 {
			return errMissing
		}
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return channel.Close() // waits until the broker has had the acks
}

// watermillLate is Watermill's subscriber.
func watermillLate(ctx context.Context, url string, in measure.Input, done <-chan struct{}) error {
	cfg := amqp.NewDurableQueueConfig(url)
	cfg.Consume.Qos.PrefetchCount = latencyPrefetch
	subscriber, err := amqp.NewSubscriber(cfg, watermill.NopLogger{})
	if err != nil {
		return err
	}
	messages, err := subscriber.Subscribe(ctx, in.Queue)
	if err != nil {
		return err
	}
	for range in.Messages {
		m := <-messages
		if m == nil || measure.Read(m.Payload) == 0 {
			return errors.Join(errMissing, subscriber.Close())
		}
		m.Ack()
	}
	select {
	case <-done: // it writes the last acknowledgement after Ack has returned
	case <-ctx.Done():
	}
	return subscriber.Close()
}
