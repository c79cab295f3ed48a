package kafka_test

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// A Kafka of this process, so that the examples run anywhere.
func startKafka() *kfake.Cluster {
	return kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
}

// Publish two records and consume them.
func Example() {
	cluster := startKafka()
	defer cluster.Close()
	publisher := kafka.NewPublisher(kafka.PublisherConfig{Brokers: cluster.ListenAddrs(), Topic: "orders"})
	defer publisher.Close()
	err := publisher.Publish(context.Background(),
		broadway.Record{Key: []byte("ann"), Payload: []byte("apples")},
		broadway.Record{Key: []byte("ann"), Payload: []byte("pears")},
	)
	fmt.Println("published:", err)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{kafka.NewProducer(kafka.Config{
			Brokers: cluster.ListenAddrs(), Topics: []string{"orders"}, Group: "billing",
		})},
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			meta := m.Metadata.(*kafka.Metadata)
			fmt.Printf("%s: %s wants %s\n", m.ID(), meta.Key, m.Payload)
			if meta.Offset == 1 {
				stop() // drains: both are committed before Run returns
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{Action: broadway.ActionStopPartition},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ran:", pipeline.Run(ctx))
	fmt.Println("committed:", cluster.GroupInfo("billing").Commits["orders"][0].Offset)
	// Output:
	// published: <nil>
	// orders/0/0: ann wants apples
	// orders/0/1: ann wants pears
	// ran: <nil>
	// committed: 2
}

// New reports all mistakes of a pipeline at once, and dials nothing.
func ExampleProducer_Validate() {
	source := kafka.NewProducer(kafka.Config{Brokers: []string{"localhost"}, Topics: []string{"orders/eu"}})
	fmt.Println(source.Validate())
	// Output:
	// kafka: Brokers: "localhost" is not host:port
	// kafka: Topics: "orders/eu" has characters other than letters, digits, '.', '_' and '-'
	// kafka: Group: required
}

// A partition that the group has never committed begins at a time.
func ExampleAt() {
	fmt.Println(kafka.At(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)))
	// Output: 2026-01-02T15:04:05Z
}

// Secrets do not show in logs.
func ExampleSecret() {
	c := kafka.Credentials{Username: "ann", Password: "hunter2"}
	fmt.Printf("%s %v\n", c.Username, c.Password)
	// Output: ann ***
}

// Credentials are asked for at each dial, so that they may be rotated.
func ExampleSASL() {
	vault := func(context.Context) (kafka.Credentials, error) {
		return kafka.Credentials{Username: "ann", Password: "the password of today"}, nil
	}
	source := kafka.NewProducer(kafka.Config{
		Brokers: []string{"broker:9093"}, Topics: []string{"orders"}, Group: "billing",
		SASL: &kafka.SASL{Mechanism: kafka.ScramSHA512, Credentials: vault},
	})
	fmt.Println(source.Validate())
	// Output: <nil>
}
