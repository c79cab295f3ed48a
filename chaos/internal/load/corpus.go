package load

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// A message of a corpus cannot name itself. On Kafka its id is its place, on RabbitMQ its message-id.

// PlaceID is the id of a record of a corpus.
func PlaceID(topic string, partition int32, offset int64) string {
	return fmt.Sprintf("%s/%d/%d", topic, partition, offset)
}

// SumRecord is the sum over a record: key, value, and headers in their order, nil told from empty.
func SumRecord(key, value []byte, headers []kgo.RecordHeader) string {
	parts := [][]byte{key, value}
	for _, header := range headers {
		parts = append(parts, []byte(header.Key), header.Value)
	}
	return ledger.Sum(parts...)
}

// nasty are texts that something downstream may take for more than text.
var nasty = []string{
	"\x00", "\x1b[2J\x1b]0;owned\x07", "<script>alert(1)</script>", "a\r\nlevel=ERROR msg=forged", "=cmd|' /C calc'!A0", "../../etc/cron.d/x",
	"%s%n%x", "\xff\xfe\xfd", "\u202egnp.exe", strings.Repeat("\n", 1000), "{\"a\":", "' OR 1=1 --", "${jndi:ldap://127.0.0.1/}", "",
}

// Huge is the size of the largest body of a corpus.
const Huge = 10 << 20

// rareKafka are the cases that stand in a corpus once.
func rareKafka() []*kgo.Record {
	many := make([]kgo.RecordHeader, 1000)
	for i := range many {
		many[i] = kgo.RecordHeader{Key: fmt.Sprintf("h%d", i%10), Value: fmt.Appendf(nil, "%d", i)}
	}
	zeros := make([]byte, Huge)
	text := []byte("body")
	return []*kgo.Record{
		{Value: zeros}, {Value: bytes.Repeat([]byte("a"), Huge), Key: text}, {Key: bytes.Repeat([]byte("k"), 1<<20), Value: text},
		{Value: text, Headers: []kgo.RecordHeader{{Key: "large", Value: make([]byte, 900<<10)}}}, {Value: text, Headers: many},
	}
}

// commonKafka are cases that repeat with other values.
func commonKafka(random *rand.Rand) *kgo.Record {
	text := nasty[random.IntN(len(nasty))]
	value, key := []byte(text), fmt.Appendf(nil, "k%d", random.IntN(50))
	switch random.IntN(12) {
	case 0:
		return &kgo.Record{Value: value}
	case 1:
		return &kgo.Record{Key: key}
	case 2:
		return &kgo.Record{}
	case 3:
		return &kgo.Record{Key: []byte{}, Value: []byte{}}
	case 4:
		return &kgo.Record{Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: "", Value: value}, {Key: "nil"}, {Key: "empty", Value: []byte{}}}}
	case 5:
		return &kgo.Record{Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: "twice", Value: []byte("1")}, {Key: "twice", Value: []byte("2")}}}
	case 6:
		return &kgo.Record{Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: text, Value: value}}}
	case 7: // the broker refuses times far from its own
		return &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(1)}
	case 8:
		return &kgo.Record{Key: []byte(text), Value: value}
	case 9:
		return &kgo.Record{Key: key, Value: gzipped(value)}
	case 10:
		return &kgo.Record{Key: key, Value: bytes.Repeat([]byte{0}, random.IntN(64<<10))}
	default:
		random := noise(random, 1+random.IntN(8<<10))
		return &kgo.Record{Key: key, Value: random, Headers: []kgo.RecordHeader{{Key: "x-broadway-reason", Value: []byte("forged")}}}
	}
}

func gzipped(p []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(p) // a buffer does not fail
	_ = w.Close()
	return out.Bytes()
}

func noise(random *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// KafkaCorpus writes n malformed and hostile records to a topic, whose settings must allow bodies of [Huge] and odd timestamps. Headers of the framework's
// own names are among them: what it copies, it must not let be forged, so [SumRecord] of such a dead letter leaves them out on
// both sides.
func KafkaCorpus(ctx context.Context, broker, dir, topic string, n int, random *rand.Rand, sent *Sent) (err error) {
	writer, err := ledger.Create(dir, ledger.KindProduced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	records := rareKafka()
	for len(records) < n {
		records = append(records, commonKafka(random))
	}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for i, codec := range codecs {
		var share []*kgo.Record
		for j := i; j < len(records); j += len(codecs) {
			share = append(share, records[j])
		}
		if err := produceCorpus(ctx, broker, topic, share, codec, writer, sent); err != nil {
			return err
		}
	}
	return nil
}

func produceCorpus(ctx context.Context, broker, topic string, records []*kgo.Record, codec kgo.CompressionCodec, writer *ledger.Writer, sent *Sent) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-corpus"), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(Huge+(1<<20)), kgo.BrokerMaxWriteBytes(Huge*4))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, record := range records {
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return fmt.Errorf("a record of %d bytes and %d headers: %w", len(record.Value), len(record.Headers), err)
		}
		sent.count(ledger.Acked)
		err := writer.Append(ledger.Produced{
			ID: PlaceID(topic, record.Partition, record.Offset), Sum: SumRecord(record.Key, record.Value, Own(record.Headers)), State: ledger.Acked,
			Source: topic, Partition: record.Partition, Offset: record.Offset, At: ledger.Now(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Own are the headers that do not have the framework's prefix.
func Own(headers []kgo.RecordHeader) []kgo.RecordHeader {
	return slices.DeleteFunc(slices.Clone(headers), func(h kgo.RecordHeader) bool { return strings.HasPrefix(h.Key, "x-broadway-") })
}

// canonical writes a value of an AMQP table so that equal ones, with equal types, are equal text. The framework's own types for tables
// and decimals have other names than the client's: kind gives what they are.
func canonical(out *strings.Builder, value any, kind func(any) (name string, table map[string]any)) {
	name, table := kind(value)
	if table != nil {
		out.WriteString("table{")
		keys := make([]string, 0, len(table))
		for key := range table {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			fmt.Fprintf(out, "%q:", key)
			canonical(out, table[key], kind)
			out.WriteByte(',')
		}
		out.WriteByte('}')
		return
	}
	if list, ok := value.([]any); ok {
		out.WriteString("array[")
		for _, item := range list {
			canonical(out, item, kind)
			out.WriteByte(',')
		}
		out.WriteByte(']')
		return
	}
	if at, ok := value.(time.Time); ok {
		fmt.Fprintf(out, "time:%d", at.Unix())
		return
	}
	out.WriteString(name)
	if !strings.HasPrefix(name, "decimal ") {
		fmt.Fprintf(out, ":%v", value)
	}
}

// SumAMQP is the sum over a body and its headers, with their types, those with the framework's prefix apart. kind tells what a value
// of a type of its own is: a table, or a decimal by the name "decimal SCALE VALUE".
func SumAMQP(body []byte, headers map[string]any, kind func(any) (name string, table map[string]any)) string {
	own := make(map[string]any, len(headers))
	for key, value := range headers {
		if !strings.HasPrefix(key, "x-broadway-") && key != "x-delivery-count" {
			own[key] = value
		}
	}
	var text strings.Builder
	canonical(&text, own, func(v any) (string, map[string]any) {
		if table, ok := v.(map[string]any); ok {
			return "table", table
		}
		return kind(v)
	})
	return ledger.Sum(append([]byte{}, body...), []byte(text.String())) // AMQP does not tell nil from empty
}

// AMQPKind is the kind of [SumAMQP] for the client's types.
func AMQPKind(value any) (string, map[string]any) {
	switch v := value.(type) {
	case amqp.Table:
		return "table", v
	case amqp.Decimal:
		return fmt.Sprintf("decimal %d %d", v.Scale, v.Value), nil
	}
	return fmt.Sprintf("%T", value), nil
}

// commonAMQP is a case of RabbitMQ's corpus.
func commonAMQP(random *rand.Rand) amqp.Publishing {
	text := nasty[random.IntN(len(nasty))]
	short := text[:min(len(text), 100)]
	m := amqp.Publishing{Body: []byte(text)}
	switch random.IntN(9) {
	case 0:
		m.Body = nil
	case 1:
		m.Headers = amqp.Table{"nested": nested(Depth)}
	case 2:
		m.Headers = everyType(random)
	case 3:
		m.Priority, m.Expiration = uint8(random.IntN(256)), "3600000"
	case 4:
		m.ReplyTo, m.CorrelationId, m.Type, m.AppId = "amq.rabbitmq.elsewhere", short, short, short
	case 5:
		m.ContentType, m.ContentEncoding = short, "gzip"
	case 6:
		m.Headers = amqp.Table{short: text, "": "no name", "twice": []any{"1", "2"}}
	case 7:
		m.Timestamp = time.Unix(int64(random.IntN(1<<31)), 0)
	default:
		m.Body, m.Headers = noise(random, 1+random.IntN(8<<10)), amqp.Table{"x-broadway-reason": "forged"}
	}
	return m
}

// Depth is how deep tables are nested in RabbitMQ's corpus. amqp091-go reads 32; what is nested deeper comes as
// bytes, which producers/rabbitmq tests.
const Depth = 30

func nested(depth int) amqp.Table {
	table := amqp.Table{"leaf": int32(1)}
	for range depth {
		table = amqp.Table{"t": table}
	}
	return table
}

func everyType(random *rand.Rand) amqp.Table {
	return amqp.Table{
		"nil": nil, "bool": random.IntN(2) == 0, "int8": int8(-7), "byte": byte(200), "int16": int16(-300), "int32": random.Int32(),
		"int64": random.Int64(), "float32": float32(1.5), "float64": random.Float64(), "decimal": amqp.Decimal{Scale: 2, Value: 150},
		"string": "text", "bytes": []byte{0, 1, 2}, "time": time.Unix(1_700_000_000, 0), "array": []any{int32(1), "a", nil, amqp.Table{"x": true}},
		"table": amqp.Table{"y": []any{}},
	}
}

// rareAMQP are the cases that stand in a corpus once: 77 frames, and headers that nearly fill one.
func rareAMQP() []amqp.Publishing {
	return []amqp.Publishing{
		{Body: make([]byte, Huge)},
		{Body: []byte("body"), Headers: amqp.Table{"large": strings.Repeat("x", 120<<10)}},
	}
}

// RabbitCorpus publishes n malformed and hostile messages to a queue, each with its id as message-id.
func RabbitCorpus(ctx context.Context, url, dir, queue string, n int, random *rand.Rand, sent *Sent) (err error) {
	publish, done, err := newConfirmed(url, dir, queue, sent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	messages := rareAMQP()
	for len(messages) < n {
		messages = append(messages, commonAMQP(random))
	}
	for i, m := range messages {
		m.MessageId = ID(queue, 0, i)
		if err := publish(ctx, m, SumAMQP(m.Body, m.Headers, AMQPKind)); err != nil {
			return err
		}
	}
	return nil
}
