package kafka

import (
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
	messages []broadway.Message
	metas    []Metadata
	used     int
	bytes    int64 // what the records of used weigh
}

// next is room for a record of size bytes, which is about to be put there. At most
// more records come, this one included.
func (b *slab) next(more int, size int64) (*broadway.Message, *Metadata) {
	if b.used == len(b.messages) || b.bytes+size > slabBytes {
		b.close()
		n := min(more, slabMessages, max(int(slabBytes/max(size, 1)), 1))
		b.messages, b.metas = make([]broadway.Message, n), make([]Metadata, n)
	}
	m, meta := &b.messages[b.used], &b.metas[b.used]
	if b.used == 0 {
		m.BeginSlab()
	}
	b.used++
	b.bytes += size
	return m, meta
}

// close copies what the records of the slab alias.
func (b *slab) close() {
	total := 0
	for i := range b.used {
		meta := &b.metas[i]
		total += len(b.messages[i].Payload) + len(meta.Key) + len(meta.headers)
	}
	array := make([]byte, 0, total)
	for i := range b.used {
		m, meta := &b.messages[i], &b.metas[i]
		m.Payload, array = moved(m.Payload, array)
		meta.Key, array = moved(meta.Key, array)
		meta.headers, array = moved(meta.headers, array)
	}
	*b = slab{}
}

// moved appends src to array, and returns the copy there. Nil stays nil.
func moved(src, array []byte) (dst, rest []byte) {
	if src == nil {
		return nil, array
	}
	n := len(array)
	array = append(array, src...)
	return array[n:len(array):len(array)], array
}
