package kafka

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/gobroadway/gobroadway/broadway"
)

// aborted is one aborted transaction within an answer.
type aborted struct{ producer, first int64 }

// frame is one answer in memory. Its segments alias it, so that it counts against
// its broker's budget until the last of them is handed out or dropped. The
// session's mutex guards it.
type frame struct {
	node        int32
	size, users int
	buffer      []byte // goes back to the producer's buffers
}

// segment is what one answer holds of one partition: batches that are opened one
// at a time, as their records are handed out. It is read by the goroutine that
// runs Fetch, but for the first fields; see partition.decoding.
type segment struct {
	// The session's mutex guards these.
	frame    *frame
	expected int64 // waiting, as it was when nobody read

	rest   []byte // batches that are not opened yet
	left   int64  // records in rest and in the open batch, at most
	next   int64  // every offset below it was handed out or passed over
	broken bool   // after rest something follows that is no batch
	held   int64  // the base offset of a batch after rest that was not believed, -1 for none

	// aborted lists transactions to leave out, by their first offset, and
	// dropping the producers that are within one. Both are empty unless only
	// committed messages are wanted.
	aborted  []aborted
	dropping map[int64]bool

	open    bool
	batch   batchInfo
	records []byte // what is not handed out yet of the open batch
	// opened is the open batch decompressed, and expanded what that takes in memory
	// beyond its frame.
	opened   []byte
	expanded int64
	growth   int64 // by how much the last batch grew, in units of ratioUnit; 0 for none
	unread   int32 // records in records
	peeked   bool  // rec is the first of records, which after follows
	rec      record
	after    []byte

	// resume is where the batch ends that an error is about, 0 when its head
	// does not tell.
	resume int64
}

// decoder opens batches. It is for one goroutine. What batches are decompressed into is
// used again once every message of theirs was copied out of it.
type decoder struct {
	decompressor
	table    *crc32.Table
	pool     broadway.MessagePool[Metadata]
	left     [][]byte     // batches that were left, while messages may alias them
	spans    []span       // of the haul at work, used again
	epochs   []epochStart // likewise
	isolated bool         // only committed messages
}

func newDecoder(cfg Config) *decoder {
	return &decoder{
		decompressor: decompressor{limit: cfg.MaxBatchBytes, mostSpare: cfg.MaxBytes / 4},
		table:        crc32.MakeTable(crc32.Castagnoli),
		isolated:     cfg.Isolation == ReadCommitted,
	}
}

// reuse takes the memory of the batches that were left, which no message aliases any
// more.
func (d *decoder) reuse() {
	for _, b := range d.left {
		d.keep(b)
	}
	clear(d.left)
	d.left = d.left[:0]
}

// peek is the next record to hand out, nil when there is none left. Errors wrap
// errCorrupt.
func (s *segment) peek(d *decoder) (*record, error) {
	for !s.peeked {
		var err error
		switch {
		case s.open && s.unread > 0:
			err = s.read()
		case s.open:
			s.pass(d)
		case len(s.rest) > 0:
			err = s.openBatch(d)
		case s.broken:
			s.resume = 0
			err = corrupt("no batch at offset %d", s.next)
		default:
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return &s.rec, nil
}

// took tells that the record that peek returned was handed out, or left out.
func (s *segment) took() {
	s.next = s.rec.offset + 1
	s.consume(s.after, 1)
}

// consume moves on over n records, to rest.
func (s *segment) consume(rest []byte, n int) {
	s.records, s.peeked = rest, false
	s.unread -= int32(n)
	s.left -= int64(n)
}

// read decodes the next record of the open batch. Records before the offset that
// was asked for, which whole batches bring along, are left out.
func (s *segment) read() (err error) {
	s.after, err = nextRecord(s.records, &s.batch, &s.rec)
	if err != nil {
		return fmt.Errorf("at offset %d: %w", s.next, err)
	}
	if s.peeked = s.rec.offset >= s.next; !s.peeked {
		s.consume(s.after, 1)
	}
	return nil
}

// pass leaves the open batch, with the offsets at its end that compaction took.
func (s *segment) pass(d *decoder) {
	if s.opened != nil {
		d.left = append(d.left, s.opened)
	}
	s.open, s.records, s.opened, s.expanded = false, nil, nil, 0
	s.next = max(s.next, s.batch.next)
}

// openBatch checks and decompresses the next batch, or passes over it.
func (s *segment) openBatch(d *decoder) error {
	b, err := peekBatch(s.rest)
	if err != nil {
		s.resume = 0
		return err
	}
	raw := s.rest[:b.size]
	s.resume = b.next
	if after, err := peekBatch(s.rest[b.size:]); err == nil && after.base > b.base {
		s.resume = after.base // in case that it is b's offsets that are wrong
	} else if len(s.rest) == b.size && s.held > b.base {
		s.resume = s.held
	}
	if err := checkSum(raw, d.table); err != nil {
		return fmt.Errorf("at offset %d: %w", b.base, err)
	}
	wanted, err := s.wanted(&b, raw[batchHeader:], d)
	if err != nil {
		return fmt.Errorf("at offset %d: %w", b.base, err)
	}
	s.batch, s.open = b, true
	if wanted {
		if s.records, err = d.expand(b.attributes&attrCodec, raw[batchHeader:]); err != nil {
			s.open = false
			return fmt.Errorf("at offset %d: %w", b.base, err)
		}
		s.unread = b.count
		s.growth = int64(len(s.records)) * ratioUnit / int64(b.size)
		if b.attributes&attrCodec != codecNone {
			s.opened, s.expanded = s.records, int64(cap(s.records))
		}
	} else {
		s.left -= int64(b.count)
	}
	s.rest = s.rest[b.size:]
	return nil
}

// wanted says whether the records of a batch are messages to hand out: not
// control records ever, and not aborted ones when only committed are asked for.
func (s *segment) wanted(b *batchInfo, records []byte, d *decoder) (bool, error) {
	if d.isolated {
		for len(s.aborted) > 0 && s.aborted[0].first < b.next {
			if s.dropping == nil {
				s.dropping = map[int64]bool{}
			}
			s.dropping[s.aborted[0].producer] = true
			s.aborted = s.aborted[1:]
		}
	}
	if b.control() {
		if d.isolated {
			abort, err := abortMarker(records, b)
			if err != nil {
				return false, err
			}
			if abort {
				delete(s.dropping, b.producerID)
			}
		}
		return false, nil
	}
	return b.next > s.next && (!b.transactional() || !s.dropping[b.producerID]), nil
}

// span is a run of offsets that were handed out, or passed as they have settled
// in an earlier epoch.
type span struct {
	first, count int64
	passed       bool
}

// epochStart says that messages from offset on were written under a leader epoch.
type epochStart struct {
	offset int64
	epoch  int32
}

// haul is what one visit to a partition's segments brings up.
type haul struct {
	messages []*broadway.Message
	spans    []span
	epochs   []epochStart
	bytes    int64
	next     int64 // the position that was reached
	// Only offsets below may be handed out, unless it is 0; held says that the message
	// at offset was not, as it lies above.
	below, offset int64
	offsetEpoch   int32
	held          bool
	// tooLarge is the weight of the next message when it alone did not fit.
	tooLarge int64
	err      error // a batch is corrupt
	// leader is the newest leader epoch that there is, and cut the first offset that
	// has settled, as the ledger says, and whose record was written after that: 0 for
	// none. The log was cut there, and its offsets are used anew.
	leader int32
	cut    int64
	// full says to stop at the end of the open batch, and ended that it was reached.
	full, ended bool
}

// goesOn says whether nothing ends the visit.
func (h *haul) goesOn() bool {
	return h.err == nil && h.tooLarge == 0 && h.cut == 0 && !h.held && !h.ended
}

// fill hands out up to most records of s that weigh up to bytes in sum, as
// messages of own. It allocates per slab, not per message. Decompressors are
// other people's code, and their input is the log's: a panic is an error about
// this batch.
func (s *segment) fill(d *decoder, own *ownership, most int, bytes int64, h *haul) {
	defer func() {
		if r := recover(); r != nil {
			h.err = corrupt("decoding panicked: %v", r)
			h.next = s.next
		}
	}()
	s.hand(d, own, int(min(int64(most), s.waiting())), bytes, h)
	if s.open && s.readOut() {
		s.pass(d) // let go of its memory
	}
	d.reuse()
	if s.waiting() == 0 && h.err == nil && h.cut == 0 {
		// Nothing is left but control batches and gaps: pass over them now, so
		// that the position does not stop before them.
		_, h.err = s.peek(d)
	}
	h.next = s.next
	if s.batch.size > 0 {
		// Also that of a batch that brought no message, so that the position and
		// the epoch before it belong together.
		h.reached(s.next-1, s.batch.epoch)
	}
}

// hand hands out up to n records: runs of them as they stand, and those of short
// batches one by one, as several batches may share a slab.
func (s *segment) hand(d *decoder, own *ownership, n int, bytes int64, h *haul) {
	var slab slab
	defer slab.close()
	for i := 0; i < n; {
		if h.full && len(h.messages) > 0 && s.readOut() {
			h.ended = true
			return
		}
		rec, err := s.peek(d)
		if rec == nil {
			h.err = err
			return
		}
		if own.ledger.Done(rec.offset) {
			if own.inherited >= 0 && s.batch.epoch > own.inherited && s.batch.epoch <= h.leader {
				h.cut = rec.offset
				return
			}
			h.pass(rec.offset, s.batch.epoch)
			s.took()
			continue
		}
		if h.below != 0 && rec.offset >= h.below {
			h.offset, h.offsetEpoch, h.held = rec.offset, s.batch.epoch, true
			return
		}
		if rec.size() > bytes-h.bytes {
			h.tooLarge = rec.size()
			return
		}
		if array, k := s.stretch(n-i, bytes-h.bytes); k > 0 {
			slab.close()
			i += s.run(d, own, array, k, bytes, h)
			continue
		}
		m, meta := slab.next(n-i, rec.size())
		own.shape(rec, m, meta)
		h.add(m, rec.offset, s.batch.epoch)
		s.took()
		i++
	}
}

// leastRun is how many records a run has at least: a slab of its own is worth it.
const leastRun = 16

// stretch is a copy of the records that a slab takes which begins with the next one, and
// how many they are: up to most, and as long as their bytes stay within room. It is none
// where records are large. What they take is estimated, as to read their lengths before
// they are copied is slow: the memory is not in the processor's caches.
func (s *segment) stretch(most int, room int64) (array []byte, n int) {
	most = min(most, int(s.unread))
	if slabs := (most + slabMessages - 1) / slabMessages; slabs > 1 {
		most = (most + slabs - 1) / slabs // evenly: the last is not a short one
	}
	mean := len(s.records)/int(s.unread) + 1
	size := int(min(int64(most*mean+most*mean/32), room, slabBytes, int64(len(s.records))))
	if most < leastRun || size < leastRun*mean {
		return nil, 0
	}
	array = append(array, s.records[:size]...)
	n, length := countRecords(array, most)
	if size-length > size/8 {
		return append([]byte(nil), array[:length]...), n // they were not like the others
	}
	return array[:length], n
}

// countRecords is how many records array begins with, up to most, and their length.
func countRecords(array []byte, most int) (n, length int) {
	for n < most {
		size, at := varint(array, length)
		if size <= 0 || size > int64(len(array)-at) {
			break
		}
		n, length = n+1, at+int(size)
	}
	return n, length
}

// run hands out up to n records as one slab, from array, which is a copy of them that
// their messages alias. It ends before a record that is not as the one before it: that
// is for hand. The first is one that may be handed out.
func (s *segment) run(d *decoder, own *ownership, array []byte, n int, bytes int64, h *haul) (k int) {
	below := own.ledger.Undone(s.rec.offset)
	if h.below != 0 {
		below = min(below, h.below)
	}
	messages, metas := d.pool.Get(n)
	rest, next, first := array, s.next, s.rec.offset
	var rec record
	for ; k < n; k++ {
		after, err := nextRecord(rest, &s.batch, &rec)
		if err != nil || rec.offset < next || rec.offset >= below || rec.size() > bytes-h.bytes {
			break
		}
		if rec.offset != next && k > 0 {
			h.took(first, next-first, s.batch.epoch, false)
			first = rec.offset
		}
		rest, next = after, rec.offset+1
		own.shape(&rec, messages[k], &metas[k])
		h.bytes += rec.size()
	}
	h.messages = append(h.messages, messages[:k]...)
	h.took(first, next-first, s.batch.epoch, false)
	s.next = next
	s.consume(s.records[len(array)-len(rest):], k)
	return k
}

// readOut says whether nothing is left of the open batch, or none is open.
func (s *segment) readOut() bool { return !s.open || s.unread == 0 }

// waiting is how many records may still come, at most.
func (s *segment) waiting() int64 { return s.left }

// add appends a message to the haul.
func (h *haul) add(m *broadway.Message, offset int64, epoch int32) {
	h.messages = append(h.messages, m)
	h.bytes += m.Size()
	h.took(offset, 1, epoch, false)
}

// pass takes along an offset that an earlier epoch has settled.
func (h *haul) pass(offset int64, epoch int32) { h.took(offset, 1, epoch, true) }

// took takes along count offsets from first on.
func (h *haul) took(first, count int64, epoch int32, passed bool) {
	h.reached(first, epoch)
	if k := len(h.spans); k > 0 && h.spans[k-1].first+h.spans[k-1].count == first && h.spans[k-1].passed == passed {
		h.spans[k-1].count += count
		return
	}
	h.spans = append(h.spans, span{first, count, passed})
}

// reached notes the leader epoch of an offset.
func (h *haul) reached(offset int64, epoch int32) {
	if k := len(h.epochs); k == 0 || h.epochs[k-1].epoch != epoch {
		h.epochs = append(h.epochs, epochStart{offset, epoch})
	}
}

// shape makes a message of a record.
func (o *ownership) shape(rec *record, m *broadway.Message, meta *Metadata) {
	// In memory that is used again much is as it was, and to write pointers costs.
	if name := &o.part.name; meta.Topic != name.topic {
		meta.Topic = name.topic
	}
	meta.Partition, meta.Offset, meta.timestamp = int(o.part.name.partition), rec.offset, rec.timestamp
	if rec.key != nil || meta.Key != nil {
		meta.Key = rec.key
	}
	if rec.headers != nil || meta.headers != nil {
		meta.headers = rec.headers
	}
	m.Init(o.ref, rec.offset, rec.value)
	m.SetSize(rec.size())
}

// passable says where to go on after a batch that is skipped: known only when
// its head, or the batch after it, tells, and the log reaches that far.
func (s *segment) passable(highWatermark int64) (int64, bool) {
	return s.resume, s.resume > s.next && s.resume <= max(highWatermark, 0) && s.resume < math.MaxInt64
}

// isCorrupt says whether err is about a batch's bytes.
func isCorrupt(err error) bool { return errors.Is(err, errCorrupt) }
