package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// partitions is how many the topic gets.
const partitions = 4

// kafkaQueue is a topic and a consumer group of the same name.
type kafkaQueue struct {
	brokers []string
	topic   string
	cluster *kfake.Cluster // nil for a real one
	out     *kafka.Publisher
	admin   *kafkago.Client
	system  *system
	left    int   // uncommitted at the beginning
	done    int64 // committed at the beginning
}

// openEmbedded starts a Kafka in this process, on loopback.
func openEmbedded(ctx context.Context, s *system, topic string) (queue, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return nil, fmt.Errorf("the embedded Kafka: %w", err)
	}
	q := &kafkaQueue{brokers: cluster.ListenAddrs(), topic: topic, cluster: cluster, system: s}
	if err := q.open(ctx); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return q, nil
}

func openKafka(ctx context.Context, s *system, topic string) (queue, error) {
	q := &kafkaQueue{brokers: strings.Split(s.opts.kafka, ","), topic: topic, system: s}
	if err := q.open(ctx); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return q, nil
}

func (q *kafkaQueue) open(ctx context.Context) error {
	q.admin = &kafkago.Client{Addr: kafkago.TCP(q.brokers...), Timeout: 10 * time.Second, Transport: new(kafkago.Transport)}
	if err := q.createTopics(ctx); err != nil {
		return fmt.Errorf("kafka at %s: %w", q.place(), err)
	}
	q.out = kafka.NewPublisher(kafka.PublisherConfig{Brokers: q.brokers, Topic: q.topic})
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	end, done, err := q.offsets(ctx)
	for tries := 0; err != nil && tries < 50; tries++ { // a new topic is not everywhere at once
		<-ticker.C
		end, done, err = q.offsets(ctx)
	}
	if err != nil {
		return fmt.Errorf("kafka at %s: %w", q.place(), err)
	}
	q.left, q.done = int(end-done), done
	return nil
}

func (q *kafkaQueue) createTopics(ctx context.Context) error {
	r, err := q.admin.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{
		{Topic: q.topic, NumPartitions: partitions, ReplicationFactor: -1},
		{Topic: q.dead(), NumPartitions: 1, ReplicationFactor: -1},
	}})
	if err != nil {
		return err
	}
	for _, err := range r.Errors {
		if err != nil && !errors.Is(err, kafkago.TopicAlreadyExists) {
			return err
		}
	}
	return nil
}

func (q *kafkaQueue) dead() string { return q.topic + ".dead" }

// offsets sums up the end of the topic, and what the group has committed.
func (q *kafkaQueue) offsets(ctx context.Context) (end, done int64, err error) {
	asks := make([]kafkago.OffsetRequest, partitions)
	numbers := make([]int, partitions)
	for i := range partitions {
		asks[i], numbers[i] = kafkago.LastOffsetOf(i), i
	}
	ends, err := q.admin.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{q.topic: asks}})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range ends.Topics[q.topic] {
		if p.Error != nil {
			return 0, 0, p.Error
		}
		end += p.LastOffset
	}
	done, err = q.commits(ctx, numbers)
	return end, done, err
}

func (q *kafkaQueue) commits(ctx context.Context, numbers []int) (sum int64, err error) {
	r, err := q.admin.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: q.topic, Topics: map[string][]int{q.topic: numbers}})
	if err != nil {
		return 0, err
	}
	if errors.Is(r.Error, kafkago.GroupIdNotFound) {
		return 0, nil // nobody has joined it yet
	}
	if r.Error != nil {
		return 0, r.Error
	}
	for _, p := range r.Topics[q.topic] {
		if p.Error != nil {
			return 0, p.Error
		}
		sum += max(p.CommittedOffset, 0) // -1 for none
	}
	return sum, nil
}

func (q *kafkaQueue) publisher() broadway.Publisher { return q.out }

func (q *kafkaQueue) source() broadway.Producer {
	return kafka.NewProducer(kafka.Config{
		Brokers: q.brokers, Topics: []string{q.topic}, Group: q.topic,
		CommitInterval: 100 * time.Millisecond, Logger: q.system.logger,
		SessionTimeout: 6 * time.Second, // how long the group waits for a member that was killed
	})
}

func (q *kafkaQueue) deadLetters() broadway.DeadLetterer {
	return &acknowledgers.DeadLetters{Publisher: q.out, Destination: q.dead()}
}

func (q *kafkaQueue) waiting() int { return q.left }

func (q *kafkaQueue) committed(ctx context.Context) (int64, error) {
	numbers := make([]int, partitions)
	for i := range partitions {
		numbers[i] = i
	}
	sum, err := q.commits(ctx, numbers)
	return sum - q.done, err
}

func (q *kafkaQueue) settled(int) {} // the group's offsets tell

func (q *kafkaQueue) forgets() bool { return q.cluster != nil }

func (q *kafkaQueue) place() string { return strings.Join(q.brokers, ",") + "/" + q.topic }

func (q *kafkaQueue) close() error {
	var err error
	if q.out != nil {
		err = q.out.Close()
	}
	if q.admin != nil {
		q.admin.Transport.(*kafkago.Transport).CloseIdleConnections()
	}
	if q.cluster != nil {
		q.cluster.Close()
	}
	return err
}
