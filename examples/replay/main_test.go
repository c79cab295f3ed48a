package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// giveUp fails each of n messages of source for good, into letters.
func giveUp(t *testing.T, source broadway.Producer, letters broadway.DeadLetterer, n int64) {
	t.Helper()
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
			return broadway.Reject(errors.New("no good"))
		}},
		Failure: broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
	})
	if err != nil {
		t.Fatal(err)
	}
	through(t, p, func() bool { return p.Stats().DeadLettered == n })
}

// through runs p until done says yes.
func through(t *testing.T, p *broadway.Pipeline, done func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil && !done() {
			<-tick.C
		}
		stop()
	}()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !done() {
		t.Fatalf("it does not end: %+v", p.Stats())
	}
}

func TestReplayOnRabbitMQ(t *testing.T) {
	b := brokers.RabbitMQ(t)
	work, dead := b.Queue(t), b.Queue(t)
	b.Publish(t, work, []byte("a"), []byte("b"), []byte("c"))
	out := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: b.URL()})
	defer out.Close()
	giveUp(t, rabbitmq.NewProducer(rabbitmq.Config{URL: b.URL(), Queue: work}), &acknowledgers.DeadLetters{Publisher: out, Destination: dead}, 3)
	o := options{amqp: b.URL(), from: dead, reason: "other"}
	if done, err := run(t.Context(), o); err != nil || done.Rest < 3 || done.Back != 0 || b.Ready(t, dead) != 3 {
		t.Fatalf("none is chosen: %+v, %v, %d are left", done, err, b.Ready(t, dead))
	}
	o.reason, o.limit = "no good", 2
	if done, err := run(t.Context(), o); err != nil || done.Back != 2 || b.Ready(t, dead) != 1 || b.Ready(t, work) != 2 {
		t.Errorf("two of three: %+v, %v, %d are left, %d back", done, err, b.Ready(t, dead), b.Ready(t, work))
	}
}

func TestReplayOnKafka(t *testing.T) {
	b := brokers.Kafka(t)
	work, dead := b.Topic(t, 1), b.Topic(t, 3)
	b.Produce(t, work, brokers.Record{Value: []byte("a")}, brokers.Record{Key: []byte("k")}, brokers.Record{Key: []byte("l"), Value: []byte("c")})
	out := kafka.NewPublisher(kafka.PublisherConfig{Brokers: b.Addrs()})
	defer out.Close()
	giveUp(t, kafka.NewProducer(kafka.Config{Brokers: b.Addrs(), Topics: []string{work}, Group: b.Group(t)}),
		&acknowledgers.DeadLetters{Publisher: out, Destination: dead}, 3)
	o := options{kafka: b.Addr(), group: b.Group(t), from: dead, stage: "processor", origin: work}
	done, err := run(t.Context(), o)
	if err != nil || done != (acknowledgers.Replayed{Back: 3}) {
		t.Fatalf("%+v, %v", done, err)
	}
	got := map[string]int{}
	for _, r := range b.Records(t, work) {
		got[fmt.Sprintf("%q %v %q %d", r.Key, r.Value == nil, r.Value, len(r.Headers))]++
	}
	if len(got) != 3 {
		t.Errorf("records %v, want three of them twice", got)
	}
}

// From Kafka to dead letters in RabbitMQ, and back: nothing is lost on the way.
func TestReplayAcrossBrokers(t *testing.T) {
	k, r := brokers.Kafka(t), brokers.RabbitMQ(t)
	work, dead := k.Topic(t, 1), r.Queue(t)
	records := []brokers.Record{
		{Key: []byte{0xff, 0}, Value: []byte("x"), Headers: []brokers.Header{{Key: "a", Value: []byte{0xff}}, {Key: "b"}, {Key: "c", Value: []byte{}}}},
		{Value: []byte("twice"), Headers: []brokers.Header{{Key: "b", Value: []byte("1")}, {Key: "a"}, {Key: "b", Value: []byte("2")}}},
		{Key: []byte("tombstone")}, {Key: []byte{}, Value: []byte{}},
		{Value: []byte("copied to nobody"), Headers: []brokers.Header{{Key: "content-type", Value: []byte("text/plain")}}},
	}
	k.Produce(t, work, records...)
	toRabbit := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: r.URL()})
	defer toRabbit.Close()
	toKafka := kafka.NewPublisher(kafka.PublisherConfig{Brokers: k.Addrs()})
	defer toKafka.Close()
	giveUp(t, kafka.NewProducer(kafka.Config{Brokers: k.Addrs(), Topics: []string{work}, Group: k.Group(t)}),
		&acknowledgers.DeadLetters{Publisher: toRabbit, Destination: dead}, int64(len(records)))
	done, err := acknowledgers.Replay{
		Source: rabbitmq.NewProducer(rabbitmq.Config{URL: r.URL(), Queue: dead}), Publisher: toKafka, Back: toRabbit,
	}.Run(t.Context())
	if err != nil || done.Back != int64(len(records)) {
		t.Fatalf("%+v, %v", done, err)
	}
	text := func(r brokers.Record) string {
		return fmt.Sprintf("%v %q %v %q %#v", r.Key == nil, r.Key, r.Value == nil, r.Value, r.Headers)
	}
	got := map[string]int{}
	for _, r := range k.Records(t, work) {
		got[text(r)]++
	}
	if len(got) != len(records) {
		t.Errorf("%d different records, want each of %d twice:\n%v", len(got), len(records), got)
	}
}

// From RabbitMQ to dead letters in Kafka, and back: properties are kept, the types
// of headers are not.
func TestReplayAcrossBrokersAndBack(t *testing.T) {
	k, r := brokers.Kafka(t), brokers.RabbitMQ(t)
	work, dead := r.Queue(t), k.Topic(t, 1)
	toRabbit := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: r.URL()})
	defer toRabbit.Close()
	toKafka := kafka.NewPublisher(kafka.PublisherConfig{Brokers: k.Addrs()})
	defer toKafka.Close()
	when := time.Unix(1_790_000_000, 0)
	err := toRabbit.Send(t.Context(), rabbitmq.Publishing{
		RoutingKey: work, Body: []byte("x"), ContentType: "text/plain", ContentEncoding: "identity", Priority: 4, CorrelationID: "c",
		ReplyTo: "r", Expiration: "600000", ID: "i", Timestamp: when, Type: "t", AppID: "a",
		Headers: rabbitmq.Table{"text": "x", "number": int8(7), "nil": nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	giveUp(t, rabbitmq.NewProducer(rabbitmq.Config{URL: r.URL(), Queue: work}), &acknowledgers.DeadLetters{Publisher: toKafka, Destination: dead}, 1)
	done, err := acknowledgers.Replay{
		Source:    kafka.NewProducer(kafka.Config{Brokers: k.Addrs(), Topics: []string{dead}, Group: k.Group(t)}),
		Publisher: toRabbit, Back: toKafka,
	}.Run(t.Context())
	if err != nil || done.Back != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	var got rabbitmq.Metadata
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{URL: r.URL(), Queue: work})},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			got = *m.Metadata.(*rabbitmq.Metadata)
			return nil
		}},
		Failure: broadway.FailurePolicy{Action: broadway.ActionDrop},
	})
	if err != nil {
		t.Fatal(err)
	}
	through(t, p, func() bool { return p.Stats().Succeeded == 1 })
	if got.ContentType != "text/plain" || got.ContentEncoding != "identity" || got.Priority != 4 || got.CorrelationID != "c" ||
		got.ReplyTo != "r" || got.Expiration != "" || got.ID != "i" || !got.Timestamp.Equal(when) || got.Type != "t" || got.AppID != "a" {
		t.Errorf("it came back as %+v", got)
	}
	if fmt.Sprint(got.Headers) != fmt.Sprint(rabbitmq.Table{"text": "x", "number": "7", "nil": nil}) {
		t.Errorf("it came back with %v", got.Headers)
	}
}
