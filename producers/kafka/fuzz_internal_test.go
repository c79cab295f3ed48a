package kafka

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FuzzSegment feeds whatever a broker might send: reading it ends, never panics,
// hands out rising offsets from the one asked for, and keeps its position.
func FuzzSegment(f *testing.F) {
	seeds := []draft{plainBatch(3, "a", "b"), controlBatch(5, 1, false), transactional(plainBatch(6, "c"), 1)}
	f.Add(joined(seeds...), int64(4), false)
	f.Add(joined(seeds...)[:90], int64(0), true)
	for _, codec := range codecNames {
		d := plainBatch(0, "compressed", "records")
		var id uint16
		id, d.body = compressedWith(f, codec, d.body)
		d.attributes = id
		f.Add(d.bytes(), int64(0), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, from int64, sums bool) {
		if from < 0 {
			return
		}
		raw = bytes.Clone(raw)
		if sums {
			repair(raw)
		}
		s := reading(raw, from, aborted{1, 6})
		d := newDecoder(Config{MaxBatchBytes: 1 << 16, Isolation: ReadCommitted})
		last, count := from-1, int64(0)
		expected := s.waiting()
		for {
			rec, err := s.peek(d)
			if rec == nil {
				if err == nil && s.waiting() != 0 {
					t.Fatalf("%d records are left at the end", s.waiting())
				}
				break
			}
			if rec.offset <= last {
				t.Fatalf("offset %d after %d", rec.offset, last)
			}
			if decodeHeaders(rec.headers); rec.size() > 1<<20 {
				t.Fatalf("a record of %d bytes", rec.size())
			}
			last = rec.offset
			count++
			s.took()
			if s.next != last+1 {
				t.Fatalf("position %d after offset %d", s.next, last)
			}
		}
		if s.next < from || count > expected {
			t.Fatalf("position %d from %d, %d records of %d", s.next, from, count, expected)
		}
	})
}

// repair makes the sums of all batches right, so that what lies behind them is
// reached.
func repair(raw []byte) {
	for len(raw) > batchHeader {
		b, err := peekBatch(raw)
		if err != nil {
			return
		}
		sum := crc32.Checksum(raw[atAttributes:b.size], castagnoli)
		binary.BigEndian.PutUint32(raw[atCRC:], sum)
		raw = raw[b.size:]
	}
}

// FuzzResponse feeds whatever bytes an answer may have.
func FuzzResponse(f *testing.F) {
	answer := kmsg.NewPtrFetchResponse()
	answer.Version = mostFetch
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic = "t"
	part := kmsg.NewFetchResponseTopicPartition()
	part.RecordBatches = plainBatch(0, "a").bytes()
	topic.Partitions = append(topic.Partitions, part)
	answer.Topics = append(answer.Topics, topic)
	f.Add(append([]byte{0, 0, 0, 7}, answer.AppendTo(nil)...), int16(mostFetch))
	f.Add([]byte{0, 0, 0, 7, 1, 2, 3, 4, 5}, int16(4))
	f.Fuzz(func(_ *testing.T, frame []byte, version int16) {
		if version < 4 || version > mostFetch {
			return
		}
		_, _ = decodeResponse(frame, askFor(version, 3, 3), 7)
	})
}
