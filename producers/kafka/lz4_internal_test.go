package kafka

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// lz4Of is content in one frame, written by the library.
func lz4Of(t testing.TB, content []byte, options ...lz4.Option) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := lz4.NewWriter(&buf)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// numbers is content that compresses, but not to next to nothing.
func numbers(size int) []byte {
	b := make([]byte, 0, size+16)
	for i := uint64(1); len(b) < size; i++ {
		b = binary.LittleEndian.AppendUint64(b, i)
		b = binary.LittleEndian.AppendUint64(b, i*0x9e3779b97f4a7c15)
	}
	return b[:size]
}

// TestLZ4FramesOfEveryKindAreRead: one decompressor reads them all, so that what it expects
// is often wrong, in both directions.
func TestLZ4FramesOfEveryKindAreRead(t *testing.T) {
	contents := map[string][]byte{
		"empty": nil, "a byte": {7}, "zeros": make([]byte, 3<<20), "numbers": numbers(1 << 20), "many blocks": numbers(9 << 20),
		"stored": []byte(strings.Repeat("no", 3)),
	}
	blocks := []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb}
	d := decompressor{limit: 16 << 20, mostSpare: 4 << 20}
	for name, content := range contents {
		for _, block := range blocks {
			for _, sums := range []bool{false, true} {
				frame := lz4Of(t, content, lz4.BlockSizeOption(block), lz4.ChecksumOption(sums), lz4.BlockChecksumOption(sums),
					lz4.SizeOption(map[bool]uint64{true: uint64(len(content))}[sums]))
				out, err := d.expand(codecLZ4, frame)
				if err != nil || !bytes.Equal(out, content) {
					t.Fatalf("%s in blocks of %v, sums %v: %d bytes, want %d: %v", name, block, sums, len(out), len(content), err)
				}
				d.keep(out)
			}
		}
	}
}

// linked is a frame whose second block goes on with what the first one ends with, as
// clients write that do not ask for independent blocks.
func linked() []byte {
	frame := binary.LittleEndian.AppendUint32(nil, lz4Magic)
	frame = append(frame, 0x40, 0x40, 0) // version 1, blocks of 64 KiB; the sum is not looked at
	stored := []byte("abcdefgh")
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(stored))|lz4Stored)
	frame = append(frame, stored...)
	block := append([]byte{0x04, 8, 0, 0x50}, "12345"...) // 8 bytes from 8 back, then five as they stand
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(block)))
	frame = append(frame, block...)
	return binary.LittleEndian.AppendUint32(frame, 0)
}

func TestLinkedSkippedAndJoinedLZ4FramesAreRead(t *testing.T) {
	d := decompressor{limit: 1 << 20}
	skipped := append(binary.LittleEndian.AppendUint32(nil, lz4Skippable+3), 2, 0, 0, 0, 'x', 'y')
	src := bytes.Join([][]byte{linked(), skipped, lz4Of(t, []byte("z")), linked()}, nil)
	const one = "abcdefghabcdefgh12345"
	if out, err := d.expand(codecLZ4, src); err != nil || string(out) != one+"z"+one {
		t.Fatalf("%q, %v", out, err)
	}
}

// One batch that grew a thousandfold does not make the next one's buffer as large.
func TestWhatABatchGrowsToIsGuessedWithinBounds(t *testing.T) {
	d := decompressor{limit: 64 << 20}
	d.learn(1000, 1_000_000)
	if n := d.expected(1 << 20); n < 1<<20 || n > (mostGrowth+1)<<20 {
		t.Errorf("%d bytes for a MiB", n)
	}
}

// A buffer that is too small grows in steps that are worth their copies.
func TestManySmallLZ4BlocksAreNotCopiedOverAndOver(t *testing.T) {
	const blocks, size = 10_000, 600
	var frame bytes.Buffer
	w := lz4.NewWriter(&frame)
	for range blocks {
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(1, func() {
		d := decompressor{limit: 64 << 20}
		if out, err := d.expand(codecLZ4, frame.Bytes()); err != nil || len(out) != blocks*size {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
	if allocs > 40 {
		t.Errorf("%v allocations for %d blocks", allocs, blocks)
	}
}

func TestMalformedLZ4IsAnError(t *testing.T) {
	frame := linked()
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(frame)
		copy(b[at:], to)
		return b
	}
	cases := map[string][]byte{
		"another magic":               change(0, 9),
		"a later version":             change(4, 0x80),
		"a dictionary":                change(4, 0x41),
		"no such block size":          change(5, 0x30),
		"a match before the start":    change(lz4Word+lz4LeastHead+lz4Word+8+lz4Word+1, 9),
		"a block that is cut off":     change(lz4Word+lz4LeastHead, 0xff, 0xff),
		"another size than told":      append(binary.LittleEndian.AppendUint32(nil, lz4Magic), 0x48, 0x40, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"a stored block too large":    append(change(lz4Word+lz4LeastHead, 1, 0, 1, 0x80), make([]byte, 1<<17)...),
		"skipping beyond the end":     append(binary.LittleEndian.AppendUint32(nil, lz4Skippable), 1, 0, 0, 0),
		"something behind the frames": append(bytes.Clone(frame), 1, 2, 3),
	}
	for name, src := range cases {
		d := decompressor{limit: 1 << 20}
		if out, err := d.expand(codecLZ4, src); !isCorrupt(err) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	for n := 1; n < len(frame); n++ {
		d := decompressor{limit: 1 << 20}
		if out, err := d.expand(codecLZ4, frame[:n]); !isCorrupt(err) {
			t.Errorf("the first %d bytes: %q, %v", n, out, err)
		}
	}
}

// FuzzLZ4: what the library's Reader reads is read alike. It also looks at sums, and reads
// a format from before frames that no client of Kafka writes.
func FuzzLZ4(f *testing.F) {
	f.Add(linked())
	f.Add(lz4Of(f, numbers(100_000), lz4.BlockSizeOption(lz4.Block64Kb)))
	f.Add(lz4Of(f, []byte("short"), lz4.BlockChecksumOption(true), lz4.SizeOption(5)))
	f.Add(append(append(binary.LittleEndian.AppendUint32(nil, lz4Skippable), 1, 0, 0, 0, 'x'), lz4Of(f, nil)...))
	f.Fuzz(func(t *testing.T, src []byte) {
		const limit = 1 << 20
		d := decompressor{limit: limit}
		out, err := d.expand(codecLZ4, src)
		if len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
		want, wantErr := io.ReadAll(io.LimitReader(lz4.NewReader(bytes.NewReader(src)), limit+1))
		if wantErr != nil || len(want) > limit || bytes.Contains(src, []byte{0x02, 0x21, 0x4c, 0x18}) {
			return
		}
		if err != nil || !bytes.Equal(out, want) {
			t.Fatalf("%d bytes, %v; the library reads %d", len(out), err, len(want))
		}
	})
}
