package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// Headers that tell of a dead letter why it is one. Package acknowledgers writes them; the names are its documentation's.
const (
	reasonHeader   = "x-broadway-reason"
	attemptsHeader = "x-broadway-attempts"
	idHeader       = "x-broadway-id"

	ownPrefix = "x-broadway-"
)

// Drain says what to take out, and where to write it down.
type Drain struct {
	// Dir is the ledger's, Kind ledger.KindDead or ledger.KindResidual.
	Dir, Kind string
	// Corpus is for messages that do not name themselves.
	Corpus bool
}

// DrainKafka writes down what a topic holds from the given offsets, by partition, to the given ends: dead letters (all of a topic),
// or a residual (what was not committed).
func DrainKafka(ctx context.Context, broker, topic string, drain Drain, from, to map[int32]int64) (n int, err error) {
	writer, err := ledger.Create(drain.Dir, drain.Kind)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	err = ReadKafka(ctx, broker, topic, from, to, func(r *kgo.Record) error {
		if r.Attrs.IsControl() {
			return nil
		}
		n++
		return writer.Append(drainedRecord(r, drain.Corpus))
	})
	return n, err
}

// ReadKafka hands each record of a topic from the given offsets, by partition, to the given ends to see: control records and those
// of aborted transactions as well. The last record before an end must be there.
func ReadKafka(ctx context.Context, broker, topic string, from, to map[int32]int64, see func(*kgo.Record) error) error {
	offsets, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range to {
		if from[p] < end {
			offsets[p], left[p] = kgo.NewOffset().At(from[p]), end
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-drain"), kgo.KeepControlRecords(), // else a marker at the end is waited for
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(fetches.Err0(), ctx.Err()); err != nil {
			return fmt.Errorf("drain %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, open := left[r.Partition]
			if !open || r.Offset >= end {
				return
			}
			err = errors.Join(err, see(r))
			if r.Offset == end-1 {
				delete(left, r.Partition)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func drainedRecord(r *kgo.Record, corpus bool) ledger.Drained {
	entry := drained(r.Value)
	entry.Source, entry.Partition, entry.Offset = r.Topic, r.Partition, r.Offset
	if corpus {
		entry.ID, entry.Key, entry.KeySeq = PlaceID(r.Topic, r.Partition, r.Offset), "", 0
		entry.Sum = SumRecord(r.Key, r.Value, Own(r.Headers))
	}
	for _, header := range r.Headers {
		if strings.HasPrefix(header.Key, ownPrefix) {
			entry.Added += len(header.Key) + len(header.Value)
		}
		switch header.Key {
		case reasonHeader:
			entry.Reason = string(header.Value)
		case idHeader:
			if corpus {
				entry.ID = string(header.Value)
			}
		case sumHeader:
			if corpus {
				entry.Sum = referenceSum(string(header.Value))
			} else {
				entry.Reference = string(header.Value)
			}
		case attemptsHeader:
			entry.Attempts, _ = strconv.Atoi(string(header.Value)) // 0: it does not say
		}
	}
	return entry
}

// drained is what a body says, or a name that no producer gave: the checker finds it as a phantom.
func drained(body []byte) ledger.Drained {
	entry := ledger.Drained{Sum: ledger.Sum(body), At: ledger.Now()}
	var err error
	if entry.ID, entry.Key, entry.KeySeq, err = Parse(body); err != nil {
		entry.ID = "unreadable-" + entry.Sum[:16]
	}
	return entry
}

// DrainRabbitMQ takes everything out of a queue and writes it down.
func DrainRabbitMQ(ctx context.Context, url, queue string, drain Drain) (n int, err error) {
	writer, err := ledger.Create(drain.Dir, drain.Kind)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	conn, err := rig.DialAMQP(url, "chaos-drain")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	channel, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	for ctx.Err() == nil {
		message, found, err := channel.Get(queue, false)
		if err != nil || !found {
			return n, err
		}
		entry := drained(message.Body)
		entry.Source = queue
		if drain.Corpus {
			entry.ID, entry.Key, entry.KeySeq = message.MessageId, "", 0
			entry.Sum = SumAMQP(message.Body, message.Headers, AMQPKind)
		}
		if sum, ok := message.Headers[sumHeader].(string); ok && drain.Corpus {
			entry.ID, entry.Sum = entry.ID[strings.LastIndexByte(entry.ID, '/')+1:], referenceSum(sum) // it carries the queue's name before the id
		}
		if reason, ok := message.Headers[reasonHeader].(string); ok {
			entry.Reason = reason
		}
		entry.Attempts, entry.Added = amqpAttempts(message.Headers), amqpAdded(message.Headers)
		if !drain.Corpus {
			entry.Reference, _ = message.Headers[sumHeader].(string)
		}
		if err := errors.Join(writer.Append(entry), message.Ack(false)); err != nil {
			return n, err
		}
		n++
	}
	return n, ctx.Err()
}

// amqpAdded is the size of the headers that a dead letter was given.
func amqpAdded(headers amqp.Table) int {
	n := 0
	for key, value := range headers {
		if !strings.HasPrefix(key, ownPrefix) {
			continue
		}
		n += len(key)
		if text, ok := value.(string); ok {
			n += len(text)
		} else {
			n += 8
		}
	}
	return n
}

func amqpAttempts(headers amqp.Table) int {
	switch attempts := headers[attemptsHeader].(type) {
	case int32:
		return int(attempts)
	case int64:
		return int(attempts)
	case string:
		n, _ := strconv.Atoi(attempts) // 0: it does not say
		return n
	}
	return 0
}

// Count is how many records a topic has, as far as its offsets tell.
func Count(ctx context.Context, broker, topic string) (n int, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-count"))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return 0, err
	}
	ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
	return n, nil
}
