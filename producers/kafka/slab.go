package kafka

import (
	"bytes"

	"github.com/gobroadway/gobroadway/broadway"
)

// The most that messages of one slab weigh, unless it is a single one, and the
// most of them: one that stays in its handler keeps the others.
const (
	slabBytes    = 64 << 10
	slabMessages = 128
)

// slab makes messages that share memory, none of it with the answers of brokers:
// those are large, and one message would keep a whole one. It allocates three
// times per slab, and copies each byte once.
type slab struct {
	messages []*broadway.Message
	metas    []Metadata
	used     int
	bytes    int64 // what the records of used weigh
}

// newSlab makes up to n messages, with their metadata.
func newSlab(n int) ([]*broadway.Message, []Metadata) {
	array, messages, metas := make([]broadway.Message, n), make([]*broadway.Message, n), make([]Metadata, n)
	for i := range array {
		messages[i], array[i].Metadata = &array[i], &metas[i]
	}
	return messages, metas
}

// next is room for a record of size bytes, which is about to be put there. At most
// more records come, this one included.
func (b *slab) next(more int, size int64) (*broadway.Message, *Metadata) {
	if b.used == len(b.messages) || b.bytes+size > slabBytes {
		b.close()
		n := min(more, slabMessages, max(int(slabBytes/max(size, 1)), 1))
		b.messages, b.metas = newSlab(n)
		b.messages[0].BeginSlab()
	}
	m, meta := b.messages[b.used], &b.metas[b.used]
	b.used++
	b.bytes += size
	return m, meta
}

// close copies what the records of the slab alias.
func (b *slab) close() {
	var parts [3 * slabMessages][]byte
	for i := range b.used {
		meta := &b.metas[i]
		parts[3*i], parts[3*i+1], parts[3*i+2] = b.messages[i].Payload, meta.Key, meta.headers
	}
	array := bytes.Join(parts[:3*b.used], nil) // which does not clear it first
	for i := range b.used {
		m, meta := b.messages[i], &b.metas[i]
		m.Payload, array = cut(array, m.Payload)
		meta.Key, array = cut(array, meta.Key)
		meta.headers, array = cut(array, meta.headers)
	}
	*b = slab{}
}

// cut takes the copy of src off the front of array. Nil stays nil.
func cut(array, src []byte) (dst, rest []byte) {
	if src == nil {
		return nil, array
	}
	n := len(src)
	return array[:n:n], array[n:]
}
