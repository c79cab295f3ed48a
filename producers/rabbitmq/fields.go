package rabbitmq

import (
	"math"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// fields reads what is in a frame, as the client does. What is not there is empty, and
// then it is broken.
type fields struct {
	b      []byte
	broken bool
}

func (r *fields) take(n uint64) []byte {
	if r.broken || n > uint64(len(r.b)) {
		r.broken = true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

// uint reads a number of n bytes.
func (r *fields) uint(n uint64) (value uint64) {
	for _, digit := range r.take(n) {
		value = value<<8 | uint64(digit)
	}
	return value
}

// short reads a short string, which often is what it was the last time.
func (r *fields) short(last string) string {
	b := r.take(r.uint(1))
	if string(b) == last {
		return last
	}
	return string(b)
}

func (r *fields) time() time.Time { return time.Unix(int64(r.uint(8)), 0) } //nolint:gosec // the bits of it, as below

// properties reads those of a message, which begin with their flags, over those of the last
// one, as many are the same. The client knows no others, and passes over what comes behind
// them.
func (r *fields) properties(d *amqp.Delivery) {
	flags := r.uint(2)
	has := func(bit int) bool { return flags&(1<<bit) != 0 }
	text := func(bit int, p *string) {
		if has(bit) {
			*p = r.short(*p)
		} else {
			*p = ""
		}
	}
	number := func(bit int, p *uint8) {
		if has(bit) {
			*p = uint8(r.uint(1))
		} else {
			*p = 0
		}
	}
	d.Headers, d.Timestamp = nil, time.Time{}
	text(15, &d.ContentType)
	text(14, &d.ContentEncoding)
	if has(13) {
		d.Headers = r.table()
	}
	number(12, &d.DeliveryMode)
	number(11, &d.Priority)
	text(10, &d.CorrelationId)
	text(9, &d.ReplyTo)
	text(8, &d.Expiration)
	text(7, &d.MessageId)
	if has(6) {
		d.Timestamp = r.time()
	}
	text(5, &d.Type)
	text(4, &d.UserId)
	text(3, &d.AppId)
	var reserved string
	text(2, &reserved)
}

// within is what has a length before it, to be read part by part. It takes no function for a
// part: that would be an allocation for each table.
func (r *fields) within() fields {
	b := r.take(r.uint(4)) // which may find r broken
	return fields{b: b, broken: r.broken}
}

// table reads one. It is not deeper than flattenContent lets it be.
func (r *fields) table() amqp.Table {
	t := amqp.Table{}
	in := r.within()
	for len(in.b) > 0 && !in.broken {
		key := in.short("")
		t[key] = in.value()
	}
	r.broken = in.broken
	return t
}

func (r *fields) array() []any {
	var list []any
	in := r.within()
	for len(in.b) > 0 && !in.broken {
		list = append(list, in.value())
	}
	r.broken = in.broken
	return list
}

// value reads a value with its type.
func (r *fields) value() any {
	switch r.uint(1) {
	case 'V':
		return nil
	case 't':
		return r.uint(1) != 0
	case 'B':
		return uint8(r.uint(1))
	case 'b':
		return int8(r.uint(1)) //nolint:gosec // the bits of it, here and below
	case 's':
		return int16(r.uint(2)) //nolint:gosec // see above
	case 'u':
		return uint16(r.uint(2))
	case 'I':
		return int32(r.uint(4)) //nolint:gosec // see above
	case 'i':
		return uint32(r.uint(4))
	case 'l':
		return int64(r.uint(8)) //nolint:gosec // see above
	case 'f':
		return math.Float32frombits(uint32(r.uint(4)))
	case 'd':
		return math.Float64frombits(r.uint(8))
	case 'D':
		return amqp.Decimal{Scale: uint8(r.uint(1)), Value: int32(r.uint(4))} //nolint:gosec // see above
	case 'T':
		return r.time()
	case 'S':
		return string(r.take(r.uint(4)))
	case 'x':
		return append([]byte{}, r.take(r.uint(4))...)
	case 'F':
		return r.table()
	case 'A':
		return r.array()
	}
	r.broken = true
	return nil
}
