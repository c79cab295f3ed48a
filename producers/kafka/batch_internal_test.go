package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// draft is a batch to be built, with whatever faults a test wants.
type draft struct {
	base       int64
	delta      int32 // of the last offset; -1 means as many as there are records
	count      int32 // -1 likewise
	attributes uint16
	producer   int64
	times      [2]int64
	body       []byte // as it stands in the batch, compressed or not
	badSum     bool
}

func (d draft) bytes() []byte {
	b := make([]byte, batchHeader, batchHeader+len(d.body))
	binary.BigEndian.PutUint64(b, uint64(d.base))
	binary.BigEndian.PutUint32(b[atLength:], uint32(batchHeader-atBody+len(d.body)))
	b[atMagic] = 2
	binary.BigEndian.PutUint16(b[atAttributes:], d.attributes)
	binary.BigEndian.PutUint32(b[atLastOffsetDelta:], uint32(d.delta))
	binary.BigEndian.PutUint64(b[atBaseTimestamp:], uint64(d.times[0]))
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(d.times[1]))
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(d.producer))
	binary.BigEndian.PutUint32(b[atRecordCount:], uint32(d.count))
	b = append(b, d.body...)
	sum := crc32.Checksum(b[atAttributes:], castagnoli)
	if d.badSum {
		sum++
	}
	binary.BigEndian.PutUint32(b[atCRC:], sum)
	return b
}

// plainBatch holds records with the given values at base and above.
func plainBatch(base int64, values ...string) draft {
	d := draft{base: base, delta: int32(len(values) - 1), count: int32(len(values)), producer: -1}
	for i, v := range values {
		d.body = appendRecord(d.body, int64(i), &broadway.Record{Payload: []byte(v)})
	}
	return d
}

// controlBatch ends a transaction of a producer.
func controlBatch(base, producer int64, commit bool) draft {
	key := []byte{0, 0, 0, 0}
	if commit {
		key[3] = 1
	}
	return draft{
		base: base, count: 1, attributes: attrControl | attrTransactional, producer: producer,
		body: appendRecord(nil, 0, &broadway.Record{Key: key, Payload: []byte{0, 0, 0, 0, 0, 0}}),
	}
}

func transactional(d draft, producer int64) draft {
	d.attributes |= attrTransactional
	d.producer = producer
	return d
}

func joined(drafts ...draft) (raw []byte) {
	for _, d := range drafts {
		raw = append(raw, d.bytes()...)
	}
	return raw
}

// reading is a segment as an answer to a fetch from an offset would make it, of a log
// that ends with it, and that was fetched before.
func reading(raw []byte, from int64, aborts ...aborted) *segment {
	end := from
	for rest := raw; ; {
		b, err := peekBatch(rest)
		if err != nil {
			break
		}
		end, rest = b.next, rest[b.size:]
	}
	e := measure(raw, from, end, measure(raw, from, end, -1).doubt)
	return &segment{rest: raw[:e.complete], left: e.records, next: from, broken: e.broken, held: e.held, aborted: aborts}
}

// drain reads all that a segment hands out.
func drain(s *segment, d *decoder) (offsets []int64, values []string, err error) {
	for {
		rec, err := s.peek(d)
		if rec == nil {
			return offsets, values, err
		}
		offsets = append(offsets, rec.offset)
		values = append(values, string(rec.value))
		s.took()
	}
}

func newTestDecoder(isolation Isolation) *decoder {
	return newDecoder(Config{MaxBatchBytes: 1 << 20, Isolation: isolation})
}

func wantRead(t *testing.T, s *segment, d *decoder, offsets string, next int64) {
	t.Helper()
	got, _, err := drain(s, d)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	if fmt.Sprint(got) != offsets || s.next != next {
		t.Fatalf("offsets %v, then at %d; want %s, then %d", got, s.next, offsets, next)
	}
}

func TestReadsFromWithinABatchOverGapsToItsEnd(t *testing.T) {
	first := plainBatch(10, "a", "b", "c")
	first.delta = 6 // compaction took the last four
	raw := joined(first, plainBatch(30, "d"), plainBatch(31, "e"))
	wantRead(t, reading(raw, 11), newTestDecoder(ReadUncommitted), "[11 12 30 31]", 32)
	wantRead(t, reading(raw, 15), newTestDecoder(ReadUncommitted), "[30 31]", 32)
}

func TestControlRecordsAreNeverHandedOut(t *testing.T) {
	raw := joined(transactional(plainBatch(0, "a", "b"), 7), controlBatch(2, 7, true), plainBatch(3, "c"), controlBatch(4, 7, false))
	for _, isolation := range []Isolation{ReadUncommitted, ReadCommitted} {
		wantRead(t, reading(raw, 0), newTestDecoder(isolation), "[0 1 3]", 5)
	}
}

func TestReadCommittedLeavesOutAbortedTransactions(t *testing.T) {
	raw := joined(
		transactional(plainBatch(0, "aborted", "aborted"), 1),
		transactional(plainBatch(2, "committed"), 2),
		plainBatch(3, "plain"),
		controlBatch(4, 1, false),
		transactional(plainBatch(5, "committed by the same producer"), 1),
		controlBatch(6, 1, true),
		controlBatch(7, 2, true),
		transactional(plainBatch(8, "aborted again"), 1),
	)
	aborts := []aborted{{producer: 1, first: 0}, {producer: 1, first: 8}}
	wantRead(t, reading(raw, 0, aborts...), newTestDecoder(ReadCommitted), "[2 3 5]", 9)
	wantRead(t, reading(raw, 0), newTestDecoder(ReadUncommitted), "[0 1 2 3 5 8]", 9)
}

func TestNilIsNotEmptyAndHeadersKeepTheirOrder(t *testing.T) {
	records := []*broadway.Record{
		{Key: nil, Payload: nil},
		{Key: []byte{}, Payload: []byte{}, Headers: []broadway.Header{{Key: "", Value: nil}, {Key: "b", Value: []byte{}}, {Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}},
	}
	raw, err := encodeBatch(records, 1234, Uncompressed, castagnoli)
	if err != nil {
		t.Fatal(err)
	}
	h := haul{}
	own := testOwnership()
	reading(raw, 0).fill(newTestDecoder(ReadUncommitted), own, 10, 1000, &h)
	if len(h.messages) != 2 || h.err != nil {
		t.Fatalf("%d messages, %v", len(h.messages), h.err)
	}
	first, second := h.messages[0], h.messages[1]
	if first.Payload != nil || first.Metadata.(*Metadata).Key != nil {
		t.Errorf("null payload and key came as %q, %q", first.Payload, first.Metadata.(*Metadata).Key)
	}
	meta := second.Metadata.(*Metadata)
	if second.Payload == nil || meta.Key == nil {
		t.Error("empty payload or key came as null")
	}
	got := ""
	for _, header := range meta.Headers() {
		got += fmt.Sprintf("%s=%q/%v ", header.Key, header.Value, header.Value == nil)
	}
	if want := `=""/true b=""/false a="1"/false b="2"/false `; got != want {
		t.Errorf("headers %s, want %s", got, want)
	}
	if v, ok := meta.Header("b"); !ok || string(v) != "2" {
		t.Errorf("Header(b) = %q, %v; want the last one", v, ok)
	}
	if _, ok := meta.Header("c"); ok {
		t.Error("Header(c) exists")
	}
	if meta.Time().UnixMilli() != 1234 || second.ID() != "orders/3/1" || meta.MessageOrigin() != "orders" {
		t.Errorf("metadata %+v, id %s", meta, second.ID())
	}
}

func testOwnership() *ownership {
	own := &ownership{part: &partition{name: topicPartition{"orders", 3}}, ledger: acknowledgers.NewOffsets(0)}
	own.ref = broadway.NewAckRef(nil, own, 0)
	return own
}

func TestLogAppendTimeIsTheBatchs(t *testing.T) {
	d := plainBatch(0, "a")
	d.attributes, d.times = attrLogAppendTime, [2]int64{5, 99}
	s := reading(d.bytes(), 0)
	if rec, err := s.peek(newTestDecoder(ReadUncommitted)); err != nil || rec.timestamp != 99 {
		t.Fatalf("timestamp %v, %v; want 99", rec, err)
	}
}

// compressedWith is values compressed by a codec as brokers store them.
func compressedWith(t testing.TB, codec string, body []byte) (uint16, []byte) {
	t.Helper()
	var buf bytes.Buffer
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	switch codec {
	case "gzip", "snappy", "zstd":
		c := map[string]Compression{"gzip": Gzip, "snappy": Snappy, "zstd": Zstd}[codec]
		id, out, err := compress(c, body)
		check(err)
		return id, out
	case "xerial":
		buf.WriteString(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01")
		for len(body) > 0 {
			n := min(len(body), 32<<10)
			block := snappy.Encode(nil, body[:n])
			check(binary.Write(&buf, binary.BigEndian, uint32(len(block))))
			buf.Write(block)
			body = body[n:]
		}
		return codecSnappy, buf.Bytes()
	case "lz4":
		w := lz4.NewWriter(&buf)
		_, err := w.Write(body)
		check(err)
		check(w.Close())
		return codecLZ4, buf.Bytes()
	}
	return codecNone, body
}

var codecNames = []string{"none", "gzip", "snappy", "xerial", "lz4", "zstd"}

func TestEveryCodecIsRead(t *testing.T) {
	for _, codec := range codecNames {
		t.Run(codec, func(t *testing.T) {
			d := plainBatch(0, "a", strings.Repeat("b", 100_000), "", "c")
			var id uint16
			id, d.body = compressedWith(t, codec, d.body)
			d.attributes |= id
			offsets, values, err := drain(reading(d.bytes(), 0), newTestDecoder(ReadUncommitted))
			if err != nil || len(offsets) != 4 || len(values[1]) != 100_000 || values[3] != "c" {
				t.Fatalf("offsets %v, %v", offsets, err)
			}
		})
	}
}

func TestBombsAreRefusedBeforeTheyAreAllocated(t *testing.T) {
	const limit = 1 << 20
	for _, codec := range codecNames[1:] {
		t.Run(codec, func(t *testing.T) {
			_, bomb := compressedWith(t, codec, make([]byte, 64*limit))
			id, _ := compressedWith(t, codec, nil)
			d := draft{count: 1, attributes: id, body: bomb}
			raw := d.bytes()
			decoder := newDecoder(Config{MaxBatchBytes: limit})
			var err error
			bytesBefore := allocatedBytes(func() { _, _, err = drain(reading(raw, 0), decoder) })
			if !isCorrupt(err) {
				t.Fatalf("a bomb of 64 MiB: %v", err)
			}
			if bytesBefore > 24*limit {
				t.Errorf("%d bytes were allocated for a limit of %d", bytesBefore, limit)
			}
		})
	}
}

func allocatedBytes(f func()) uint64 {
	return uint64(testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			f()
			if b.N > 1 {
				break // one run tells enough
			}
		}
	}).AllocedBytesPerOp())
}

func TestMalformedBatchesAreErrorsAndNameWhereToGoOn(t *testing.T) {
	flip := func(raw []byte, at int, b byte) []byte { raw[at] = b; return raw }
	record := appendRecord(nil, 0, &broadway.Record{Payload: []byte("x"), Headers: []broadway.Header{{Key: "k"}}})
	withBody := func(body []byte) []byte {
		return draft{base: 5, count: 1, body: body}.bytes()
	}
	for name, c := range map[string]struct {
		raw    []byte
		resume int64
	}{
		"checksum":                   {draft{base: 5, count: 1, body: record, badSum: true}.bytes(), 6},
		"checksum, before another":   {joined(draft{base: 5, delta: 9, count: 1, body: record, badSum: true}, plainBatch(8, "y")), 8},
		"old message format":         {flip(plainBatch(5, "x").bytes(), atMagic, 1), 0},
		"negative offset":            {draft{base: -1, count: 1, body: record}.bytes(), 0},
		"negative delta":             {draft{base: 5, delta: -3, count: 0}.bytes(), 0},
		"more records than offsets":  {draft{base: 5, count: 1 << 30, body: record}.bytes(), 0},
		"negative count":             {draft{base: 5, count: -1, body: record}.bytes(), 0},
		"fewer records than counted": {draft{base: 5, delta: 1, count: 2, body: record}.bytes(), 7},
		"record longer than batch":   {withBody(record[:len(record)-1]), 6},
		"record of negative length":  {withBody(binary.AppendVarint(nil, -5)), 6},
		"record without an end":      {withBody([]byte{0xff, 0xff, 0xff}), 6},
		"header count of 2^40":       {withBody(framed(append([]byte{0, 0, 0, 1, 1}, binary.AppendVarint(nil, 1<<40)...))), 6},
		"key of negative length":     {withBody(framed(append([]byte{0, 0, 0}, binary.AppendVarint(nil, -2)...))), 6},
		"offset outside the batch":   {withBody(appendRecord(nil, 3, &broadway.Record{})), 6},
		"offset before the batch":    {withBody(appendRecord(nil, -3, &broadway.Record{})), 6},
		"unknown codec":              {draft{base: 5, count: 1, attributes: 7, body: record}.bytes(), 6},
		"gzip that is none":          {draft{base: 5, count: 1, attributes: codecGzip, body: record}.bytes(), 6},
		"snappy that is none":        {draft{base: 5, count: 1, attributes: codecSnappy, body: []byte{0xff, 0xff, 0xff, 0xff, 0xff}}.bytes(), 6},
		"xerial without blocks":      {draft{base: 5, count: 1, attributes: codecSnappy, body: []byte(xerial)}.bytes(), 6},
		"lz4 that is none":           {draft{base: 5, count: 1, attributes: codecLZ4, body: record}.bytes(), 6},
		"zstd that is none":          {draft{base: 5, count: 1, attributes: codecZstd, body: record}.bytes(), 6},
	} {
		t.Run(name, func(t *testing.T) {
			s := reading(c.raw, 5)
			_, _, err := drain(s, newTestDecoder(ReadUncommitted))
			if !errors.Is(err, errCorrupt) {
				t.Fatalf("error %v, want a corrupt batch", err)
			}
			if s.resume != c.resume {
				t.Errorf("resume at %d, want %d", s.resume, c.resume)
			}
		})
	}
}

// framed puts a record's length before it.
func framed(record []byte) []byte {
	return append(binary.AppendVarint(nil, int64(len(record))), record...)
}

func TestACutOffBatchIsLeftForTheNextFetch(t *testing.T) {
	whole := plainBatch(0, "a", "b").bytes()
	for n := range len(whole) {
		raw := append(bytes.Clone(whole), plainBatch(2, "c", "d").bytes()[:n]...)
		e := measure(raw, 0, 2, -1)
		if e.complete != len(whole) || e.next != 2 || e.records != 2 || e.broken {
			t.Fatalf("with %d bytes of the next batch: %+v", n, e)
		}
	}
	if e := measure(whole[:20], 0, 2, -1); e.complete != 0 || e.next != 0 || e.broken {
		t.Fatalf("with less than one batch: %+v", e)
	}
}

func TestNoOffsetComesTwiceWithinAnAnswer(t *testing.T) {
	raw := joined(plainBatch(10, "a", "b"), plainBatch(10, "a", "b", "c"))
	wantRead(t, reading(raw, 10), newTestDecoder(ReadUncommitted), "[10 11]", 12)
	wantRead(t, reading(plainBatch(10, "a", "b", "c").bytes(), 12), newTestDecoder(ReadUncommitted), "[12]", 13)
}

// No sum covers the offset of a batch. One that was changed on its way is left for
// the next answer, wherever it stands; and what is right is taken over, though gaps
// of compaction are in it, if not from one answer then from two.
func TestOffsetsThatDoNotFitAreAskedForAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type span struct{ base, next int64 }
		var raw []byte
		var spans []span
		var starts []int
		at := rapid.Int64Range(0, 1<<20).Draw(t, "begin")
		compacted := rapid.Bool().Draw(t, "compacted")
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			if compacted {
				at += rapid.Int64Range(0, 40).Draw(t, "gap")
			}
			d := plainBatch(at, "a", "b", "c", "d", "e", "f", "g", "h")
			starts = append(starts, len(raw))
			raw = append(raw, d.bytes()...)
			spans = append(spans, span{at, at + 8})
			at += 8
		}
		from := spans[0].base + rapid.Int64Range(0, 7).Draw(t, "within the first")
		end := at + rapid.Int64Range(0, 3).Draw(t, "beyond the answer")

		first := measure(raw, from, end, -1)
		again := measure(raw, from, end, first.doubt)
		if again.doubt >= 0 || again.complete == 0 || again.broken {
			t.Fatalf("what is right is not taken over: %+v, then %+v", first, again)
		}
		if compacted {
			return // what is wrong within a gap moves what is in it, and loses nothing
		}
		struck := rapid.IntRange(0, len(spans)-1).Draw(t, "struck")
		bit := rapid.IntRange(0, 62).Draw(t, "bit")
		if spans[struck].base^1<<bit == from {
			return // where a batch begins that was asked for from within: nothing tells, unless another follows
		}
		raw[starts[struck]+7-bit/8] ^= 1 << (bit % 8)
		e := measure(raw, from, end, -1)
		if most := max(from, spans[struck].base); e.next > most && (e.next != from || !e.broken) {
			t.Fatalf("batch %d of %v, bit %d, from %d: %+v", struck, spans, bit, from, e)
		}
	})
}

func TestAnAnswerThatLeadsNowhereIsBroken(t *testing.T) {
	s := reading(plainBatch(3, "a").bytes(), 10)
	offsets, _, err := drain(s, newTestDecoder(ReadUncommitted))
	if len(offsets) != 0 || !isCorrupt(err) {
		t.Fatalf("offsets %v, error %v; want none and an error: it would be fetched for ever", offsets, err)
	}
}

func TestFillKeepsWithinDemandAndSaysWhatDoesNotFit(t *testing.T) {
	raw := joined(plainBatch(0, "12345", "12345"), plainBatch(2, "1234567890", "1"))
	s, d, own := reading(raw, 0), newTestDecoder(ReadUncommitted), testOwnership()
	for _, step := range []struct {
		most     int
		bytes    int64
		messages int
		tooLarge int64
		next     int64
	}{
		{1, 100, 1, 0, 1},
		{10, 4, 0, 5, 1},
		{10, 12, 1, 10, 2},
		{10, 9, 0, 10, 2},
		{10, 10, 1, 1, 3},
		{10, 100, 1, 0, 4},
		{10, 100, 0, 0, 4},
	} {
		var h haul
		s.fill(d, own, step.most, step.bytes, &h)
		if len(h.messages) != step.messages || h.tooLarge != step.tooLarge || h.next != step.next || h.err != nil {
			t.Fatalf("fill(%d, %d): %d messages, too large %d, next %d, %v; want %+v",
				step.most, step.bytes, len(h.messages), h.tooLarge, h.next, h.err, step)
		}
	}
}

func TestFillAllocatesPerSlabNotPerMessage(t *testing.T) {
	values := make([]string, 1000)
	for i := range values {
		values[i] = "some payload"
	}
	raw, d, own := plainBatch(0, values...).bytes(), newTestDecoder(ReadUncommitted), testOwnership()
	out := make([]*broadway.Message, 0, 1000)
	allocated := testing.AllocsPerRun(20, func() {
		h := haul{messages: out}
		reading(raw, 0).fill(d, own, 1000, 1<<20, &h)
		if len(h.messages) != 1000 {
			t.Fatal("not all were read")
		}
	})
	if allocated > 50 { // five for each slab: nothing settles here, so that none is used again
		t.Errorf("%v allocations for 1000 messages", allocated)
	}
}

func TestZstdMemoryIsLimitedForUnknownSizes(t *testing.T) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil { // streamed: the frame tells no size
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d := decompressor{limit: 1 << 20}
	if out, err := d.expand(codecZstd, buf.Bytes()); !isCorrupt(err) {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
}
