package rabbitmq_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// admin is a channel beside the producer's.
func admin(t testing.TB, broker *brokers.RabbitMQBroker) *amqp.Channel {
	t.Helper()
	conn, err := amqp.DialConfig(broker.URL(), amqp.Config{Locale: "en_US", Dial: amqp.DefaultDial(patience)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// consumers is how many the broker counts for queue, -1 when there is no queue.
func consumers(ch *amqp.Channel, queue string) int {
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return -1
	}
	return q.Consumers
}

// a lost connection ends the epoch of its messages; a settle
// of one is counted and never sent; a new session gets them again.
func TestConnectionLossEndsTheEpoch(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(6)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 2)
	first := fetch(t, p, 1)
	ack(t, first...)
	w.wantSettles("ack 1")
	old := fetch(t, p, 2) // tags 2 and 3
	w.cut()
	renewed := fetch(t, p, 2) // the same messages, now under tags 1 and 2
	if !slices.Equal(texts(renewed), texts(old)) {
		t.Fatalf("delivered again: %q, want %q", texts(renewed), texts(old))
	}
	if old[0].Ref() == renewed[0].Ref() || !old[0].Ref().Ended() || renewed[0].Ref().Ended() {
		t.Error("the epoch of the lost connection did not end, or that of the new one did")
	}
	// Tag 2 was "message 00001" and is "message 00002": if the settle of the
	// former were sent, the latter would be lost.
	ack(t, old[0])
	ack(t, renewed[0])
	w.wantSettles("ack 1", "ack 1")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.Stats(); got.Stale != 1 || got.Sessions != 2 {
		t.Errorf("%+v, want 1 stale settle in 2 sessions", got)
	}
	p = connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	if got := texts(fetch(t, p, 4)); got[0] != "message 00002" || len(got) != 4 {
		t.Errorf("left in the queue: %q", got)
	}
}

// What is settled but not sent when the connection goes is not settled.
func TestUnsentSettlesAreCounted(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(3)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 1000)
	m := fetch(t, p, 3)
	w.mute(true)
	w.cut()
	if !poll(func() bool { return m[0].Ref().Ended() }) {
		t.Fatal("the epoch did not end")
	}
	ack(t, m...)
	w.mute(false)
	if again := fetch(t, p, 3); !slices.Equal(texts(again), texts(m)) {
		t.Errorf("delivered again: %q", texts(again))
	}
	if got := p.Stats().Stale; got != 3 {
		t.Errorf("%d stale settles, want 3", got)
	}
}

// A connection that is silent without being closed is noticed by its heartbeats.
func TestSilentConnectionIsReplaced(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(2)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue, Heartbeat: time.Second}, 1)
	m := fetch(t, p, 1)
	w.mute(true)
	if !poll(func() bool { return m[0].Ref().Ended() }) {
		t.Fatal("the silence was not noticed")
	}
	w.cut() // so that the broker notices, too
	w.mute(false)
	if again := fetch(t, p, 1); string(again[0].Payload) != string(m[0].Payload) {
		t.Errorf("delivered again: %q", again[0].Payload)
	}
}

// A3: nothing but the end of the deliveries says that a queue was
// deleted. The session ends, and the next one declares the queue again.
func TestConsumerCanceledByTheBroker(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	ch := admin(t, broker)
	cfg := rabbitmq.Config{URL: broker.URL(), Queue: "deleted", Declare: &rabbitmq.QueueDeclare{Durable: true}}
	p := connect(t, cfg, 10)
	broker.Publish(t, cfg.Queue, []byte("before"))
	m := fetch(t, p, 1)
	if _, err := ch.QueueDelete(cfg.Queue, false, false, false); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool { return m[0].Ref().Ended() }) {
		t.Fatal("the epoch did not end")
	}
	if !poll(func() bool { return p.Stats().Sessions == 2 }) {
		t.Fatal("no new session began")
	}
	broker.Publish(t, cfg.Queue, []byte("after"))
	if got := texts(fetch(t, p, 1)); got[0] != "after" {
		t.Errorf("got %q", got)
	}
	if n := consumers(ch, cfg.Queue); n != 1 {
		t.Errorf("%d consumers", n)
	}
}

// R-039, A13: the broker closes the channel over a settle. What was sent last is
// in the log, the connection goes with the channel, and a new session begins.
func TestChannelClosedOverASettle(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(5)...)
	w := newWire(t, broker.URL())
	var log logBuffer
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue, Logger: slog.New(slog.NewTextHandler(&log, nil))}, 10)
	m := fetch(t, p, 5)
	ack(t, m[0], m[1])
	ack(t, m[3])
	w.wantSettles("ack <=2", "ack 4")
	const channel, closed, preconditionFailed = 20, 40, 406
	args := append(binary.BigEndian.AppendUint16(nil, preconditionFailed), 9)
	args = append(args, "by the by"...)
	w.tell(1, channel, closed, append(args, 0, 60, 0, 80)...)
	again := fetch(t, p, 2)
	if got := texts(again); !slices.Equal(got, []string{"message 00002", "message 00004"}) {
		t.Errorf("delivered again: %q", got)
	}
	if text := log.String(); !strings.Contains(text, "acked <=2") || !strings.Contains(text, "acked 4") || !strings.Contains(text, "oldest_unsettled_tag=3") {
		t.Errorf("logged:\n%s", text)
	}
	if w.connections() != 2 {
		t.Errorf("%d connections", w.connections())
	}
}

// The queue is gone and nothing declares it: tried again, said, and mended when
// it is there.
func TestMissingQueueIsSaidAndWaitedFor(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	cfg := rabbitmq.Config{URL: broker.URL(), Queue: "missing", Logger: testLogger(t)}
	unconnected := rabbitmq.NewProducer(cfg)
	err := unconnected.Connect(within(t))
	var refused *rabbitmq.Error
	if !errors.As(err, &refused) || refused.Code != 404 || !strings.Contains(err.Error(), `"missing"`) {
		t.Fatalf("Connect: %v, want the broker's 404 and the name of the queue", err)
	}
	if err := unconnected.Health(); err == nil {
		t.Error("healthy without a queue")
	}
	if err := unconnected.Close(); err != nil {
		t.Error(err)
	}

	ch := admin(t, broker)
	declare := func() {
		if _, err := ch.QueueDeclare(cfg.Queue, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	declare()
	p := connect(t, cfg, 10)
	if err := p.Health(); err != nil {
		t.Error(err)
	}
	if _, err := ch.QueueDelete(cfg.Queue, false, false, false); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool { e := p.Health(); return e != nil && strings.Contains(e.Error(), "NOT_FOUND") }) {
		t.Errorf("health: %v", p.Health())
	}
	declare()
	broker.Publish(t, cfg.Queue, []byte("back"))
	if got := texts(fetch(t, p, 1)); got[0] != "back" {
		t.Errorf("got %q", got)
	}
	if err := p.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
}

// a broker that does not answer is an error of Connect, and later tried
// again for as long as it takes.
func TestUnreachableBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	_ = l.Close()
	p := rabbitmq.NewProducer(rabbitmq.Config{Host: "127.0.0.1", Port: n, Queue: "orders", Logger: testLogger(t)})
	if err := p.Connect(within(t)); err == nil || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), port) {
		t.Errorf("Connect: %v", err)
	}
	if err := p.Health(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Health: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// a server that accepts and says nothing costs one dial time-out; the
// context ends the wait, too.
func TestMuteServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := rabbitmq.Config{URL: "amqp://" + l.Addr().String(), Queue: "orders", DialTimeout: 50 * time.Millisecond, Logger: testLogger(t)}
	if err := rabbitmq.NewProducer(cfg).Connect(within(t)); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("Connect: %v", err)
	}
	cfg.DialTimeout = time.Hour
	cause := errors.New("the pipeline stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	connected := make(chan error, 1)
	go func() { connected <- rabbitmq.NewProducer(cfg).Connect(ctx) }()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	cancel(cause)
	if err := <-connected; !errors.Is(err, cause) {
		t.Errorf("Connect: %v, want the cause of its context", err)
	}
}

// wrong credentials are an error like any other, and are asked for at
// each attempt.
func TestCredentialsAreAskedForAtEachDial(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, []byte("only for those who know"))
	u, err := url.Parse(broker.URL())
	if err != nil {
		t.Fatal("the broker's address is no URL")
	}
	password, _ := u.User.Password()
	const wrong = "a-wrong-password"
	asked := make(chan rabbitmq.Secret, 10)
	asked <- wrong
	asked <- rabbitmq.Secret(password)
	asked <- wrong
	asked <- rabbitmq.Secret(password)
	w := newWire(t, broker.URL())
	p := rabbitmq.NewProducer(quick(t, rabbitmq.Config{
		URL: w.url, Queue: queue,
		Credentials: func(context.Context) (rabbitmq.Credentials, error) {
			select {
			case s := <-asked:
				return rabbitmq.Credentials{Username: u.User.Username(), Password: s}, nil
			default:
				return rabbitmq.Credentials{}, errors.New("asked once too often")
			}
		},
	}))
	defer p.Close()
	if err := p.Connect(within(t)); err == nil || strings.Contains(err.Error(), wrong) {
		t.Errorf("Connect: %v", err)
	}
	if err := p.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	first := fetch(t, p, 1)
	w.cut()
	again := fetch(t, p, 1) // after one refused attempt
	if string(again[0].Payload) != string(first[0].Payload) || len(asked) != 0 {
		t.Errorf("got %q, %d credentials were not asked for", again[0].Payload, len(asked))
	}
}

func TestTLS(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, []byte("secret"))
	address, config := broker.TLS(t)
	server := config.ServerName
	p := connect(t, rabbitmq.Config{URL: address, TLS: config, Queue: queue}, 10)
	if got := texts(fetch(t, p, 1)); got[0] != "secret" {
		t.Errorf("got %q", got)
	}
	if config.ServerName != server {
		t.Error("the caller's tls.Config was changed")
	}
	untrusting := rabbitmq.NewProducer(rabbitmq.Config{URL: address, Queue: queue, Logger: testLogger(t)})
	if err := untrusting.Connect(within(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
}

// The prefetch reaches the broker: what was configured, or the share of the
// pipeline's bound, within what the protocol can carry; never 0, and never for
// the whole channel.
func TestPrefetchOnTheWire(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	for _, tt := range []struct {
		configured, share int
		want              string
	}{
		{0, 250, "qos 250 global 0"},
		{40, 250, "qos 40 global 0"},
		{0, 1 << 20, "qos 65535 global 0"},
		{0, 0, "qos 1 global 0"},
	} {
		w := newWire(t, broker.URL())
		p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue, Prefetch: tt.configured}, tt.share)
		if got := w.methods("qos"); len(got) != 1 || got[0] != tt.want {
			t.Errorf("prefetch %d with a share of %d: %q, want %q", tt.configured, tt.share, got, tt.want)
		}
		if traits := p.Describe(broadway.Limits{Share: tt.share}); "qos "+strconv.Itoa(traits.Prefetch)+" global 0" != tt.want {
			t.Errorf("told the pipeline %d", traits.Prefetch)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLagCountsWhatIsDeliveredToo(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(10)...)
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, LagInterval: 10 * time.Millisecond}, 4)
	want := func(n int64) {
		t.Helper()
		var lag []broadway.Lag
		if !poll(func() bool { lag = p.Lag(); return len(lag) == 1 && lag[0].Messages == n && lag[0].Source == queue }) {
			t.Errorf("lag %+v, want %d", lag, n)
		}
	}
	m := fetch(t, p, 3)
	want(10)
	ack(t, m...)
	want(7)
}
