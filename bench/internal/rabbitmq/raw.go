// Package rabbitmq has the workloads on RabbitMQ: a queue of persistent messages is drained and acknowledged.
package rabbitmq

import (
	"context"
	"errors"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// raw is a loop on amqp091-go that acknowledges every so many messages at once.
func raw(prefetch, every int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (out measure.Output, err error) {
		start := time.Now()
		connection, err := amqp091.Dial(in.RabbitMQ)
		if err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, connection.Close()) }()
		channel, err := connection.Channel()
		if err != nil {
			return out, err
		}
		if err := channel.Qos(prefetch, 0, false); err != nil {
			return out, err
		}
		deliveries, err := channel.ConsumeWithContext(ctx, in.Queue, "", false, false, false, false, nil)
		if err != nil {
			return out, err
		}
		for d := range deliveries {
			out.Sum += measure.Read(d.Body)
			out.Messages++
			if out.Messages%every == 0 || out.Messages == in.Messages {
				if err := d.Ack(every > 1); err != nil {
					return out, err
				}
			}
			if out.Messages == in.Messages {
				break
			}
		}
		err = channel.Close() // waits until the broker has had the acks
		out.Elapsed = time.Since(start)
		return out, err
	}
}
