package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// runPipeline runs cfg until stop is called, which returns what Run does.
func runPipeline(t *testing.T, cfg broadway.Config) (stop func() error) {
	t.Helper()
	cfg.Logger, cfg.DrainTimeout = testLogger(t), 10*time.Second
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-over
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// The queue is deleted three times while messages flow in and out. What was in it is
// gone with it; what is published after the last time comes, all of it, and there is
// one consumer.
func TestAQueueIsDeletedUnderLoad(t *testing.T) {
	const n, deletions = 100, 3
	broker := brokers.RabbitMQ(t)
	ch := admin(t, broker)
	var log logBuffer
	producer := rabbitmq.NewProducer(quick(t, rabbitmq.Config{
		URL: broker.URL(), Queue: "deleted", Prefetch: 20, Declare: &rabbitmq.QueueDeclare{Durable: true},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}))
	out := newSink()
	stop := runPipeline(t, broadway.Config{
		Producers: []broadway.Producer{producer},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
		Batchers:  []broadway.BatcherConfig{{Reporter: out.report, Size: 10, Timeout: 5 * time.Millisecond}},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionRequeue},
	})
	if !poll(func() bool { return producer.Stats().Sessions == 1 }) {
		t.Fatal("nothing is consumed")
	}
	publisher := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: "deleted"})
	publish := func(first int) (unroutable int) {
		for i := range n {
			if err := publisher.Publish(within(t), broadway.Record{Payload: fmt.Appendf(nil, "message %05d", first+i)}); err != nil {
				unroutable++
			}
		}
		return unroutable
	}
	for i := range deletions {
		flows := make(chan struct{})
		go func() {
			defer close(flows)
			publish(i * n)
		}()
		if !out.await(10) {
			t.Fatal("nothing flows")
		}
		if _, err := ch.QueueDelete("deleted", false, false, false); err != nil {
			t.Fatal(err)
		}
		<-flows
		if !poll(func() bool { return producer.Stats().Sessions == int64(i)+2 && consumers(ch, "deleted") == 1 }) {
			t.Fatalf("after %d deletions: %+v", i+1, producer.Stats())
		}
	}
	if unroutable := publish(deletions * n); unroutable > 0 {
		t.Errorf("%d messages found no queue", unroutable)
	}
	last := func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		for i := range n {
			if out.seen[fmt.Sprintf("message %05d", deletions*n+i)] == 0 {
				return false
			}
		}
		return true
	}
	if !poll(last) {
		t.Error("not all came that were published after the last deletion")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if s := producer.Stats(); s.Refused != 0 || strings.Contains(log.String(), "PRECONDITION_FAILED") {
		t.Errorf("%+v:\n%s", s, &log)
	}
}

// A queue takes away by itself what fails more often than its limit; the consumer
// only sees that it does not come again. What is beside it is handled once.
func TestTheBrokersDeliveryLimit(t *testing.T) {
	const n, limit = 20, 6
	broker := brokers.RabbitMQ(t)
	dead := broker.Queue(t)
	queue := broker.Queue(t, brokers.Quorum(), brokers.Argument("x-delivery-limit", int32(limit)),
		brokers.Argument("x-dead-letter-exchange", ""), brokers.Argument("x-dead-letter-routing-key", dead))
	broker.Publish(t, queue, payloads(n)...)
	var mu sync.Mutex
	handled := map[string]int{}
	stop := runPipeline(t, broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Prefetch: 10}))},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			mu.Lock()
			defer mu.Unlock()
			handled[string(m.Payload)]++
			if string(m.Payload) == "message 00007" {
				return errors.New("poisoned")
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: broadway.ActionRequeue},
	})
	if !poll(func() bool {
		ready, unacked := broker.Depth(t, queue)
		return ready+unacked == 0 && broker.Ready(t, dead) == 1
	}) {
		t.Errorf("%d dead letters", broker.Ready(t, dead))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, text := range texts(fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 1), 1)) {
		if text != "message 00007" {
			t.Errorf("dead letter %q", text)
		}
	}
	for text, times := range handled {
		if want := 1; text != "message 00007" && times != want || text == "message 00007" && times != limit+1 {
			t.Errorf("%q was handled %d times", text, times)
		}
	}
	if len(handled) != n {
		t.Errorf("%d of %d messages were handled", len(handled), n)
	}
}

// The active consumer dies: the next one goes on with what that had not settled, in
// order.
func TestSingleActiveConsumerTakesOverInOrder(t *testing.T) {
	for i, options := range [][]brokers.QueueOption{nil, {brokers.Quorum()}} {
		t.Run([]string{"Classic", "Quorum"}[i], func(t *testing.T) {
			const n, settled = 30, 4
			broker := brokers.RabbitMQ(t)
			queue := broker.Queue(t, append(options, brokers.Argument("x-single-active-consumer", true))...)
			broker.Publish(t, queue, payloads(n)...)
			w := newWire(t, broker.URL())
			cfg := rabbitmq.Config{URL: w.url, Queue: queue, Declare: &rabbitmq.QueueDeclare{Passive: true, SingleActiveConsumer: true}}
			active := connect(t, cfg, 10)
			first := fetch(t, active, 7)
			cfg.URL = broker.URL()
			waiting := connect(t, cfg, 10)
			ack(t, first[:settled]...)
			if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready+unacked == n-settled }) {
				t.Fatal("nothing was acknowledged")
			}
			w.end()
			var order []string
			for len(order) < n-settled {
				m := fetch(t, waiting, 1)
				order = append(order, texts(m)...)
				ack(t, m...)
			}
			if order[0] != texts(first)[settled] || !slices.IsSorted(order) {
				t.Errorf("taken over in the order %q", order)
			}
		})
	}
}

// What only a broker of one's own can be made to do.
func TestABrokerInNeed(t *testing.T) {
	broker := brokers.Exclusive(t).RabbitMQ()
	t.Run("MemoryAlarm", func(t *testing.T) { memoryAlarm(t, broker.RabbitMQBroker) })
	t.Run("AcknowledgementTimeout", func(t *testing.T) { acknowledgementTimeout(t, broker.RabbitMQBroker) })
}

// The broker runs out of memory while dead letters are to be published: it blocks
// whoever publishes. What succeeds is still acknowledged, what failed stays until
// its dead letter is confirmed, and the health says why.
func memoryAlarm(t *testing.T, broker *brokers.RabbitMQBroker) {
	const n, failing = 50, 5
	queue, dead := broker.Queue(t), broker.Queue(t)
	broker.Publish(t, queue, payloads(n)...)
	alarm := func(high string) {
		broker.Evaluate(t, "vm_memory_monitor:set_vm_memory_high_watermark("+high+")")
	}
	alarm("0")
	t.Cleanup(func() { alarm("0.4") })
	publisher := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: dead})
	out := newSink()
	stop := runPipeline(t, broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}))},
		Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
			if strings.HasSuffix(string(m.Payload), "9") {
				return broadway.Reject(errNoGood)
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Reporter: out.report, Size: 10, Timeout: 5 * time.Millisecond}},
		Failure:  broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: &acknowledgers.DeadLetters{Publisher: publisher}},
	})
	if !out.await(n - failing) {
		t.Error("consuming is blocked, too")
	}
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready == 0 && unacked == failing }) {
		ready, unacked := broker.Depth(t, queue)
		t.Errorf("%d ready and %d unacknowledged, want those whose dead letters are not confirmed", ready, unacked)
	}
	if !poll(func() bool { err := publisher.Health(); return err != nil && strings.Contains(err.Error(), "memory") }) {
		t.Errorf("health: %v", publisher.Health())
	}
	if letters := broker.Ready(t, dead); letters != 0 {
		t.Errorf("%d dead letters", letters)
	}
	alarm("0.4")
	if !poll(func() bool {
		_, unacked := broker.Depth(t, queue)
		return unacked == 0 && broker.Ready(t, dead) >= failing
	}) {
		t.Errorf("%d dead letters after the alarm", broker.Ready(t, dead))
	}
	if err := publisher.Health(); err != nil {
		t.Errorf("health after the alarm: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if letters := broker.Ready(t, dead); letters != failing {
		t.Errorf("%d dead letters, want %d", letters, failing)
	}
}

// A message is not acknowledged in the broker's time: before 4.3 the channel is
// closed for it. That is said, with what to do; the message comes again, and it is
// no attempt.
func acknowledgementTimeout(t *testing.T, broker *brokers.RabbitMQBroker) {
	limit := func(timeout, tick time.Duration) {
		broker.Evaluate(t, fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d)",
			timeout.Milliseconds(), tick.Milliseconds()))
	}
	queue := broker.Queue(t, brokers.Quorum())
	broker.Publish(t, queue, payloads(2)...)
	t.Cleanup(func() { limit(30*time.Minute, time.Minute) })
	limit(500*time.Millisecond, 200*time.Millisecond)
	var log logBuffer
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, AckTimeout: 500 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))}, 10)
	m := fetch(t, p, 2)
	limit(30*time.Minute, 200*time.Millisecond) // for the next channel
	ack(t, m[1])
	if !poll(m[0].Ref().Ended) {
		t.Fatal("the broker waits without end")
	}
	again := fetch(t, p, 1)[0]
	if string(again.Payload) != "message 00000" || again.Attempt != 1 || !again.Redelivered {
		t.Errorf("%q comes again with attempt %d", again.Payload, again.Attempt)
	}
	ack(t, m[0]) // too late
	ack(t, again)
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready+unacked == 0 }) {
		t.Error("messages are left in the queue")
	}
	if s := p.Stats(); s.Sessions != 2 || s.Stale != 1 {
		t.Errorf("%+v", s)
	}
	if text := log.String(); !strings.Contains(text, "timed out") || !strings.Contains(text, "AckTimeout") {
		t.Errorf("logged:\n%s", text)
	}
}
