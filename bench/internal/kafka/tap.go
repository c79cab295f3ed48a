package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// oursLate is this project without a batcher, with its defaults.
func oursLate(unordered bool) consumer {
	return func(ctx context.Context, in measure.Input, l *measure.Latency) error {
		from := &tap{latency: l, refs: map[*broadway.AckRef]*broadway.AckRef{}, Producer: kafka.NewProducer(kafka.Config{
			Brokers: []string{in.Kafka}, Topics: []string{in.Topic}, Group: in.Group, Logger: ours.Quiet(), MaxWait: longPoll,
		})}
		return ours.Until(ctx, broadway.Config{
			Producers: []broadway.Producer{from},
			Processor: broadway.ProcessorConfig{Handler: ours.Handler(measure.Payload, 0), Unordered: unordered},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPipeline},
		}, l.Done())
	}
}

// tap is a Kafka producer whose acknowledgements are watched: its messages settle within references of the tap, which passes them on to
// those of the producer.
type tap struct {
	*kafka.Producer
	latency *measure.Latency
	refs    map[*broadway.AckRef]*broadway.AckRef // the tap's, by the producer's; used by Fetch alone
}

// Fetch moves messages to the tap's references.
func (t *tap) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	messages, err := t.Producer.Fetch(ctx, d)
	for _, m := range messages {
		ref := t.refs[m.Ref()]
		if ref == nil {
			ref = broadway.NewAckRef(t, m.Ref(), 0)
			t.refs[m.Ref()] = ref
		}
		size := m.Size()
		m.Init(ref, m.Seq(), m.Payload)
		m.SetSize(size)
		ref.Take(1)
	}
	return messages, err
}

// Ack passes an acknowledgement on, and tells when it was made. The producer's reference gets its room back first, as the producer may look
// at that when it is told.
func (t *tap) Ack(ctx context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	inner, mine := ref.Data().(*broadway.AckRef)
	if !mine {
		return errors.New("asked to acknowledge what the tap did not fetch")
	}
	inner.Untake(len(ok) + len(failed))
	err := t.Producer.Ack(ctx, inner, ok, failed)
	now := time.Now()
	for _, m := range ok {
		t.latency.Settle(measure.Number(m.Payload), now)
	}
	return err
}
