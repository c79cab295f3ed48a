package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// sink is what a pipeline writes to, and counts by itself.
type sink struct {
	mu      sync.Mutex
	seen    map[string]int
	total   int
	reached chan struct{} // a report came
}

func newSink() *sink { return &sink{seen: map[string]int{}, reached: make(chan struct{}, 1)} }

func (s *sink) report(_ context.Context, b *broadway.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range b.Messages {
		s.seen[string(m.Payload)]++
	}
	s.total += len(b.Messages)
	select {
	case s.reached <- struct{}{}:
	default:
	}
	return nil
}

// await waits until n different messages are in, and says whether they came.
func (s *sink) await(n int) bool {
	deadline := time.After(2 * patience)
	for {
		s.mu.Lock()
		have := len(s.seen)
		s.mu.Unlock()
		if have >= n {
			return true
		}
		select {
		case <-s.reached:
		case <-deadline:
			return false
		}
	}
}

// consumerWatch samples the broker's count of a queue's consumers.
type consumerWatch struct {
	highest, samples int
	stop             chan struct{}
	done             chan struct{}
}

func watchConsumers(broker *brokers.RabbitMQBroker, queue string) *consumerWatch {
	w := &consumerWatch{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for !w.sample(broker, queue) {
		}
	}()
	return w
}

// sample looks for as long as its connection lives, and says when to end.
func (w *consumerWatch) sample(broker *brokers.RabbitMQBroker, queue string) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	conn, err := amqp.DialConfig(broker.URL(), amqp.Config{Locale: "en_US", Dial: amqp.DefaultDial(patience)})
	var ch *amqp.Channel
	if err == nil {
		defer conn.Close()
		ch, err = conn.Channel()
	}
	for {
		if err == nil {
			if n := consumers(ch, queue); n >= 0 {
				w.highest = max(w.highest, n)
				w.samples++
			} else {
				err = errors.New("the connection was closed")
			}
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return true
		}
		if err != nil {
			return false
		}
	}
}

// end ends the sampling, and gives the highest count and how many times it was
// looked.
func (w *consumerWatch) end() (highest, samples int) {
	close(w.stop)
	<-w.done
	return w.highest, w.samples
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Connections are closed ten times while 50,000 messages flow: none is lost, by
// the sink's own count, what is repeated is bounded by the prefetch, the broker
// never closes a channel for what was settled, and there is never a second
// consumer.
func TestNothingIsLostWhenConnectionsAreClosed(t *testing.T) {
	const (
		n        = 50_000
		cuts     = 10
		prefetch = 500
	)
	for _, kind := range []struct {
		name    string
		options []brokers.QueueOption
	}{{"Classic", nil}, {"Quorum", []brokers.QueueOption{brokers.Quorum()}}} {
		t.Run(kind.name, func(t *testing.T) {
			broker := brokers.RabbitMQ(t)
			queue := broker.Queue(t, kind.options...)
			publishAll(t, broker, queue, n)
			var log logBuffer
			producer := rabbitmq.NewProducer(rabbitmq.Config{
				URL: broker.URL(), Queue: queue, Prefetch: prefetch,
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			out := newSink()
			pipeline, err := broadway.New(broadway.Config{
				Producers: []broadway.Producer{producer},
				Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }, Concurrency: 4},
				Batchers:  []broadway.BatcherConfig{{Reporter: out.report, Size: 100, Timeout: 50 * time.Millisecond}},
				Failure:   broadway.FailurePolicy{Action: broadway.ActionRequeue},
				Logger:    testLogger(t),
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ran := make(chan error, 1)
			go func() { ran <- pipeline.Run(ctx) }()
			watch := watchConsumers(broker, queue)
			for cut := range cuts {
				if !out.await((cut + 1) * n / (cuts + 2)) {
					t.Fatalf("it stands still after %d cuts:\n%s", cut, log.String())
				}
				// All that is awaited may have come before the last cut was over, and both
				// connections be on their way to the broker again.
				if !poll(func() bool { return broker.CloseConnections(t) > 0 }) {
					t.Error("there was no connection to close")
				}
			}
			if !out.await(n) {
				t.Errorf("%d of %d messages came:\n%s", len(out.seen), n, log.String())
			}
			highest, samples := watch.end()
			stop()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			stats := producer.Stats()
			t.Logf("%d messages, %d repeated, %+v, %d samples of the consumers", len(out.seen), out.total-len(out.seen), stats, samples)
			if repeated := out.total - len(out.seen); len(out.seen) != n || repeated > cuts*prefetch {
				t.Errorf("%d different messages and %d repeated, want %d and at most %d", len(out.seen), repeated, n, cuts*prefetch)
			}
			// A quorum queue counts who got one message alone as a consumer, too,
			// until the message is settled: the session itself.
			if highest > 1+len(kind.options) || samples == 0 {
				t.Errorf("up to %d consumers at a time, in %d samples", highest, samples)
			}
			if text := log.String(); strings.Contains(text, "PRECONDITION_FAILED") {
				t.Errorf("the broker refused a settle:\n%s", text)
			}
			// A connection that is closed before it consumes was no session.
			if stats.Sessions < 2 || stats.Sessions > cuts+1 || stats.Refused != 0 {
				t.Errorf("%+v, want up to %d sessions", stats, cuts+1)
			}
			if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready+unacked == 0 }) {
				t.Error("messages are left in the queue")
			}
		})
	}
}

// publishAll publishes n messages, each with an id of its own.
func publishAll(t testing.TB, broker *brokers.RabbitMQBroker, queue string, n int) {
	t.Helper()
	p := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: queue, Logger: testLogger(t)})
	records := make([]broadway.Record, 0, 1000)
	for i := range n {
		records = append(records, broadway.Record{ID: fmt.Sprint(i), Payload: fmt.Appendf(nil, "message %d", i)})
		if len(records) == cap(records) || i == n-1 {
			if err := p.Publish(within(t), records...); err != nil {
				t.Fatal(err)
			}
			records = records[:0]
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
