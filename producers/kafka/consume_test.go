package kafka_test

import (
	"testing"

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
