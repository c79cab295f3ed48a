package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// newPublisher makes a publisher that reconnects without long waits.
func newPublisher(t testing.TB, cfg rabbitmq.PublisherConfig) *rabbitmq.Publisher {
	t.Helper()
	if cfg.Backoff.Initial == 0 {
		cfg.Backoff = broadway.Backoff{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond}
	}
	cfg.Logger = testLogger(t)
	p := rabbitmq.NewPublisher(cfg)
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// wantErrors compares what became of each record: nil is confirmed.
func wantErrors(t *testing.T, err error, want ...error) {
	t.Helper()
	var failed *broadway.PublishError
	if !errors.As(err, &failed) {
		t.Fatalf("Publish: %v, want a *broadway.PublishError", err)
	}
	if len(failed.Errs) != len(want) {
		t.Fatalf("%d outcomes, want %d", len(failed.Errs), len(want))
	}
	for i, got := range failed.Errs {
		if !errors.Is(got, want[i]) {
			t.Errorf("record %d: %v, want %v", i, got, want[i])
		}
	}
}

func TestPublishConfirms(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{
		URL: broker.URL(), RoutingKey: "declared", Queues: []rabbitmq.QueueDeclare{{Name: "declared", Durable: true}},
	})
	if err := p.Publish(within(t)); err != nil {
		t.Errorf("nothing at all: %v", err)
	}
	err := p.Publish(within(t),
		broadway.Record{ID: "1", Payload: []byte("a"), Headers: []broadway.Header{
			{Key: "text", Value: []byte("x")}, {Key: "nil"}, {Key: "empty", Value: []byte{}}, {Key: "binary", Value: []byte{0, 0xff}},
		}},
		broadway.Record{ID: "2", Destination: "declared", Key: []byte("ignored")},
	)
	if err != nil {
		t.Fatal(err)
	}
	m := fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: "declared"}, 10), 2)
	first, second := m[0].Metadata.(*rabbitmq.Metadata), m[1].Metadata.(*rabbitmq.Metadata)
	if string(m[0].Payload) != "a" || first.ID != "1" || !first.Persistent || second.ID != "2" {
		t.Errorf("got %q, %+v, %+v", m[0].Payload, first, second)
	}
	got := first.MessageHeaders()
	want := []broadway.Header{{Key: "binary", Value: []byte{0, 0xff}}, {Key: "empty", Value: []byte{}}, {Key: "nil"}, {Key: "text", Value: []byte("x")}}
	if len(got) != len(want) {
		t.Fatalf("headers %q", got)
	}
	for i := range want {
		if got[i].Key != want[i].Key || !bytes.Equal(got[i].Value, want[i].Value) || (got[i].Value == nil) != (want[i].Value == nil) {
			t.Errorf("header %q: %#v, want %#v", got[i].Key, got[i].Value, want[i].Value)
		}
	}
	if err := p.Health(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(within(t), broadway.Record{}); !errors.Is(err, rabbitmq.ErrClosed) {
		t.Errorf("Publish after Close: %v", err)
	}
	if err := p.Health(); !errors.Is(err, rabbitmq.ErrClosed) {
		t.Errorf("Health after Close: %v", err)
	}
}

func TestUnroutableRecordsFail(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()})
	to := func(key string) broadway.Record { return broadway.Record{Destination: key, Payload: []byte("same")} }
	wantErrors(t, p.Publish(within(t), to(queue), to("nowhere"), to(queue), to("nowhere"), to("")),
		nil, rabbitmq.ErrUnroutable, nil, rabbitmq.ErrUnroutable, rabbitmq.ErrUnroutable)
	if n := broker.Ready(t, queue); n != 2 {
		t.Errorf("%d messages in the queue", n)
	}
	lenient := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), AllowUnroutable: true})
	if err := lenient.Publish(within(t), to("nowhere")); err != nil {
		t.Errorf("allowed to be unroutable: %v", err)
	}
}

// A return has no number. Records that are equal but for their headers are told
// apart nevertheless.
func TestUnroutableRecordsAreToldApart(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{
		URL: broker.URL(), Exchange: "by-header",
		Exchanges: []rabbitmq.ExchangeDeclare{{Name: "by-header", Kind: "headers", AutoDelete: true}},
		Bindings:  []rabbitmq.Binding{{Queue: queue, Exchange: "by-header", Arguments: rabbitmq.Table{"to": "queue"}}},
	})
	const n = 400
	messages := make([]rabbitmq.Publishing, n)
	want := make([]error, n)
	for i := range messages {
		messages[i].Headers = rabbitmq.Table{"to": "queue", "when": time.Unix(int64(i), 0), "n": []any{i % 7, rabbitmq.Table{"x": nil}}}
		if i%3 == 1 {
			messages[i].Headers["to"], want[i] = "nobody", rabbitmq.ErrUnroutable
		}
	}
	wantErrors(t, p.Send(within(t), messages...), want...)
}

func TestRefusedRecordsFail(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	full := broker.Queue(t, brokers.Argument("x-max-length", int32(1)), brokers.Argument("x-overflow", "reject-publish"))
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: full})
	if err := p.Publish(within(t), broadway.Record{}); err != nil {
		t.Fatal(err)
	}
	wantErrors(t, p.Publish(within(t), broadway.Record{}), rabbitmq.ErrNacked)
}

// What the client or the broker would end the connection for is found before,
// and fails alone.
func TestRecordsThatCannotBeSentFailAlone(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	w := newWire(t, broker.URL())
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: w.url, RoutingKey: queue, MaxBytes: 100})
	long := strings.Repeat("x", 256)
	err := p.Send(within(t),
		rabbitmq.Publishing{},
		rabbitmq.Publishing{RoutingKey: long}, rabbitmq.Publishing{ID: long}, rabbitmq.Publishing{ContentType: long},
		rabbitmq.Publishing{Headers: rabbitmq.Table{long: ""}}, rabbitmq.Publishing{Headers: rabbitmq.Table{"x": struct{}{}}},
		rabbitmq.Publishing{Headers: rabbitmq.Table{"x": strings.Repeat(long, 600)}},
		rabbitmq.Publishing{Body: make([]byte, 101)},
		rabbitmq.Publishing{Body: make([]byte, 100)},
	)
	var failed *broadway.PublishError
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	for i, err := range failed.Errs {
		if ok := i == 0 || i == 8; (err == nil) != ok {
			t.Errorf("record %d: %v", i, err)
		}
	}
	if n := broker.Ready(t, queue); n != 2 || w.connections() != 1 {
		t.Errorf("%d messages came, over %d connections", n, w.connections())
	}
}

// The broker closes the channel for what it finds too large; later records pass.
func TestPublisherSurvivesItsChannel(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: queue})
	err := p.Send(within(t), rabbitmq.Publishing{Exchange: "missing", RoutingKey: "x"})
	wantErrors(t, err, rabbitmq.ErrUnconfirmed)
	if err := p.Publish(within(t), broadway.Record{}); err != nil {
		t.Error(err)
	}
}

// Connections are cut while several goroutines publish: whatever was confirmed
// is there, and whatever was not has an error, so that nothing is lost.
func TestNoConfirmIsLost(t *testing.T) {
	const (
		writers = 8
		each    = 300
		cuts    = 10
	)
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	w := newWire(t, broker.URL())
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: w.url, RoutingKey: queue})
	ctx := within(t)
	var writing sync.WaitGroup
	confirmed := make(chan string, writers*each)
	progress := make(chan struct{}, writers*each)
	for writer := range writers {
		writing.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d/%d", writer, i)
				for ctx.Err() == nil {
					err := p.Publish(ctx, broadway.Record{ID: id, Payload: []byte(id)})
					if err == nil {
						confirmed <- id
						break
					}
					if !errors.Is(err, rabbitmq.ErrUnconfirmed) {
						t.Errorf("%s: %v", id, err)
						return
					}
				}
				progress <- struct{}{}
			}
		})
	}
	for range cuts {
		for range writers * each / (cuts + 1) {
			<-progress
		}
		w.cut()
	}
	writing.Wait()
	close(confirmed)
	if len(confirmed) != writers*each {
		t.Fatalf("%d of %d were confirmed: %v", len(confirmed), writers*each, ctx.Err())
	}
	n := broker.Ready(t, queue)
	seen := map[string]bool{}
	for _, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 65535), n) {
		seen[string(m.Payload)] = true
	}
	for id := range confirmed {
		if !seen[id] {
			t.Errorf("%s was confirmed, and is not there", id)
		}
	}
	t.Logf("%d messages for %d ids, over %d connections", n, len(seen), w.connections())
	if w.connections() < 3 {
		t.Errorf("%d connections for %d cuts", w.connections(), cuts)
	}
}

// A broker that does not answer holds a Publish up to its time limit, or to the
// end of its context, and says that the outcome is unknown.
func TestPublishHasATimeLimit(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	w := newWire(t, broker.URL())
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: w.url, RoutingKey: queue, ConfirmTimeout: 300 * time.Millisecond, CloseTimeout: 100 * time.Millisecond})
	for p.Publish(within(t), broadway.Record{}) != nil { // a busy machine may take longer than the limit to connect
	}
	w.mute(true)
	err := p.Publish(within(t), broadway.Record{})
	if !errors.Is(err, rabbitmq.ErrUnconfirmed) || !strings.Contains(err.Error(), "within 300ms") {
		t.Errorf("Publish: %v", err)
	}
	cause := errors.New("the drain is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := p.Publish(ctx, broadway.Record{}); !errors.Is(err, cause) || !errors.Is(err, rabbitmq.ErrUnconfirmed) {
		t.Errorf("Publish: %v", err)
	}
	// More than any buffer takes: the write itself blocks.
	err = p.Publish(within(t), broadway.Record{Payload: make([]byte, 64<<20)})
	if !errors.Is(err, rabbitmq.ErrUnconfirmed) {
		t.Errorf("Publish: %v", err)
	}
}

// While the broker blocks publishing, nothing is written, and health says why.
func TestPublishWaitsWhileTheBrokerBlocks(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	w := newWire(t, broker.URL())
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: w.url, RoutingKey: queue})
	if err := p.Publish(within(t), broadway.Record{}); err != nil {
		t.Fatal(err)
	}
	const connection, blocked, unblocked = 10, 60, 61
	w.tell(0, connection, blocked, append([]byte{9}, "low on me"...)...)
	if !poll(func() bool { return p.Health() != nil }) || !strings.Contains(p.Health().Error(), "low on me") {
		t.Fatalf("health: %v", p.Health())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Publish(ctx, broadway.Record{}); err == nil || !strings.Contains(err.Error(), "low on me") {
		t.Errorf("Publish while blocked: %v", err)
	}
	if n := broker.Ready(t, queue); n != 1 {
		t.Errorf("%d messages came, want 1", n)
	}
	done := make(chan error, 1)
	go func() { done <- p.Publish(within(t), broadway.Record{}) }()
	w.tell(0, connection, unblocked)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.Health(); err != nil {
		t.Error(err)
	}
}

func TestPublishToAnUnreachableBroker(t *testing.T) {
	p := newPublisher(t, rabbitmq.PublisherConfig{Host: "127.0.0.1", Port: 1, ConfirmTimeout: 100 * time.Millisecond})
	err := p.Publish(within(t), broadway.Record{})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Publish: %v", err)
	}
	if err := p.Health(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Health: %v", err)
	}
}

// The broker closes the channel for one message and does not say for which. The
// others of the call, and those of calls beside it, are confirmed nevertheless.
func TestWhatCostsTheChannelFailsAlone(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: queue})
	ctx := within(t)
	var beside sync.WaitGroup
	for range 4 {
		beside.Go(func() {
			for range 50 {
				for p.Publish(ctx, broadway.Record{}) != nil && ctx.Err() == nil { // it may be what the channel was lost under
				}
			}
		})
	}
	fine := rabbitmq.Publishing{}
	gone := rabbitmq.Publishing{Exchange: "missing", RoutingKey: "x"}
	odd := rabbitmq.Publishing{RoutingKey: queue, Expiration: "soon"}
	for range 3 {
		err := p.Send(ctx, fine, gone, fine, odd, gone, fine)
		wantErrors(t, err, nil, rabbitmq.ErrUnconfirmed, nil, rabbitmq.ErrUnconfirmed, rabbitmq.ErrUnconfirmed, nil)
		var failed *broadway.PublishError
		if errors.As(err, &failed) && (!strings.Contains(failed.Errs[1].Error(), "missing") || !strings.Contains(failed.Errs[3].Error(), "expiration")) {
			t.Errorf("the reasons are %v", failed.Errs)
		}
	}
	beside.Wait()
	if err := p.Health(); err != nil || ctx.Err() != nil {
		t.Errorf("health: %v, %v", err, ctx.Err())
	}
	if n := broker.Ready(t, queue); n < 209 {
		t.Errorf("%d messages came, want 209 or more", n)
	}
}

func TestPublishersKnowWhetherTheyHaveADestination(t *testing.T) {
	for want, cfg := range map[bool]rabbitmq.PublisherConfig{
		true:  {URL: "amqp://127.0.0.1:1/", RoutingKey: "q"},
		false: {URL: "amqp://127.0.0.1:1/"},
	} {
		if p := rabbitmq.NewPublisher(cfg); p.HasDestination() != want {
			t.Errorf("%+v: %t", cfg, !want)
		}
	}
}
