package load

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// Rounds are the sizes of the added headers of each dead letter, by id, round after round.
type Rounds map[string][]int

// over says whether all of n letters have come so often.
func (r Rounds) over(n, rounds int) bool {
	if len(r) < n {
		return false
	}
	for _, sizes := range r {
		if len(sizes) <= rounds {
			return false
		}
	}
	return true
}

// ShovelKafka puts dead letters of a topic back to another, just as they are: their added headers too. It returns once each of n ids has come
// back so many rounds.
func ShovelKafka(ctx context.Context, broker, from, to string, n, rounds int, of func(id string) bool) (Rounds, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-shovel"), kgo.ConsumeTopics(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	all := Rounds{}
	for !all.over(n, rounds) {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(fetches.Err0(), ctx.Err()); err != nil {
			return all, fmt.Errorf("shovel: %d letters so far: %w", len(all), err)
		}
		for _, record := range fetches.Records() {
			letter := drainedRecord(record, false)
			if !of(letter.ID) {
				continue
			}
			all[letter.ID] = append(all[letter.ID], letter.Added)
			if len(all[letter.ID]) > rounds {
				continue
			}
			again := &kgo.Record{Topic: to, Key: record.Key, Value: record.Value, Headers: record.Headers}
			if err := client.ProduceSync(ctx, again).FirstErr(); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// ShovelRabbitMQ is ShovelKafka for queues. The letters of the last round are left where they are.
func ShovelRabbitMQ(ctx context.Context, url, from, to string, n, rounds int, of func(id string) bool) (all Rounds, err error) {
	conn, err := rig.DialAMQP(url, "chaos-shovel")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }() // what was not acknowledged goes back
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		return nil, err
	}
	all = Rounds{}
	letters, err := channel.ConsumeWithContext(ctx, from, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	for !all.over(n, rounds) {
		message, ok := amqp.Delivery{}, false
		select {
		case message, ok = <-letters:
		case <-ctx.Done():
		}
		if !ok {
			return all, fmt.Errorf("shovel: %d letters so far: %w", len(all), errors.Join(ctx.Err(), amqp.ErrClosed))
		}
		id := drained(message.Body).ID
		if !of(id) {
			continue
		}
		all[id] = append(all[id], amqpAdded(message.Headers))
		if len(all[id]) > rounds {
			continue
		}
		if err := shovel(ctx, channel, to, message); err != nil {
			return all, err
		}
	}
	return all, nil
}

func shovel(ctx context.Context, channel *amqp.Channel, to string, message amqp.Delivery) error {
	confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", to, true, false, amqp.Publishing{
		Headers: message.Headers, DeliveryMode: amqp.Persistent, MessageId: message.MessageId, Body: message.Body,
	})
	if err != nil {
		return err
	}
	if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
		return errors.Join(err, errors.New("shovel: a letter is not confirmed"))
	}
	return message.Ack(false)
}
