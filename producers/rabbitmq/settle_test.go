package rabbitmq_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func TestAcknowledgementsAreSentTogether(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(100)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 100)
	m := fetch(t, p, 100)

	ack(t, m[:60]...)
	w.wantSettles("ack <=60")
	// What lies beyond an unsettled message cannot be in one frame with it.
	ack(t, append(slices.Clone(m[61:80]), m[81:]...)...)
	if !poll(func() bool { return len(w.settles()) >= 39 }) {
		t.Fatalf("on the wire: %q", w.settles())
	}
	for _, s := range w.settles()[1:] {
		if s == "ack 61" || s == "ack 81" || s[4] == '<' {
			t.Errorf("%q covers a message that is not settled", s)
		}
	}
	ack(t, m[60], m[80])
	if !poll(func() bool { return len(w.settles()) >= 40 }) || w.settles()[39] != "ack <=81" {
		t.Errorf("on the wire, at last: %q", w.settles()[39:])
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if ready, unacked := broker.Depth(t, queue); ready+unacked != 0 {
		t.Errorf("%d ready and %d unacknowledged messages are left", ready, unacked)
	}
	if s := p.Stats(); s.Refused+s.Stale != 0 {
		t.Errorf("%+v", s)
	}
}

// An acknowledgement that nothing joins goes out by itself: after 5 ms, or at
// once when nothing else is unsettled.
func TestAcknowledgementsDoNotWaitForOthers(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(2)...)
	w := newWire(t, broker.URL())
	m := fetch(t, connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 1000), 2)
	ack(t, m[0])
	w.wantSettles("ack 1")
	ack(t, m[1])
	w.wantSettles("ack 1", "ack 2")
}

func TestReleasedIsNackedAndComesAgain(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(4)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 4)
	m := fetch(t, p, 4)
	ack(t, m[0])
	w.wantSettles("ack 1")
	release(t, m[1:]...)
	w.wantSettles("ack 1", "nack <=4 requeue 1")
	again := fetch(t, p, 3)
	if !slices.Equal(texts(again), texts(m[1:])) {
		t.Errorf("came again: %q", texts(again))
	}
	for _, m := range again {
		if !m.Redelivered || m.Attempt != 1 {
			t.Errorf("redelivered %t, attempt %d", m.Redelivered, m.Attempt)
		}
	}
}

// what each action sends, and what becomes of the
// message.
func TestFailuresOnTheWire(t *testing.T) {
	tests := []struct {
		action     broadway.Action
		want       []string
		deliveries int64
		dead       int
	}{
		{broadway.ActionDrop, []string{"ack 1"}, 1, 0},
		{broadway.ActionReject, []string{"reject 1 requeue 0"}, 1, 1},
		{broadway.ActionRequeue, []string{"reject 1 requeue 1", "reject 2 requeue 1", "ack 3"}, 3, 0},
		{broadway.ActionRequeueOnce, []string{"reject 1 requeue 1", "reject 2 requeue 0"}, 2, 1},
	}
	for _, tt := range tests {
		t.Run(tt.action.String(), func(t *testing.T) {
			broker := brokers.RabbitMQ(t)
			dead := broker.Queue(t)
			queue := broker.Queue(t, brokers.Argument("x-dead-letter-exchange", ""), brokers.Argument("x-dead-letter-routing-key", dead))
			broker.Publish(t, queue, []byte("poison"))
			w := newWire(t, broker.URL())
			ctx, stop := context.WithCancel(within(t))
			var deliveries atomic.Int64
			pipeline, err := broadway.New(broadway.Config{
				Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: w.url, Queue: queue}))},
				Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
					n := deliveries.Add(1)
					if n == tt.deliveries {
						stop()
					}
					if n < 3 {
						return errors.New("poisoned")
					}
					return nil
				}},
				Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: tt.action},
				Logger:  testLogger(t),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := pipeline.Run(ctx); err != nil {
				t.Error(err)
			}
			w.wantSettles(tt.want...)
			if got := deliveries.Load(); got != tt.deliveries {
				t.Errorf("%d deliveries, want %d", got, tt.deliveries)
			}
			if ready, unacked := broker.Depth(t, queue); ready+unacked != 0 {
				t.Errorf("%d ready and %d unacknowledged messages are left", ready, unacked)
			}
			if !poll(func() bool { return broker.Ready(t, dead) == tt.dead }) {
				t.Errorf("the broker dead-lettered %d messages, want %d", broker.Ready(t, dead), tt.dead)
			}
		})
	}
}

func TestSettlingTwiceIsCountedAndNotSent(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(2)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 10)
	m := fetch(t, p, 2)
	ack(t, m[0])
	ack(t, m[0])
	w.wantSettles("ack 1")
	ack(t, m[0], m[1])
	w.wantSettles("ack 1", "ack 2")
	if s := p.Stats(); s.Refused != 2 || s.Sessions != 1 {
		t.Errorf("%+v, want 2 refused in 1 session", s)
	}
	if err := p.Health(); err != nil {
		t.Error(err)
	}
}
