package kafka

import (
	"encoding/binary"

	"github.com/gobroadway/gobroadway/broadway"
)

// record is one record of a batch. Its slices alias the (decompressed) batch.
type record struct {
	offset    int64
	timestamp int64 // milliseconds since 1970
	key       []byte
	value     []byte
	headers   []byte // their number, and as encoded; checked
}

// size is what the record weighs against a demand. The number of headers does not
// count: it takes a byte even when there are none.
func (r *record) size() int64 { return int64(len(r.key) + len(r.value) + len(r.headers) - 1) }

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

// nextRecord reads the record that src begins with, within batch, and returns
// what follows it.
func nextRecord(src []byte, batch *batchInfo, rec *record) (rest []byte, err error) {
	outer := reader{src: src}
	body := outer.span(outer.varint())
	if outer.bad || len(body) == 0 {
		return nil, corrupt("a record exceeds its batch")
	}
	r := reader{src: body[1:]} // no attribute of a record is in use
	rec.timestamp = batch.baseTimestamp + r.varint()
	if batch.attributes&attrLogAppendTime != 0 {
		rec.timestamp = batch.maxTimestamp
	}
	rec.offset = batch.base + r.varint()
	rec.key = r.bytes()
	rec.value = r.bytes()
	rec.headers = r.src
	count := r.varint()
	if count < 0 || count > int64(len(r.src)) {
		r.fail()
	}
	for range count {
		if r.bad {
			break
		}
		r.span(r.varint())
		r.bytes()
	}
	if r.bad || len(r.src) != 0 {
		return nil, corrupt("malformed record")
	}
	if rec.offset < batch.base || rec.offset >= batch.next {
		return nil, corrupt("record %d lies outside of its batch", rec.offset)
	}
	return outer.src, nil
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
