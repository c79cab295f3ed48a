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

// startFailing runs a pipeline on queue whose dead letters go to letters.
func startFailing(t testing.TB, url, queue string, letters broadway.DeadLetterer, logger *slog.Logger) failing {
	t.Helper()
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: url, Queue: queue, Prefetch: 50}))},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return broadway.Reject(errNoGood) }},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
		Logger:    logger, DrainTimeout: 5 * time.Second,
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
