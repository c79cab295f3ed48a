package rabbitmq

import (
	"io"
	"log/slog"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// An acknowledgement of what came after a delivery that was lost on its way would
// cover that one, too: nothing after it is taken in.
func TestNothingIsTakenInAfterALostDelivery(t *testing.T) {
	for name, tags := range map[string][]int64{"missing": {1, 2, 4, 5, 3}, "twice": {1, 2, 2, 3}, "far": {1, 2, 1 << 40}} {
		p := NewProducer(Config{Queue: "q", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		s := newSession(p, &link{gate: &gate{limit: 1 << 20}, frames: new(frames)}, new(amqp.Channel), "q")
		for _, tag := range tags {
			m := new(broadway.Message)
			m.Init(s.ref, tag, nil)
			m.Metadata = new(Metadata)
			s.deliver([]*broadway.Message{m})
		}
		if s.broken == nil {
			t.Errorf("%s: it was not noticed", name)
		}
		if s.ledger.Open() != 2 {
			t.Errorf("%s: %d deliveries were taken in", name, s.ledger.Open())
		}
	}
}

// RabbitMQ 4 drops what came back 20 times to a quorum queue that says nothing else.
func TestQueuesThatDropAreKnown(t *testing.T) {
	quorum := func(arguments Table) *QueueDeclare {
		return &QueueDeclare{Durable: true, Type: Quorum, Arguments: arguments}
	}
	for name, tt := range map[string]struct {
		declare *QueueDeclare
		version string
		drops   bool
	}{
		"quorum":                   {quorum(nil), "4.1.0", true},
		"quorum, a later one":      {quorum(nil), "10.0", true},
		"quorum, an earlier one":   {quorum(nil), "3.13.7", false},
		"another broker":           {quorum(nil), "LavinMQ", false},
		"no limit":                 {quorum(Table{"x-delivery-limit": -1}), "4.1.0", false},
		"with dead letters":        {&QueueDeclare{Durable: true, Type: Quorum, DeadLetterRoutingKey: "dead"}, "4.1.0", false},
		"with dead letters named":  {quorum(Table{"x-dead-letter-exchange": "dead"}), "4.1.0", false},
		"classic":                  {&QueueDeclare{Durable: true, Type: Classic}, "4.1.0", false},
		"declared elsewhere":       {&QueueDeclare{Passive: true, Type: Quorum}, "4.1.0", false},
		"declared nowhere we know": {nil, "4.1.0", false},
	} {
		if got := tt.declare.dropsOn(tt.version); got != tt.drops {
			t.Errorf("%s: %t", name, got)
		}
	}
}
