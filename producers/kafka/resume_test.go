package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// talk sends one request to a broker.
func talk[R kmsg.Response](t testing.TB, b *brokers.KafkaBroker, request interface {
	RequestWith(context.Context, kmsg.Requestor) (R, error)
}) R {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.MaxVersions(kversion.V3_0_0())) // which name topics
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	response, err := request.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// commitAs commits an offset of partition 0 for a group without members.
func commitAs(t testing.TB, b *brokers.KafkaBroker, group, topic string, offset int64, metadata string) {
	t.Helper()
	if err := tryCommitAs(t, b, group, topic, offset, metadata); err != nil {
		t.Fatal(err)
	}
}

// usurp throws all members out of a group and commits for it, before any is back.
func usurp(t testing.TB, b *brokers.KafkaBroker, group, topic string, offset int64, metadata string) {
	t.Helper()
	eventually(t, "a commit between two generations", func() error {
		left := evict(t.Context(), b, group)
		err := tryCommitAs(t, b, group, topic, offset, metadata)
		if err == nil {
			return nil // though perhaps nobody was there to leave
		}
		return errors.Join(left, err)
	})
}

func tryCommitAs(t testing.TB, b *brokers.KafkaBroker, group, topic string, offset int64, metadata string) error {
	t.Helper()
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset, p.Metadata = offset, &metadata
	of := kmsg.NewOffsetCommitRequestTopic()
	of.Topic, of.Partitions = topic, append(of.Partitions, p)
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Generation, request.Topics = group, -1, append(request.Topics, of)
	return kerr.ErrorForCode(talk(t, b, request).Topics[0].Partitions[0].ErrorCode)
}

// metadataOf is what a group's commit of partition 0 carries.
func metadataOf(t testing.TB, b *brokers.KafkaBroker, group, topic string) string {
	t.Helper()
	of := kmsg.NewOffsetFetchRequestTopic()
	of.Topic, of.Partitions = topic, []int32{0}
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group, request.Topics = group, append(request.Topics, of)
	of2 := kmsg.NewOffsetFetchRequestGroupTopic()
	of2.Topic, of2.Partitions = topic, []int32{0}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = group, append(g.Topics, of2)
	request.Groups = append(request.Groups, g)
	response := talk(t, b, request)
	var text *string
	if len(response.Groups) > 0 && len(response.Groups[0].Topics) > 0 {
		text = response.Groups[0].Topics[0].Partitions[0].Metadata
	} else if len(response.Topics) > 0 {
		text = response.Topics[0].Partitions[0].Metadata
	}
	if text == nil {
		return ""
	}
	return *text
}

// tells waits until a commit says that n messages above it have settled.
func tells(t testing.TB, b *brokers.KafkaBroker, group, topic string, n int64) (text string) {
	t.Helper()
	eventually(t, "a commit says what has settled above it", func() error {
		text = metadataOf(t, b, group, topic)
		settled, err := kafka.Told(text)
		if err != nil || settled != n {
			return fmt.Errorf("%d settled, %v", settled, err)
		}
		return nil
	})
	return text
}

const (
	held      = 3
	heldTotal = 100
)

// holding runs a pipeline whose handler does not return from one message, until
// all others have settled and a commit says so.
func holding(t *testing.T, b *brokers.KafkaBroker, topic string) (r *running, g *gate, source *kafka.Producer, cfg kafka.Config, text string) {
	cfg = config(t, b, topic)
	b.Produce(t, topic, numbered("m", heldTotal, heldTotal, 1)...)
	source, g = kafka.NewProducer(cfg), newGate(newSink(), fmt.Sprint("m-", held))
	c := pipeline(source, g.out)
	c.Processor.Handler, c.Processor.Unordered = g.handle, true // nothing waits behind it
	r = run(t, c)
	<-g.entered
	eventually(t, "all others", g.out.has(heldTotal-1))
	return r, g, source, cfg, tells(t, b, cfg.Group, topic, heldTotal-held-1)
}

// A process ends, as near to a crash as one gets here, while one message is in its
// handler: only that one comes again.
func TestOnlyWhatWasOpenIsRepeated(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1)
		r, g, source, cfg, _ := holding(t, b, topic)
		if got := b.CommittedOffsets(t, cfg.Group, topic)[0]; got != held {
			t.Errorf("committed %d, want %d", got, held)
		}
		r.Abort()
		close(g.open) // which is too late for what is in the handler
		<-r.done
		if n := source.Stats().Abandoned; n > 1 {
			t.Errorf("%d abandoned", n)
		}
		source = kafka.NewProducer(cfg)
		r = run(t, pipeline(source, g.out))
		eventually(t, "all commits", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		if n := g.out.duplicates(); n != 1 || g.out.distinct() != heldTotal {
			t.Errorf("%d messages, %d were handled twice, want the one that was open", g.out.distinct(), n)
		}
		if s := source.Stats(); s.SkippedOffsets != 0 || s.DoubtedMetadata != 0 || s.ForeignMetadata != 0 {
			t.Errorf("%+v", s)
		}
		if settled, err := kafka.Told(metadataOf(t, b, cfg.Group, topic)); err != nil || settled != 0 {
			t.Errorf("at the end: %d settled, %v", settled, err)
		}
	})
}

// What a commit's metadata says is believed only when there is no doubt.
func TestDoubtfulMetadataIsDropped(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic, twin := b.Topic(t, 1), b.Topic(t, 1)
		b.Produce(t, twin, numbered("m", heldTotal, heldTotal, 1)...)
		r, g, _, _, text := holding(t, b, topic)
		close(g.open)
		r.stop(t)
		for name, c := range map[string]struct {
			topic, metadata string
			offset          int64
			policy          kafka.ForeignMetadata
			handled         int
			stats           kafka.Stats
		}{
			"none":      {offset: held, handled: heldTotal - held},
			"believed":  {offset: held, metadata: text, handled: 1},
			"damaged":   {offset: held, metadata: text[:30] + "??" + text[32:], handled: heldTotal - held, stats: kafka.Stats{DoubtedMetadata: 1}},
			"later":     {offset: held, metadata: strings.Replace(text, "/2 ", "/3 ", 1), handled: heldTotal - held, stats: kafka.Stats{DoubtedMetadata: 1}},
			"earlier":   {offset: held, metadata: strings.Replace(text, "/2 ", "/1 ", 1), handled: heldTotal - held, stats: kafka.Stats{DoubtedMetadata: 1}},
			"moved":     {offset: held + 2, metadata: text, handled: heldTotal - held - 2, stats: kafka.Stats{DoubtedMetadata: 1}},
			"recreated": {topic: twin, offset: held, metadata: text, handled: heldTotal, stats: kafka.Stats{RecreatedTopics: 1}},
			"foreign":   {offset: held, metadata: "consumer-7", handled: heldTotal - held, stats: kafka.Stats{ForeignMetadata: 1}},
			"refused":   {offset: held, metadata: "consumer-7", policy: kafka.FailOnForeign, handled: -1, stats: kafka.Stats{ForeignMetadata: 1}},
		} {
			t.Run(name, func(t *testing.T) {
				if c.topic == "" {
					c.topic = topic
				}
				cfg := config(t, b, c.topic)
				cfg.ForeignMetadata = c.policy
				commitAs(t, b, cfg.Group, c.topic, c.offset, c.metadata)
				source, out := kafka.NewProducer(cfg), newSink()
				r := run(t, pipeline(source, out))
				if c.handled < 0 {
					<-r.done
					if r.err == nil || !strings.Contains(r.err.Error(), c.topic+"/0") || strings.Contains(r.err.Error(), c.metadata) {
						t.Errorf("Run: %v", r.err)
					}
					if got := b.CommittedOffsets(t, cfg.Group, topic)[0]; got != held || metadataOf(t, b, cfg.Group, topic) != c.metadata {
						t.Errorf("committed %d", got)
					}
				} else {
					eventually(t, "all commits", committedToEnd(t, b, cfg.Group, c.topic))
					r.stop(t)
					if got := out.distinct(); got != c.handled || out.duplicates() != 0 {
						t.Errorf("%d messages and %d again, want %d", got, out.duplicates(), c.handled)
					}
				}
				s := source.Stats()
				got := kafka.Stats{DoubtedMetadata: s.DoubtedMetadata, RecreatedTopics: s.RecreatedTopics, ForeignMetadata: s.ForeignMetadata}
				if got != c.stats || s.SkippedOffsets != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	})
}
