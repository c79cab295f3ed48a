package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/gobroadway/gobroadway/broadway"
)

// Compression is how a [Publisher] compresses its batches.
type Compression uint8

// The codecs. LZ4 is read, and not written.
const (
	Uncompressed Compression = iota
	Gzip
	Snappy
	Zstd
)

// String is the codec's name: "none", "gzip", "snappy" or "zstd".
func (c Compression) String() string {
	names := [...]string{"none", "gzip", "snappy", "zstd"}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// noTimestamp is the time of records that have none.
const noTimestamp = -1

// encodeBatch writes records as one record batch, all made at timestamp
// (milliseconds since 1970). It copies what it writes.
func encodeBatch(records []*broadway.Record, timestamp int64, compression Compression, table *crc32.Table) ([]byte, error) {
	var body []byte
	for i, r := range records {
		body = appendRecord(body, int64(i), r)
	}
	codec, body, err := compress(compression, body)
	if err != nil {
		return nil, fmt.Errorf("kafka: compressing a batch: %w", err)
	}
	b := make([]byte, batchHeader, batchHeader+len(body))
	binary.BigEndian.PutUint32(b[atLength:], uint32(batchHeader-atBody+len(body)))
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], ^uint32(0))
	b[atMagic] = 2
	binary.BigEndian.PutUint16(b[atAttributes:], codec)
	binary.BigEndian.PutUint32(b[atLastOffsetDelta:], uint32(len(records)-1))
	binary.BigEndian.PutUint64(b[atBaseTimestamp:], uint64(timestamp))
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(timestamp))
	for i := atProducerID; i < atRecordCount; i++ {
		b[i] = 0xff // no producer id, epoch and sequence
	}
	binary.BigEndian.PutUint32(b[atRecordCount:], uint32(len(records)))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], table))
	return b, nil
}

// appendRecord writes the record of an offset within its batch.
func appendRecord(dst []byte, delta int64, r *broadway.Record) []byte {
	rec := make([]byte, 0, 32+len(r.Key)+len(r.Payload))
	rec = append(rec, 0)                  // attributes
	rec = binary.AppendVarint(rec, 0)     // timestamp
	rec = binary.AppendVarint(rec, delta) // offset
	rec = appendBytes(rec, r.Key)
	rec = appendBytes(rec, r.Payload)
	rec = appendHeaders(rec, r.Headers)
	dst = binary.AppendVarint(dst, int64(len(rec)))
	return append(dst, rec...)
}

// appendHeaders writes the number of headers, and each.
func appendHeaders(dst []byte, headers []broadway.Header) []byte {
	dst = binary.AppendVarint(dst, int64(len(headers)))
	for _, h := range headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

// appendBytes writes a length and the bytes; nil has the length -1.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// compress says which codec the result has.
func compress(c Compression, body []byte) (codec uint16, out []byte, err error) {
	switch c {
	case Gzip:
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		if _, err = w.Write(body); err == nil {
			err = w.Close()
		}
		return codecGzip, buf.Bytes(), err
	case Snappy:
		return codecSnappy, snappy.Encode(nil, body), nil
	case Zstd:
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return 0, nil, err
		}
		out = w.EncodeAll(body, nil)
		return codecZstd, out, w.Close()
	}
	return codecNone, body, nil
}

// recordBytes is about what a record takes in a batch.
func recordBytes(r *broadway.Record) int {
	n := 16 + len(r.Key) + len(r.Payload)
	for _, h := range r.Headers {
		n += 10 + len(h.Key) + len(h.Value)
	}
	return n
}

// murmur2 is the hash by which Java's client partitions keys (Austin Appleby's
// MurmurHash2, with Kafka's seed), so that equal keys meet whoever writes them.
func murmur2(data []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k = (k ^ k>>24) * m
		h = h*m ^ k
	}
	if len(data) > 0 {
		for i := len(data) - 1; i >= 0; i-- {
			h ^= uint32(data[i]) << (8 * i)
		}
		h *= m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
