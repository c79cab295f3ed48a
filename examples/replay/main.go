// Command replay puts dead letters back to where they came from, on either broker:
//
//	go run ./examples/replay -from orders.dead -amqp amqp://guest:guest@localhost:5672/
//	go run ./examples/replay -from orders-dead -kafka localhost:9092 -group orders-replay
//
// It ends with the letters that were there when it began, and says what became of
// them. What -stage, -reason and -origin do not choose stays: RabbitMQ gets it at
// the end of the queue again, Kafka keeps it in any case, for the next group.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// options are the flags.
type options struct {
	amqp, kafka, group, from string
	origin, stage, reason    string
	limit                    int64
}

func main() {
	var o options
	flag.StringVar(&o.amqp, "amqp", "", "RabbitMQ's URL")
	flag.StringVar(&o.kafka, "kafka", "", "Kafka's brokers, with commas between, in place of -amqp")
	flag.StringVar(&o.group, "group", "replay", "Kafka: the consumer group; what it has passed it does not see again")
	flag.StringVar(&o.from, "from", "", "the queue or topic of the dead letters")
	flag.StringVar(&o.origin, "origin", "", "only letters of this queue or topic")
	flag.StringVar(&o.stage, "stage", "", "only letters that this stage has failed")
	flag.StringVar(&o.reason, "reason", "", "only letters whose reason has this in it")
	flag.Int64Var(&o.limit, "limit", 0, "at most so many; 0 is all")
	flag.Parse()
	if (o.amqp == "") == (o.kafka == "") || o.from == "" {
		fmt.Fprintln(os.Stderr, "give -from, and either -amqp or -kafka")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	done, err := run(ctx, o)
	stop()
	fmt.Printf("%d put back, %d not: %d references, %d too large\n", done.Back, done.Rest, done.References, done.TooLarge)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run puts letters back.
func run(ctx context.Context, o options) (acknowledgers.Replayed, error) {
	replay := acknowledgers.Replay{Limit: o.limit, Match: func(l acknowledgers.Letter) bool {
		return (o.origin == "" || l.Origin == o.origin) && (o.stage == "" || l.Stage == o.stage) && strings.Contains(l.Reason, o.reason)
	}}
	var publisher broadway.Publisher
	if o.amqp != "" {
		publisher = rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: o.amqp})
		replay.Source = rabbitmq.NewProducer(rabbitmq.Config{URL: o.amqp, Queue: o.from})
	} else {
		brokers := strings.Split(o.kafka, ",")
		publisher = kafka.NewPublisher(kafka.PublisherConfig{Brokers: brokers})
		replay.Source = kafka.NewProducer(kafka.Config{Brokers: brokers, Topics: []string{o.from}, Group: o.group})
		replay.Rest = acknowledgers.PassOver
	}
	replay.Publisher = publisher
	done, err := replay.Run(ctx)
	return done, errors.Join(err, publisher.Close())
}
