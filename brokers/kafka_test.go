package brokers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/gobroadway/gobroadway/brokers"
)

// eachKafka runs a test on the real broker and on the embedded one.
func eachKafka(t *testing.T, test func(*testing.T, *brokers.KafkaBroker)) {
	t.Run("real", func(t *testing.T) { test(t, brokers.Kafka(t)) })
	t.Run("embedded", func(t *testing.T) { test(t, brokers.Embedded(t)) })
}

// ask runs do with a client of its own.
func ask(t *testing.T, addrs []string, do func(context.Context, *kgo.Client) error, opts ...kgo.Opt) error {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addrs...))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return do(ctx, client)
}

// topics lists what the broker has.
func topics(t *testing.T, kafka *brokers.KafkaBroker) []string {
	t.Helper()
	var names []string
	err := ask(t, kafka.Addrs(), func(ctx context.Context, client *kgo.Client) error {
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = nil // all
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		for _, topic := range response.Topics {
			names = append(names, *topic.Topic)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestTopicsAreFreshAndGoneAfterTheirTest(t *testing.T) {
	eachKafka(t, func(t *testing.T, kafka *brokers.KafkaBroker) {
		var first, second string
		t.Run("inner", func(t *testing.T) {
			first, second = kafka.Topic(t, 3), kafka.Topic(t, 1)
			if first == second {
				t.Errorf("twice %s", first)
			}
			if n := len(kafka.EndOffsets(t, first)); n != 3 {
				t.Errorf("%d partitions", n)
			}
		})
		eventually(t, "the topics are gone", func() bool {
			left := topics(t, kafka)
			return !slices.Contains(left, first) && !slices.Contains(left, second)
		})
	})
}

func TestWhatIsProducedIsReadBackWithEveryCodec(t *testing.T) {
	eachKafka(t, func(t *testing.T, kafka *brokers.KafkaBroker) {
		topic := kafka.Topic(t, 2)
		stamp := time.UnixMilli(1_700_000_000_000)
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			kafka.ProduceWith(t, topic, brokers.ProduceOptions{Compression: codec}, brokers.Record{
				Partition: 1, Key: []byte("k"), Value: []byte(codec), Time: stamp,
				Headers: []brokers.Header{{Key: "h", Value: []byte("v")}},
			})
		}
		kafka.Produce(t, topic, brokers.Record{Key: []byte("tombstone")})
		var told []string
		for _, record := range kafka.Records(t, topic) {
			if record.Partition == 1 && (string(record.Key) != "k" || len(record.Headers) != 1 || !record.Time.Equal(stamp)) {
				t.Errorf("read back %+v", record)
			}
			told = append(told, fmt.Sprintf("%d/%d=%s", record.Partition, record.Offset, record.Value))
		}
		slices.Sort(told)
		want := []string{"0/0=", "1/0=none", "1/1=gzip", "1/2=snappy", "1/3=lz4", "1/4=zstd"}
		if !slices.Equal(told, want) {
			t.Errorf("read back %v, want %v", told, want)
		}
	})
}

// An aborted transaction leaves records and a control record in the partition, which Records does not give.
func TestTransactionsLeaveControlRecords(t *testing.T) {
	eachKafka(t, func(t *testing.T, kafka *brokers.KafkaBroker) {
		topic := kafka.Topic(t, 1)
		kafka.ProduceWith(t, topic, brokers.ProduceOptions{Transaction: brokers.Commit}, brokers.Record{Value: []byte("kept")})
		kafka.ProduceWith(t, topic, brokers.ProduceOptions{Transaction: brokers.Abort}, brokers.Record{Value: []byte("aborted")})
		records := kafka.Records(t, topic)
		if len(records) != 1 || string(records[0].Value) != "kept" {
			t.Errorf("read back %+v", records)
		}
		if ends := kafka.EndOffsets(t, topic); !slices.Equal(ends, []int64{4}) {
			t.Errorf("ends at %v, want two records and two control records", ends)
		}
	})
}

func TestCommittedOffsetsAreTold(t *testing.T) {
	eachKafka(t, func(t *testing.T, kafka *brokers.KafkaBroker) {
		topic, group := kafka.Topic(t, 2), kafka.Group(t)
		if got := kafka.CommittedOffsets(t, group, topic); !slices.Equal(got, []int64{-1, -1}) {
			t.Errorf("before any commit: %v", got)
		}
		err := ask(t, kafka.Addrs(), func(ctx context.Context, client *kgo.Client) error { return commit(ctx, client, group, topic, 1, 7) },
			kgo.MaxVersions(kversion.V3_0_0())) // later ones name topics by id
		if err != nil {
			t.Fatal(err)
		}
		if got := kafka.CommittedOffsets(t, group, topic); !slices.Equal(got, []int64{-1, 7}) {
			t.Errorf("after a commit: %v", got)
		}
	})
}

func commit(ctx context.Context, client *kgo.Client, group, name string, partition int32, offset int64) error {
	commit := kmsg.NewOffsetCommitRequestTopicPartition()
	commit.Partition, commit.Offset = partition, offset
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = name, append(topic.Partitions, commit)
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Generation = group, -1
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
}

func TestTopicsCanGrowAndLoseTheirHead(t *testing.T) {
	eachKafka(t, func(t *testing.T, kafka *brokers.KafkaBroker) {
		topic := kafka.Topic(t, 1, "retention.ms=-1")
		for i := range 5 {
			kafka.Produce(t, topic, brokers.Record{Value: fmt.Append(nil, i)})
		}
		kafka.AddPartitions(t, topic, 3)
		kafka.DeleteRecords(t, topic, 0, 3)
		if got := kafka.StartOffsets(t, topic); !slices.Equal(got, []int64{3, 0, 0}) {
			t.Errorf("starts at %v", got)
		}
		if got := kafka.Records(t, topic); len(got) != 2 || got[0].Offset != 3 {
			t.Errorf("left: %+v", got)
		}
		kafka.DeleteTopic(t, topic)
		eventually(t, "the topic is gone", func() bool { return !slices.Contains(topics(t, kafka), topic) })
		kafka.CreateTopic(t, topic, 2)
		if got := kafka.EndOffsets(t, topic); !slices.Equal(got, []int64{0, 0}) {
			t.Errorf("a topic created again ends at %v", got)
		}
	})
}

func TestTheSASLListenerWantsAUser(t *testing.T) {
	kafka := brokers.Kafka(t)
	addr, user, password := kafka.SASL(t)
	ping := func(ctx context.Context, client *kgo.Client) error { return client.Ping(ctx) }
	token := oauth.Auth{Token: brokers.UnsecuredToken("somebody")}
	for name, opt := range map[string]kgo.Opt{
		"plain":  kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()),
		"sha256": kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()),
		"sha512": kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()),
		"oauth":  kgo.SASL(token.AsMechanism()),
	} {
		if err := ask(t, []string{addr}, ping, opt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := kgo.SASL(plain.Auth{User: user, Pass: "wrong"}.AsMechanism())
	if err := ask(t, []string{addr}, ping, wrong, kgo.RequestRetries(0)); err == nil {
		t.Error("a wrong password is accepted")
	}
}

func TestTheTLSListenerIsTrusted(t *testing.T) {
	kafka := brokers.Kafka(t)
	addr, config := kafka.TLS(t)
	ping := func(ctx context.Context, client *kgo.Client) error { return client.Ping(ctx) }
	if err := ask(t, []string{addr}, ping, kgo.DialTLSConfig(config)); err != nil {
		t.Error(err)
	}
}
