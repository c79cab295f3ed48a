package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/brokers"
)

// The example relays while its connections are closed: every order becomes an
// invoice, what is no order is a dead letter, and nothing is left.
func TestRelay(t *testing.T) {
	const n, poison = 2000, 5
	broker := brokers.RabbitMQ(t)
	var orders [][]byte
	for i := range n {
		orders = append(orders, fmt.Appendf(nil, `{"item":"item %04d","count":2,"price":%d}`, i, i))
	}
	for i := range poison {
		orders = append(orders, fmt.Appendf(nil, "no order %d", i))
	}
	from := broker.Queue(t)
	broker.Publish(t, from, orders...)

	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- run(ctx, broker.URL(), from, "invoices") }()
	cut := false
	wait(t, ctx, func(ch *amqp.Channel) bool {
		if !cut && depth(ch, "invoices") > n/10 {
			cut = true
			broker.CloseConnections(t)
			return false
		}
		return depth(ch, "invoices") >= n && depth(ch, from+".dead") >= poison && depth(ch, from) == 0
	}, broker)
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if !cut {
		t.Error("it was over before the connections were closed")
	}
	if ready, unacked := broker.Depth(t, from); ready+unacked != 0 {
		t.Errorf("%d ready and %d unacknowledged orders are left", ready, unacked)
	}
	invoices := read(t, broker, "invoices")
	ids := map[string]string{}
	for _, m := range invoices {
		var invoice struct {
			Item  string
			Total int
		}
		if err := json.Unmarshal(m.Body, &invoice); err != nil || fmt.Sprintf("item %04d", invoice.Total/2) != invoice.Item {
			t.Errorf("invoice %s: %v", m.Body, err)
		}
		if body, again := ids[m.MessageId]; again && body != string(m.Body) {
			t.Errorf("two invoices have the id %s", m.MessageId)
		}
		ids[m.MessageId] = string(m.Body)
	}
	if len(ids) != n {
		t.Errorf("%d different invoices, want %d", len(ids), n)
	}
	var dead []string
	for _, m := range read(t, broker, from+".dead") {
		dead = append(dead, string(m.Body))
	}
	slices.Sort(dead)
	if dead = slices.Compact(dead); len(dead) != poison || dead[0] != "no order 0" {
		t.Errorf("dead letters %q", dead)
	}
	t.Logf("%d invoices for %d orders", len(invoices), n)
}

// wait asks done on a connection that is renewed when it is closed.
func wait(t *testing.T, ctx context.Context, done func(*amqp.Channel) bool, broker *brokers.RabbitMQBroker) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, ch := open(t, broker)
		over := done(ch)
		_ = conn.Close() // the test closes connections, this one too
		if over {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the relay stands still")
		}
	}
}

func open(t *testing.T, broker *brokers.RabbitMQBroker) (*amqp.Connection, *amqp.Channel) {
	t.Helper()
	conn, err := amqp.Dial(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return conn, ch
}

// depth is how many messages are ready, -1 when it cannot be told.
func depth(ch *amqp.Channel, queue string) int {
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return -1
	}
	return q.Messages
}

// read takes everything out of queue.
func read(t *testing.T, broker *brokers.RabbitMQBroker, queue string) []amqp.Delivery {
	t.Helper()
	conn, ch := open(t, broker)
	defer conn.Close()
	var all []amqp.Delivery
	for {
		m, ok, err := ch.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, m)
	}
}
