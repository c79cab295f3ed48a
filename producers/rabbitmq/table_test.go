package rabbitmq_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func TestDecimal(t *testing.T) {
	for _, tt := range []struct {
		d    rabbitmq.Decimal
		want string
	}{
		{rabbitmq.Decimal{}, "0"}, {rabbitmq.Decimal{Value: 17}, "17"}, {rabbitmq.Decimal{Scale: 2, Value: -150}, "-1.50"},
		{rabbitmq.Decimal{Scale: 3, Value: 5}, "0.005"}, {rabbitmq.Decimal{Scale: 1, Value: math.MinInt32}, "-214748364.8"},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("%#v is %s, want %s", tt.d, got, tt.want)
		}
	}
}

// Headers as bytes: what a dead letter or a relay to another broker carries.
func TestMessageHeaders(t *testing.T) {
	m := rabbitmq.Metadata{Headers: rabbitmq.Table{
		"string": "s", "bytes": []byte{0, 255}, "nil": nil, "true": true, "int": int32(-7), "float": 1.5,
		"time":  time.Date(2026, 11, 23, 1, 2, 3, 0, time.FixedZone("", 3600)),
		"table": rabbitmq.Table{"b": []any{int64(1), "x"}, "a": nil}, "decimal": rabbitmq.Decimal{Scale: 1, Value: 15},
		"nan": []any{math.NaN()},
	}}
	want := []broadway.Header{
		{Key: "bytes", Value: []byte{0, 255}}, {Key: "decimal", Value: []byte("1.5")}, {Key: "float", Value: []byte("1.5")},
		{Key: "int", Value: []byte("-7")}, {Key: "nan", Value: []byte("[NaN]")}, {Key: "nil"}, {Key: "string", Value: []byte("s")},
		{Key: "table", Value: []byte(`{"a":null,"b":[1,"x"]}`)}, {Key: "time", Value: []byte("2026-11-23T00:02:03Z")}, {Key: "true", Value: []byte("true")},
	}
	if got := m.MessageHeaders(); !reflect.DeepEqual(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got := (&rabbitmq.Metadata{}).MessageHeaders(); got != nil {
		t.Errorf("without headers: %q", got)
	}
}

// Headers come back from the broker with the values and types that they were
// sent with.
func TestHeadersKeepTheirTypes(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	out := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: queue, Logger: testLogger(t)})
	defer out.Close()
	in := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	rapid.Check(t, func(rt *rapid.T) {
		sent := rapid.MapOf(rapid.StringN(0, 40, 255), value(2)).Draw(rt, "headers")
		if err := out.Send(t.Context(), rabbitmq.Publishing{Headers: sent, Body: []byte("x")}); err != nil {
			rt.Fatal(err)
		}
		m := fetch(t, in, 1)
		ack(t, m...)
		got := m[0].Metadata.(*rabbitmq.Metadata).Headers
		if len(got)+len(sent) > 0 && !reflect.DeepEqual(map[string]any(got), sent) {
			rt.Fatalf("sent %#v\ngot %#v", sent, got)
		}
	})
}

// value draws what AMQP can carry, of the types that come back.
func value(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(v bool) any { return v }),
		rapid.Map(rapid.Int8(), func(v int8) any { return v }),
		rapid.Map(rapid.Byte(), func(v byte) any { return v }),
		rapid.Map(rapid.Int16(), func(v int16) any { return v }),
		rapid.Map(rapid.Uint16(), func(v uint16) any { return v }),
		rapid.Map(rapid.Int32(), func(v int32) any { return v }),
		rapid.Map(rapid.Uint32(), func(v uint32) any { return v }),
		rapid.Map(rapid.Int64(), func(v int64) any { return v }),
		rapid.Map(rapid.Float32(), func(v float32) any { return v }),
		rapid.Map(rapid.Float64(), func(v float64) any { return v }),
		rapid.Map(rapid.String(), func(v string) any { return v }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 20), func(v []byte) any { return v }),
		rapid.Map(rapid.Int64Range(0, 1<<40), func(v int64) any { return time.Unix(v, 0) }),
		rapid.Custom(func(t *rapid.T) any {
			return rabbitmq.Decimal{Scale: rapid.Byte().Draw(t, "scale"), Value: rapid.Int32().Draw(t, "value")}
		}),
	}
	if depth > 0 {
		kinds = append(kinds,
			rapid.Map(rapid.SliceOfN(value(depth-1), 1, 3), func(v []any) any { return v }),
			rapid.Map(rapid.MapOfN(rapid.StringN(0, 10, 40), value(depth-1), 0, 3), func(v map[string]any) any { return rabbitmq.Table(v) }),
		)
	}
	return rapid.OneOf(kinds...)
}

// Every property arrives as it was sent.
func TestMetadata(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Argument("x-max-priority", int32(9)))
	out := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
		URL: broker.URL(), Exchange: "events", Logger: testLogger(t),
		Exchanges: []rabbitmq.ExchangeDeclare{{Name: "events", Kind: "topic", AutoDelete: true}},
		Bindings:  []rabbitmq.Binding{{Queue: queue, Exchange: "events", RoutingKey: "order.*"}},
	})
	defer out.Close()
	when := time.Unix(1_790_000_000, 0)
	sent := rabbitmq.Publishing{
		RoutingKey: "order.new", ContentType: "application/json", ContentEncoding: "gzip", Priority: 3,
		CorrelationID: "c", ReplyTo: "r", Expiration: "600000", ID: "id-1", Timestamp: when, Type: "order", AppID: "shop",
		Headers: rabbitmq.Table{"x": "y"}, Body: []byte("{}"),
	}
	bare := rabbitmq.Publishing{RoutingKey: "order.bare", Transient: true}
	if err := out.Send(t.Context(), sent, bare); err != nil {
		t.Fatal(err)
	}
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Consumer: rabbitmq.Consumer{Tag: "me"}}, 10)
	m := fetch(t, p, 2)
	got := *m[0].Metadata.(*rabbitmq.Metadata)
	if id := got.MessageID(); id != queue+"/id-1" || m[0].ID() != id {
		t.Errorf("id %q", id)
	}
	if got.MessageOrigin() != queue || got.MessageKey() != nil {
		t.Errorf("origin %q, key %q", got.MessageOrigin(), got.MessageKey())
	}
	if string(m[0].Payload) != "{}" || m[0].Size() <= int64(len("{}")+len("x")+len("y")) || m[0].Seq() != 1 { // headers weigh more in memory
		t.Errorf("payload %q, size %d, position %d", m[0].Payload, m[0].Size(), m[0].Seq())
	}
	want := rabbitmq.Metadata{
		Queue: queue, Exchange: "events", RoutingKey: "order.new", Headers: rabbitmq.Table{"x": "y"},
		ContentType: "application/json", ContentEncoding: "gzip", Persistent: true, Priority: 3,
		CorrelationID: "c", ReplyTo: "r", Expiration: "600000", ID: "id-1", Timestamp: when, Type: "order", AppID: "shop",
		ConsumerTag: "me", DeliveryTag: 1,
	}
	if !equalMetadata(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if again := got.Republishing(m[0].Payload); again.Transient || again.ID != "id-1" || again.Priority != 3 || again.RoutingKey != "" || again.Expiration != "" {
		t.Errorf("republished as %+v", again)
	}
	got = *m[1].Metadata.(*rabbitmq.Metadata)
	want = rabbitmq.Metadata{Queue: queue, Exchange: "events", RoutingKey: "order.bare", ConsumerTag: "me", DeliveryTag: 2}
	if !equalMetadata(got, want) || m[1].Payload == nil || len(m[1].Payload) != 0 {
		t.Errorf("got %+v with payload %#v\nwant %+v", got, m[1].Payload, want)
	}
	if id := got.MessageID(); !strings.HasPrefix(id, queue+"/sha256-") {
		t.Errorf("id %q", id)
	}
}

// equalMetadata compares the exported fields.
func equalMetadata(a, b rabbitmq.Metadata) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if x.Type().Field(i).IsExported() && !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			return false
		}
	}
	return true
}

// A quorum queue counts deliveries. They are not attempts: a message that only waited
// with others when a connection was lost is counted as well.
func TestDeliveriesAreCountedByQuorumQueues(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Quorum())
	broker.Publish(t, queue, []byte("poison"))
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	for n := range 4 {
		m := fetch(t, p, 1)[0]
		if got := m.Metadata.(*rabbitmq.Metadata).DeliveryCount; got != int64(n) || m.Attempt != 1 || m.Redelivered != (n > 0) {
			t.Errorf("delivery %d: count %d, attempt %d, redelivered %t", n+1, got, m.Attempt, m.Redelivered)
		}
		release(t, m)
	}
}

// A count that a publisher made up does not count.
func TestAttemptsAreNotThePublishersToCount(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	out := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: queue, Logger: testLogger(t)})
	defer out.Close()
	if err := out.Send(t.Context(), rabbitmq.Publishing{Headers: rabbitmq.Table{"x-delivery-count": 7}}); err != nil {
		t.Fatal(err)
	}
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	if m := fetch(t, p, 1)[0]; m.Metadata.(*rabbitmq.Metadata).DeliveryCount != 0 {
		t.Errorf("%+v", m.Metadata)
	}
}

// Messages without an id of their publisher have one of their content.
func TestIDsOfMessagesWithoutOne(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	var bodies [][]byte
	for i := range uint32(50) {
		bodies = append(bodies, binary.BigEndian.AppendUint32(nil, i))
	}
	broker.Publish(t, queue, bodies...)
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 100)
	ids := map[string]bool{}
	first := fetch(t, p, len(bodies))
	for _, m := range first {
		ids[m.ID()] = true
	}
	if len(ids) != len(bodies) {
		t.Errorf("%d ids for %d messages", len(ids), len(bodies))
	}
	release(t, first...)
	for _, m := range fetch(t, p, len(bodies)) {
		if !ids[m.ID()] {
			t.Errorf("%v has a new id when it comes again", m.Payload)
		}
	}
}

// Headers that the client cannot read do not cost the connection: what is too deep
// or too long in them comes as bytes, and so it does in a dead letter.
func TestHeadersThatTheClientCannotRead(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Quorum())
	ch := admin(t, broker)
	depths := amqp.Table{"leaf": int32(1)}
	for range 50 {
		depths = amqp.Table{"t": depths}
	}
	many := make(amqp.Table)
	for i := range 8193 {
		many[fmt.Sprint(i)] = nil
	}
	for i, headers := range []amqp.Table{{"deep": depths, "beside": "it"}, {"long": make([]any, 9000)}, many, {"plain": true}} {
		if err := ch.Publish("", queue, false, false, amqp.Publishing{Headers: headers, Body: fmt.Appendf(nil, "message %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10)
	got := fetch(t, p, 4)
	headers := func(i int) rabbitmq.Table { return got[i].Metadata.(*rabbitmq.Metadata).Headers }
	value, levels := headers(0)["deep"], 0
	for table, ok := value.(rabbitmq.Table); ok; table, ok = value.(rabbitmq.Table) {
		value = table["t"]
		levels++
	}
	if raw, ok := value.([]byte); !ok || levels != 32 || !strings.Contains(string(raw), "leaf") {
		t.Errorf("%T after %d levels", value, levels)
	}
	if headers(0)["beside"] != "it" || headers(3)["plain"] != true {
		t.Error("other headers were changed")
	}
	if raw, ok := headers(1)["long"].([]byte); !ok || len(raw) != 9000 {
		t.Errorf("%T", headers(1)["long"])
	}
	if raw, ok := headers(2)["x-unreadable-headers"].([]byte); !ok || len(headers(2)) != 1 || len(raw) < 8193*3 {
		t.Errorf("%d headers", len(headers(2)))
	}
	if s := p.Stats(); s.Sessions != 1 || s.Flattened != 3 {
		t.Errorf("%+v", s)
	}

	dead := broker.Queue(t)
	publisher := newPublisher(t, rabbitmq.PublisherConfig{URL: broker.URL(), RoutingKey: dead})
	letters := &acknowledgers.DeadLetters{Publisher: publisher}
	if err := letters.DeadLetter(within(t), got); err != nil {
		t.Fatal(err)
	}
	ack(t, got...)
	for i, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 10), 4) {
		if !bytes.Equal(m.Payload, got[i].Payload) || !reflect.DeepEqual(without(m.Metadata.(*rabbitmq.Metadata).Headers), headers(i)) {
			t.Errorf("the dead letter of %q is not what it was", got[i].Payload)
		}
	}
}
