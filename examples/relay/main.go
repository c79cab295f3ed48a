// Command relay consumes a queue, transforms its messages, publishes them to
// another queue, and only then settles them:
//
//	go run ./examples/relay -url amqp://guest:guest@localhost:5672/ -from orders -to invoices
//
// The reporter publishes, and a message is acknowledged when its reporter has
// returned: so nothing is acknowledged whose successor the broker has not
// confirmed. A crash in between repeats a message and loses none; its id stays
// the same, so that readers can tell.
//
//	orders ──▶ invoice ──▶ batch ──▶ publish ──▶ invoices
//	   ▲          │                     │
//	   │          └─ not an order ──────┼──────▶ orders.dead
//	   └───────── ack, once confirmed ──┘
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func main() {
	url := flag.String("url", "amqp://guest:guest@localhost:5672/", "the broker")
	from := flag.String("from", "orders", "the queue to consume; what is no order goes to the same name with .dead")
	to := flag.String("to", "invoices", "the queue to publish to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *url, *from, *to)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run relays until ctx ends.
func run(ctx context.Context, url, from, to string) error {
	durable := rabbitmq.QueueDeclare{Durable: true}
	// A connection of its own: a broker that stops taking messages must not
	// keep back acknowledgements.
	publisher := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
		URL: url, RoutingKey: to,
		Queues: []rabbitmq.QueueDeclare{{Name: to, Durable: true}, {Name: from + ".dead", Durable: true}},
	})
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{URL: url, Queue: from, Declare: &durable})},
		Processor: broadway.ProcessorConfig{Handler: invoice},
		Batchers:  []broadway.BatcherConfig{{Reporter: publish(publisher)}},
		Failure: broadway.FailurePolicy{
			Action:     broadway.ActionDeadLetter,
			DeadLetter: &acknowledgers.DeadLetters{Publisher: publisher, Destination: from + ".dead"},
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(pipeline.Run(ctx), publisher.Close())
}

// invoice is the transformation.
func invoice(_ context.Context, m *broadway.Message) error {
	var order struct {
		Item  string
		Count int
		Price int
	}
	if err := json.Unmarshal(m.Payload, &order); err != nil {
		return broadway.Reject(fmt.Errorf("not an order: %w", err)) // no retry mends it
	}
	invoice, err := json.Marshal(map[string]any{"item": order.Item, "total": order.Count * order.Price})
	m.Value = invoice
	return err
}

// publish is the reporter that publishes the values of a batch. It fails exactly
// the messages that were not confirmed.
func publish(publisher broadway.Publisher) broadway.Reporter {
	return func(ctx context.Context, b *broadway.Batch) error {
		records := make([]broadway.Record, len(b.Messages))
		for i, m := range b.Messages {
			records[i] = broadway.Record{ID: m.ID(), Payload: m.Value.([]byte)}
		}
		err := publisher.Publish(ctx, records...)
		var partial *broadway.PublishError
		if !errors.As(err, &partial) {
			return broadway.Unavailable(err) // nil, or the broker is away: that is no message's fault
		}
		failures := new(broadway.BatchError)
		for i, err := range partial.Errs {
			if errors.Is(err, rabbitmq.ErrUnconfirmed) {
				err = broadway.Unavailable(err)
			}
			if err != nil {
				failures.Fail(b.Messages[i], err)
			}
		}
		return failures.Err()
	}
}
