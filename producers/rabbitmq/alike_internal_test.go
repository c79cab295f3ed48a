package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"
)

// server is the least that the client talks to: its consumer "tag" on channel 1 gets
// stream. It answers no calls that it does not know, nor any to close once it is mute.
type server struct {
	conn   net.Conn
	stream []byte
	mute   bool
}

// serve returns when the client has gone.
func (s *server) serve() {
	out := make(chan []byte, 10) // or both sides could wait for the other to read
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := range out {
			_, _ = s.conn.Write(b)
		}
	}()
	defer func() {
		_ = s.conn.Close()
		close(out)
		<-ended
	}()
	if _, err := io.ReadFull(s.conn, make([]byte, 8)); err != nil {
		return
	}
	method := func(channel byte, args string) []byte { return onChannel(channel, frame(frameMethod, []byte(args))) }
	out <- method(0, "\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US")
	for {
		head := make([]byte, frameHead)
		if _, err := io.ReadFull(s.conn, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(s.conn, body); err != nil {
			return
		}
		if head[0] != frameMethod {
			continue
		}
		switch binary.BigEndian.Uint32(body) {
		case 10<<16 | 11: // start-ok: tune
			out <- method(0, "\x00\x0a\x00\x1e\x00\x00\x00\x02\x00\x00\x00\x00")
		case 10<<16 | 40:
			out <- method(0, "\x00\x0a\x00\x29\x00")
		case 20<<16 | 10:
			out <- method(1, "\x00\x14\x00\x0b\x00\x00\x00\x00")
		case 60<<16 | 20:
			out <- slices.Concat(method(1, "\x00\x3c\x00\x15\x03tag"), s.stream)
		case 10<<16 | 50:
			if !s.mute {
				out <- method(0, "\x00\x0a\x00\x33")
			}
		}
	}
}

// open lets a client talk to s, through frames.
func (s *server) open(t require) (*link, <-chan amqp.Delivery) {
	here, there := net.Pipe()
	s.conn = there
	l := &link{socket: here, gate: new(gate), frames: &frames{conn: here}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve()
	}()
	t.Cleanup(func() {
		_ = here.Close()
		<-served
	})
	var err error
	if l.conn, err = amqp.Open(l.frames, amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{}}, FrameSize: maxFrame}); err != nil {
		t.Fatal(err)
	}
	ch, err := l.conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume("q", "tag", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, deliveries
}

type require interface {
	Cleanup(func())
	Fatal(...any)
}

// byClient is what the client makes of a stream of n deliveries, or of as many as it
// reads.
func byClient(t require, stream []byte, n int) []amqp.Delivery {
	l, deliveries := (&server{stream: stream}).open(t)
	var got []amqp.Delivery
	for d := range deliveries {
		if got = append(got, d); len(got) == n {
			break
		}
	}
	l.cut()
	for range deliveries { // until it is closed
	}
	return got
}

// printed is all of a message.
func printed(m Metadata, redelivered bool) string {
	m.came = time.Time{}
	return fmt.Sprintf("%#v %v", m, redelivered)
}

// compare says how the messages that are taken in differ from those that the client
// reads.
func compare(s *session, want []amqp.Delivery) error {
	if len(s.buffer) != len(want) {
		return fmt.Errorf("%d deliveries taken in (%v), of %d", len(s.buffer), s.broken, len(want))
	}
	for i, d := range want {
		var meta Metadata
		meta.fill(&d, "q")
		m := s.buffer[i]
		if got, want := printed(*m.Metadata.(*Metadata), m.Redelivered), printed(meta, d.Redelivered); got != want || !bytes.Equal(m.Payload, d.Body) {
			return fmt.Errorf("message %d is\n%.2000s, want\n%.2000s", i+1, got, want)
		}
	}
	return nil
}

// drawn are things as they are on the wire.
type drawn struct{ *rapid.T }

func (d drawn) bytes(most int, what string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, most).Draw(d.T, what)
}

func (d drawn) n(most int, what string) int { return rapid.IntRange(0, most).Draw(d.T, what) }

func (d drawn) short(what string) []byte { return entry(string(d.bytes(255, what)), nil) }

func (d drawn) fixed(n int, what string) []byte {
	return rapid.SliceOfN(rapid.Byte(), n, n).Draw(d.T, what)
}

// value is one of any type.
func (d drawn) value(depth int) []byte {
	kinds := "VtBbsuIilfdDTSxFA"
	if depth > 3 {
		kinds = kinds[:len(kinds)-2]
	}
	kind := kinds[d.n(len(kinds)-1, "kind")]
	sizes := map[byte]int{'V': 0, 't': 1, 'B': 1, 'b': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'l': 8, 'f': 4, 'd': 8, 'D': 5, 'T': 8}
	if n, ok := sizes[kind]; ok {
		return append([]byte{kind}, d.fixed(n, "value")...)
	}
	switch kind {
	case 'F':
		return field('F', d.table(depth+1))
	case 'A':
		var list []byte
		for range d.n(4, "elements") {
			list = append(list, d.value(depth+1)...)
		}
		return field('A', list)
	}
	return field(kind, d.bytes(40, "value"))
}

func (d drawn) table(depth int) (table []byte) {
	for range d.n(4, "entries") {
		table = append(table, entry(string(d.bytes(9, "key")), d.value(depth))...)
	}
	return table
}

// properties is a frame of them, for a body of size bytes.
func (d drawn) properties(size int) []byte {
	flags := uint16(d.n(1<<16-1, "flags"))
	b := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(size))
	b = binary.BigEndian.AppendUint16(b, flags)
	for bit := 15; bit > 1; bit-- {
		switch {
		case flags&(1<<bit) == 0:
		case bit == 13:
			table := d.table(0)
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(table))), table...)
		case bit == 12 || bit == 11:
			b = append(b, d.fixed(1, "number")...)
		case bit == 6:
			b = append(b, d.fixed(8, "time")...)
		default:
			b = append(b, d.short("text")...)
		}
	}
	return frame(frameContent, append(b, d.bytes(9, "padding")...))
}

// delivery is all frames of one, and what may be between them.
func (d drawn) delivery(tag uint64) []byte {
	between := func() []byte {
		return [...][]byte{nil, heartbeat, onChannel(7, frame(frameBody, []byte("of another channel")))}[d.n(2, "between")]
	}
	method := binary.BigEndian.AppendUint64([]byte("\x00\x3c\x00\x3c\x03tag"), tag)
	method = slices.Concat(method, d.fixed(1, "redelivered"), d.short("exchange"), d.short("key"))
	body := d.bytes(200, "body")
	b := slices.Concat(frame(frameMethod, method), between(), d.properties(len(body)), between())
	for len(body) > 0 {
		n := d.n(len(body), "part")
		b = slices.Concat(b, frame(frameBody, body[:n]), between())
		body = body[n:]
	}
	return b
}

// Whatever is delivered, what is made of it here is what the client makes of it.
func TestDeliveriesAreReadAsTheClientReadsThem(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drawn{rt}
		var stream []byte
		n := 1 + d.n(3, "deliveries")
		for tag := range n {
			stream = append(stream, d.delivery(uint64(tag+1))...)
		}
		size := 1 + d.n(5000, "size")
		want := byClient(rt, stream, n)
		s, _ := taking(bytes.NewReader(slices.Clone(stream)), size)
		if err := compare(s, want); err != nil || len(want) != n {
			rt.Fatalf("%d of %d: %v", len(want), n, err)
		}
	})
}

// FuzzAlike: nor is anything taken in that the client would not have read, or read
// otherwise, and nothing is left out that it reads.
func FuzzAlike(f *testing.F) {
	f.Add([]byte("\xff\xff\x04text\x00\x00\x00\x00\x00\x01\x02\x01a\x01b\x01c\x01d\x00\x00\x00\x00\x00\x00\x00\x07\x01e\x01f\x01g\x01h"), []byte("body"), uint8(1))
	f.Add([]byte("\x20\x00\x00\x00\x00\x03\x01kV"), []byte{}, uint8(0))
	f.Add([]byte("\x20\x00\x00\x00\x00\x09\x01kA\x00\x00\x00\x09t\x01"), []byte{1}, uint8(3))
	f.Fuzz(func(t *testing.T, properties, body []byte, cut uint8) {
		if len(properties) > maxPayload/2 || len(body) > maxPayload/2 {
			return
		}
		b := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(len(body)))
		half := min(int(cut), len(body))
		head := frame(frameContent, append(b, properties...))
		stream := slices.Concat(delivered("tag", 1), head, frame(frameBody, body[:half]), frame(frameBody, body[half:]), message(2, []byte("next")))
		want := byClient(t, stream, 2)
		s, _ := taking(bytes.NewReader(slices.Clone(stream)), 4096)
		if len(s.buffer) == 0 && brokenOff(head[frameHead:len(head)-1]) {
			return // the client reads an array in it to the end of the table
		}
		if s.broken != nil {
			want = want[:0] // it has dropped the first, and here the session ends
		}
		if len(want) == 1 && want[0].DeliveryTag == 2 {
			t.Fatalf("the client has dropped what was taken in: %d", len(s.buffer))
		}
		if err := compare(s, want); err != nil {
			t.Error(err)
		}
	})
}

// brokenOff says that a frame of properties has a table that breaks off, and is too small
// for frames to mend it.
func brokenOff(content []byte) bool {
	content = slices.Clone(content)
	flattenContent(content)
	var d amqp.Delivery
	r := fields{b: content}
	r.take(12)
	r.properties(&d)
	return r.broken && len(content) < 14+2*256+4+len(unreadable)+6 && strings.Contains(string(content), "A")
}

// However mute a server is, a connection to it is closed by the deadline; one that has
// ended is closed without an error.
func TestClosingEndsByItsDeadline(t *testing.T) {
	for _, mute := range []bool{false, true} {
		l, deliveries := (&server{mute: mute}).open(t)
		limit := patienceOf(mute)
		err := l.close(time.Now().Add(limit))
		if (err != nil) != mute {
			t.Errorf("mute %v: %v", mute, err)
		}
		if _, open := <-deliveries; open {
			t.Error("a delivery came")
		}
		if err := l.close(time.Now().Add(time.Hour)); err != nil {
			t.Errorf("closing again: %v", err)
		}
		if _, err := l.socket.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the socket is open: %v", err)
		}
	}
}

// patienceOf is how long to wait for a server.
func patienceOf(mute bool) time.Duration {
	if mute {
		return 50 * time.Millisecond
	}
	return time.Minute
}
