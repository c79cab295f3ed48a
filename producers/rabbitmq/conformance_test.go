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
}

func (s *queueSource) Produce(_ context.Context, payloads ...[]byte) error {
	s.broker.Publish(s.t, s.queue, payloads...)
	return nil
}

func (s *queueSource) Open(t testing.TB) broadway.Producer {
	return rabbitmq.NewProducer(rabbitmq.Config{
		URL: s.broker.URL(), Queue: s.queue, Declare: s.declare, Logger: testLogger(t),
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
				return &queueSource{t: t, broker: broker, queue: broker.Queue(t, kind.options...), declare: kind.declare}
			}
			t.Run("Producer", func(t *testing.T) {
				broadwaytest.TestProducer(t, broadwaytest.Features{}, newSource)
			})
			t.Run("Acknowledger", func(t *testing.T) {
				broadwaytest.TestAcknowledger(t, broadwaytest.Features{}, newSource)
			})
		})
	}
}
