// Command kafka consumes a topic by demand, in batches:
//
//	go run ./examples/kafka -brokers localhost:9092 -topic orders -group printer
//
// Ctrl-C drains: what was fetched is finished and committed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func main() {
	addrs := flag.String("brokers", "localhost:9092", "the brokers to start from, with commas between")
	topic := flag.String("topic", "orders", "the topic; it is waited for if it does not exist")
	group := flag.String("group", "printer", "the consumer group")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, strings.Split(*addrs, ","), *topic, *group, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run prints the messages of topic until ctx ends.
func run(ctx context.Context, addrs []string, topic, group string, out io.Writer) error {
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{kafka.NewProducer(kafka.Config{Brokers: addrs, Topics: []string{topic}, Group: group})},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			meta := m.Metadata.(*kafka.Metadata)
			m.Value = fmt.Sprintf("%s = %s", meta.Key, m.Payload)
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error {
			for _, m := range b.Messages {
				if _, err := fmt.Fprintln(out, m.Value); err != nil {
					return err
				}
			}
			return nil // only now may they be committed
		}}},
		Failure: broadway.FailurePolicy{Action: broadway.ActionStopPartition},
	})
	if err != nil {
		return err
	}
	return pipeline.Run(ctx)
}
