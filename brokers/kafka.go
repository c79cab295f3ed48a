package brokers

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// callLimit bounds one request of the harness to a broker that runs.
const callLimit = 30 * time.Second

// KafkaBroker is a Kafka that a test may use. Its methods fail the test that they are given when the broker does not answer.
type KafkaBroker struct {
	addrs  []string
	origin string
	// What only a native broker has.
	dir   string
	state state
}

// Kafka returns a Kafka for t, shared with other tests, and logs which one it is. See the package's documentation for where it
// comes from.
func Kafka(t testing.TB) *KafkaBroker {
	t.Helper()
	skipShort(t)
	broker := findKafka(t)
	t.Logf("kafka: %s", broker)
	return broker
}

// Addr is the address of one broker, host:port.
func (b *KafkaBroker) Addr() string { return b.addrs[0] }

// Addrs are the addresses to bootstrap from, each host:port.
func (b *KafkaBroker) Addrs() []string { return slices.Clone(b.addrs) }

// String says where the broker comes from and where it listens.
func (b *KafkaBroker) String() string {
	return b.origin + " at " + strings.Join(b.addrs, ",")
}

// SASL returns the address of a listener that demands authentication, without encryption, and the user and password that PLAIN,
// SCRAM-SHA-256 and SCRAM-SHA-512 accept there. OAUTHBEARER accepts any unsecured token, see [UnsecuredToken]. Only a native
// broker has it: t fails on any other.
func (b *KafkaBroker) SASL(t testing.TB) (addr, user, password string) {
	t.Helper()
	b.needNative(t, "a SASL listener")
	return b.state.addr("sasl"), b.state.User, b.state.Password
}

// TLS returns the address of an encrypted listener and the configuration that trusts its certificate. Only a native broker has
// it: t fails on any other.
func (b *KafkaBroker) TLS(t testing.TB) (addr string, config *tls.Config) {
	t.Helper()
	b.needNative(t, "a TLS listener")
	config, err := trust(b.dir)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return b.state.addr("tls"), config
}

func (b *KafkaBroker) needNative(t testing.TB, what string) {
	t.Helper()
	if b.dir == "" {
		t.Fatalf("brokers: %s has no %s that the harness knows of: unset BROADWAY_KAFKA and BROADWAY_BROKERS for a native one", b.origin, what)
	}
}

// call runs do with a client, within callLimit, and fails t if that fails.
func (b *KafkaBroker) call(t testing.TB, what string, do func(context.Context, *kgo.Client) error, opts ...kgo.Opt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	err := withKafka(b.addrs, func(client *kgo.Client) error { return do(ctx, client) }, opts...)
	if err != nil {
		t.Fatalf("brokers: %s: %v", what, err)
	}
}

// Topic creates a topic under a fresh name, with so many partitions and the given settings ("cleanup.policy=compact"), and
// deletes it when t ends.
func (b *KafkaBroker) Topic(t testing.TB, partitions int, config ...string) string {
	t.Helper()
	name := freshName(t.Name())
	b.CreateTopic(t, name, partitions, config...)
	if b.state.Key != exclusiveKey { // otherwise it goes with the broker
		t.Cleanup(func() { b.tryDelete(t, name) })
	}
	return name
}

// CreateTopic creates a topic of that name and leaves it: to create one again after [KafkaBroker.DeleteTopic].
func (b *KafkaBroker) CreateTopic(t testing.TB, name string, partitions int, config ...string) {
	t.Helper()
	settings := make(map[string]string, len(config))
	for _, setting := range config {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			t.Fatalf("brokers: topic setting %q is not key=value", setting)
		}
		settings[key] = value
	}
	b.call(t, "create topic "+name, func(ctx context.Context, client *kgo.Client) error {
		return createTopic(ctx, client, name, partitions, settings)
	})
}

// DeleteTopic deletes a topic now.
func (b *KafkaBroker) DeleteTopic(t testing.TB, name string) {
	t.Helper()
	b.call(t, "delete topic "+name, func(ctx context.Context, client *kgo.Client) error {
		return deleteTopic(ctx, client, name)
	})
}

// tryDelete deletes a topic after its test. The broker may be gone by then, which is no failure: the topic went with it.
func (b *KafkaBroker) tryDelete(t testing.TB, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if dialOnce(ctx, b.addrs[0]) != nil {
		return
	}
	err := withKafka(b.addrs, func(client *kgo.Client) error { return deleteTopic(ctx, client, name) })
	if err != nil {
		t.Logf("brokers: topic %s stays: %v", name, err)
	}
}

// AddPartitions gives a topic more partitions, total in all.
func (b *KafkaBroker) AddPartitions(t testing.TB, name string, total int) {
	t.Helper()
	b.call(t, "add partitions to "+name, func(ctx context.Context, client *kgo.Client) error {
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = name, int32(total)
		request := kmsg.NewPtrCreatePartitionsRequest()
		request.Topics = append(request.Topics, topic)
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		for _, result := range response.Topics {
			if err := kerr.ErrorForCode(result.ErrorCode); err != nil {
				return described(err, result.ErrorMessage)
			}
		}
		return awaitLeaders(ctx, client, name, total)
	})
}

// DeleteRecords moves the start of a partition up to an offset, as retention does.
func (b *KafkaBroker) DeleteRecords(t testing.TB, name string, partition int, before int64) {
	t.Helper()
	b.call(t, "delete records of "+name, func(ctx context.Context, client *kgo.Client) error {
		cut := kmsg.NewDeleteRecordsRequestTopicPartition()
		cut.Partition, cut.Offset = int32(partition), before
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic = name
		topic.Partitions = append(topic.Partitions, cut)
		request := kmsg.NewPtrDeleteRecordsRequest()
		request.Topics = append(request.Topics, topic)
		for _, shard := range client.RequestSharded(ctx, request) {
			if shard.Err != nil {
				return shard.Err
			}
			for _, topic := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics {
				for _, partition := range topic.Partitions {
					if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// Group returns a fresh name for a consumer group. Nothing is created by it.
func (b *KafkaBroker) Group(t testing.TB) string {
	return freshName(t.Name())
}

// StartOffsets returns the first offset of each partition, by partition number.
func (b *KafkaBroker) StartOffsets(t testing.TB, topic string) []int64 {
	t.Helper()
	return b.offsets(t, topic, -2)
}

// EndOffsets returns the offset after the last record of each partition, by partition number.
func (b *KafkaBroker) EndOffsets(t testing.TB, topic string) []int64 {
	t.Helper()
	return b.offsets(t, topic, -1)
}

func (b *KafkaBroker) offsets(t testing.TB, topic string, timestamp int64) (offsets []int64) {
	t.Helper()
	b.call(t, "list offsets of "+topic, func(ctx context.Context, client *kgo.Client) (err error) {
		offsets, err = listOffsets(ctx, client, topic, timestamp)
		return err
	})
	return offsets
}

// CommittedOffsets returns what a group has committed of a topic, by partition number: -1 where nothing.
func (b *KafkaBroker) CommittedOffsets(t testing.TB, group, topic string) (offsets []int64) {
	t.Helper()
	b.call(t, fmt.Sprintf("fetch the offsets of %s in %s", topic, group), func(ctx context.Context, client *kgo.Client) (err error) {
		offsets, err = committedOffsets(ctx, client, group, topic)
		return err
	})
	return offsets
}
