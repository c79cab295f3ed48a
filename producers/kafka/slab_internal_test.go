package kafka

import (
	"bytes"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
)

// TestMessagesShareNothingWithTheAnswer: what is handed out stays as it was when
// the answer's memory is overwritten, and nil stays nil.
func TestMessagesShareNothingWithTheAnswer(t *testing.T) {
	var alone haul
	reading(plainBatch(0, "").bytes(), 0).fill(newTestDecoder(ReadUncommitted), testOwnership(), 1, 1<<30, &alone)
	if alone.messages[0].Payload == nil {
		t.Error("an empty payload became nil")
	}
	raw := plainBatch(0, "first", strings.Repeat("x", 3*slabBytes), "", "last").bytes()
	var h haul
	reading(raw, 0).fill(newTestDecoder(ReadUncommitted), testOwnership(), 10, 1<<30, &h)
	clear(raw)
	if len(h.messages) != 4 || h.err != nil {
		t.Fatalf("%d messages, %v", len(h.messages), h.err)
	}
	for i, want := range []string{"first", strings.Repeat("x", 3*slabBytes), "", "last"} {
		if got := h.messages[i].Payload; string(got) != want || got == nil {
			t.Errorf("message %d has %d bytes, want %d", i, len(got), len(want))
		}
	}
	meta := &Metadata{Topic: "t", Key: []byte("key"), headers: []byte("\x02\x02h\x01")}
	if n, bytes := meta.MessageHeaderSize(); n != 1 || bytes != 1 {
		t.Errorf("%d headers of %d bytes", n, bytes)
	}
	own, _ := meta.Detach(nil).(*Metadata)
	meta.Key[0], meta.headers[2] = 'X', 'X'
	if string(own.Key) != "key" || len(own.Headers()) != 1 || own.Headers()[0].Key != "h" || own.Headers()[0].Value != nil || own.Topic != "t" {
		t.Errorf("the copy is %+v", own)
	}
	if none, _ := (&Metadata{}).Detach(nil).(*Metadata); none.Key != nil || none.headers != nil {
		t.Errorf("a copy of nothing is %+v", none)
	}
}

// TestOneMessageDoesNotKeepAnAnswer: of each of 200 answers of 1 MB one message is
// kept. Compressed or not, that keeps no answer, and no decompressed batch.
func TestOneMessageDoesNotKeepAnAnswer(t *testing.T) {
	values := make([]string, 1000)
	for i := range values {
		values[i] = strings.Repeat("v", 1000)
	}
	packed := plainBatch(0, values...)
	packed.attributes, packed.body = compressedWith(t, "zstd", packed.body)
	for name, raw := range map[string][]byte{"plain": plainBatch(0, values...).bytes(), "zstd": packed.bytes()} {
		t.Run(name, func(t *testing.T) {
			const answers = 200
			d, kept := newTestDecoder(ReadUncommitted), []*broadway.Message(nil)
			before := liveBytes()
			for range answers {
				var h haul
				reading(bytes.Clone(raw), 0).fill(d, testOwnership(), 1000, 1<<30, &h)
				if len(h.messages) != 1000 {
					t.Fatalf("%d messages, %v", len(h.messages), h.err)
				}
				kept = append(kept, h.messages[500])
			}
			grown := liveBytes() - before
			if most := int64(answers * (slabBytes + slabMessages*broadway.MessageOverhead)); grown > most {
				t.Errorf("%d messages of 1,000 bytes keep %d bytes, more than their slabs: %d", len(kept), grown, most)
			}
			runtime.KeepAlive(kept)
		})
	}
}

// TestSlabsAreCharged: the sizes of a slab's messages and their overhead are what
// the slab keeps, however small they are; but for what the allocator rounds up.
func TestSlabsAreCharged(t *testing.T) {
	for _, size := range []int{0, 1, 100, 1000, 30_000} {
		values := make([]string, 2000)
		for i := range values {
			values[i] = strings.Repeat("v", size)
		}
		raw := plainBatch(0, values...).bytes()
		var h haul
		before := liveBytes()
		reading(raw, 0).fill(newTestDecoder(ReadUncommitted), testOwnership(), 2000, 1<<30, &h)
		grown := liveBytes() - before
		if charged := h.bytes + int64(len(h.messages))*broadway.MessageOverhead; len(h.messages) != 2000 || grown > charged+charged/8 {
			t.Errorf("%d messages of %d bytes take %d, and are charged with %d", len(h.messages), size, grown, charged)
		}
		runtime.KeepAlive(h.messages)
		runtime.KeepAlive(raw)
	}
}

func liveBytes() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// TestDecompressedBatchesUseTheirMemoryAgain: and messages of the batch before stay as
// they were, also where several short batches share a slab.
func TestDecompressedBatchesUseTheirMemoryAgain(t *testing.T) {
	for _, codec := range codecNames[1:] {
		for _, records := range []int{1, 3, 1000} {
			d := newDecoder(Config{MaxBatchBytes: 1 << 20, MaxBytes: 8 << 20})
			var raw []byte
			var want []string
			for n := range 5 {
				values := make([]string, records)
				for i := range values {
					values[i] = strings.Repeat(string(rune('a'+n)), 100+i%7)
				}
				batch := plainBatch(int64(n*records), values...)
				batch.attributes, batch.body = compressedWith(t, codec, batch.body)
				raw, want = append(raw, batch.bytes()...), append(want, values...)
			}
			s, h := reading(raw, 0), haul{}
			for len(h.messages) < len(want) && h.err == nil {
				s.fill(d, testOwnership(), max(records-1, 1), 1<<30, &h)
			}
			if len(h.messages) != len(want) || h.err != nil {
				t.Fatalf("%s, %d records: %d messages, %v", codec, records, len(h.messages), h.err)
			}
			for i, m := range h.messages {
				if string(m.Payload) != want[i] {
					t.Fatalf("%s, %d records: message %d is %q, want %q", codec, records, i, m.Payload, want[i])
				}
			}
			if len(d.spare) == 0 || len(d.spare) > 2 {
				t.Errorf("%s, %d records: %d buffers are kept for five batches", codec, records, len(d.spare))
			}
		}
	}
}

// TestDecompressedMemoryThatIsKeptIsBounded: of what comes back the largest is kept, and the
// smallest lent that is large enough.
func TestDecompressedMemoryThatIsKeptIsBounded(t *testing.T) {
	d := decompressor{mostSpare: 1000}
	for _, size := range []int{500, 100, 300, 1001, 400} {
		d.keep(make([]byte, size))
	}
	if d.kept != 900 || len(d.spare) != 2 {
		t.Errorf("%d bytes are kept in %d buffers", d.kept, len(d.spare))
	}
	for _, c := range []struct{ room, want int }{{350, 400}, {350, 500}, {350, 350}} {
		if b := d.buffer(c.room); cap(b) != c.want || len(b) != 0 {
			t.Errorf("room for %d: %d", c.room, cap(b))
		}
	}
	if d.kept != 0 || len(d.spare) != 0 {
		t.Errorf("%d bytes are kept in %d buffers at the end", d.kept, len(d.spare))
	}
}
