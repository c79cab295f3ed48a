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
		s := newSession(p, &link{gate: &gate{limit: 1 << 20}}, new(amqp.Channel), "q")
		for _, tag := range tags {
			m := new(broadway.Message)
			m.Init(s.ref, tag, nil)
			m.Metadata = new(Metadata)
			s.deliver(m)
		}
		if s.broken == nil {
			t.Errorf("%s: it was not noticed", name)
		}
		if s.ledger.Open() != 2 {
			t.Errorf("%s: %d deliveries were taken in", name, s.ledger.Open())
		}
	}
}
