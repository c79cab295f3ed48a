package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func publisher(t testing.TB, cfg kafka.PublisherConfig) *kafka.Publisher {
	t.Helper()
	p := kafka.NewPublisher(cfg)
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func TestPublishedRecordsArriveAsTheyAre(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for _, compression := range []kafka.Compression{kafka.Uncompressed, kafka.Gzip, kafka.Snappy, kafka.Zstd} {
			t.Run(compression.String(), func(t *testing.T) {
				topic := b.Topic(t, 3)
				p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic, Compression: compression})
				err := p.Publish(context.Background(),
					broadway.Record{Key: []byte("k"), Payload: nil},
					broadway.Record{Key: []byte("k"), Payload: []byte{}},
					broadway.Record{Key: []byte("k"), Payload: []byte("x"), Headers: []broadway.Header{{Key: "b", Value: []byte("1")}, {Key: "a"}, {Key: "b", Value: []byte{}}}},
				)
				if err != nil {
					t.Fatal(err)
				}
				got := b.Records(t, topic)
				if len(got) != 3 || got[0].Partition != got[2].Partition {
					t.Fatalf("records %+v, want three in one partition", got)
				}
				if got[0].Value != nil || got[1].Value == nil || len(got[1].Value) != 0 || string(got[2].Value) != "x" {
					t.Errorf("values %v %v %v: null, empty and x are not the same", got[0].Value, got[1].Value, got[2].Value)
				}
				headers := fmt.Sprint(got[2].Headers)
				if want := fmt.Sprint([]brokers.Header{{Key: "b", Value: []byte("1")}, {Key: "a"}, {Key: "b", Value: []byte{}}}); headers != want {
					t.Errorf("headers %s, want %s", headers, want)
				}
			})
		}
	})
}

func TestPublishKeepsOrderWithinAPartitionOverManyBatches(t *testing.T) {
	b := brokers.Embedded(t)
	topic := b.Topic(t, 4)
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic, BatchBytes: 2048})
	records := make([]broadway.Record, 1000)
	for i := range records {
		records[i] = broadway.Record{Key: fmt.Appendf(nil, "%d", i%8), Payload: fmt.Appendf(nil, "%06d%0*d", i, i*37%500, 0)}
	}
	if err := p.Publish(context.Background(), records...); err != nil {
		t.Fatal(err)
	}
	last, n := map[int]string{}, 0
	for _, r := range b.Records(t, topic) {
		if n++; string(r.Value[:6]) <= last[r.Partition] {
			t.Fatalf("partition %d: %s after %s", r.Partition, r.Value[:6], last[r.Partition])
		}
		last[r.Partition] = string(r.Value[:6])
	}
	if n != len(records) || len(last) != 4 {
		t.Fatalf("%d records in %d partitions", n, len(last))
	}
}

func TestPublishNamesExactlyTheRecordsThatFailed(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1, "max.message.bytes=2000")
		p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic})
		err := p.Publish(context.Background(),
			broadway.Record{Payload: []byte("fine")},
			broadway.Record{Payload: bytes.Repeat([]byte("x"), 5000)},
			broadway.Record{Destination: "no such/topic", Payload: []byte("misdirected")},
			broadway.Record{Payload: []byte("fine too")},
		)
		var failed *broadway.PublishError
		if !errors.As(err, &failed) || len(failed.Errs) != 4 {
			t.Fatalf("error %v, want one entry per record", err)
		}
		for i, want := range []string{"", "[10]", "no such/topic", ""} {
			if got := failed.Errs[i]; (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
				t.Errorf("record %d: %v, want %q", i, got, want)
			}
		}
		if got := b.Records(t, topic); len(got) != 2 {
			t.Errorf("%d records are in the topic, want the two that were confirmed", len(got))
		}
	})
}

func TestPublishToATopicThatDoesNotExistFails(t *testing.T) {
	b := brokers.Embedded(t)
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs()})
	err := p.Publish(context.Background(), broadway.Record{Destination: "missing", Payload: []byte("x")}, broadway.Record{Payload: []byte("nowhere")})
	var failed *broadway.PublishError
	if !errors.As(err, &failed) || failed.Errs[0] == nil || failed.Errs[1] == nil {
		t.Fatalf("error %v, want both records named", err)
	}
}

func TestPublishWaitsForATopicThatIsBeingCreated(t *testing.T) {
	b := brokers.Embedded(t)
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: "later"})
	done := make(chan error, 1)
	go func() { done <- p.Publish(context.Background(), broadway.Record{Payload: []byte("x")}) }()
	b.CreateTopic(t, "later", 1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPublishHeedsItsContextWhileBrokersAreAway(t *testing.T) {
	p := publisher(t, kafka.PublisherConfig{Brokers: []string{unusedAddr(t)}, Topic: "t"})
	ctx, cancel := context.WithTimeoutCause(context.Background(), 200*time.Millisecond, errBad)
	defer cancel()
	err := p.Publish(ctx, broadway.Record{Payload: []byte("x")})
	var failed *broadway.PublishError
	if !errors.As(err, &failed) || !errors.Is(err, errBad) || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error %v, want the cause and why the broker was not reached", err)
	}
}

func TestPublisherIsForConcurrentUse(t *testing.T) {
	b := brokers.Embedded(t)
	topic := b.Topic(t, 4)
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic})
	errs := make(chan error, 20)
	for i := range cap(errs) {
		go func() {
			errs <- p.Publish(context.Background(), broadway.Record{Payload: fmt.Append(nil, i)}, broadway.Record{Key: []byte("k"), Payload: fmt.Append(nil, i)})
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := len(b.Records(t, topic)); got != 40 {
		t.Errorf("%d records, want 40", got)
	}
}

func TestClosedPublisherRefuses(t *testing.T) {
	p := kafka.NewPublisher(kafka.PublisherConfig{Brokers: []string{"127.0.0.1:1"}})
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Publish(context.Background(), broadway.Record{Destination: "t"}); err == nil {
		t.Error("a closed publisher takes records")
	}
}

func TestPublisherReportsEveryMistake(t *testing.T) {
	p := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: []string{"nowhere"}, Topic: "a b", Timeout: -1, BatchBytes: 5, Compression: 9, SASL: &kafka.SASL{},
	})
	err := p.Validate()
	if again := p.Publish(t.Context(), broadway.Record{Destination: "t"}); again == nil || again.Error() != err.Error() {
		t.Errorf("Publish: %v, want the mistakes", again)
	}
	for _, want := range []string{`"nowhere"`, `"a b"`, "Timeout", "BatchBytes", "Compression", "Mechanism", "Credentials"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// A clock that is two hours off is refused by Kafka, the records are not lost.
func TestRecordsWhoseTimeTheBrokerRefusesAreWritten(t *testing.T) {
	b := brokers.Kafka(t)
	for name, off := range map[string]time.Duration{"ahead": 2 * time.Hour, "right": 0, "far behind": -1000 * time.Hour} {
		topic := b.Topic(t, 1, "message.timestamp.before.max.ms=3600000")
		p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic, Now: func() time.Time { return time.Now().Add(off) }})
		for range 2 {
			if err := p.Publish(t.Context(), broadway.Record{Payload: []byte("a")}, broadway.Record{Payload: []byte("b")}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		got := b.Records(t, topic)
		if len(got) != 4 {
			t.Errorf("%s: %d records, want 4", name, len(got))
		}
		for _, r := range got {
			if untimed := r.Time.UnixMilli() == -1; untimed != (off != 0) {
				t.Errorf("%s: written with the time %v", name, r.Time)
			}
		}
	}
}

func TestRecordsThatAreTooLargeAreToldApart(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1, "max.message.bytes=2000")
		p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic})
		err := p.Publish(t.Context(), broadway.Record{Payload: make([]byte, 1900)}, broadway.Record{Payload: make([]byte, 2001)},
			broadway.Record{Payload: make([]byte, 101<<20)}, broadway.Record{Destination: "missing/"})
		var failed *broadway.PublishError
		if !errors.As(err, &failed) {
			t.Fatalf("Publish: %v", err)
		}
		for i, want := range []bool{false, true, true, false} {
			if got := errors.Is(failed.Errs[i], broadway.ErrTooLarge); got != want || (failed.Errs[i] == nil) != (i == 0) {
				t.Errorf("record %d: %v", i, failed.Errs[i])
			}
		}
	})
}

// More than a request may hold goes in several.
func TestOneCallMayHoldMoreThanARequest(t *testing.T) {
	b := brokers.Kafka(t)
	topic := b.Topic(t, 60, "max.message.bytes=2000000")
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: topic})
	records := make([]broadway.Record, 120)
	for i := range records {
		records[i] = broadway.Record{Key: fmt.Append(nil, i), Payload: make([]byte, 900_000)}
	}
	if err := p.Publish(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, end := range b.EndOffsets(t, topic) {
		n += end
	}
	if n != 120 {
		t.Errorf("%d records, want 120", n)
	}
}

func TestPublishersKnowWhetherTheyHaveADestination(t *testing.T) {
	for want, cfg := range map[bool]kafka.PublisherConfig{
		true:  {Brokers: []string{"127.0.0.1:1"}, Topic: "t"},
		false: {Brokers: []string{"127.0.0.1:1"}},
	} {
		if p := kafka.NewPublisher(cfg); p.HasDestination() != want {
			t.Errorf("%+v: %t", cfg, !want)
		}
	}
}
