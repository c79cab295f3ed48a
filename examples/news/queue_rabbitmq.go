package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// rabbitQueue is a durable queue.
type rabbitQueue struct {
	url    string
	queue  string
	out    *rabbitmq.Publisher
	system *system
	left   int
	acks   atomic.Int64
}

func openRabbitMQ(_ context.Context, s *system, name string) (queue, error) {
	q := &rabbitQueue{url: s.opts.rabbitmq, queue: name, system: s}
	if err := q.declare(); err != nil {
		return nil, err
	}
	q.out = rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: q.url, RoutingKey: name, Logger: s.logger})
	return q, nil
}

// declare makes the queues, and asks what waits in ours.
func (q *rabbitQueue) declare() (err error) {
	if _, err := amqp.ParseURI(q.url); err != nil {
		return errors.New("-rabbitmq is not an amqp:// URL") // err would quote the password
	}
	conn, err := amqp.Dial(q.url)
	if err != nil {
		return fmt.Errorf("rabbitmq: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("rabbitmq: %w", err)
	}
	for _, name := range []string{q.dead(), q.queue} {
		state, err := ch.QueueDeclare(name, true, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("rabbitmq: queue %s: %w", name, err)
		}
		q.left = state.Messages
	}
	return nil
}

func (q *rabbitQueue) dead() string { return q.queue + ".dead" }

func (q *rabbitQueue) publisher() broadway.Publisher { return q.out }

func (q *rabbitQueue) source() broadway.Producer {
	return rabbitmq.NewProducer(rabbitmq.Config{URL: q.url, Queue: q.queue, Logger: q.system.logger})
}

func (q *rabbitQueue) deadLetters() broadway.DeadLetterer {
	return &acknowledgers.DeadLetters{Publisher: q.out, Destination: q.dead()}
}

func (q *rabbitQueue) waiting() int { return q.left }

// committed counts acknowledgements: for this broker they are the commit.
func (q *rabbitQueue) committed(context.Context) (int64, error) { return q.acks.Load(), nil }

func (q *rabbitQueue) settled(n int) { q.acks.Add(int64(n)) }

func (q *rabbitQueue) forgets() bool { return false }

func (q *rabbitQueue) place() string { return q.queue }

func (q *rabbitQueue) close() error { return q.out.Close() }
