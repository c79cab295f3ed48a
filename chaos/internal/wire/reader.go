package wire

import (
	"encoding/binary"
	"encoding/hex"
)

// reader reads Kafka's types out of a frame. After the first thing that is not there everything is zero, and short is true.
type reader struct {
	b        []byte
	flexible bool // compact lengths and tagged fields
	short    bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *reader) uvarint() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<32 {
		r.take(-1)
		return 0
	}
	r.take(n)
	return int(v)
}

// text reads a string, null as empty.
func (r *reader) text() string {
	if r.flexible {
		return string(r.take(max(r.uvarint()-1, 0)))
	}
	return r.plain()
}

// plain reads a string as inflexible versions, and the header of all versions, have it.
func (r *reader) plain() string {
	return string(r.take(max(int(r.int16()), 0)))
}

// bytes reads bytes, null as empty.
func (r *reader) bytes() []byte {
	if r.flexible {
		return r.take(max(r.uvarint()-1, 0))
	}
	return r.take(max(int(r.int32()), 0))
}

// id reads a topic id.
func (r *reader) id() string { return hex.EncodeToString(r.take(16)) }

// items calls item for each of an array, until something is missing.
func (r *reader) items(item func()) {
	var n int
	if r.flexible {
		n = r.uvarint() - 1
	} else {
		n = int(r.int32())
	}
	for ; n > 0 && !r.short; n-- {
		item()
	}
}

// tags skips the tagged fields that end a structure.
func (r *reader) tags() {
	if !r.flexible {
		return
	}
	for n := r.uvarint(); n > 0 && !r.short; n-- {
		r.uvarint()
		r.take(r.uvarint())
	}
}
