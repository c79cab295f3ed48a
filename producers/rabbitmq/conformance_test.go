package rabbitmq_test

import (
	"context"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// queueSource is the other side of a Producer: a queue of its own.
type queueSource struct {
	t       testing.TB
	broker  *brokers.RabbitMQBroker
	queue   string
	declare *rabbitmq.QueueDeclare
	wire    *wire // of the producer that was opened last
}

func (s *queueSource) Produce(_ context.Context, payloads ...[]byte) error {
	s.broker.Publish(s.t, s.queue, payloads...)
	return nil
}

func (s *queueSource) Open(t testing.TB) broadway.Producer {
	s.wire = newWire(t, s.broker.URL())
	return rabbitmq.NewProducer(rabbitmq.Config{
		URL: s.wire.url, Queue: s.queue, Declare: s.declare, Logger: testLogger(t),
	})
}

func (s *queueSource) Left(context.Context) (int, error) {
	ready, unacked := s.broker.Depth(s.t, s.queue)
	return ready + unacked, nil
}

func (s *queueSource) Cut(context.Context) error {
	s.broker.CloseConnections(s.t)
	return nil
}

// mortalSource is a queueSource that counts attempts over crashes.
type mortalSource struct{ *queueSource }

func (s mortalSource) Crash(context.Context) error {
	s.wire.end()
	return nil
}

func (s *queueSource) HandedOut(context.Context) (int, error) {
	_, unacked := s.broker.Depth(s.t, s.queue)
	return unacked, nil
}

func TestConformance(t *testing.T) {
	kinds := []struct {
		name    string
		options []brokers.QueueOption
		declare *rabbitmq.QueueDeclare
	}{
		{name: "Classic"},
		{name: "Quorum", options: []brokers.QueueOption{brokers.Quorum()}},
		{
			name:    "SingleActiveConsumer",
			options: []brokers.QueueOption{brokers.Argument("x-single-active-consumer", true)},
			declare: &rabbitmq.QueueDeclare{Passive: true, SingleActiveConsumer: true},
		},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			newSource := func(t testing.TB) broadwaytest.Source {
				broker := brokers.RabbitMQ(t)
				s := &queueSource{t: t, broker: broker, queue: broker.Queue(t, kind.options...), declare: kind.declare}
				if kind.name == "Quorum" {
					return mortalSource{s}
				}
				return s
			}
			t.Run("Producer", func(t *testing.T) {
				broadwaytest.TestProducer(t, broadwaytest.Features{UncountedCrashes: 2}, newSource)
			})
			t.Run("Acknowledger", func(t *testing.T) {
				broadwaytest.TestAcknowledger(t, broadwaytest.Features{}, newSource)
			})
		})
	}
}
