package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AMQP's types of frames, the byte that ends each, and the largest that is believed (brokers negotiate 131,072).
const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE
	mostAMQPFrame  = 16 << 20
)

// amqp follows one connection.
type amqp struct {
	link
	client, server amqpSide
	channels       map[uint16]*channel
}

// amqpSide is one direction of a connection.
type amqpSide struct {
	fromClient bool
	greeting   int // bytes of the protocol header that are still to come
	buf        []byte
	skip       int // bytes of a body that are still to come
}

// channel is a channel number, through all of its instances.
type channel struct {
	session   int
	confirms  bool
	published uint64
	consumers map[string]consumer
	pending   consumer   // asked for without a name
	content   [2]content // to the broker, and from it
}

type consumer struct {
	queue string
	noAck bool
}

// content is a message on its way: a method, a header, and bodies.
type content struct {
	method *Event // that waits for its header
	left   uint64 // bytes of bodies
}

// NewAMQP returns a decoder of one connection to RabbitMQ, without TLS. emit must not block, nor call the decoder.
func NewAMQP(conn int64, emit func(Event)) Decoder {
	return &amqp{
		link:     link{conn: conn, emit: emit},
		client:   amqpSide{fromClient: true, greeting: 8},
		channels: map[uint16]*channel{},
	}
}

// Client takes what the client sent.
func (a *amqp) Client(at int64, p []byte) {
	a.feed(at, p, func(at int64, p []byte) error { return a.read(&a.client, at, p) })
}

// Server takes what the broker sent.
func (a *amqp) Server(at int64, p []byte) {
	a.feed(at, p, func(at int64, p []byte) error { return a.read(&a.server, at, p) })
}

func (a *amqp) read(s *amqpSide, at int64, p []byte) (err error) {
	for len(p) > 0 && err == nil {
		switch {
		case s.greeting > 0:
			p, err = s.greet(p)
		case s.skip > 0:
			n := min(s.skip, len(p))
			p, s.skip = p[n:], s.skip-n
		case len(s.buf) < 7:
			s.buf, p = gather(s.buf, p, 7)
			if len(s.buf) == 7 {
				err = a.begin(s)
			}
		default:
			s.buf, p = gather(s.buf, p, s.want())
			if len(s.buf) == s.want() {
				err = a.finish(s, at)
			}
		}
	}
	return err
}

func (s *amqpSide) greet(p []byte) ([]byte, error) {
	s.buf, p = gather(s.buf, p, s.greeting)
	if len(s.buf) < s.greeting {
		return p, nil
	}
	if string(s.buf) != "AMQP\x00\x00\x09\x01" {
		return p, errors.New("not the header of AMQP 0-9-1")
	}
	s.greeting, s.buf = 0, s.buf[:0]
	return p, nil
}

func (s *amqpSide) size() int { return int(binary.BigEndian.Uint32(s.buf[3:])) }

// want is how many bytes are kept of the frame that has begun: of a body, only what frames it.
func (s *amqpSide) want() int {
	if s.buf[0] == frameBody {
		return 8
	}
	return 7 + s.size() + 1
}

func (a *amqp) begin(s *amqpSide) error {
	size := s.size()
	if size > mostAMQPFrame {
		return fmt.Errorf("a frame of %d bytes", size)
	}
	switch s.buf[0] {
	case frameMethod, frameHeader:
		return nil
	case frameBody:
		s.skip = size
		return a.body(s, uint64(size))
	case frameHeartbeat:
		if size > 0 {
			return errors.New("a heartbeat that is not empty")
		}
		return nil
	}
	return fmt.Errorf("a frame of type %d", s.buf[0])
}

func (a *amqp) finish(s *amqpSide, at int64) error {
	frame := s.buf
	defer func() { s.buf = s.buf[:0] }()
	if frame[len(frame)-1] != frameEnd {
		return errors.New("a frame without its end")
	}
	number, payload := binary.BigEndian.Uint16(frame[1:]), frame[7:len(frame)-1]
	switch frame[0] {
	case frameMethod:
		return a.method(s, at, number, payload)
	case frameHeader:
		return a.header(s, at, number, payload)
	}
	return nil
}

func (a *amqp) channel(number uint16) *channel {
	c := a.channels[number]
	if c == nil {
		c = &channel{consumers: map[string]consumer{}}
		a.channels[number] = c
	}
	return c
}

func (c *channel) side(s *amqpSide) *content {
	if s.fromClient {
		return &c.content[0]
	}
	return &c.content[1]
}

func (a *amqp) body(s *amqpSide, size uint64) error {
	in := a.channel(binary.BigEndian.Uint16(s.buf[1:])).side(s)
	if in.method != nil || size > in.left {
		return errors.New("a body that belongs to no message")
	}
	in.left -= size
	return nil
}

// header completes a message's event: from here on only its body is missing.
func (a *amqp) header(s *amqpSide, at int64, number uint16, payload []byte) error {
	c := a.channel(number)
	in := c.side(s)
	if in.method == nil {
		return errors.New("a header that belongs to no message")
	}
	e := *in.method
	r := amqpReader{b: payload}
	r.uint16() // class
	r.uint16() // weight
	in.method, in.left = nil, r.uint64()
	e.ID = r.messageID()
	if r.short {
		return errors.New("a header that is cut short")
	}
	e.At = at
	if e.Kind == Publish && c.confirms {
		c.published++
		e.Tag = c.published
	}
	a.emit(e)
	return nil
}
