package kafka

import (
	"encoding/binary"
	"math"

	"github.com/gobroadway/gobroadway/broadway"
)

// record is one record of a batch. Its slices alias the (decompressed) batch.
type record struct {
	offset    int64
	timestamp int64 // milliseconds since 1970
	key       []byte
	value     []byte
	headers   []byte // their number, and as encoded; checked; nil when there are none
}

// size is what the record weighs against a demand. The number of headers does not
// count: it takes a byte even when there are none.
func (r *record) size() int64 {
	return int64(len(r.key) + len(r.value) + max(len(r.headers)-1, 0))
}

// reader takes varints and byte strings off a slice. After the first mistake it
// is bad and returns zeros.
type reader struct {
	src []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.src = true, nil
}

// varint is zigzag-encoded. Nearly all in a record take one or two bytes.
func (r *reader) varint() int64 {
	if len(r.src) >= 2 {
		a, b := r.src[0], r.src[1]
		if a < 0x80 {
			r.src = r.src[1:]
			return int64(a>>1) ^ -int64(a&1)
		}
		if b < 0x80 {
			r.src = r.src[2:]
			return (int64(b)<<6 | int64(a&0x7f)>>1) ^ -int64(a&1)
		}
	}
	v, n := binary.Varint(r.src)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.src = r.src[n:]
	return v
}

// bytes reads a length and so many bytes; a length of -1 is nil.
func (r *reader) bytes() []byte {
	n := r.varint()
	if n == -1 && !r.bad {
		return nil
	}
	return r.span(n)
}

func (r *reader) span(n int64) []byte {
	if n < 0 || n > int64(len(r.src)) || r.bad {
		r.fail()
		return nil
	}
	b := r.src[:n:n]
	r.src = r.src[n:]
	return b
}

// nowhere is beyond every slice, and a sum with a length does not overflow.
const nowhere = math.MaxInt / 2

// varint is what the zigzag-encoded number at b[at:] says, and where it ends: nowhere
// when there is none. Nearly all in a record take one or two bytes.
func varint(b []byte, at int) (v int64, end int) {
	if uint(at) < uint(len(b)) {
		b = b[at:]
		first := int64(b[0])
		if first < 0x80 {
			return first>>1 ^ -(first & 1), at + 1
		}
		if len(b) >= 2 && b[1] < 0x80 {
			return (int64(b[1])<<6 | first&0x7f>>1) ^ -(first & 1), at + 2
		}
		if v, n := binary.Varint(b); n > 0 {
			return v, at + n
		}
	}
	return 0, nowhere
}

// field is the bytes at b[at:] with their length before them, and where they end; a
// length of -1 is nil.
func field(b []byte, at int) (value []byte, end int) {
	n, at := varint(b, at)
	switch {
	case n >= 0 && n <= int64(len(b)-at):
		end = at + int(n)
		return b[at:end:end], end
	case n == -1 && at <= len(b):
		return nil, at
	}
	return nil, nowhere
}

// nextRecord reads the record that src begins with, within batch, and returns
// what follows it.
func nextRecord(src []byte, batch *batchInfo, rec *record) (rest []byte, err error) {
	size, at := varint(src, 0)
	if size <= 0 || size > int64(len(src)-at) {
		return nil, corrupt("a record exceeds its batch")
	}
	end := at + int(size)
	body := src[:end]
	delta, at := varint(body, at+1) // no attribute of a record is in use
	rec.timestamp = batch.baseTimestamp + delta
	if batch.attributes&attrLogAppendTime != 0 {
		rec.timestamp = batch.maxTimestamp
	}
	delta, at = varint(body, at)
	rec.offset = batch.base + delta
	rec.key, at = field(body, at)
	rec.value, at = field(body, at)
	if at > end || !rec.cutHeaders(body[at:end:end]) {
		return nil, corrupt("malformed record")
	}
	if rec.offset < batch.base || rec.offset >= batch.next {
		return nil, corrupt("record %d lies outside of its batch", rec.offset)
	}
	return src[end:], nil
}

// cutHeaders checks and takes the headers: what is left of a record.
func (r *record) cutHeaders(b []byte) bool {
	if len(b) == 1 && b[0] == 0 {
		r.headers = nil
		return true
	}
	r.headers = b
	count, at := varint(b, 0)
	if count < 0 || count > int64(len(b)-at) {
		return false
	}
	for ; count > 0 && at <= len(b); count-- {
		n, start := varint(b, at)
		if n < 0 || n > int64(len(b)-start) {
			return false
		}
		_, at = field(b, start+int(n))
	}
	return at == len(b)
}

// decodeHeaders reads what nextRecord has checked.
func decodeHeaders(encoded []byte) []broadway.Header {
	r := reader{src: encoded}
	count := r.varint()
	if count <= 0 {
		return nil
	}
	headers := make([]broadway.Header, count)
	for i := range headers {
		headers[i].Key = string(r.span(r.varint()))
		headers[i].Value = r.bytes()
	}
	return headers
}

// abortMarker says whether a control batch ends an aborted transaction. Its
// record's key holds a version and a type, 0 for abort.
func abortMarker(records []byte, batch *batchInfo) (bool, error) {
	var rec record
	if batch.count == 0 {
		return false, nil // compacted away
	}
	if _, err := nextRecord(records, batch, &rec); err != nil {
		return false, err
	}
	if len(rec.key) < 4 {
		return false, corrupt("control record with a key of %d bytes", len(rec.key))
	}
	return binary.BigEndian.Uint16(rec.key[2:]) == 0, nil
}
