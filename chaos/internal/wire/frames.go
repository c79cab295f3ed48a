package wire

import (
	"encoding/binary"
	"fmt"
)

// mostFrame is the largest frame that Kafka accepts by default (socket.request.max.bytes), and room.
const mostFrame = 128 << 20

// frames cuts one direction of a connection to Kafka into its frames: a length of four bytes, then that many. Only those that
// decide keeps are held, the others are skipped as they come.
type frames struct {
	head   int                                      // so many bytes decide
	decide func(head []byte) (keep bool, err error) // looks at the first of a frame
	whole  func(at int64, frame []byte) error       // gets the ones that are kept

	buf   []byte
	state frameState
	size  int // of the frame
	skip  int // bytes of it that are still to come, and not wanted
}

type frameState int

const (
	wantLength frameState = iota
	wantHead
	wantRest
	skipRest
)

func (f *frames) feed(at int64, p []byte) error {
	for len(p) > 0 {
		var err error
		switch f.state {
		case wantLength:
			p, err = f.length(p)
		case wantHead:
			f.buf, p = gather(f.buf, p, f.head)
			if len(f.buf) == f.head {
				err = f.judge(at)
			}
		case wantRest:
			f.buf, p = gather(f.buf, p, f.size)
			err = f.finish(at)
		case skipRest:
			n := min(f.skip, len(p))
			p, f.skip = p[n:], f.skip-n
			if f.skip == 0 {
				f.begin()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *frames) begin() {
	f.state, f.buf = wantLength, f.buf[:0]
	if cap(f.buf) > 1<<20 {
		f.buf = nil
	}
}

func (f *frames) length(p []byte) ([]byte, error) {
	f.buf, p = gather(f.buf, p, 4)
	if len(f.buf) < 4 {
		return p, nil
	}
	size := int32(binary.BigEndian.Uint32(f.buf))
	if int(size) < f.head || size > mostFrame {
		return p, fmt.Errorf("a frame of %d bytes", size)
	}
	f.buf, f.size, f.state = f.buf[:0], int(size), wantHead
	return p, nil
}

func (f *frames) judge(at int64) error {
	keep, err := f.decide(f.buf)
	if err != nil {
		return err
	}
	if keep {
		f.state = wantRest
		return f.finish(at)
	}
	f.state, f.skip = skipRest, f.size-f.head
	if f.skip == 0 {
		f.begin()
	}
	return nil
}

func (f *frames) finish(at int64) error {
	if len(f.buf) < f.size {
		return nil
	}
	defer f.begin()
	return f.whole(at, f.buf)
}
