package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// The layout of a record batch (message format 2, since Kafka 0.11; see
// "Record Batch" in the protocol's documentation). Offsets into the batch:
const (
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atRecordCount     = 57
	batchHeader       = 61

	// atBody is what the length counts from.
	atBody = 12
)

// Bits of a batch's attributes.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

// errCorrupt is within every error about bytes that are not what they should be.
var errCorrupt = errors.New("corrupt batch")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errCorrupt}, args...)...)
}

// batchInfo is the head of a record batch.
type batchInfo struct {
	base, next    int64 // the offsets in it lie in [base, next)
	size          int   // of the whole batch, in bytes
	epoch         int32
	attributes    int16
	baseTimestamp int64
	maxTimestamp  int64
	producerID    int64
	count         int32
}

func (b batchInfo) control() bool       { return b.attributes&attrControl != 0 }
func (b batchInfo) transactional() bool { return b.attributes&attrTransactional != 0 }

// errPartial says that the rest of the batch was cut off, which is how brokers
// end an answer that is full.
var errPartial = errors.New("partial batch")

// peekBatch reads the head of the batch that raw begins with, without checking
// its sum. The error is errPartial, with the size if that is there, or wraps errCorrupt.
func peekBatch(raw []byte) (batchInfo, error) {
	if len(raw) < atBody {
		return batchInfo{}, errPartial
	}
	length := int32(binary.BigEndian.Uint32(raw[atLength:]))
	if length < 0 || int(length) > math.MaxInt32-atBody {
		return batchInfo{}, corrupt("length %d", length)
	}
	size := atBody + int(length)
	if len(raw) > atMagic && raw[atMagic] != 2 {
		return batchInfo{}, corrupt("message format %d, and only 2 is understood", raw[atMagic])
	}
	if size < batchHeader {
		return batchInfo{}, corrupt("length %d is shorter than its head", length)
	}
	if len(raw) < size {
		return batchInfo{size: size}, errPartial
	}
	b := batchInfo{
		base:          int64(binary.BigEndian.Uint64(raw)),
		size:          size,
		epoch:         int32(binary.BigEndian.Uint32(raw[atLeaderEpoch:])),
		attributes:    int16(binary.BigEndian.Uint16(raw[atAttributes:])),
		baseTimestamp: int64(binary.BigEndian.Uint64(raw[atBaseTimestamp:])),
		maxTimestamp:  int64(binary.BigEndian.Uint64(raw[atMaxTimestamp:])),
		producerID:    int64(binary.BigEndian.Uint64(raw[atProducerID:])),
		count:         int32(binary.BigEndian.Uint32(raw[atRecordCount:])),
	}
	delta := int32(binary.BigEndian.Uint32(raw[atLastOffsetDelta:]))
	if b.base < 0 || delta < 0 || b.base > math.MaxInt64-int64(delta)-1 {
		return b, corrupt("offsets %d+%d", b.base, delta)
	}
	b.next = b.base + int64(delta) + 1
	if b.count < 0 || int64(b.count) > int64(delta)+1 {
		return b, corrupt("%d records within %d offsets", b.count, int64(delta)+1)
	}
	return b, nil
}

// checkSum verifies the CRC-32C of a whole batch.
func checkSum(raw []byte, table *crc32.Table) error {
	want := binary.BigEndian.Uint32(raw[atCRC:])
	if got := crc32.Checksum(raw[atAttributes:], table); got != want {
		return corrupt("checksum %08x, and its head says %08x", got, want)
	}
	return nil
}

// extent is what an answer holds of one partition.
type extent struct {
	complete int   // bytes of whole batches
	next     int64 // the offset after them
	records  int64 // as their heads tell; trust it as an upper bound only
	epoch    int32 // of the last of them, as its head tells and no sum covers; -1 for none
	broken   bool  // what follows complete is malformed, rather than cut off
	// doubt is the base offset of a first batch that is not believed yet, -1 for none.
	doubt int64
	held  int64 // the same of another batch, behind those that are believed
	// ahead is how large the batch is that was cut off, as its head tells, in bytes; 0
	// when it does not.
	ahead int
}

// measure walks the heads of the batches in raw, from the offset that was asked
// for, of a log that ends at end. It decodes nothing: that waits until the records
// are handed out. Batches that lead nowhere would be asked for again without end:
// they count as broken.
//
// No sum covers the offset of a batch, and one that is wrong loses messages without
// a word. So one that does not follow what came before it is left for the next
// answer, unless what comes after it agrees, or an answer before said the same:
// doubt is what that one left, or -1.
func measure(raw []byte, from, end, doubt int64) extent {
	e := extent{next: from, epoch: -1, doubt: -1, held: -1}
	for e.complete < len(raw) {
		b, err := peekBatch(raw[e.complete:])
		if errors.Is(err, errPartial) {
			e.ahead = b.size
			break
		}
		if err != nil {
			e.broken = true
			break
		}
		first := e.complete == 0
		if (!first || b.base != doubt) && !b.follows(e.next, end, raw[e.complete+b.size:], first) {
			if e.held = b.base; first {
				e.doubt = b.base
			}
			return e
		}
		e.complete += b.size
		e.next = max(e.next, b.next)
		e.records += int64(b.count)
		e.epoch = b.epoch
	}
	e.broken = e.broken || e.complete > 0 && e.next == from
	return e
}

// follows says whether b's offsets fit between position and what comes after b: rest,
// or the end of the log. A batch must not reach into the one behind it, as one does
// that was moved up by accident. Where it is not next to position, after a gap that
// compaction made, only one behind it can tell. And only the first batch of an answer
// may begin before the position, when that is within it; then the one behind adjoins.
func (b *batchInfo) follows(position, end int64, rest []byte, first bool) bool {
	behind, known := end, false
	if len(rest) >= atLength {
		behind, known = int64(binary.BigEndian.Uint64(rest)), true
	}
	switch {
	case b.base == position:
		return behind >= b.next
	case b.base > position:
		return known && behind >= b.next
	default:
		return known && behind == b.next && first && b.next > position
	}
}
