package load

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// Limits of what handlers get, as package broadway documents their defaults.
const (
	mostPayload     = 16 << 20
	mostKey         = 64 << 10
	mostHeaders     = 1000
	mostHeaderBytes = 64 << 10
)

// Headers of a dead letter that is a reference.
const sumHeader = "x-broadway-sha256"

// referenceSum is the sum of a message that is too large: what a reference to it tells of its payload.
func referenceSum(sum string) string { return "reference to " + sum }

func referred(body []byte) string {
	sum := sha256.Sum256(body)
	return referenceSum(hex.EncodeToString(sum[:]))
}

// KafkaLimits writes, for each limit, a record that is at it and one that is over it, and returns the ids of the latter. The topic must
// allow bodies of 17 MiB.
func KafkaLimits(ctx context.Context, broker, dir, topic string, sent *Sent) (over []string, err error) {
	writer, err := ledger.Create(dir, ledger.KindProduced)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-limits"), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchMaxBytes(mostPayload+(1<<20)), kgo.BrokerMaxWriteBytes(2*mostPayload), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for by := range 2 { // 0: at the limit
		text := []byte("body")
		for _, record := range []*kgo.Record{
			{Value: make([]byte, mostPayload+by)}, {Value: text, Key: make([]byte, mostKey+by)}, {Value: text, Headers: make([]kgo.RecordHeader, mostHeaders+by)},
			{Value: text, Headers: []kgo.RecordHeader{{Key: "h", Value: make([]byte, mostHeaderBytes-1+by)}}},
		} {
			if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
				return nil, fmt.Errorf("a record of %d bytes and %d headers: %w", len(record.Value), len(record.Headers), err)
			}
			sent.count(ledger.Acked)
			entry := placed(record)
			if by > 0 {
				over, entry.Sum = append(over, entry.ID), referred(record.Value)
			}
			if err := writer.Append(entry); err != nil {
				return nil, err
			}
		}
	}
	return over, nil
}

// RabbitLimits is [KafkaLimits] for a queue, whose messages have no key.
func RabbitLimits(ctx context.Context, url, dir, queue string, sent *Sent) (over []string, err error) {
	publish, done, err := newConfirmed(url, dir, queue, sent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	for by := range 2 {
		many := amqp.Table{}
		for i := range mostHeaders + by {
			many[fmt.Sprint(i)] = true
		}
		for i, m := range []amqp.Publishing{
			{Body: make([]byte, mostPayload+by)}, {Body: []byte("body"), Headers: many},
			{Body: []byte("body"), Headers: amqp.Table{"h": strings.Repeat("x", mostHeaderBytes-1+by)}},
		} {
			m.MessageId = ID(queue, by, i)
			sum := SumAMQP(m.Body, m.Headers, AMQPKind)
			if by > 0 {
				over, sum = append(over, m.MessageId), referred(m.Body)
			}
			if err := publish(ctx, m, sum); err != nil {
				return nil, err
			}
		}
	}
	return over, nil
}

// newConfirmed is for publishing to a queue, each message confirmed and written down with a sum.
func newConfirmed(url, dir, queue string, sent *Sent) (publish func(context.Context, amqp.Publishing, string) error, done func() error, err error) {
	writer, err := ledger.Create(dir, ledger.KindProduced)
	if err != nil {
		return nil, nil, err
	}
	conn, err := rig.DialAMQP(url, "chaos-corpus")
	if err != nil {
		return nil, nil, errors.Join(err, writer.Close())
	}
	done = func() error { return errors.Join(conn.Close(), writer.Close()) }
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return func(ctx context.Context, m amqp.Publishing, sum string) error {
		m.DeliveryMode = amqp.Persistent
		confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, m)
		if err != nil {
			return err
		}
		if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("message %s is not confirmed", m.MessageId))
		}
		sent.count(ledger.Acked)
		return writer.Append(ledger.Produced{ID: m.MessageId, Sum: sum, State: ledger.Acked, Source: queue, At: ledger.Now()})
	}, done, nil
}
