package rig

import (
	"context"
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/brokers"
)

// queue is a classic durable queue.
const queue = "drain"

type rabbitmq struct{ url string }

func startRabbitMQ(host *brokers.Host) (*rabbitmq, error) {
	b := &rabbitmq{}
	err := host.Do(func() { b.url = brokers.RabbitMQ(host).URL() })
	return b, err
}

// fill empties the queue and publishes so many persistent messages to it, confirmed.
func (b *rabbitmq) fill(ctx context.Context, messages int) (err error) {
	connection, err := amqp091.Dial(b.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := channel.QueuePurge(queue, false); err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	confirms := make([]*amqp091.DeferredConfirmation, 0, messages)
	for i := range messages {
		c, err := channel.PublishWithDeferredConfirm("", queue, false, false,
			amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: measure.Slab(i, 1)})
		if err != nil {
			return err
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return fmt.Errorf("publishing: confirmed %v: %w", ok, err)
		}
	}
	return nil
}

// empty asks whether the queue is: what was delivered and not acknowledged is back in it once its consumer's connection has ended.
func (b *rabbitmq) empty() (err error) {
	connection, err := amqp091.Dial(b.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	q, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err == nil && q.Messages > 0 {
		err = fmt.Errorf("%d messages were not acknowledged", q.Messages)
	}
	return err
}
