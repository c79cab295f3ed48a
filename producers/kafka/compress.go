package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// The codecs, as a batch's attributes name them.
const (
	codecNone = iota
	codecGzip
	codecSnappy
	codecLZ4
	codecZstd
)

// decompressor expands batches to at most limit bytes each. It is for one
// goroutine. Every answer is a buffer of its own, until keep gets it back.
type decompressor struct {
	limit int
	spare [][]byte // to be used again, rising in size
	// kept is what spare takes, in bytes, and mostSpare what it may.
	kept, mostSpare int
	// ratio is by how much batches grew lately, in 64ths; 0 when there was none.
	ratio int
	gzip  *gzip.Reader
	zstd  *zstd.Decoder
}

// keep takes a buffer that expand returned, and nobody reads any more.
func (d *decompressor) keep(b []byte) {
	if cap(b) == 0 || cap(b) > d.mostSpare {
		return
	}
	i := slices.IndexFunc(d.spare, func(s []byte) bool { return cap(s) >= cap(b) })
	if i < 0 {
		i = len(d.spare)
	}
	d.spare, d.kept = slices.Insert(d.spare, i, b[:0]), d.kept+cap(b)
	for d.kept > d.mostSpare {
		d.kept -= cap(d.spare[0])
		d.spare = slices.Delete(d.spare, 0, 1)
	}
}

// buffer is an empty one with room for so many bytes: of those that wait the smallest that
// has it.
func (d *decompressor) buffer(room int) []byte {
	i := slices.IndexFunc(d.spare, func(s []byte) bool { return cap(s) >= room })
	if i < 0 {
		return make([]byte, 0, room)
	}
	b := d.spare[i]
	d.spare, d.kept = slices.Delete(d.spare, i, i+1), d.kept-cap(b)
	return b
}

// expected is about what so many bytes decompress to, and rather more: as what came before.
func (d *decompressor) expected(compressed int) int {
	ratio := d.ratio
	if ratio == 0 {
		ratio = 4 * ratioUnit
	}
	n := int64(compressed) * int64(min(ratio, mostGrowth*ratioUnit)) / ratioUnit
	return int(min(max(n+n/16, 512), int64(d.limit)+1))
}

// ratioUnit is the ratio of what does not grow.
const ratioUnit = 64

// learn tells what expected is to know.
func (d *decompressor) learn(compressed, expanded int) {
	if compressed > 0 {
		d.ratio = max(int(int64(expanded)*ratioUnit/int64(compressed)), 1)
	}
}

// expand decompresses src by codec. Errors wrap errCorrupt.
func (d *decompressor) expand(codec int16, src []byte) ([]byte, error) {
	out, err := d.run(codec, src)
	if err != nil {
		return nil, fmt.Errorf("%w: codec %d: %w", errCorrupt, codec, err)
	}
	return out, nil
}

func (d *decompressor) run(codec int16, src []byte) ([]byte, error) {
	switch codec {
	case codecNone:
		return src, nil
	case codecGzip:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		if err := d.gzip.Reset(bytes.NewReader(src)); err != nil {
			return nil, err
		}
		return d.drain(d.gzip, len(src))
	case codecSnappy:
		return d.snappy(src)
	case codecLZ4:
		return d.lz4Frames(src)
	case codecZstd:
		return d.zstandard(src)
	}
	return nil, errors.New("unknown")
}

// drain reads all of r, growing with what really comes out of it.
func (d *decompressor) drain(r io.Reader, compressed int) ([]byte, error) {
	out := d.buffer(d.expected(compressed))
	for {
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case len(out) > d.limit:
			return nil, d.tooLarge()
		case err == io.EOF:
			d.learn(compressed, len(out))
			return out, nil
		case err != nil:
			return nil, err
		case len(out) == cap(out):
			grown := make([]byte, len(out), min(2*cap(out), d.limit+1))
			copy(grown, out)
			out = grown
		}
	}
}

func (d *decompressor) tooLarge() error {
	return fmt.Errorf("it decompresses to more than %d bytes", d.limit)
}

// zstandard has one decoder without goroutines, that refuses what is too large
// before it allocates.
func (d *decompressor) zstandard(src []byte) ([]byte, error) {
	if d.zstd == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(uint64(d.limit)), zstd.WithDecoderLowmem(true),
			zstd.IgnoreChecksum(true)) // the batch has a sum that covers all of it
		if err != nil {
			return nil, err
		}
		d.zstd = decoder
	}
	room := d.expected(len(src))
	var head zstd.Header
	if err := head.Decode(src); err == nil && head.HasFCS {
		room = int(min(head.FrameContentSize, uint64(d.limit))) + zstdSlack
	}
	out, err := d.zstd.DecodeAll(src, d.buffer(room))
	if err == nil && len(out) > d.limit {
		err = d.tooLarge()
	}
	if err == nil {
		d.learn(len(src), len(out))
	}
	return out, err
}

// zstdSlack is what a decoder wants to have beyond the content, so that it writes straight
// into it.
const zstdSlack = 64

// xerial is the head of what Java's snappy stream writes: blocks with a length
// each. Other clients send one raw block.
const xerial = "\x82SNAPPY\x00"

// xerialHead is the magic, a version and the oldest compatible version.
const xerialHead = len(xerial) + 8

func (d *decompressor) snappy(src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, []byte(xerial)) {
		return d.snappyBlock(d.buffer(0), src)
	}
	if len(src) < xerialHead {
		return nil, io.ErrUnexpectedEOF
	}
	// The first pass adds up what the blocks announce, so that one buffer of
	// the right size is allocated, or none.
	total, blocks := 0, src[xerialHead:]
	for rest := blocks; len(rest) > 0; {
		block, after, err := xerialBlock(rest)
		if err != nil {
			return nil, err
		}
		n, err := snappy.DecodedLen(block)
		if err != nil {
			return nil, err
		}
		if total += n; total > d.limit || total < 0 {
			return nil, d.tooLarge()
		}
		rest = after
	}
	out := d.buffer(total)
	for len(blocks) > 0 {
		block, after, err := xerialBlock(blocks)
		if err != nil {
			return nil, err
		}
		if out, err = d.snappyBlock(out, block); err != nil {
			return nil, err
		}
		blocks = after
	}
	return out, nil
}

func xerialBlock(src []byte) (block, rest []byte, err error) {
	if len(src) < 4 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	n := binary.BigEndian.Uint32(src)
	if uint64(n) > uint64(len(src)-4) {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return src[4 : 4+n], src[4+n:], nil
}

// snappyBlock appends one block to dst.
func (d *decompressor) snappyBlock(dst, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n > d.limit-len(dst) {
		return nil, d.tooLarge()
	}
	if cap(dst)-len(dst) < n {
		dst = append(make([]byte, 0, len(dst)+n), dst...)
	}
	got, err := snappy.Decode(dst[len(dst):len(dst)+n], block)
	if err != nil {
		return nil, err
	}
	return append(dst, got...), nil
}
