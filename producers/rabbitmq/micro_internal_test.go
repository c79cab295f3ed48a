package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
)

// usual is a header table as publishers and quorum queues set it.
func usual() []byte {
	return slices.Concat(
		entry("kind", field('S', []byte("post"))), entry("x-delivery-count", []byte("l\x00\x00\x00\x00\x00\x00\x00\x01")),
		entry("trace", field('F', entry("id", field('x', make([]byte, 16))))),
	)
}

// delivery is the frames of one message.
func delivery(table []byte) []byte {
	return slices.Concat(frame(1, make([]byte, 40)), content(table), frame(3, make([]byte, 200)))
}

// frameOps read what a broker sends, in pieces of size bytes, through the filter.
func frameOps() []micro.Op {
	const n = 100
	op := func(name string, table []byte, size int) micro.Op {
		stream := bytes.Repeat(delivery(table), n)
		from := bytes.NewReader(stream)
		f, p := &frames{conn: flow{r: from}}, make([]byte, size)
		work := make([]byte, len(stream)) // the filter writes to what it reads
		return micro.Op{Name: name, Run: func() {
			copy(work, stream)
			from.Reset(work)
			total := 0
			for {
				read, err := f.Read(p)
				total += read
				if err == io.EOF {
					break
				}
			}
			if total != len(stream) || f.blind {
				panic(fmt.Sprint(total, " of ", len(stream), " bytes"))
			}
		}}
	}
	return []micro.Op{
		op("100-messages/no-headers/64KiB", nil, 64<<10),
		op("100-messages/usual-headers/64KiB", usual(), 64<<10),
		op("100-messages/usual-headers/4KiB", usual(), 4<<10), // as the client reads
		op("100-messages/too-deep-headers/64KiB", entry("deep", deep(33)), 64<<10),
	}
}

// intakeOps put deliveries together: a body, a Metadata and a table of headers for each are
// allocated, and Messages for many at once.
func intakeOps() []micro.Op {
	const n, prefetch = 100, 50
	one := message(1, make([]byte, 200))
	stream, tag := bytes.Repeat(one, n), uint64(0)
	from, p := bytes.NewReader(nil), make([]byte, 1)
	s, f := newIntake(from, 1<<20)
	s.prefetch = prefetch
	var sent []acknowledgers.Settlement
	return []micro.Op{{Name: "100-messages", Allocs: 3*n + n/prefetch, Run: func() {
		for i := range n { // tags rise
			tag++
			binary.BigEndian.PutUint64(stream[i*len(one)+frameHead+methodHead+1+len("tag"):], tag)
		}
		from.Reset(stream)
		if _, err := f.Read(p); err != io.EOF || len(s.buffer) != n || s.broken != nil {
			panic(fmt.Sprint(len(s.buffer), " of ", n, " messages: ", err, s.broken))
		}
		s.forget(s.buffer)
		for _, m := range s.buffer {
			s.ledger.Settle(uint64(m.Seq()), acknowledgers.Acked)
		}
		sent, s.buffer = s.ledger.Flush(sent[:0]), s.buffer[:0]
	}}}
}

// tableOps turn headers of the client into ours, and back.
func tableOps() []micro.Op {
	nested := amqp.Table{"id": make([]byte, 16)}
	d := amqp.Delivery{
		Exchange: "posts", RoutingKey: "computerscience", Redelivered: true, DeliveryTag: 7, MessageId: "17",
		Headers: amqp.Table{"kind": "post", "x-delivery-count": int64(1), "trace": nested},
		Body:    make([]byte, 200),
	}
	bare := d
	bare.Headers = nil
	m, none := new(Metadata), new(Metadata)
	m.fill(&d, "posts")
	out := m.Republishing(d.Body)
	return []micro.Op{
		{Name: "fill/no-headers", Run: func() { none.fill(&bare, "posts") }},
		{Name: "fill/usual-headers", Run: func() {
			d.Headers["trace"] = nested // fill has made a Table of it
			m.fill(&d, "posts")
		}},
		{Name: "weight", Run: func() { m.weight() }},
		{Name: "message-headers", Allocs: micro.Unheld, Run: func() { m.MessageHeaders() }},
		{Name: "message-id", Allocs: micro.Unheld, Run: func() { _ = m.MessageID() }},
		{Name: "message-id-by-digest", Allocs: micro.Unheld, Run: func() {
			unnamed := *none
			unnamed.ID = ""
			_ = unnamed.MessageID()
		}},
		{Name: "wire", Allocs: micro.Unheld, Run: func() {
			if _, err := out.wire(1 << 20); err != nil {
				panic(err)
			}
		}},
	}
}

// copyOps make publishings of dead letters: of a message of AMQP, and of one of Kafka.
func copyOps() []micro.Op {
	m := &Metadata{
		Queue: "posts", Headers: Table{"kind": "post", "n": int32(7)}, ContentType: "text/plain", ID: "17", Timestamp: time.Unix(1, 0),
	}
	headers := []broadway.Header{
		{Key: "kind", Value: []byte("post")}, {Key: "n", Value: []byte("7")},
		{Key: acknowledgers.HeaderStage, Value: []byte("processor")}, {Key: acknowledgers.HeaderReason, Value: []byte("refused")},
	}
	own := broadway.Record{Destination: "dead", Payload: make([]byte, 200), Headers: headers, ID: "17", Source: m}
	foreign := own
	foreign.Key, foreign.Source = []byte("key"), struct{}{}
	return []micro.Op{
		{Name: "of-amqp", Allocs: micro.Unheld, Run: func() { publishing(&own) }},
		{Name: "of-another-broker", Allocs: micro.Unheld, Run: func() { publishing(&foreign) }},
	}
}

// gateOps are what each read, delivery and settling does at the gate.
func gateOps() []micro.Op {
	g := &gate{limit: 1 << 20}
	return []micro.Op{{Name: "add-pass-done", Run: func() {
		g.add(200)
		g.pass()
		g.done(200)
	}}}
}

func BenchmarkFrames(b *testing.B) { micro.Benchmark(b, frameOps()) }
func BenchmarkIntake(b *testing.B) { micro.Benchmark(b, intakeOps()) }
func BenchmarkTable(b *testing.B)  { micro.Benchmark(b, tableOps()) }
func BenchmarkCopy(b *testing.B)   { micro.Benchmark(b, copyOps()) }
func BenchmarkGate(b *testing.B)   { micro.Benchmark(b, gateOps()) }

func TestAllocations(t *testing.T) {
	micro.Allocations(t, slices.Concat(frameOps(), intakeOps(), tableOps(), gateOps()))
}
