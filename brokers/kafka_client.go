package brokers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The harness asks Kafka through franz-go, which is not the client that the producers use: what a test counts with it does not
// rest on the code under test.

// dialOnce tells whether somebody listens there.
func dialOnce(ctx context.Context, addr string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// withKafka runs do with a client that lives no longer than that: a test that looks for leaked goroutines finds none of ours.
func withKafka(addrs []string, do func(*kgo.Client) error, opts ...kgo.Opt) error {
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(addrs...),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
	}, opts...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// kafkaReady returns nil once a node accepts topics and coordinates groups: it has a controller, itself as a broker that is not
// fenced, and a coordinator, for which its offsets topic must exist.
func kafkaReady(ctx context.Context, addr string) error {
	return withKafka([]string{addr}, func(client *kgo.Client) error {
		request := kmsg.NewPtrFindCoordinatorRequest()
		request.CoordinatorKey = "ready"
		request.CoordinatorKeys = []string{"ready"}
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		for _, coordinator := range response.Coordinators {
			if err := kerr.ErrorForCode(coordinator.ErrorCode); err != nil {
				return err
			}
		}
		return nil
	})
}

// createTopic creates a topic and returns when each of its partitions has a leader.
func createTopic(ctx context.Context, client *kgo.Client, name string, partitions int, config map[string]string) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), 1
	for key, value := range config {
		entry := kmsg.NewCreateTopicsRequestTopicConfig()
		entry.Name, entry.Value = key, &value
		topic.Configs = append(topic.Configs, entry)
	}
	request := kmsg.NewPtrCreateTopicsRequest()
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
	return awaitLeaders(ctx, client, name, partitions)
}

// described adds the broker's own words to an error.
func described(err error, message *string) error {
	if message == nil {
		return err
	}
	return fmt.Errorf("%w: %s", err, *message)
}

// awaitLeaders polls the metadata of a topic until it has so many partitions and each can be written to.
func awaitLeaders(ctx context.Context, client *kgo.Client, name string, partitions int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := leaders(ctx, client, name)
		if err == nil && found >= partitions {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("topic %s: %d of %d partitions have a leader: %w", name, found, partitions, errors.Join(err, ctx.Err()))
		}
	}
}

// leaders counts the partitions of a topic that have a leader.
func leaders(ctx context.Context, client *kgo.Client, name string) (int, error) {
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &name
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return 0, err
	}
	led := 0
	for _, topic := range response.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return 0, err
		}
		for _, partition := range topic.Partitions {
			if partition.ErrorCode == 0 && partition.Leader >= 0 {
				led++
			}
		}
	}
	return led, nil
}

// deleteTopic deletes a topic. One that is gone already is as good.
func deleteTopic(ctx context.Context, client *kgo.Client, name string) error {
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.Topics = append(request.Topics, topic)
	request.TopicNames = []string{name} // for versions that know no ids
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, result := range response.Topics {
		err := kerr.ErrorForCode(result.ErrorCode)
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return described(err, result.ErrorMessage)
		}
	}
	return nil
}

// listOffsets returns, per partition, the offset that Kafka gives for a timestamp: -2 the first, -1 the end.
func listOffsets(ctx context.Context, client *kgo.Client, name string, timestamp int64) ([]int64, error) {
	partitions, err := leaders(ctx, client, name)
	if err != nil {
		return nil, err
	}
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = name
	for i := range partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = int32(i), timestamp
		topic.Partitions = append(topic.Partitions, partition)
	}
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.Topics = append(request.Topics, topic)
	offsets := make([]int64, partitions)
	for _, shard := range client.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, topic := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, partition := range topic.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					return nil, err
				}
				offsets[partition.Partition] = partition.Offset
			}
		}
	}
	return offsets, nil
}

// committedOffsets returns what a group has committed of a topic, -1 where nothing.
func committedOffsets(ctx context.Context, client *kgo.Client, group, name string) ([]int64, error) {
	partitions, err := leaders(ctx, client, name)
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, partitions)
	topic := kmsg.NewOffsetFetchRequestTopic()
	topic.Topic = name
	for i := range offsets {
		offsets[i] = -1
		topic.Partitions = append(topic.Partitions, int32(i))
	}
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = group
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	err = kerr.ErrorForCode(response.ErrorCode)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return offsets, nil // a group that does not exist has committed nothing
	}
	if err != nil {
		return nil, err
	}
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return nil, err
			}
			offsets[partition.Partition] = partition.Offset
		}
	}
	return offsets, nil
}
