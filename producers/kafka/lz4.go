package kafka

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"
)

// The LZ4 frame format (github.com/lz4/lz4, doc/lz4_Frame_format.md). Frames are read here,
// and only their blocks by the library: its Reader has two buffers of 4 MiB for what many
// clients write, and copies each batch out of one of them. Sums of the format are passed
// over, as the batch has one that covers all of it.
const (
	lz4Magic     = 0x184D2204
	lz4Skippable = 0x184D2A50 // and the fifteen numbers after it
	lz4Word      = 4          // bytes of a number, and of a sum

	lz4Version     = 0xC0 // of the flags, 1 in these bits
	lz4Independent = 0x20
	lz4BlockSums   = 0x10
	lz4Size        = 0x08
	lz4ContentSum  = 0x04
	lz4Dictionary  = 0x01
	lz4Stored      = 1 << 31 // of a block's length: it is not compressed
	lz4Window      = 64 << 10
	lz4LeastHead   = 3 // flags, block size, sum
)

var errLZ4 = errors.New("malformed lz4 frame")

// lz4Frame is what a frame's head says.
type lz4Frame struct {
	independent, blockSums, contentSum bool
	size                               uint64 // of the content, 0 when it is not told
	most                               int    // bytes of a block, decompressed
}

// lz4Head reads the descriptor that src begins with.
func lz4Head(src []byte) (f lz4Frame, rest []byte, err error) {
	if len(src) < lz4LeastHead {
		return f, nil, io.ErrUnexpectedEOF
	}
	flags, sizes := src[0], int(src[1]>>4)
	if flags&lz4Version != 0x40 || flags&lz4Dictionary != 0 || sizes < 4 || sizes > 7 {
		return f, nil, errLZ4
	}
	f.independent, f.blockSums, f.contentSum = flags&lz4Independent != 0, flags&lz4BlockSums != 0, flags&lz4ContentSum != 0
	f.most = 1 << (8 + 2*sizes) // 64 KiB, 256 KiB, 1 MiB, 4 MiB
	n := lz4LeastHead
	if flags&lz4Size != 0 {
		if n += 8; len(src) < n {
			return f, nil, io.ErrUnexpectedEOF
		}
		f.size = binary.LittleEndian.Uint64(src[2:])
	}
	return f, src[n:], nil
}

// lz4Number takes a number off src.
func lz4Number(src []byte) (v uint32, rest []byte, err error) {
	if len(src) < lz4Word {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return binary.LittleEndian.Uint32(src), src[lz4Word:], nil
}

// lz4Frames decompresses all frames of src.
func (d *decompressor) lz4Frames(src []byte) (out []byte, err error) {
	out = d.buffer(d.expected(len(src)))
	for rest := src; len(rest) > 0; {
		var magic uint32
		if magic, rest, err = lz4Number(rest); err != nil {
			return nil, err
		}
		switch {
		case magic == lz4Magic:
			out, rest, err = d.lz4Blocks(out, rest)
		case magic&^0xF == lz4Skippable:
			var n uint32
			if n, rest, err = lz4Number(rest); err == nil && uint64(n) > uint64(len(rest)) {
				err = io.ErrUnexpectedEOF
			} else if err == nil {
				rest = rest[n:]
			}
		default:
			err = errLZ4
		}
		if err != nil {
			return nil, err
		}
	}
	d.learn(len(src), len(out))
	return out, nil
}

// lz4Blocks appends the content of the frame that src begins with, after its magic.
func (d *decompressor) lz4Blocks(out, src []byte) (_, rest []byte, err error) {
	f, rest, err := lz4Head(src)
	if err != nil {
		return nil, nil, err
	}
	begin := len(out)
	for {
		var length uint32
		if length, rest, err = lz4Number(rest); err != nil {
			return nil, nil, err
		}
		if length == 0 {
			break
		}
		n := int(length &^ lz4Stored)
		trailer := 0
		if f.blockSums {
			trailer = lz4Word
		}
		if n > len(rest)-trailer {
			return nil, nil, io.ErrUnexpectedEOF
		}
		if out, err = d.lz4Block(out, rest[:n], length&lz4Stored != 0, begin, f); err != nil {
			return nil, nil, err
		}
		rest = rest[n+trailer:]
	}
	if f.contentSum {
		if _, rest, err = lz4Number(rest); err != nil {
			return nil, nil, err
		}
	}
	if f.size != 0 && f.size != uint64(len(out)-begin) {
		return nil, nil, errLZ4
	}
	return out, rest, nil
}

// lz4Block appends what one block of a frame has whose content begins at out[begin]. How
// much that is nobody tells: out grows until it is enough, or as large as a block may be.
func (d *decompressor) lz4Block(out, src []byte, stored bool, begin int, f lz4Frame) ([]byte, error) {
	if stored {
		if len(src) > f.most {
			return nil, errLZ4
		}
		if len(src) > d.limit-len(out) {
			return nil, d.tooLarge()
		}
		return append(out, src...), nil
	}
	for room := min(max(cap(out)-len(out), 512), f.most); ; room = min(2*room, f.most) {
		room = min(room, d.limit-len(out))
		if cap(out)-len(out) < room {
			// By half at least: many small blocks would each copy all that came before them.
			size := min(max(len(out)+room, cap(out)+cap(out)/2), d.limit)
			out = append(make([]byte, 0, size), out...)
			room = min(size-len(out), f.most)
		}
		var dict []byte
		if !f.independent {
			dict = out[max(begin, len(out)-lz4Window):]
		}
		n, err := lz4.UncompressBlockWithDict(src, out[len(out):len(out)+room], dict)
		switch {
		case err == nil:
			return out[:len(out)+n], nil
		case room == f.most:
			return nil, err
		case room == d.limit-len(out):
			return nil, d.tooLarge()
		}
	}
}
