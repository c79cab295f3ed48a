package rig

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/brokers"
)

// Kafka is rig K: a broker of one node whose advertised address is the proxy, and a listener past it.
type Kafka struct {
	// Proxy is what consumers go through.
	Proxy *Proxy

	host   *brokers.Host
	broker brokers.OwnKafka
	client *kgo.Client
	admin  *kadm.Client
}

// Quick are the settings of groups that notice deaths soon, and of a cleaner and a coordinator of transactions that do not wait long.
var quick = []string{
	"group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000", "auto.create.topics.enable=false", "log.cleaner.backoff.ms=200",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
}

// StartKafka starts rig K. settings are further lines of server.properties. It ends with the host.
func StartKafka(host *brokers.Host, settings ...string) (*Kafka, error) {
	proxy, err := newProxy(kafkaClient)
	if err != nil {
		return nil, err
	}
	k := &Kafka{Proxy: proxy, host: host}
	host.Cleanup(func() {
		if k.client != nil {
			k.client.Close()
		}
		if err := proxy.close(); err != nil {
			host.Logf("close the proxy: %v", err)
		}
	})
	err = host.Do(func() {
		k.broker = brokers.Exclusive(host).KafkaBehind(proxy.Addr(), append(quick[:len(quick):len(quick)], settings...)...)
	})
	if err != nil {
		return nil, err
	}
	if err := proxy.serve(k.broker.Listener()); err != nil {
		return nil, err
	}
	k.client, err = kgo.NewClient(kgo.SeedBrokers(k.Direct()), kgo.ClientID("chaos-admin"), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	k.admin = kadm.NewClient(k.client)
	k.admin.SetTimeoutMillis(20_000)
	return k, nil
}

// Direct is the address past the proxy: for producers, the checker and the administrator.
func (k *Kafka) Direct() string { return k.broker.Addr() }

// Proxied is the address of the proxy.
func (k *Kafka) Proxied() string { return k.Proxy.Addr() }

// Admin is a client past the proxy, for what has no method here.
func (k *Kafka) Admin() *kadm.Client { return k.admin }

// TopicIDs are the names of topics by their ids, in hex: newer commits have only these.
func (k *Kafka) TopicIDs(ctx context.Context, topics ...string) (map[string]string, error) {
	found, err := k.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, topic := range found {
		if topic.Err == nil {
			ids[hex.EncodeToString(topic.ID[:])] = topic.Topic
		}
	}
	return ids, nil
}

// Version is what runs.
func (k *Kafka) Version() string { return "Kafka " + brokers.KafkaVersion }

// PID is the broker's process.
func (k *Kafka) PID() (pid int, err error) {
	err = k.host.Do(func() { pid = k.broker.PID(k.host) })
	return pid, err
}

// Kill ends the broker by SIGKILL and returns when it is gone.
func (k *Kafka) Kill() error { return k.host.Do(func() { k.broker.Kill(k.host) }) }

// Stop ends the broker in good order.
func (k *Kafka) Stop() error { return k.host.Do(func() { k.broker.Stop(k.host) }) }

// Start starts it again and returns when it works.
func (k *Kafka) Start() error { return k.host.Do(func() { k.broker.Start(k.host) }) }

// CreateTopic creates a topic with settings such as "cleanup.policy", and waits until every partition has a leader.
func (k *Kafka) CreateTopic(ctx context.Context, topic string, partitions int, config map[string]string) error {
	settings := make(map[string]*string, len(config))
	for key, value := range config {
		settings[key] = &value
	}
	answer, err := k.admin.CreateTopic(ctx, int32(partitions), 1, settings, topic)
	if err = errors.Join(err, answer.Err); err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return k.awaitTopic(ctx, topic, partitions)
}

func (k *Kafka) awaitTopic(ctx context.Context, topic string, partitions int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		offsets, err := k.admin.ListEndOffsets(ctx, topic)
		if err == nil && offsets.Error() == nil && len(offsets[topic]) == partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s: %w", topic, errors.Join(context.Cause(ctx), err, offsets.Error()))
		case <-tick.C:
		}
	}
}

// DeleteTopic deletes a topic and returns when nobody finds it any more.
func (k *Kafka) DeleteTopic(ctx context.Context, topic string) error {
	answers, err := k.admin.DeleteTopics(ctx, topic)
	if err = errors.Join(err, answers.Error()); err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := k.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		if !found.Has(topic) {
			return nil
		}
		<-tick.C
	}
}

// Recreate deletes a topic and creates it again: the same name, another id, and offsets from 0.
func (k *Kafka) Recreate(ctx context.Context, topic string, partitions int) error {
	if err := k.DeleteTopic(ctx, topic); err != nil {
		return err
	}
	return k.CreateTopic(ctx, topic, partitions, nil)
}

// AddPartitions makes a topic have so many partitions.
func (k *Kafka) AddPartitions(ctx context.Context, topic string, total int) error {
	answers, err := k.admin.UpdatePartitions(ctx, total, topic)
	if err = errors.Join(err, answers.Error()); err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	return k.awaitTopic(ctx, topic, total)
}

// DeleteRecords moves the start of a partition up to an offset, as retention does.
func (k *Kafka) DeleteRecords(ctx context.Context, topic string, partition int, before int64) error {
	var offsets kadm.Offsets
	offsets.AddOffset(topic, int32(partition), before, -1)
	answers, err := k.admin.DeleteRecords(ctx, offsets)
	return errors.Join(err, answers.Error())
}

// DeleteOffsets removes what a group has committed of a topic. The group must have no member that consumes it.
func (k *Kafka) DeleteOffsets(ctx context.Context, group, topic string, partitions int) error {
	var set kadm.TopicsSet
	for p := range partitions {
		set.Add(topic, int32(p))
	}
	answers, err := k.admin.DeleteOffsets(ctx, group, set)
	return errors.Join(err, answers.Error())
}

// A Position is where one partition of a group stands.
type Position struct {
	Partition             int
	Committed, Start, End int64 // Committed is -1 where nothing is
	Metadata              string
	LeaderEpoch           int32
}

// Positions asks where a group stands in a topic.
func (k *Kafka) Positions(ctx context.Context, group, topic string) ([]Position, error) {
	starts, err := k.admin.ListStartOffsets(ctx, topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		return nil, err
	}
	ends, err := k.admin.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, err
	}
	committed, err := k.admin.FetchOffsetsForTopics(ctx, group, topic)
	if err = errors.Join(err, committed.Error()); err != nil {
		return nil, err
	}
	positions := make([]Position, len(ends[topic]))
	for p := range positions {
		at := Position{Partition: p, Committed: -1}
		if offset, ok := starts.Lookup(topic, int32(p)); ok {
			at.Start = offset.Offset
		}
		if offset, ok := ends.Lookup(topic, int32(p)); ok {
			at.End = offset.Offset
		}
		if offset, ok := committed.Lookup(topic, int32(p)); ok {
			at.Committed, at.Metadata, at.LeaderEpoch = offset.At, offset.Metadata, offset.LeaderEpoch
		}
		positions[p] = at
	}
	return positions, nil
}

// Lag is how many records of a topic a group has not committed.
func (k *Kafka) Lag(ctx context.Context, group, topic string) (int64, error) {
	positions, err := k.Positions(ctx, group, topic)
	var lag int64
	for _, at := range positions {
		lag += at.End - max(at.Start, at.Committed)
	}
	return lag, err
}

// GroupState is the state of a group, such as "Stable", and how many members it has.
func (k *Kafka) GroupState(ctx context.Context, group string) (state string, members int, err error) {
	groups, err := k.admin.DescribeGroups(ctx, group)
	if err != nil {
		return "", 0, err
	}
	found := groups[group]
	return found.State, len(found.Members), found.Err
}

// TLS is the address of an encrypted listener past the proxy, and what trusts it.
func (k *Kafka) TLS() (addr string, config *tls.Config, err error) {
	err = k.host.Do(func() { addr, config = k.broker.TLS(k.host) })
	return addr, config, err
}

// SASL is a proxy of its own in front of the listener that wants a user, and who that is. It ends with the host. Brokers that are logged in to lead
// past it.
func (k *Kafka) SASL() (proxy *Proxy, user, password string, err error) {
	var address string
	if err := k.host.Do(func() { address, user, password = k.broker.SASL(k.host) }); err != nil {
		return nil, "", "", err
	}
	if proxy, err = newProxy(kafkaClient); err != nil {
		return nil, "", "", err
	}
	k.host.Cleanup(func() {
		if err := proxy.close(); err != nil {
			k.host.Logf("close a proxy: %v", err)
		}
	})
	return proxy, user, password, proxy.serve(address)
}
