package kafka_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func TestConsumesEverythingOnceAndCommitsToTheEnd(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 4)
		b.Produce(t, topic, numbered("m", 5000, 97, 4)...)
		cfg := config(t, b, topic)
		out := newSink()
		source := kafka.NewProducer(cfg)
		r := run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: out.handle},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPartition},
		})
		eventually(t, "all messages", out.has(5000))
		eventually(t, "healthy", healthy(source))
		r.stop(t)
		if err := committedToEnd(t, b, cfg.Group, topic)(); err != nil {
			t.Error(err)
		}
		if n := out.duplicates(); n != 0 {
			t.Errorf("%d messages came twice", n)
		}
	})
}

// A handler can be tested with metadata that no broker has delivered.
func TestMetadataCanBeMade(t *testing.T) {
	at := time.UnixMilli(1_790_000_000_123)
	headers := []broadway.Header{{Key: "kind", Value: []byte("post")}, {Key: "none"}, {Key: "kind", Value: []byte("again")}}
	m := kafka.NewMetadata("orders", 3, 17, []byte("k"), at, headers...)
	if m.MessageID() != "orders/3/17" || string(m.Key) != "k" || !m.Time().Equal(at) || !reflect.DeepEqual(m.Headers(), headers) {
		t.Errorf("%+v, headers %q", m, m.Headers())
	}
	if value, ok := m.Header("kind"); !ok || string(value) != "again" {
		t.Errorf("the last header of a name is %q", value)
	}
	if bare := kafka.NewMetadata("orders", 0, 0, nil, at); bare.Key != nil || bare.Headers() != nil {
		t.Errorf("%+v", bare)
	}
}
