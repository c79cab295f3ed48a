package rabbitmq

import (
	"encoding/binary"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// consumer is whose deliveries are taken in.
type consumer struct {
	*session
	tag string
}

// intake puts together what a consumer gets, in the goroutine that reads the socket,
// and gives it to the session many messages at a time. The client would make some thirty
// allocations for each, and pass it through two further goroutines. It does not see
// deliveries at all; all other frames it sees, as it does those that are refused here: it
// knows what to do about them.
type intake struct {
	to       *session
	channel  uint16        // what is put together comes on it
	awaits   byte          // the type of the frame that comes next; 0 while nothing is put together
	size     uint64        // of the body, as announced
	delivery amqp.Delivery // as far as it is there; for the rest, the last one

	messages []broadway.Message  // not yet used
	batch    []*broadway.Message // not yet delivered
	bytes    int64               // what they weigh
	came     time.Time           // when the first of them did
}

const (
	frameMethod = 1
	frameBody   = 3
	frameEnd    = 0xCE
	methodHead  = 4           // class and method
	deliver     = 60<<16 | 60 // basic.deliver
	// maxPayload is what the client reads of a frame.
	maxPayload = maxFrame - frameHead - 1
)

// concerns says whether the frame that begins with b is to be accepted or refused here,
// once it is whole, and how much of it must be there to know that, or to do it.
func (in *intake) concerns(b []byte) (want int, yes bool) {
	if len(b) < frameHead {
		return frameHead, false
	}
	size := binary.BigEndian.Uint32(b[3:])
	if size > maxPayload {
		return 0, false
	}
	whole := frameHead + int(size) + 1
	if b[0] == frameMethod && size >= methodHead {
		if len(b) < frameHead+methodHead {
			return frameHead + methodHead, false
		}
		if binary.BigEndian.Uint32(b[frameHead:]) == deliver {
			return whole, true
		}
	}
	if in.awaits == 0 || binary.BigEndian.Uint16(b[1:]) != in.channel {
		return 0, false
	}
	if b[0] != in.awaits { // out of order: what began is dropped, as by the client
		in.awaits = 0
		return 0, false
	}
	return whole, true
}

// accept takes in a whole frame, unless c does not get it, or it is broken: then what
// began on its channel is dropped, which the next delivery tag tells.
func (in *intake) accept(c *consumer, b []byte) bool {
	awaited, channel := in.awaits, binary.BigEndian.Uint16(b[1:])
	if channel == in.channel {
		in.awaits = 0
	}
	if b[len(b)-1] != frameEnd {
		return false
	}
	r := fields{b: b[frameHead : len(b)-1]}
	switch {
	case b[0] == frameMethod:
		if !in.begin(c, &r) {
			return false
		}
		in.channel, in.awaits = channel, frameContent
		return true
	case awaited == frameContent:
		r.take(4) // class and weight
		in.size = r.uint(8)
		r.properties(&in.delivery)
		if r.broken {
			return false
		}
		// As the client does: no more than a frame before more than that is there.
		in.delivery.Body = make([]byte, 0, min(in.size, maxFrame))
	default:
		in.delivery.Body = append(in.delivery.Body, r.b...)
	}
	if in.awaits = frameBody; uint64(len(in.delivery.Body)) >= in.size {
		in.awaits = 0
		in.end()
	}
	return true
}

// begin reads the method that begins a delivery, and waits until there is room for it.
func (in *intake) begin(c *consumer, r *fields) bool {
	d := &in.delivery // as yet the last one, or one on another channel
	r.take(methodHead)
	consumer, tag, again := r.short(c.tag), r.uint(8), r.uint(1)&1 != 0
	exchange, key := r.short(d.Exchange), r.short(d.RoutingKey)
	if r.broken || len(r.b) > 0 || consumer != c.tag {
		return false
	}
	if in.to != c.session {
		in.flush()
		in.to = c.session
	}
	if g := in.to.link.gate; g.full(in.bytes) {
		in.flush()
		g.pass()
	}
	d.ConsumerTag, d.DeliveryTag, d.Redelivered, d.Exchange, d.RoutingKey, d.Body = consumer, tag, again, exchange, key, nil
	return true
}

// end adds what was put together to the batch.
func (in *intake) end() {
	if len(in.messages) == 0 {
		in.messages = make([]broadway.Message, min(slabSize, in.to.prefetch))
	}
	m := &in.messages[0]
	in.messages = in.messages[1:]
	if len(in.batch) == 0 {
		in.came = time.Now()
	}
	d := &in.delivery
	in.to.fill(m, d, in.came)
	d.Body, d.Headers = nil, nil // the message's alone
	in.batch = append(in.batch, m)
	in.bytes += m.Size()
}

// flush delivers the batch. It is called before the reader waits for anything, and before
// the client sees what came after it.
func (in *intake) flush() {
	if len(in.batch) == 0 {
		return
	}
	in.to.deliver(in.batch)
	clear(in.batch)
	in.batch, in.bytes = in.batch[:0], 0
}
