package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/brokers"
)

// The brokers are asked by their own tools, not by the program, what is left.

func TestEveryPostGoesThroughKafka(t *testing.T) {
	b := brokers.Kafka(t)
	s, err := news(t.Context(), t, flags(t, "-queue", "kafka", "-kafka", b.Addr(), "-posts", "150"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.DeleteTopic(t, s.Topic)
		b.DeleteTopic(t, s.Topic+".dead")
	})
	whole(t, s, 150)
	end, committed := b.EndOffsets(t, s.Topic), b.CommittedOffsets(t, s.Topic, s.Topic)
	sum := 0
	for i, n := range committed {
		// A partition that got nothing has nothing to commit.
		if n != end[i] && (n >= 0 || end[i] != 0) {
			t.Errorf("partition %d: committed %d of %d", i, n, end[i])
		}
		sum += int(end[i])
	}
	if sum != 150 {
		t.Errorf("%d posts went through the topic", sum)
	}
	if dead := b.EndOffsets(t, s.Topic+".dead"); slices.Max(dead) != 0 {
		t.Errorf("%v dead letters", dead)
	}
}

func TestEveryPostGoesThroughRabbitMQ(t *testing.T) {
	b := brokers.RabbitMQ(t)
	s, err := news(t.Context(), t, flags(t, "-queue", "rabbitmq", "-rabbitmq", b.URL(), "-posts", "150"))
	if err != nil {
		t.Fatal(err)
	}
	dropQueues(t, b, s.Topic)
	whole(t, s, 150)
	for _, queue := range []string{s.Topic, s.Topic + ".dead"} {
		if ready, unacked := b.Depth(t, queue); ready+unacked != 0 {
			t.Errorf("%s: %d ready, %d unacknowledged", queue, ready, unacked)
		}
	}
}

// dropQueues deletes a database's queues when the test ends.
func dropQueues(t *testing.T, b *brokers.RabbitMQBroker, name string) {
	t.Helper()
	t.Cleanup(func() {
		conn, err := amqp.Dial(b.URL())
		if err != nil {
			t.Error(err)
			return
		}
		ch, err := conn.Channel()
		if err == nil {
			_, first := ch.QueueDelete(name, false, false, false)
			_, second := ch.QueueDelete(name+".dead", false, false, false)
			err = errors.Join(first, second)
		}
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestABrokerThatIsNotThereIsSaid(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"-queue", "kafka", "-kafka", "127.0.0.1:1"}, "127.0.0.1:1"},
		{[]string{"-queue", "rabbitmq", "-rabbitmq", "amqp://guest:s3cret@127.0.0.1:1/"}, "127.0.0.1:1"},
		{[]string{"-queue", "rabbitmq", "-rabbitmq", "amqp://guest:s3cret@127.0.0.1:1/%zz"}, "-rabbitmq"},
		{[]string{"-database", "postgres://news:s3cret@127.0.0.1:1/news"}, "127.0.0.1:1"},
	} {
		_, err := news(t.Context(), t, flags(t, c.args...))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
