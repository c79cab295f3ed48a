package kafka_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// source is a topic of one partition and a group, for the conformance suites.
type source struct {
	t      testing.TB
	broker *brokers.KafkaBroker
	cfg    kafka.Config
	topic  string
	opened *kafka.Producer
}

func newSource(b *brokers.KafkaBroker) func(testing.TB) broadwaytest.Source {
	return func(t testing.TB) broadwaytest.Source {
		topic := b.Topic(t, 1)
		return &source{t: t, broker: b, topic: topic, cfg: config(t, b, topic)}
	}
}

func (s *source) Produce(_ context.Context, payloads ...[]byte) error {
	records := make([]brokers.Record, len(payloads))
	for i, payload := range payloads {
		records[i].Value = payload
	}
	s.broker.Produce(s.t, s.topic, records...)
	return nil
}

func (s *source) Open(testing.TB) broadway.Producer {
	s.opened = kafka.NewProducer(s.cfg)
	return s.opened
}

// Crash cuts the producer off, and has the broker find that the member is gone.
func (s *source) Crash(ctx context.Context) error {
	s.opened.Kill()
	return evict(ctx, s.broker, s.cfg.Group)
}

func (s *source) Left(context.Context) (int, error) {
	committed := max(s.broker.CommittedOffsets(s.t, s.cfg.Group, s.topic)[0], 0)
	return int(s.broker.EndOffsets(s.t, s.topic)[0] - committed), nil
}

// Cut throws the member out of its group, as the broker does when it hears
// nothing from it, and commits for somebody else who had the partition meanwhile: what
// is unsettled is not the member's any more, though the partition returns to it.
func (s *source) Cut(context.Context) error {
	usurp(s.t, s.broker, s.cfg.Group, s.topic, max(s.broker.CommittedOffsets(s.t, s.cfg.Group, s.topic)[0], 0), "somebody else")
	return nil
}

// evict removes every member of a group.
func evict(ctx context.Context, b *brokers.KafkaBroker, group string) error {
	return evictClient(ctx, b.Addrs(), group, "")
}

// evictClient removes the members of a group that have a client id, all when it is
// empty.
func evictClient(ctx context.Context, addrs []string, group, id string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		return err
	}
	defer client.Close()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	groups, err := describe.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, m := range groups.Groups[0].Members {
		if id != "" && m.ClientID != id {
			continue
		}
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		leave.Members = append(leave.Members, member)
	}
	if len(leave.Members) == 0 && id != "" {
		return nil // it was no member yet
	}
	left, err := leave.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if left.ErrorCode != 0 || len(left.Members) == 0 {
		return fmt.Errorf("leaving: code %d, %d members", left.ErrorCode, len(left.Members))
	}
	return nil
}

func TestConformance(t *testing.T) {
	features := broadwaytest.Features{Cumulative: true, UnmarkedRedelivery: true, UncountedCrashes: 2, Quiet: 300 * time.Millisecond}
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		broadwaytest.TestProducer(t, features, newSource(b))
		broadwaytest.TestAcknowledger(t, features, newSource(b))
	})
}
