package rabbitmq_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

var errNoGood = errors.New("no good")

// failing is a pipeline that runs and gives up every message of a queue.
type failing struct {
	*broadway.Pipeline
	stop func() error
}

// noLimits lets all messages reach the handler, however large.
var noLimits = broadway.MessageLimits{Payload: -1, Key: -1, Headers: -1, HeaderBytes: -1}

// startFailing runs a pipeline on queue whose dead letters go to letters.
func startFailing(t testing.TB, url, queue string, letters broadway.DeadLetterer, logger *slog.Logger) failing {
	t.Helper()
	p, err := broadway.New(broadway.Config{
		Producers:     []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: url, Queue: queue, Prefetch: 50}))},
		Processor:     broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return broadway.Reject(errNoGood) }},
		Failure:       broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
		MessageLimits: noLimits,
		Logger:        logger, DrainTimeout: 5 * time.Second,
		ReconnectBackoff: broadway.Backoff{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-over
	})
	t.Cleanup(func() { _ = stop() })
	return failing{p, stop}
}

// ours are the headers of a dead letter that we added.
func ours(m *rabbitmq.Metadata) rabbitmq.Table {
	own := rabbitmq.Table{}
	for key, value := range m.Headers {
		if strings.HasPrefix(key, "x-broadway-") {
			own[key] = value
		}
	}
	return own
}

// without is t without the headers that we added.
func without(t rabbitmq.Table) rabbitmq.Table {
	rest := maps.Clone(t)
	maps.DeleteFunc(rest, func(key string, _ any) bool { return strings.HasPrefix(key, "x-broadway-") })
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// nested is a table within a table, and so on.
func nested(depth int) rabbitmq.Table {
	t := rabbitmq.Table{"leaf": int8(-1)}
	for range depth - 1 {
		t = rabbitmq.Table{"t": t}
	}
	return t
}

// odd are messages with everything that AMQP can say.
func odd() []rabbitmq.Publishing {
	when := time.Unix(1_790_000_000, 0)
	return []rabbitmq.Publishing{
		{},
		{Body: []byte("x"), ContentType: "application/json", ContentEncoding: "gzip", Priority: 3, CorrelationID: "c",
			ReplyTo: "elsewhere", ID: "id-1", Timestamp: when, Type: "order", AppID: "shop"},
		{Body: []byte{0, 0xff, '\r', '\n', 0x1b}, Transient: true, Expiration: "600000", Headers: rabbitmq.Table{}},
		{Headers: rabbitmq.Table{
			"nil": nil, "bool": true, "int8": int8(-8), "uint8": uint8(8), "int16": int16(-16), "uint16": uint16(16), "int32": int32(-32),
			"uint32": uint32(32), "int64": int64(-64), "float32": float32(1.5), "float64": 2.5, "string": "text", "bytes": []byte{0, 0xff},
			"time": when, "decimal": rabbitmq.Decimal{Scale: 2, Value: -150}, "table": rabbitmq.Table{"a": int16(1), "b": nil},
			"array": []any{int64(1), "two", rabbitmq.Table{"three": []byte("3")}, []any{}}, "": "empty key", "empty": "",
		}},
		{Headers: rabbitmq.Table{"deep": nested(32)}},
		{Headers: rabbitmq.Table{"large": strings.Repeat("x", 120_000)}},
		{Headers: rabbitmq.Table{"x-broadway-other": "the application's own", acknowledgers.HeaderReason: "of an earlier round"}},
		{Body: bytes.Repeat([]byte("0123456789"), 1_000_000)},
	}
}

func TestDeadLettersKeepWhatAMQPSays(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue, dead := broker.Queue(t, brokers.Argument("x-max-priority", int32(9))), broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()})
	for i, m := range odd() { // one after the other: the queue orders by priority
		m.RoutingKey, m.ID = queue, cmp.Or(m.ID, strconv.Itoa(i))
		if err := p.Send(within(t), m); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	n := len(odd())
	source := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, n)
	before := fetch(t, source, n)
	sent := map[string]*broadway.Message{}
	for _, m := range before {
		sent[m.ID()] = m
	}
	if err := source.Close(); err != nil { // gives them back
		t.Fatal(err)
	}
	run := startFailing(t, broker.URL(), queue, &acknowledgers.DeadLetters{Publisher: p, Destination: dead}, testLogger(t))
	for _, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, n), n) {
		got := m.Metadata.(*rabbitmq.Metadata)
		original := sent[text(got.Headers[acknowledgers.HeaderID])]
		if original == nil {
			t.Fatalf("a dead letter of %v", got.Headers[acknowledgers.HeaderID])
		}
		want := original.Metadata.(*rabbitmq.Metadata)
		if !bytes.Equal(m.Payload, original.Payload) || !reflect.DeepEqual(without(got.Headers), without(want.Headers)) {
			t.Errorf("%s: a payload of %d bytes, headers %v, want %d, %v", original.ID(), len(m.Payload), got.Headers, len(original.Payload), want.Headers)
		}
		if got.ContentType != want.ContentType || got.ContentEncoding != want.ContentEncoding || got.Priority != want.Priority ||
			got.CorrelationID != want.CorrelationID || got.ReplyTo != want.ReplyTo || got.ID != want.ID ||
			!got.Timestamp.Equal(want.Timestamp) || got.Type != want.Type || got.AppID != want.AppID || got.Expiration != "" || !got.Persistent {
			t.Errorf("%s: properties %+v, want %+v", original.ID(), got, want)
		}
		if expiration := text(ours(got)[acknowledgers.PrefixSource+"expiration"]); expiration != want.Expiration {
			t.Errorf("%s: expiration %q, want %q", original.ID(), expiration, want.Expiration)
		}
		if other := want.Headers["x-broadway-other"]; !reflect.DeepEqual(got.Headers["x-broadway-other"], other) ||
			got.Headers[acknowledgers.HeaderReason] != errNoGood.Error() {
			t.Errorf("%s: headers %v", original.ID(), ours(got))
		}
	}
	if err := run.stop(); err != nil {
		t.Error(err)
	}
	if n := broker.Ready(t, queue); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// What sends a message to further queues, or belongs to another channel, would
// do so with its dead letter, or cost the channel.
func TestDeadLettersGoNowhereElse(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue, dead, copies := broker.Queue(t), broker.Queue(t), broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()})
	err := p.Send(within(t), rabbitmq.Publishing{RoutingKey: queue, Headers: rabbitmq.Table{"CC": []any{copies}}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Publish(within(t), broadway.Record{Destination: queue, Headers: []broadway.Header{
		{Key: "CC", Value: []byte(copies)}, {Key: "BCC", Value: []byte(copies)},
	}})
	if err != nil {
		t.Errorf("a record with CC and BCC as text: %v", err)
	}
	run := startFailing(t, broker.URL(), queue, &acknowledgers.DeadLetters{Publisher: p, Destination: dead}, testLogger(t))
	m := fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 2), 2)
	for _, m := range m {
		if h := m.Metadata.(*rabbitmq.Metadata).Headers; h["CC"] != nil || h["x-broadway-cc"] == nil {
			t.Errorf("headers %v", h)
		}
	}
	if err := run.stop(); err != nil {
		t.Error(err)
	}
	if n := broker.Ready(t, copies); n != 1 {
		t.Errorf("%d messages were copied, want the original alone", n)
	}
}

// A limit that the broker has and nobody told us: what is over it is a reference,
// what is under it is not, and neither holds up the other.
func TestDeadLettersOverTheBrokersLimitAreReferences(t *testing.T) {
	const limit = 1 << 20
	broker := brokers.Exclusive(t).RabbitMQ("max_message_size = " + strconv.Itoa(limit))
	large, dead := broker.Queue(t), broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: dead})
	sizes := []int{10, limit + 1, limit * 99 / 100, limit, limit + 1, 2 * limit, 3 * limit, 20}
	var messages []*broadway.Message
	for i, size := range sizes {
		m := broadway.NewMessage(broadway.NewAckRef(acknowledgers.Noop{}, nil, 0), int64(i), bytes.Repeat([]byte{byte('a' + i)}, size))
		m.Metadata = &rabbitmq.Metadata{Queue: large, ID: strconv.Itoa(i), ContentType: "text/plain", Headers: rabbitmq.Table{"mine": int8(1)}}
		messages = append(messages, m)
	}
	if err := (&acknowledgers.DeadLetters{Publisher: p}).DeadLetter(within(t), messages); err != nil {
		t.Fatal(err)
	}
	if err := p.Health(); err != nil {
		t.Error(err)
	}
	letters := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 100)
	for seen := map[string]bool{}; len(seen) < len(sizes); {
		m := fetch(t, letters, 1)[0]
		seen[text(m.Metadata.(*rabbitmq.Metadata).Headers[acknowledgers.HeaderID])] = true // twice, if it was on its way with one that was refused
		meta := m.Metadata.(*rabbitmq.Metadata)
		i, err := strconv.Atoi(strings.TrimPrefix(text(meta.Headers[acknowledgers.HeaderID]), large+"/"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(messages[i].Payload)
		switch {
		case sizes[i] <= limit:
			if !bytes.Equal(m.Payload, messages[i].Payload) || meta.Headers["mine"] != int8(1) || acknowledgers.IsReference(meta.MessageHeaders()) {
				t.Errorf("a message of %d bytes came as %d, with %v", sizes[i], len(m.Payload), meta.Headers)
			}
		case !bytes.Equal(m.Payload, messages[i].Payload[:1024]) || meta.Headers[acknowledgers.HeaderSize] != strconv.Itoa(sizes[i]) ||
			meta.Headers[acknowledgers.HeaderSHA256] != hex.EncodeToString(sum[:]):
			t.Errorf("a message of %d bytes came as %d, with %v", sizes[i], len(m.Payload), meta.Headers)
		}
	}
}

// Every message fails, is put back, and fails again, fifty times: it stays what it
// was, to the types of its headers, and its dead letters do not grow.
func TestReplaysAreByteEqual(t *testing.T) {
	const rounds = 50
	broker := brokers.RabbitMQ(t)
	queue, dead := broker.Queue(t), broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()})
	sent := map[string]rabbitmq.Publishing{}
	for i, m := range odd()[:7] {
		m.RoutingKey, m.ID = queue, cmp.Or(m.ID, strconv.Itoa(i))
		sent[m.ID] = m
		if err := p.Send(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	run := startFailing(t, broker.URL(), queue, &acknowledgers.DeadLetters{Publisher: p, Destination: dead}, testLogger(t))
	letters := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, len(sent))
	first := map[string]int{}
	for round := range rounds {
		for range sent {
			m := fetch(t, letters, 1)[0]
			meta := m.Metadata.(*rabbitmq.Metadata)
			n := 0
			for key, value := range ours(meta) {
				if !strings.HasPrefix(key, acknowledgers.PrefixSource) { // of the first round only
					n += len(key) + len(text(value))
				}
			}
			if before, known := first[meta.ID]; known && before != n || n > 4096 {
				t.Fatalf("round %d: %d bytes were added to %s, at first %d", round, n, meta.ID, before)
			}
			first[meta.ID] = n
			if round == 0 { // as it came: times have no zone on the wire
				original := sent[meta.ID]
				if len(original.Headers) != len(without(meta.Headers)) && original.Headers["x-broadway-other"] == nil {
					t.Errorf("headers %v, want %v", meta.Headers, original.Headers)
				}
				original.Headers = without(meta.Headers)
				sent[meta.ID] = original
			}
			same(t, m, sent[meta.ID])
			if round == rounds-1 {
				ack(t, m)
				continue
			}
			if err := p.Publish(within(t), acknowledgers.ReadLetter(m).Original()); err != nil {
				t.Fatal(err)
			}
			ack(t, m)
		}
	}
	if err := run.stop(); err != nil {
		t.Error(err)
	}
}

// same compares m, or its dead letter, with what was sent.
func same(t *testing.T, m *broadway.Message, sent rabbitmq.Publishing) {
	t.Helper()
	meta := m.Metadata.(*rabbitmq.Metadata)
	if !bytes.Equal(m.Payload, sent.Body) || !sameTable(without(meta.Headers), without(sent.Headers)) ||
		meta.ContentType != sent.ContentType || meta.CorrelationID != sent.CorrelationID || meta.ReplyTo != sent.ReplyTo ||
		meta.Priority != sent.Priority || !meta.Timestamp.Equal(sent.Timestamp) || meta.Type != sent.Type || meta.AppID != sent.AppID {
		t.Fatalf("%s came as %+v", sent.ID, meta)
	}
}

func sameTable(a, b rabbitmq.Table) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

func TestReplayRunPutsLettersBack(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue, dead := broker.Queue(t), broker.Queue(t)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()})
	sent := map[string]rabbitmq.Publishing{}
	for i := range 60 {
		m := rabbitmq.Publishing{RoutingKey: queue, ID: strconv.Itoa(i), Body: []byte{byte(i)}, Headers: rabbitmq.Table{"n": int16(i)}}
		sent[m.ID] = m
		if err := p.Send(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	letters := &acknowledgers.DeadLetters{Publisher: p, Destination: dead, MaxBytes: 100}
	failing := startFailing(t, broker.URL(), queue, letters, testLogger(t))
	if !poll(func() bool { return broker.Ready(t, dead) == 60 }) {
		t.Fatal("the dead letters do not come")
	}
	if err := failing.stop(); err != nil {
		t.Fatal(err)
	}
	replay := acknowledgers.Replay{
		Source: rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: dead})), Publisher: p, Logger: testLogger(t),
		Match: func(l acknowledgers.Letter) bool {
			return l.Origin == queue && l.Stage == "processor" && l.Message.Payload[0]%3 > 0
		},
	}
	got, err := replay.Run(t.Context())
	if err != nil || got.Back != 40 || broker.Ready(t, dead) != 20 || broker.Ready(t, queue) != 40 {
		t.Fatalf("%+v, %v: %d are left, %d are back", got, err, broker.Ready(t, dead), broker.Ready(t, queue))
	}
	for _, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 40), 40) {
		meta := m.Metadata.(*rabbitmq.Metadata)
		if len(ours(meta)) > 0 {
			t.Errorf("headers %v", meta.Headers)
		}
		same(t, m, sent[meta.ID])
	}
	for _, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 20), 20) {
		if l := acknowledgers.ReadLetter(m); l.Origin != queue || l.Reason != errNoGood.Error() || l.Attempts != 1 || l.Time.IsZero() {
			t.Errorf("left as %+v", l)
		}
	}
}

// Nothing takes the dead letters: their messages stay, the health says why, and
// all is well once it is mended.
func TestUnwritableDeadLettersLeaveTheirMessages(t *testing.T) {
	for name, c := range map[string]struct {
		dead  func(*testing.T, *brokers.RabbitMQBroker) string
		cfg   rabbitmq.PublisherConfig
		why   string
		mend  func(*testing.T, *brokers.RabbitMQBroker, string)
		spoil func(*testing.T, *brokers.RabbitMQBroker)
	}{
		"unroutable": {
			dead: func(*testing.T, *brokers.RabbitMQBroker) string { return "later" }, why: "no queue takes",
			mend: func(t *testing.T, b *brokers.RabbitMQBroker, dead string) {
				declare(t, b, rabbitmq.PublisherConfig{Queues: []rabbitmq.QueueDeclare{{Name: dead, Durable: true}}})
			},
		},
		"refused by the queue": {
			dead: func(t *testing.T, b *brokers.RabbitMQBroker) string {
				full := b.Queue(t, brokers.Argument("x-max-length", int32(1)), brokers.Argument("x-overflow", "reject-publish"))
				b.Publish(t, full, []byte("in the way"))
				return full
			}, why: "refused the message",
			mend: func(t *testing.T, b *brokers.RabbitMQBroker, dead string) {
				p := connect(t, rabbitmq.Config{URL: b.URL(), Queue: dead, Prefetch: 1}, 1)
				ack(t, fetch(t, p, 1)...)
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			},
		},
		"an exchange that is missing": {
			dead: func(t *testing.T, b *brokers.RabbitMQBroker) string { return b.Queue(t) },
			cfg:  rabbitmq.PublisherConfig{Exchange: "dlx"}, why: "no exchange 'dlx'",
			mend: func(t *testing.T, b *brokers.RabbitMQBroker, dead string) {
				declare(t, b, rabbitmq.PublisherConfig{
					Exchanges: []rabbitmq.ExchangeDeclare{{Name: "dlx", Kind: "direct", Durable: true}},
					Bindings:  []rabbitmq.Binding{{Queue: dead, Exchange: "dlx", RoutingKey: dead}},
				})
			},
		},
		"no permission": {
			dead:  func(t *testing.T, b *brokers.RabbitMQBroker) string { return b.Queue(t) },
			spoil: func(t *testing.T, b *brokers.RabbitMQBroker) { b.Permit(t, ".*", "^$", ".*") }, why: "ACCESS_REFUSED",
			mend: func(t *testing.T, b *brokers.RabbitMQBroker, _ string) { b.Permit(t, ".*", ".*", ".*") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			broker := brokers.RabbitMQ(t)
			queue, dead := broker.Queue(t), c.dead(t, broker)
			broker.Publish(t, queue, payloads(1)...)
			if c.spoil != nil {
				c.spoil(t, broker)
			}
			c.cfg.URL = broker.URL()
			letters := &acknowledgers.DeadLetters{Publisher: newPublisher(t, c.cfg), Destination: dead}
			failing := startFailing(t, broker.URL(), queue, letters, testLogger(t))
			if !poll(func() bool {
				err := failing.Stats().Err
				return err != nil && strings.Contains(err.Error(), c.why)
			}) {
				t.Fatalf("the health does not say %q: %v", c.why, failing.Stats().Err)
			}
			if err := failing.stop(); !errors.Is(err, broadway.ErrDrainTimeout) {
				t.Errorf("Run: %v", err)
			}
			if !poll(func() bool { return broker.Ready(t, queue) == 1 }) {
				t.Fatal("the message is not back")
			}
			failing = startFailing(t, broker.URL(), queue, letters, testLogger(t))
			if !poll(func() bool { return failing.Stats().Err != nil }) {
				t.Fatal("it is healthy again")
			}
			c.mend(t, broker, dead)
			if !poll(func() bool { return failing.Stats().DeadLettered == 1 && failing.Stats().Err == nil }) {
				t.Fatalf("it does not recover: %v", failing.Stats().Err)
			}
			if err := failing.stop(); err != nil || broker.Ready(t, queue) != 0 || broker.Ready(t, dead) != 1 {
				t.Errorf("Run: %v; %d messages are left, %d dead letters", err, broker.Ready(t, queue), broker.Ready(t, dead))
			}
		})
	}
}

// declare makes a topology.
func declare(t *testing.T, b *brokers.RabbitMQBroker, cfg rabbitmq.PublisherConfig) {
	t.Helper()
	cfg.URL, cfg.AllowUnroutable = b.URL(), true
	p := newPublisher(t, cfg)
	if err := p.Publish(within(t), broadway.Record{Destination: "nowhere"}); err != nil {
		t.Fatal(err)
	}
}

// Every message of a quorum queue fails, far more than may wait for another attempt. Were
// they given back, the broker would take them away after some deliveries.
func TestAQueueThatCountsLosesNothingWhereAllFail(t *testing.T) {
	const n, attempts = 500, 3
	broker := brokers.RabbitMQ(t)
	dead := broker.Queue(t)
	queue := broker.Queue(t, brokers.Quorum(), brokers.Argument("x-delivery-limit", int32(20)))
	broker.Publish(t, queue, payloads(n)...)
	var handlings atomic.Int64
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}))},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error {
			handlings.Add(1)
			return errNoGood
		}},
		Failure: broadway.FailurePolicy{
			MaxAttempts: attempts, Backoff: broadway.Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond}, Action: broadway.ActionDeadLetter,
			DeadLetter: &acknowledgers.DeadLetters{Publisher: newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL()}), Destination: dead},
		},
		MaxUnsettled: 40, Logger: testLogger(t), DrainTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(within(t))
	over := make(chan error, 1)
	go func() { over <- pipeline.Run(ctx) }()
	if !poll(func() bool { return pipeline.Stats().DeadLettered == n }) {
		t.Errorf("not all were given up: %+v", pipeline.Stats())
	}
	stop()
	if err := <-over; err != nil || pipeline.Stats().Released > 0 || handlings.Load() != n*attempts {
		t.Errorf("Run: %v; %d handlings; %+v", err, handlings.Load(), pipeline.Stats())
	}
	if got := broker.Ready(t, dead); got != n {
		t.Errorf("%d dead letters", got)
	}
}
