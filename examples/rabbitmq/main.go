// Command rabbitmq consumes a queue by demand, in batches:
//
//	go run ./examples/rabbitmq -url amqp://guest:guest@localhost:5672/ -queue orders
//
// Ctrl-C drains: what was fetched is finished and acknowledged, the rest goes
// back to the queue.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func main() {
	url := flag.String("url", "amqp://guest:guest@localhost:5672/", "the broker")
	queue := flag.String("queue", "orders", "the queue, declared if it does not exist")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *url, *queue, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run prints the messages of queue until ctx ends.
func run(ctx context.Context, url, queue string, out io.Writer) error {
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{
			URL: url, Queue: queue, Declare: &rabbitmq.QueueDeclare{Durable: true},
		})},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			m.Value = fmt.Sprintf("%s (%d bytes)", m.Payload, len(m.Payload))
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error {
			for _, m := range b.Messages {
				if _, err := fmt.Fprintln(out, m.Value); err != nil {
					return err
				}
			}
			return nil // only now are they acknowledged
		}}},
		Failure: broadway.FailurePolicy{Action: broadway.ActionRequeueOnce},
	})
	if err != nil {
		return err
	}
	return pipeline.Run(ctx)
}
