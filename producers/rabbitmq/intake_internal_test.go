package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// onChannel moves a frame to another channel.
func onChannel(n byte, frame []byte) []byte {
	frame = slices.Clone(frame)
	frame[2] = n
	return frame
}

// delivered is the method that begins a delivery to a consumer.
func delivered(consumer string, tag uint64) []byte {
	b := append([]byte{0, 60, 0, 60, byte(len(consumer))}, consumer...)
	b = binary.BigEndian.AppendUint64(b, tag)
	return frame(frameMethod, append(b, "\x01\x02ex\x03key"...))
}

// sized is a frame of properties for a body of n bytes.
func sized(n uint64, table []byte) []byte {
	b := content(table)
	binary.BigEndian.PutUint64(b[frameHead+4:], n)
	return b
}

// message is all frames of a delivery of body to the consumer "tag".
func message(tag uint64, body []byte) []byte {
	return slices.Concat(delivered("tag", tag), sized(uint64(len(body)), nil), frame(frameBody, body))
}

// newIntake makes frames that read from, and the session whose consumer "tag" they take
// the deliveries out for.
func newIntake(from io.Reader, limit int64) (*session, *frames) {
	p := NewProducer(Config{Queue: "q", Logger: slog.New(slog.DiscardHandler)})
	f := &frames{conn: flow{r: from}}
	s := newSession(p, &link{gate: &gate{limit: limit}, frames: f}, new(amqp.Channel), "q")
	f.consumer.Store(&consumer{session: s, tag: "tag"})
	return s, f
}

// taking reads all of a stream, size bytes at a time.
func taking(from io.Reader, size int) (s *session, out []byte) {
	s, f := newIntake(from, 64<<20)
	for b := make([]byte, size); ; {
		n, err := f.Read(b)
		out = append(out, b[:n]...)
		if err != nil {
			return s, out
		}
	}
}

// ways are how a stream may come.
var ways = map[string]func(io.Reader) io.Reader{
	"whole":    func(r io.Reader) io.Reader { return r },
	"bytewise": iotest.OneByteReader,
	"halves":   iotest.HalfReader,
	"late EOF": iotest.DataErrReader,
}

var (
	heartbeat = onChannel(0, frame(8, nil))
	cancelOK  = frame(frameMethod, []byte("\x00\x3c\x00\x1f\x03tag"))
)

// Deliveries are taken out of what the client reads, however they come and whatever is
// between their frames, and all else passes.
func TestDeliveriesAreTakenIn(t *testing.T) {
	other := onChannel(2, frame(frameMethod, []byte("\x00\x32\x00\x0banother")))
	alien := onChannel(2, sized(3, nil))
	elsewhere := onChannel(2, delivered("elsewhere", 1))
	body := bytes.Repeat([]byte("0123456789"), maxFrame/4)
	stream := slices.Concat(other,
		delivered("tag", 1), sized(0, nil),
		delivered("tag", 2), heartbeat, sized(5, entry("kind", field('S', []byte("post")))), other, alien, elsewhere, frame(frameBody, []byte("he")),
		frame(frameBody, nil), heartbeat, frame(frameBody, []byte("llo")),
		delivered("tag", 3), sized(uint64(len(body)), nil), frame(frameBody, body[:maxPayload]), heartbeat,
		frame(frameBody, body[maxPayload:2*maxPayload]), frame(frameBody, body[2*maxPayload:]), other,
		delivered("tag", 4), sized(1, entry("deep", deep(40))), frame(frameBody, []byte("x")), heartbeat)
	pass := slices.Concat(other, heartbeat, other, alien, elsewhere, heartbeat, heartbeat, other, heartbeat)
	for name, from := range ways {
		for _, size := range []int{1, 7, 4096, 1 << 20} {
			s, out := taking(from(bytes.NewReader(stream)), size)
			if !bytes.Equal(out, pass) {
				t.Fatalf("%s, %d at a time: %.300x passed, want %x", name, size, out, pass)
			}
			if s.broken != nil || len(s.buffer) != 4 || s.p.Stats().Flattened != 1 {
				t.Fatalf("%s, %d at a time: %d taken in, %v, %+v", name, size, len(s.buffer), s.broken, s.p.Stats())
			}
			for i, want := range [][]byte{{}, []byte("hello"), body, []byte("x")} {
				m := s.buffer[i]
				meta := m.Metadata.(*Metadata)
				if !bytes.Equal(m.Payload, want) || meta.DeliveryTag != uint64(i+1) || !m.Redelivered || meta.ConsumerTag != "tag" ||
					meta.Exchange != "ex" || meta.RoutingKey != "key" || meta.ContentType != "text" || meta.Priority != 7 || meta.DeliveredAt().IsZero() {
					t.Errorf("%s, %d at a time: message %d is %.100q, of %s %d", name, size, i+1, m.Payload, meta.ConsumerTag, meta.DeliveryTag)
				}
			}
			if kind := s.buffer[1].Metadata.(*Metadata).Headers["kind"]; kind != "post" {
				t.Errorf("the header is %v", kind)
			}
		}
	}
}

// What is not in order, or breaks off, is dropped, and noticed by the next tag; what
// cannot be read, and what another consumer gets, is the client's.
func TestDeliveriesThatAreBrokenAreNotTakenIn(t *testing.T) {
	x := frame(frameBody, []byte("x"))
	first, next := message(1, []byte("x")), message(3, []byte("x"))
	end := delivered("tag", 2)
	end[len(end)-1] = 0
	badBody := frame(frameBody, []byte("x"))
	badBody[len(badBody)-1] = 0
	longer := frame(frameMethod, append(slices.Clone(delivered("tag", 2)[frameHead:len(delivered("tag", 2))-1]), 0))
	short := frame(frameMethod, delivered("tag", 2)[frameHead:20])
	anything := frame(frameMethod, []byte("abcd"))
	reserved := sized(1, nil)
	reserved[frameHead+13] |= 1 << 2 // one more property, which is not there
	for name, c := range map[string]struct{ broken, pass []byte }{
		"no properties":             {slices.Concat(delivered("tag", 2), x), x},
		"properties twice":          {slices.Concat(delivered("tag", 2), sized(1, nil), sized(1, nil)), sized(1, nil)},
		"a body alone":              {x, x},
		"another method":            {slices.Concat(delivered("tag", 2), anything, sized(1, nil)), slices.Concat(anything, sized(1, nil))},
		"another method within":     {slices.Concat(delivered("tag", 2), sized(1, nil), cancelOK, x), slices.Concat(cancelOK, x)},
		"another delivery":          {slices.Concat(delivered("tag", 2), sized(9, nil)), nil},
		"another of another":        {slices.Concat(delivered("tag", 2), delivered("gat", 2), sized(1, nil), x), slices.Concat(delivered("gat", 2), sized(1, nil), x)},
		"a size that nobody has":    {slices.Concat(delivered("tag", 2), sized(1<<63, nil), x, x), nil},
		"no end":                    {end, end},
		"a body without end":        {slices.Concat(delivered("tag", 2), sized(1, nil), badBody), badBody},
		"a method that is short":    {short, short},
		"a method that is longer":   {longer, longer},
		"properties that are short": {slices.Concat(delivered("tag", 2), frame(frameContent, make([]byte, 5))), frame(frameContent, make([]byte, 5))},
		"a property too few":        {slices.Concat(delivered("tag", 2), reserved), reserved},
		"missing":                   {nil, nil},
	} {
		for _, size := range []int{1, 4096} {
			s, out := taking(bytes.NewReader(slices.Concat(first, c.broken, next)), size)
			if !bytes.Equal(out, c.pass) {
				t.Errorf("%s: %x passed, want %x", name, out, c.pass)
			}
			if s.broken == nil || len(s.buffer) != 1 {
				t.Errorf("%s: %d taken in, %v", name, len(s.buffer), s.broken)
			}
		}
	}
	for cut := range len(message(2, []byte("x"))) - 1 { // the end of the connection
		s, _ := taking(bytes.NewReader(append(slices.Clone(first), message(2, []byte("x"))[:1+cut]...)), 4096)
		if s.broken != nil || len(s.buffer) != 1 {
			t.Errorf("cut off after %d: %d taken in, %v", 1+cut, len(s.buffer), s.broken)
		}
	}
}

// A size is believed as far as there are bytes.
func TestAHugeSizeTakesNoMemory(t *testing.T) {
	stream := slices.Concat(delivered("tag", 1), sized(1<<62, nil), frame(frameBody, make([]byte, 1000)))
	s, f := newIntake(bytes.NewReader(stream), 1<<20)
	if _, err := f.Read(make([]byte, 10)); err != io.EOF || len(s.buffer) > 0 {
		t.Fatal(err)
	}
	if n := cap(f.intake.delivery.Body) + cap(f.buffer); n > 4*maxFrame {
		t.Errorf("%d bytes", n)
	}
}

// When the client sees a frame, all deliveries before it are there to be fetched, and
// none after it: an answer to a cancel means that there are no more.
func TestTheClientSeesFramesInOrder(t *testing.T) {
	stream := slices.Concat(message(1, []byte("a")), message(2, []byte("b")), cancelOK, message(3, []byte("c")), heartbeat, heartbeat, message(4, nil))
	for name, from := range ways {
		s, f := newIntake(from(bytes.NewReader(stream)), 1<<20)
		for _, want := range []struct {
			frame []byte
			taken int
		}{{cancelOK, 2}, {heartbeat, 3}, {heartbeat, 3}} {
			b := make([]byte, len(want.frame))
			if _, err := io.ReadFull(f, b); err != nil || !bytes.Equal(b, want.frame) || len(s.buffer) != want.taken {
				t.Errorf("%s: read %x, %v, with %d taken in, want %x with %d", name, b, err, len(s.buffer), want.frame, want.taken)
			}
		}
	}
}

// Another consumer on the channel gets its own from when it asks for them; what the one
// before gets then, is the client's, and so is what comes before there is any.
func TestEachConsumerGetsItsOwn(t *testing.T) {
	early, late := message(1, []byte("early")), message(4, []byte("late"))
	another := bytes.ReplaceAll(message(3, []byte("c")), []byte("\x03tag"), []byte("\x03gat"))
	in, out := io.Pipe()
	s, f := newIntake(in, 1<<20)
	first := f.consumer.Swap(nil)
	written := make(chan struct{})
	write := func(b []byte) {
		go func() { _, _ = out.Write(b); written <- struct{}{} }()
	}
	read := func(want []byte) {
		b := make([]byte, len(want))
		if _, err := io.ReadFull(f, b); err != nil || !bytes.Equal(b, want) {
			t.Errorf("read %x, %v, want %x", b, err, want)
		}
		<-written
	}
	write(slices.Concat(early, heartbeat))
	read(slices.Concat(early, heartbeat))
	f.consumer.Store(first)
	write(slices.Concat(message(1, []byte("a")), message(2, []byte("b")), cancelOK))
	read(cancelOK)
	f.consumer.Store(&consumer{session: s, tag: "gat"})
	write(slices.Concat(late, another, heartbeat))
	read(slices.Concat(late, heartbeat))
	if len(s.buffer) != 3 || s.broken != nil || s.buffer[2].Metadata.(*Metadata).ConsumerTag != "gat" {
		t.Errorf("%d taken in, %v", len(s.buffer), s.broken)
	}
}

// Nothing is taken in above the bound, also of what was read with the message that
// reached it, and the pipeline is told that nothing more comes.
func TestDeliveriesWaitForRoom(t *testing.T) {
	body := make([]byte, 10)
	s, f := newIntake(bytes.NewReader(slices.Concat(message(1, body), message(2, body), message(3, body), message(4, body))), 15+tableWeight)
	changed := make(chan struct{}, 9)
	s.link.gate.tell(func() { s.gated(); changed <- struct{}{} })
	pressed := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pressed
	}
	fetch := func(want int) []*broadway.Message {
		t.Helper()
		m, err := s.take(broadway.Demand{Messages: 9, Bytes: 1 << 20})
		if len(m) != want || err != nil {
			t.Fatalf("%d messages, %v, want %d", len(m), err, want)
		}
		return m
	}
	read := make(chan error, 1)
	go func() { _, err := f.Read(make([]byte, 9)); read <- err }()
	<-changed // the reader waits
	if pressed() {
		t.Error("told to settle while something can be fetched")
	}
	m := fetch(2)
	if !s.link.gate.waits() || !pressed() {
		t.Error("the reader does not wait, or nobody is told")
	}
	s.forget(m[:1])
	<-changed // it goes on
	<-changed // and waits again
	m = append(m[1:], fetch(1)...)
	if !pressed() {
		t.Error("nobody is told")
	}
	s.link.gate.open() // an answer is waited for
	<-changed
	if err := <-read; err != io.EOF {
		t.Error(err)
	}
	m = append(m, fetch(1)...)
	s.forget(m)
	if s.link.gate.held != 0 || pressed() {
		t.Errorf("%d bytes are held, pressed %v", s.link.gate.held, pressed())
	}
}

// What comes to a session that has ended is nobody's.
func TestNothingIsTakenInAfterTheEnd(t *testing.T) {
	s, f := newIntake(bytes.NewReader(message(1, []byte("x"))), 1<<20)
	(&owner{session: s}).seal(true)
	if _, err := f.Read(make([]byte, 9)); err != io.EOF || len(s.buffer) != 0 || s.ledger.Open() != 0 || s.link.gate.held != 0 {
		t.Errorf("%d taken in, %v", len(s.buffer), err)
	}
}

// A message that waits long keeps no other's payload, and nothing of what was read.
func TestATakenMessageKeepsNoOther(t *testing.T) {
	const n, size = 128, 20_000
	var stream []byte
	for tag := range uint64(n) {
		stream = append(stream, message(tag+1, make([]byte, size))...)
	}
	before := heap()
	s, _ := taking(bytes.NewReader(stream), 4096)
	kept := s.buffer[n/2]
	for _, m := range s.buffer {
		if m != kept { // it has settled
			m.Payload, m.Metadata = nil, nil
		}
	}
	s.buffer = nil
	if grown := heap() - before; grown > 20*size {
		t.Errorf("one message of %d bytes keeps %d", size, grown)
	}
	runtime.KeepAlive(kept)
	runtime.KeepAlive(s)
	runtime.KeepAlive(stream)
}

// FuzzIntake: whatever comes, nothing panics, no more is taken in than came, and how the
// bytes come makes no difference.
func FuzzIntake(f *testing.F) {
	f.Add(slices.Concat(delivered("tag", 1), sized(1, entry("k", []byte("V"))), frame(frameBody, []byte("x"))), uint16(3))
	f.Add(slices.Concat(delivered("tag", 1), sized(1<<40, nil), delivered("tag", 2), heartbeat), uint16(100))
	f.Add(slices.Concat(message(1, []byte("body")), cancelOK, onChannel(2, message(2, nil))), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		s, out := taking(bytes.NewReader(slices.Clone(stream)), 1+int(size))
		again, whole := taking(iotest.HalfReader(bytes.NewReader(slices.Clone(stream))), 1<<20)
		if !bytes.Equal(out, whole) || len(s.buffer) != len(again.buffer) || fmt.Sprint(s.broken) != fmt.Sprint(again.broken) {
			t.Errorf("%d at a time: %d taken in (%v) and %x passed; else %d (%v) and %x", 1+int(size), len(s.buffer), s.broken, out, len(again.buffer), again.broken, whole)
		}
		total := len(out)
		for _, m := range s.buffer {
			total += len(m.Payload)
		}
		if total > len(stream) {
			t.Errorf("%d bytes became %d", len(stream), total)
		}
	})
}

// A table or an array that ends before its length, or within a value, breaks what holds it.
func TestWhatEndsEarlyIsBroken(t *testing.T) {
	for name, b := range map[string]string{
		"no length":              "\x00\x00\x00",
		"a length beyond":        "\x00\x00\x00\x09\x01kV",
		"within a key":           "\x00\x00\x00\x02\x05k",
		"within a value":         "\x00\x00\x00\x04\x01kI\x00",
		"an array beyond":        "\x00\x00\x00\x07\x01kA\x00\x00\x00\x09",
		"within an array":        "\x00\x00\x00\x09\x01kA\x00\x00\x00\x02s\x00",
		"a table within, beyond": "\x00\x00\x00\x07\x01kF\x00\x00\x00\x01",
	} {
		r := fields{b: []byte(b)}
		if r.table(); !r.broken {
			t.Errorf("%s: it is not noticed", name)
		}
	}
}
