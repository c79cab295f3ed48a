package kafka

import (
	"encoding/binary"
	"io"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fields takes the compact encoding of Kafka's newer answers off a slice. After the
// first mistake it is bad and returns zeros.
//
// kmsg reads as many tagged fields as an answer announces, whether they are there or
// not, and 2^32 take minutes: so answers with tagged fields are read here. See bodyOf.
type fields struct {
	src []byte
	bad bool
}

// span is the next n bytes.
func (f *fields) span(n uint64) []byte {
	if f.bad || n > uint64(len(f.src)) {
		f.bad, f.src = true, nil
		return nil
	}
	b := f.src[:n:n]
	f.src = f.src[n:]
	return b
}

func (f *fields) int16() int16 {
	if b := f.span(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (f *fields) int32() int32 {
	if b := f.span(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (f *fields) int64() int64 {
	if b := f.span(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.src)
	if n <= 0 || f.bad {
		f.bad, f.src = true, nil
		return 0
	}
	f.src = f.src[n:]
	return v
}

// count is the length of a list whose elements take least bytes each, and of which
// there are not more than most. Null is 0.
func (f *fields) count(least, most int) int {
	n := f.uvarint()
	if n == 0 {
		return 0
	}
	if n--; n > uint64(min(len(f.src)/least, most)) {
		f.bad, f.src = true, nil
		return 0
	}
	return int(n)
}

// bytes are length-prefixed; null is nil.
func (f *fields) bytes() []byte {
	n := f.uvarint()
	if n == 0 {
		return nil
	}
	return f.span(n - 1)
}

// tags reads tagged fields. What known does not want is passed over.
func (f *fields) tags(known func(tag uint64, value fields)) {
	for n := f.uvarint(); n > 0 && !f.bad; n-- {
		tag := f.uvarint()
		value := fields{src: f.span(f.uvarint())}
		if known != nil && !f.bad {
			known(tag, value)
			f.bad = f.bad || value.bad
		}
	}
}

// The least bytes that the elements of an answer to Fetch take.
const (
	leastFetchTopic     = 3
	leastFetchPartition = 37
	leastFetchAborted   = 17
)

// readFetch reads an answer to Fetch of version 12 or 13. Records alias body. What
// was not asked for is malformed: a topic takes a few bytes of an answer, and a
// hundred in memory.
func readFetch(answer *kmsg.FetchResponse, asked *kmsg.FetchRequest, body []byte) error {
	f := &fields{src: body}
	partitions := 0 // that may still come
	for _, t := range asked.Topics {
		partitions += len(t.Partitions)
	}
	answer.ThrottleMillis = f.int32()
	answer.ErrorCode = f.int16()
	answer.SessionID = f.int32()
	answer.Topics = make([]kmsg.FetchResponseTopic, f.count(leastFetchTopic, len(asked.Topics)))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		t.Default()
		if answer.Version >= 13 {
			copy(t.TopicID[:], f.span(uint64(len(t.TopicID))))
		} else {
			t.Topic = string(f.bytes())
		}
		t.Partitions = make([]kmsg.FetchResponseTopicPartition, f.count(leastFetchPartition, partitions))
		partitions -= len(t.Partitions)
		for j := range t.Partitions {
			readFetchPartition(f, &t.Partitions[j])
		}
		f.tags(nil)
	}
	f.tags(nil)
	if f.bad {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func readFetchPartition(f *fields, q *kmsg.FetchResponseTopicPartition) {
	q.Default()
	q.Partition = f.int32()
	q.ErrorCode = f.int16()
	q.HighWatermark = f.int64()
	q.LastStableOffset = f.int64()
	q.LogStartOffset = f.int64()
	q.AbortedTransactions = make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, f.count(leastFetchAborted, math.MaxInt))
	for i := range q.AbortedTransactions {
		a := &q.AbortedTransactions[i]
		a.ProducerID, a.FirstOffset = f.int64(), f.int64()
		f.tags(nil)
	}
	q.PreferredReadReplica = f.int32()
	q.RecordBatches = f.bytes()
	f.tags(func(tag uint64, value fields) {
		if tag == 0 { // where the log diverges from what the asker has read
			q.DivergingEpoch.Epoch, q.DivergingEpoch.EndOffset = value.int32(), value.int64()
		}
	})
}
