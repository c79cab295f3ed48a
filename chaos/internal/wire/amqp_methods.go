package wire

import (
	"encoding/binary"
	"fmt"
)

// AMQP's methods that are read, class and method in one.
const (
	connectionClose     = 10<<16 | 50
	connectionBlocked   = 10<<16 | 60
	connectionUnblocked = 10<<16 | 61
	channelOpen         = 20<<16 | 10
	channelClose        = 20<<16 | 40
	basicConsume        = 60<<16 | 20
	basicConsumeOK      = 60<<16 | 21
	basicCancel         = 60<<16 | 30
	basicPublish        = 60<<16 | 40
	basicReturn         = 60<<16 | 50
	basicDeliver        = 60<<16 | 60
	basicGetOK          = 60<<16 | 71
	basicAck            = 60<<16 | 80
	basicReject         = 60<<16 | 90
	basicNack           = 60<<16 | 120
	confirmSelect       = 85<<16 | 10
)

// method reads one. The bits of a method stand in one byte, the first one lowest.
func (a *amqp) method(s *amqpSide, at int64, number uint16, payload []byte) error {
	c := a.channel(number)
	in := c.side(s)
	if in.method != nil || in.left > 0 {
		return fmt.Errorf("a method within a message")
	}
	r := &amqpReader{b: payload}
	id := uint32(r.uint16())<<16 | uint32(r.uint16())
	e := Event{At: at, Conn: a.conn, Channel: number, Session: c.session}
	tell := a.state(c, r, id, &e)
	if !tell {
		tell = settling(r, id, s.fromClient, &e)
	}
	if !tell && c.message(r, id, &e) {
		in.method = &e // told with its header
	}
	if r.short {
		return fmt.Errorf("method %d.%d is cut short", id>>16, id&0xFFFF)
	}
	if tell {
		a.emit(e)
	}
	return nil
}

// state reads methods that change a connection, a channel, or its consumers.
func (a *amqp) state(c *channel, r *amqpReader, id uint32, e *Event) bool {
	switch id {
	case connectionClose, channelClose:
		e.Kind = ChannelClose
		if id == connectionClose {
			e.Kind = ConnClose
		}
		e.Code, e.Text = int(r.uint16()), r.text()
	case connectionBlocked:
		e.Kind, e.Text = Blocked, r.text()
	case connectionUnblocked:
		e.Kind = Unblocked
	case channelOpen:
		*c = channel{session: c.session + 1, consumers: map[string]consumer{}}
		e.Kind, e.Session = ChannelOpen, c.session
	case confirmSelect:
		c.confirms = true
		return false
	case basicConsume:
		r.uint16()
		e.Kind, e.Queue, e.Consumer = Consume, r.text(), r.text()
		e.NoAck = r.bits()&2 != 0
		if c.pending = (consumer{e.Queue, e.NoAck}); e.Consumer != "" {
			c.consumers[e.Consumer] = c.pending
		}
	case basicConsumeOK:
		if name := r.text(); c.consumers[name] == (consumer{}) {
			c.consumers[name] = c.pending
		}
		return false
	default:
		return false
	}
	return true
}

// settling reads methods that settle messages, or end their flow. An ack of the broker confirms a publishing.
func settling(r *amqpReader, id uint32, fromClient bool, e *Event) bool {
	switch id {
	case basicAck:
		e.Kind = Ack
		if !fromClient {
			e.Kind = Confirm
		}
		e.Tag, e.Multiple = r.uint64(), r.bits()&1 != 0
	case basicNack:
		e.Kind = Nack
		if !fromClient {
			e.Kind = Unconfirm
		}
		e.Tag = r.uint64()
		bits := r.bits()
		e.Multiple, e.Requeue = bits&1 != 0, bits&2 != 0
	case basicReject:
		e.Kind, e.Tag, e.Requeue = Reject, r.uint64(), r.bits()&1 != 0
	case basicCancel:
		e.Kind = Cancel
		if !fromClient {
			e.Kind = CancelServer
		}
		e.Consumer = r.text()
	default:
		return false
	}
	return true
}

// message reads methods that a header follows.
func (c *channel) message(r *amqpReader, id uint32, e *Event) bool {
	switch id {
	case basicPublish:
		r.uint16()
		e.Kind, e.Exchange, e.RoutingKey = Publish, r.text(), r.text()
		r.bits()
	case basicReturn:
		e.Kind, e.Code, e.Text, e.Exchange, e.RoutingKey = Return, int(r.uint16()), r.text(), r.text(), r.text()
	case basicDeliver:
		e.Kind, e.Consumer, e.Tag = Deliver, r.text(), r.uint64()
		e.Redelivered, e.Exchange, e.RoutingKey = r.bits()&1 != 0, r.text(), r.text()
		e.Queue, e.NoAck = c.consumers[e.Consumer].queue, c.consumers[e.Consumer].noAck
	case basicGetOK:
		e.Kind, e.Tag = GetOK, r.uint64()
		e.Redelivered, e.Exchange, e.RoutingKey = r.bits()&1 != 0, r.text(), r.text()
	default:
		return false
	}
	return true
}

// amqpReader reads AMQP's types. After the first thing that is not there everything is zero, and short is true.
type amqpReader struct {
	b     []byte
	short bool
}

func (r *amqpReader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *amqpReader) bits() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *amqpReader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *amqpReader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *amqpReader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads a short string.
func (r *amqpReader) text() string { return string(r.take(int(r.bits()))) }

// messageID reads properties up to that one. Flags say which there are, from the highest bit on: content type and encoding,
// headers, delivery mode, priority, correlation id, reply to, expiration, message id.
func (r *amqpReader) messageID() string {
	flags := r.uint16()
	for bit := 15; bit > 7; bit-- {
		if flags>>bit&1 == 0 {
			continue
		}
		switch bit {
		case 13:
			r.take(int(r.uint32()))
		case 12, 11:
			r.bits()
		default:
			r.text()
		}
	}
	if flags>>7&1 == 0 {
		return ""
	}
	return r.text()
}
