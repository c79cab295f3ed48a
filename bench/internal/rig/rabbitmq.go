package rig

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// gone bounds how long the broker may take to notice that a consumer's connection has ended.
const gone = 10 * time.Second

// empty asks whether the queue is. What was delivered and not acknowledged is back in it once it has no consumer: it forgets one, and
// takes back its messages, in one step, some time after the connection has ended.
func (b *rabbitmq) empty(ctx context.Context) (err error) {
	connection, err := amqp091.Dial(b.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gone)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		q, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		switch {
		case err != nil:
			return err
		case q.Consumers == 0 && q.Messages > 0:
			return fmt.Errorf("%d messages were not acknowledged", q.Messages)
		case q.Consumers == 0:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the queue still has %d consumers: %w", q.Consumers, ctx.Err())
		}
	}
}
