package rabbitmq_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// the first attempt comes at once, each further
// wait is longer, up to the maximum, and there is no last one.
func TestReconnectBackoff(t *testing.T) {
	seconds := func(at ...float64) []time.Duration {
		all := make([]time.Duration, len(at))
		for i, s := range at {
			all[i] = time.Duration(s * float64(time.Second))
		}
		return all
	}
	tests := []struct {
		name    string
		backoff broadway.Backoff
		want    []time.Duration
	}{
		{"default", broadway.Backoff{Jitter: -1}, seconds(0, 1, 3, 7, 15, 31, 61, 91)},
		{"a lower maximum", broadway.Backoff{Max: 500 * time.Millisecond, Jitter: -1}, seconds(0, 0.5, 1, 1.5)},
		{"a higher minimum", broadway.Backoff{Initial: time.Minute, Jitter: -1}, seconds(0, 60, 120)},
		{"both", broadway.Backoff{Initial: 2 * time.Second, Max: 3 * time.Second, Factor: 10, Jitter: -1}, seconds(0, 2, 5, 8)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var tried []time.Duration
				p := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
					Backoff: tt.backoff, ConfirmTimeout: tt.want[len(tt.want)-1] + time.Millisecond,
					Credentials: func(context.Context) (rabbitmq.Credentials, error) {
						tried = append(tried, time.Since(start))
						return rabbitmq.Credentials{}, errors.New("no credentials yet")
					},
					Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
				})
				if err := p.Publish(t.Context(), broadway.Record{}); !errors.Is(err, rabbitmq.ErrUnconfirmed) {
					t.Errorf("Publish: %v", err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				if !slices.Equal(tried, tt.want) {
					t.Errorf("tried at %v, want %v", tried, tt.want)
				}
			})
		})
	}
}

// draining and closing do not wait for a connection that is gone.
func TestDrainAndCloseWithoutConnection(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(3)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue, Backoff: broadway.Backoff{Initial: time.Hour, Max: time.Hour}}, 10)
	m := fetch(t, p, 2)
	_ = w.listener.Close()
	w.cut()
	if !poll(func() bool { return m[0].Ref().Ended() && p.Health() != nil }) {
		t.Fatal("the loss was not noticed")
	}
	if err := p.Drain(within(t)); err != nil {
		t.Errorf("Drain: %v", err)
	}
	ack(t, m...)
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if ready, unacked := broker.Depth(t, queue); ready != 3 || unacked != 0 {
		t.Errorf("%d ready and %d unacknowledged, want 3 and 0", ready, unacked)
	}
}

// a closed producer fetches nothing, and connects no more.
func TestClosedProducer(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: 1}); !errors.Is(err, rabbitmq.ErrClosed) {
		t.Errorf("Fetch: %v", err)
	}
	if err := p.Connect(t.Context()); !errors.Is(err, rabbitmq.ErrClosed) {
		t.Errorf("Connect: %v", err)
	}
	if err := p.Pause(t.Context()); err != nil {
		t.Errorf("Pause: %v", err)
	}
}
