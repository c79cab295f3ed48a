package kafka_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestWhatCameAfterTheSubscriptionIsRead: with StartAt latest, everything in a
// partition or a topic that is new is new, however late it is found, also by the
// next process.
func TestWhatCameAfterTheSubscriptionIsRead(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Group(t) // a fresh name
		b.CreateTopic(t, topic, 1)
		b.Produce(t, topic, numbered("old", 10, 1, 1)...)
		cfg := config(t, b, topic)
		cfg.StartAt = kafka.Latest()
		cfg.MetadataInterval = 2 * time.Second // time to write before it is found
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "the end is committed", committedToEnd(t, b, cfg.Group, topic))

		b.AddPartitions(t, topic, 3)
		b.Produce(t, topic, numbered("grown", 30, 3, 3)...)
		eventually(t, "the new partitions", out.has(30))
		r.stop(t)

		b.AddPartitions(t, topic, 4)
		b.Produce(t, topic, numbered("later", 40, 4, 4)...)
		source = kafka.NewProducer(cfg)
		r = run(t, pipeline(source, out))
		eventually(t, "what came while nobody ran", out.has(70))

		b.DeleteTopic(t, topic)
		b.CreateTopic(t, topic, 2)
		b.Produce(t, topic, numbered("again", 20, 2, 2)...)
		eventually(t, "the recreated topic", out.has(90))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		eventually(t, "healthy", healthy(source))
		r.stop(t)
		b.DeleteTopic(t, topic)
		if n := out.duplicates(); n != 0 {
			t.Errorf("%d messages came twice", n)
		}
		for _, payload := range out.payloads() {
			if strings.HasPrefix(payload, "old") {
				t.Errorf("%q lies before the subscription", payload)
			}
		}
	})
}

// TestATopicThatAppearsIsReadFromItsStart, as it did not exist at the subscription.
func TestATopicThatAppearsIsReadFromItsStart(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Group(t)
		cfg := config(t, b, topic)
		cfg.StartAt = kafka.Latest()
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "the missing topic is said", unhealthy(source, topic))
		b.CreateTopic(t, topic, 2)
		b.Produce(t, topic, numbered("m", 20, 2, 2)...)
		eventually(t, "all", out.has(20))
		r.stop(t)
		b.DeleteTopic(t, topic)
	})
}

// TestARecreatedTopicLosesNothing: deleted and created anew between two fetches,
// while its predecessor is being handled, and while nobody runs.
func TestARecreatedTopicLosesNothing(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Group(t)
		b.CreateTopic(t, topic, 2)
		cfg := config(t, b, topic)
		cfg.MetadataInterval = time.Hour // fetches tell
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		total := 0
		for round := range 3 {
			// More than before each time, so that the old position exists in it.
			n := 500 * (round + 1)
			if round > 0 {
				b.DeleteTopic(t, topic)
				b.CreateTopic(t, topic, 2)
			}
			b.Produce(t, topic, numbered(fmt.Sprint("round-", round), n, 50, 2)...)
			total += n
			eventually(t, "all of it", out.has(total))
		}
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		if s := source.Stats(); s.RecreatedTopics != 2 || s.OutOfRange != 0 || s.SkippedOffsets != 0 {
			t.Errorf("%+v, want 2 recreated topics and nothing skipped", s)
		}

		b.DeleteTopic(t, topic)
		b.CreateTopic(t, topic, 2)
		b.Produce(t, topic, numbered("stopped", 2000, 50, 2)...)
		r = run(t, pipeline(kafka.NewProducer(cfg), out))
		eventually(t, "what came while nobody ran", out.has(total+2000))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		b.DeleteTopic(t, topic)
	})
}

// TestRetentionOvertakesARunningConsumer: what is gone is counted exactly.
func TestRetentionOvertakesARunningConsumer(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1)
		cfg := config(t, b, topic)
		cfg.OutOfRange = kafka.ResumeEarliest
		cfg.MaxBytes, cfg.MaxPartitionBytes, cfg.Window = 2000, 2000, 30
		for i := range 50 { // batches of 10, so that the client holds a few of them only
			b.Produce(t, topic, numbered(fmt.Sprintf("m%d", i), 10, 10, 1)...)
		}
		source := kafka.NewProducer(cfg)
		d := drive(t, source)
		first := d.fetch(10)
		b.DeleteRecords(t, topic, 0, 400)
		seen := len(first)
		d.ack(first...)
		last := first[len(first)-1].Seq()
		var skipped int64
		for last < 499 {
			for _, m := range d.fetch(1) {
				skipped += m.Seq() - last - 1
				last = m.Seq()
				seen++
				d.ack(m)
			}
		}
		if s := source.Stats(); s.OutOfRange != 1 || s.SkippedOffsets != skipped || skipped == 0 || int64(seen)+skipped != 500 {
			t.Errorf("%+v; %d messages came and %d offsets are missing", s, seen, skipped)
		}
	})
}

// TestRemovedOffsetsBeginAtTheStart: an administrator removed what the group had
// committed.
func TestRemovedOffsetsBeginAtTheStart(t *testing.T) {
	f := newFake(t)
	if err := f.CreateTopic("t", 1, nil); err != nil {
		t.Fatal(err)
	}
	f.produce(t, "t", "m", 0, 30, 1)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "committed", f.wantCommitted("t", 30))
	r.stop(t)
	f.removeOffsets(t, "t", 0)
	again := newSink()
	r = run(t, pipeline(kafka.NewProducer(f.config(t, "t")), again))
	eventually(t, "all again", again.has(30))
	r.stop(t)
}
