package kafka_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/producers/kafka"
)

// fake is a stand-in for Kafka whose faults a test chooses.
type fake struct{ *kfake.Cluster }

func newFake(t testing.TB, opts ...kfake.Opt) fake {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return fake{c}
}

// config is for group "g", with short times.
func (f fake) config(t testing.TB, topics ...string) kafka.Config {
	return kafka.Config{
		Brokers: f.ListenAddrs(), Topics: topics, Group: "g",
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 10 * time.Second, HeartbeatInterval: 100 * time.Millisecond,
		MetadataInterval: 200 * time.Millisecond, CommitInterval: 20 * time.Millisecond, MaxWait: 50 * time.Millisecond,
		Logger: logger(t),
	}
}

// produce writes prefix-from to prefix-(to-1), in turn to each partition.
func (f fake) produce(t testing.TB, topic, prefix string, from, to, partitions int, opts ...kgo.Opt) {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	records := make([]*kgo.Record, 0, to-from)
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Appendf(nil, "%d", i), Value: fmt.Appendf(nil, "%s-%d", prefix, i)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// committed is what group "g" has committed of a topic, -1 where nothing.
func (f fake) committed(topic string, partition int32) int64 {
	info := f.GroupInfo("g")
	if info == nil {
		return -1
	}
	if c, ok := info.Commits[topic][partition]; ok {
		return c.Offset
	}
	return -1
}

// wantCommitted says whether group "g" has committed those offsets.
func (f fake) wantCommitted(topic string, want ...int64) func() error {
	return func() error {
		for p, offset := range want {
			if got := f.committed(topic, int32(p)); got != offset {
				return fmt.Errorf("partition %d: %d is committed, want %d", p, got, offset)
			}
		}
		return nil
	}
}

// fetched answers a request for one topic.
func fetched(request *kmsg.FetchRequest, parts ...kmsg.FetchResponseTopicPartition) *kmsg.FetchResponse {
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic, topic.TopicID, topic.Partitions = request.Topics[0].Topic, request.Topics[0].TopicID, parts
	response := request.ResponseKind().(*kmsg.FetchResponse)
	response.Topics = []kmsg.FetchResponseTopic{topic}
	return response
}
