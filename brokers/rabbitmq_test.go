package brokers_test

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/brokers"
)

// connect opens a connection of the test's own and a channel on it.
func connect(t *testing.T, url string) (*amqp.Connection, *amqp.Channel) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // some tests have it closed for them
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return conn, channel
}

func TestAQueueTellsItsDepth(t *testing.T) {
	for name, options := range map[string][]brokers.QueueOption{"classic": nil, "quorum": {brokers.Quorum()}} {
		t.Run(name, func(t *testing.T) {
			rabbit := brokers.RabbitMQ(t)
			queue, other := rabbit.Queue(t, options...), rabbit.Queue(t, options...)
			if queue == other {
				t.Errorf("twice %s", queue)
			}
			rabbit.Publish(t, queue, []byte("a"), []byte("b"), []byte("c"))
			if ready, unacked := rabbit.Depth(t, queue); ready != 3 || unacked != 0 {
				t.Errorf("%d ready, %d unacked, want 3 and 0", ready, unacked)
			}
			_, channel := connect(t, rabbit.URL())
			message, ok, err := channel.Get(queue, false)
			if err != nil || !ok || string(message.Body) != "a" {
				t.Fatalf("got %q, %t, %v", message.Body, ok, err)
			}
			if ready, unacked := rabbit.Depth(t, queue); ready != 2 || unacked != 1 {
				t.Errorf("%d ready, %d unacked, want 2 and 1", ready, unacked)
			}
			if ready := rabbit.Ready(t, queue); ready != 2 {
				t.Errorf("%d ready, want 2", ready)
			}
			if err := message.Ack(false); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the ack arrives", func() bool {
				ready, unacked := rabbit.Depth(t, queue)
				return ready == 2 && unacked == 0
			})
		})
	}
}

// Each call has a virtual host of its own: what one test does with connections does not reach another's.
func TestConnectionsAreClosedInOneVirtualHostOnly(t *testing.T) {
	mine, others := brokers.RabbitMQ(t), brokers.RabbitMQ(t)
	conn, _ := connect(t, mine.URL())
	other, _ := connect(t, others.URL())
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	if n := mine.CloseConnections(t); n != 1 {
		t.Errorf("%d connections were closed, want 1", n)
	}
	if reason := <-closed; reason == nil || reason.Code != amqp.ConnectionForced {
		t.Errorf("closed with %v", reason)
	}
	if _, err := other.Channel(); err != nil {
		t.Errorf("the other virtual host's connection: %v", err)
	}
}

func TestAVirtualHostGoesWithItsTest(t *testing.T) {
	var url string
	t.Run("inner", func(t *testing.T) {
		rabbit := brokers.RabbitMQ(t)
		url = rabbit.URL()
		rabbit.Queue(t, brokers.Argument("x-single-active-consumer", true))
	})
	if _, err := amqp.Dial(url); err == nil {
		t.Error("the virtual host is still there")
	}
}

func TestTheEncryptedListenerIsTrusted(t *testing.T) {
	rabbit := brokers.RabbitMQ(t)
	queue := rabbit.Queue(t)
	url, config := rabbit.TLS(t)
	conn, err := amqp.DialTLS(url, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		t.Errorf("not the same virtual host: %v", err)
	}
}

func TestThePasswordIsNotTold(t *testing.T) {
	rabbit := brokers.RabbitMQ(t)
	_, rest, _ := strings.Cut(rabbit.URL(), "broadway:")
	password, _, _ := strings.Cut(rest, "@")
	if len(password) < 20 || strings.Contains(rabbit.String(), password) {
		t.Errorf("%q tells the password %q", rabbit.String(), password)
	}
}
