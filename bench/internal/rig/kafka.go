package rig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/brokers"
)

// kafka is a broker and the topics that were filled.
type kafka struct {
	addr   string
	filled map[string]bool
	live   string // the topic of the last round that needed an empty one
}

func startKafka(host *brokers.Host) (*kafka, error) {
	k := &kafka{filled: map[string]bool{}}
	err := host.Do(func() {
		k.addr = brokers.Kafka(host).Addr()
	})
	return k, err
}

// prepare makes the topic of a round.
func (k *kafka) prepare(ctx context.Context, run string, n measure.Needs, records, round int) (string, error) {
	if n.Empty {
		return k.empty(ctx, fmt.Sprintf("live-%s-%d", run, round), n)
	}
	return k.topic(ctx, run, n, records)
}

// empty makes a topic that nobody has used, in place of the last one.
func (k *kafka) empty(ctx context.Context, name string, n measure.Needs) (string, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		return "", err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if k.live != "" {
		if _, err := admin.DeleteTopic(ctx, k.live); err != nil {
			return "", fmt.Errorf("delete topic %s: %w", k.live, err)
		}
	}
	if _, err := admin.CreateTopic(ctx, int32(n.Partitions), 1, nil, name); err != nil {
		return "", fmt.Errorf("create topic %s: %w", name, err)
	}
	k.live = name
	return name, awaitTopic(ctx, admin, name, n.Partitions)
}

// awaitTopic waits until a topic is known with all of its partitions: a group that joins before has none of them, and some clients never
// look again.
func awaitTopic(ctx context.Context, admin *kadm.Client, name string, partitions int) error {
	for {
		topics, err := admin.ListTopics(ctx, name)
		if err != nil {
			return err
		}
		led := 0
		for _, p := range topics[name].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if led == partitions {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// topic is one with so many records, made when it is not there yet. Record i has the number i+1 and goes to partition i % partitions;
// with keys it goes where its key does.
func (k *kafka) topic(ctx context.Context, run string, n measure.Needs, records int) (string, error) {
	name := fmt.Sprintf("drain-%s-%d-%d-%s-%d", run, records, n.Partitions, n.Codec, n.Keys)
	if k.filled[name] {
		return name, nil
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(k.addr), kgo.DefaultProduceTopic(name), codec(n.Codec), partitioner(n),
		kgo.ProducerLinger(0), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchMaxBytes(1_000_000),
	)
	if err != nil {
		return "", err
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, int32(n.Partitions), 1, nil, name); err != nil {
		return "", fmt.Errorf("create topic %s: %w", name, err)
	}
	if err := fill(ctx, client, n, records); err != nil {
		return "", fmt.Errorf("fill topic %s: %w", name, err)
	}
	k.filled[name] = true
	return name, nil
}

func codec(name string) kgo.Opt {
	codecs := map[string]kgo.CompressionCodec{"": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	return kgo.ProducerBatchCompression(codecs[name])
}

func partitioner(n measure.Needs) kgo.Opt {
	if n.Keys > 0 {
		return kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))
	}
	return kgo.RecordPartitioner(kgo.ManualPartitioner())
}

func fill(ctx context.Context, client *kgo.Client, n measure.Needs, records int) error {
	var mu sync.Mutex
	var failed error
	for i := range records {
		record := &kgo.Record{Value: measure.Slab(i, 1)}
		if n.Keys > 0 {
			record.Key = fmt.Appendf(nil, "key-%d", i%n.Keys)
		} else {
			// Runs of records go to one partition, so that batches are as large as those of a producer under load.
			record.Partition = int32(i / 1000 % n.Partitions)
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	err := client.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(failed, err)
}

// committed asks whether a group has committed a topic to its end.
func (k *kafka) committed(ctx context.Context, group, topic string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		return err
	}
	commits, err := admin.FetchOffsets(ctx, group)
	if err := errors.Join(err, commits.Error()); err != nil {
		return err
	}
	var wrong error
	ends.Each(func(end kadm.ListedOffset) {
		at, _ := commits.Lookup(topic, end.Partition)
		if at.At != end.Offset {
			wrong = errors.Join(wrong, fmt.Errorf("partition %d is committed to %d, its end is %d", end.Partition, at.At, end.Offset))
		}
	})
	return wrong
}
