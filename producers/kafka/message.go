package kafka

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Metadata is the Metadata of every message that a [Producer] delivers, as
// *Metadata. It is read-only, and valid until the message is settled.
type Metadata struct {
	// Topic, Partition and Offset are where the message stands.
	Topic     string
	Partition int
	Offset    int64
	// Key is nil when the message has none.
	Key []byte

	timestamp int64  // milliseconds since 1970
	headers   []byte // their number, and as encoded
}

// NewMetadata makes the Metadata of a message that no broker has delivered, for tests of
// handlers. A key of nil is none; at is kept in milliseconds.
func NewMetadata(topic string, partition int, offset int64, key []byte, at time.Time, headers ...broadway.Header) *Metadata {
	return &Metadata{
		Topic: topic, Partition: partition, Offset: offset, Key: key,
		timestamp: at.UnixMilli(), headers: appendHeaders(nil, headers),
	}
}

// Time is when the message was made, or appended, as its topic says.
func (m *Metadata) Time() time.Time { return time.UnixMilli(m.timestamp) }

// Headers decodes the headers, in their order. Each call allocates; values alias
// the message.
func (m *Metadata) Headers() []broadway.Header { return decodeHeaders(m.headers) }

// Header is the value of the last header of that name, and whether there is one.
// It does not allocate.
func (m *Metadata) Header(name string) (value []byte, ok bool) {
	r := reader{src: m.headers}
	for range r.varint() {
		key := r.span(r.varint())
		v := r.bytes()
		if string(key) == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// MessageHeaderSize is the number of headers, and the bytes of their keys and
// values in sum: see [broadway.HeaderSizer].
func (m *Metadata) MessageHeaderSize() (n, bytes int) {
	r := reader{src: m.headers}
	n = int(r.varint())
	for range n {
		bytes += len(r.span(r.varint())) + len(r.bytes())
	}
	return n, bytes
}

// Detach is a copy that shares no memory with other messages: see
// [broadway.Detacher].
func (m *Metadata) Detach([]byte) any {
	own := *m
	own.Key, own.headers = bytes.Clone(m.Key), bytes.Clone(m.headers)
	return &own
}

// MessageID is "topic/partition/offset": see [broadway.Identifier].
func (m *Metadata) MessageID() string {
	return fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset)
}

// MessageOrigin is the topic: see [broadway.Enveloped].
func (m *Metadata) MessageOrigin() string { return m.Topic }

// MessageKey is Key: see [broadway.Enveloped].
func (m *Metadata) MessageKey() []byte { return m.Key }

// MessageHeaders is Headers: see [broadway.Enveloped].
func (m *Metadata) MessageHeaders() []broadway.Header { return m.Headers() }

// partitionBy is the order that Kafka promises: equal for messages of equal
// topic, partition and key. Those without a key have no order among themselves.
func partitionBy(seed maphash.Seed) func(*broadway.Message) uint64 {
	return func(m *broadway.Message) uint64 {
		own, mine := m.Ref().Data().(*ownership)
		meta, _ := m.Metadata.(*Metadata)
		if !mine || meta == nil {
			return uint64(m.Seq())
		}
		if meta.Key == nil {
			return mix(own.salt, uint64(m.Seq()))
		}
		return mix(own.salt, maphash.Bytes(seed, meta.Key))
	}
}

// mix spreads the two over all bits (the finaliser of MurmurHash3).
func mix(salt, h uint64) uint64 {
	h ^= salt
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
