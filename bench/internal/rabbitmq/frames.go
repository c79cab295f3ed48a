package rabbitmq

import "encoding/binary"

// The types of AMQP 0-9-1 frames, and the methods of class basic that are looked at.
const (
	frameMethod = 1
	frameBody   = 3
	frameHead   = 7 // type, channel, size
	greeting    = 8 // what a client sends before its first frame

	classBasic    = 60
	methodDeliver = 60
	methodGetOK   = 71
	methodAck     = 80
)

// framer cuts a stream into frames. What is left of one waits for the rest of it.
type framer struct {
	skip int // bytes before the first frame
	rest []byte
}

// feed calls each for every frame that b completes.
func (f *framer) feed(b []byte, each func(kind byte, channel uint16, payload []byte)) {
	n := min(f.skip, len(b))
	f.skip -= n
	f.rest = append(f.rest, b[n:]...)
	at := 0
	for len(f.rest)-at >= frameHead {
		head := f.rest[at:]
		end := frameHead + int(binary.BigEndian.Uint32(head[3:])) + 1
		if len(head) < end {
			break
		}
		each(head[0], binary.BigEndian.Uint16(head[1:]), head[frameHead:end-1])
		at += end
	}
	f.rest = f.rest[:copy(f.rest, f.rest[at:])]
}

// method is the number of a method of class basic, and its arguments; 0 for others.
func method(payload []byte) (number uint16, arguments []byte) {
	if len(payload) < 4 || binary.BigEndian.Uint16(payload) != classBasic {
		return 0, nil
	}
	return binary.BigEndian.Uint16(payload[2:]), payload[4:]
}

// delivered is the tag of a delivery, to a consumer, whose own tag stands before it, or as the answer to a get.
func delivered(number uint16, arguments []byte) (tag uint64, ok bool) {
	switch {
	case number == methodDeliver && len(arguments) > 0:
		arguments = arguments[min(1+int(arguments[0]), len(arguments)):]
	case number != methodGetOK:
		return 0, false
	}
	if len(arguments) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(arguments), true
}

// acked is what the arguments of an ack say.
func acked(arguments []byte) (tag uint64, multiple, ok bool) {
	if len(arguments) < 9 {
		return 0, false, false
	}
	return binary.BigEndian.Uint64(arguments), arguments[8]&1 == 1, true
}

// tags are the deliveries of one channel that are not acknowledged, in the order of their tags, which rise by one.
type tags struct {
	next    uint64   // the tag that waits for its body
	first   uint64   // the tag of numbers[0]
	numbers []uint64 // what the bodies hold; 0 when acknowledged
}

// deliver adds the body of the tag that was announced.
func (t *tags) deliver(body []byte) {
	if t.next == 0 || len(body) < 8 {
		return
	}
	if len(t.numbers) == 0 {
		t.first = t.next
	}
	for t.first+uint64(len(t.numbers)) < t.next {
		t.numbers = append(t.numbers, 0)
	}
	t.numbers = append(t.numbers, binary.LittleEndian.Uint64(body))
	t.next = 0
}

// ack calls settle for what one acknowledgement covers.
func (t *tags) ack(tag uint64, multiple bool, settle func(number uint64)) {
	if tag < t.first || tag >= t.first+uint64(len(t.numbers)) {
		return
	}
	last := int(tag - t.first)
	from := last
	if multiple {
		from = 0
	}
	for i := from; i <= last; i++ {
		if t.numbers[i] != 0 {
			settle(t.numbers[i])
			t.numbers[i] = 0
		}
	}
	done := 0
	for done < len(t.numbers) && t.numbers[done] == 0 {
		done++
	}
	t.first += uint64(done)
	t.numbers = t.numbers[done:]
}
