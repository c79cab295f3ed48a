package rabbitmq_test

import (
	"context"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// The broker is killed while messages flow, and comes back: the pipeline goes on
// by itself, nothing is lost, and no more than one prefetch window is repeated.
// Meanwhile its health says what is missing. (It is a quorum queue: a classic one
// forgets acknowledgements that it has not written yet when it is killed.)
func TestBrokerIsKilled(t *testing.T) {
	const n, prefetch = 5000, 100
	broker := brokers.Exclusive(t).RabbitMQ()
	queue := broker.Queue(t, brokers.Quorum())
	publishAll(t, broker.RabbitMQBroker, queue, n)
	out := newSink()
	producer := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Prefetch: prefetch}))
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{producer},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
		Batchers:  []broadway.BatcherConfig{{Reporter: out.report, Size: 50, Timeout: 20 * time.Millisecond}},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionRequeue},
		Logger:    testLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- pipeline.Run(ctx) }()
	if !out.await(n / 4) {
		t.Fatal("nothing flows")
	}
	broker.Kill(t)
	if !poll(func() bool { return producer.Health() != nil }) {
		t.Error("healthy without a broker")
	}
	broker.Start(t)
	if !out.await(n) {
		t.Errorf("%d of %d messages came", len(out.seen), n)
	}
	if err := producer.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	repeated := out.total - len(out.seen)
	t.Logf("%d messages, %d repeated, %+v", len(out.seen), repeated, producer.Stats())
	if repeated > prefetch {
		t.Errorf("%d messages were repeated, more than one prefetch window", repeated)
	}
	if ready := broker.Ready(t, queue); ready != 0 {
		t.Errorf("%d messages are left", ready)
	}
}
