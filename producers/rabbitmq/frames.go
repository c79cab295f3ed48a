package rabbitmq

import (
	"encoding/binary"
	"io"
	"slices"
	"sync/atomic"
)

// What the client reads of a header table. More than that is an error for it, by
// which the connection ends: so would each next one on which the message is delivered
// again, and the queue would stand still behind it.
const (
	maxDepth    = 32   // of tables and arrays within each other, the outermost not counted
	maxElements = 8192 // of one table or array
)

// unreadable is the one header of a message whose headers the client cannot read.
const unreadable = "x-unreadable-headers"

const (
	frameHead    = 7 // type, channel, size
	frameContent = 2 // the type of the frame with the properties of a message
	maxFrameType = 8 // heartbeat
)

// readAhead is how many bytes are read from the socket at once: the client would ask for
// 4 KiB, which is a dozen small messages.
const readAhead = 32 << 10

// frames reads what the broker sends, and leaves it as it is but for header tables
// that the client cannot read. A table or array that is nested too deep, has too
// many elements, or is broken becomes a byte array of the same bytes: on the wire
// one is as long as the other, so that only the letter of its type changes. What a
// consumer gets it takes out.
//
// It is no net.Conn, by design: of one that has deadlines the client moves the read
// deadline for each frame, in another goroutine that it wakes for that. gatedConn, which
// is below, does so itself.
type frames struct {
	conn      io.ReadWriteCloser
	buffer    []byte // what was read
	next      int    // what of it is to be returned next
	seen      int    // what may be returned ends here
	want      int    // how much of the frame that begins at seen must be there to go on
	skip      int    // what passes after seen, before the next frame begins
	blind     bool   // this is no AMQP: everything passes
	intake    intake
	consumer  atomic.Pointer[consumer] // nil as long as there was none
	flattened atomic.Int64
}

// Write is the connection's.
func (f *frames) Write(p []byte) (int, error) { return f.conn.Write(p) }

// Close is the connection's.
func (f *frames) Close() error { return f.conn.Close() }

// Read reads from the connection only while it has nothing to return. When the client
// calls it again, it has done all that it does about the frames that it has. So all
// happens in the order in which it came.
func (f *frames) Read(p []byte) (int, error) {
	for f.next == f.seen && len(p) > 0 {
		if f.scan(); f.next < f.seen {
			break
		}
		f.intake.flush()
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	f.intake.flush()
	n := copy(p, f.buffer[f.next:f.seen])
	f.next += n
	return n, nil
}

// fill reads once, behind the beginning of a frame that is not there yet: all else in the
// buffer was returned.
func (f *frames) fill() error {
	held := len(f.buffer) - f.seen
	if f.seen > 0 {
		copy(f.buffer, f.buffer[f.seen:])
	}
	f.buffer = slices.Grow(f.buffer[:held], max(readAhead, f.want)-held)
	f.next, f.seen, f.want = 0, 0, 0
	n, err := f.conn.Read(f.buffer[held:cap(f.buffer)])
	f.buffer = f.buffer[:held+n]
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// scan looks at what was read, and changes it in place. It stops before the beginning of
// a frame that is not there yet, and before one that is taken in when there is something
// to be returned first.
func (f *frames) scan() {
	for f.seen < len(f.buffer) {
		b := f.buffer[f.seen:]
		if f.blind {
			f.skip = len(b)
		}
		if passed := min(f.skip, len(b)); passed > 0 {
			f.skip -= passed
			f.seen += passed
			continue
		}
		taken, ready := f.take(b)
		if !ready {
			return
		}
		if taken > 0 {
			f.seen += taken
			f.next = f.seen
			continue
		}
		size, whole := f.frame(b)
		if !whole {
			f.want = size
			return
		}
		f.skip = size
	}
}

// take takes in the frame that begins with b, if it is one of a delivery. It is not ready
// to as long as not enough of it is there, or something is to be returned first.
func (f *frames) take(b []byte) (taken int, ready bool) {
	c := f.consumer.Load()
	if c == nil {
		return 0, true
	}
	want, concerns := f.intake.concerns(b)
	switch {
	case len(b) < want:
		f.want = want
		return 0, false
	case !concerns:
		return 0, true
	case f.next < f.seen:
		return 0, false
	}
	if b[0] == frameContent && flattenContent(b[frameHead:want-1]) {
		f.flattened.Add(1)
	}
	if !f.intake.accept(c, b[:want]) {
		return 0, true
	}
	return want, true
}

// frame looks at the frame that begins with b, and returns its size. If it must be
// whole to be looked at, and is not, it returns how much of it is wanted.
func (f *frames) frame(b []byte) (size int, whole bool) {
	if len(b) < frameHead {
		return frameHead, false
	}
	n := binary.BigEndian.Uint32(b[3:])
	if b[0] == 0 || b[0] > maxFrameType || n > maxFrame {
		f.blind = true // the client will say what is wrong
		return len(b), true
	}
	size = frameHead + int(n) + 1
	if b[0] != frameContent {
		return size, true
	}
	if len(b) < size {
		return size, false
	}
	if flattenContent(b[frameHead : size-1]) {
		f.flattened.Add(1)
	}
	return size, true
}

// flattenContent makes the headers in the frame of a message's properties readable,
// and says whether they were not.
func flattenContent(b []byte) bool {
	const flags, properties = 12, 14 // where they begin: class, weight and size of the body come first
	const contentType, contentEncoding, headers = 1 << 15, 1 << 14, 1 << 13
	if len(b) < properties {
		return false
	}
	set := binary.BigEndian.Uint16(b[flags:])
	if set&headers == 0 {
		return false
	}
	b = b[properties:]
	for _, before := range [...]uint16{contentType, contentEncoding} {
		if set&before == 0 {
			continue
		}
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return false
		}
		b = b[1+int(b[0]):]
	}
	if len(b) < 4 || uint64(len(b)) < 4+uint64(binary.BigEndian.Uint32(b)) {
		return false
	}
	table := b[4 : 4+binary.BigEndian.Uint32(b)]
	changed, readable := flatten(table, true, 0)
	if !readable {
		return replace(table)
	}
	return changed
}

// flatten makes what is within a table or an array readable. It says whether it
// changed something, and whether the client can read the result.
func flatten(b []byte, table bool, depth int) (changed, readable bool) {
	for n := 1; len(b) > 0; n++ {
		if table {
			if len(b) < 1+int(b[0]) {
				return changed, false
			}
			b = b[1+int(b[0]):]
		}
		size := fieldSize(b)
		if size < 0 || size > len(b) || n > maxElements {
			return changed, false
		}
		if b[0] == 'F' || b[0] == 'A' {
			inner, ok := false, false
			if depth < maxDepth {
				inner, ok = flatten(b[5:size], b[0] == 'F', depth+1)
			}
			if !ok {
				b[0] = 'x'
			}
			changed = changed || inner || !ok
		}
		b = b[size:]
	}
	return changed, true
}

// fieldSize is how many bytes the field at the start of b takes with the letter of
// its type, -1 when the client does not know it.
func fieldSize(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	switch b[0] {
	case 'V':
		return 1
	case 't', 'b', 'B':
		return 2
	case 's', 'u':
		return 3
	case 'I', 'i', 'f':
		return 5
	case 'D':
		return 6
	case 'l', 'd', 'T':
		return 9
	case 'S', 'x', 'F', 'A':
		if len(b) < 5 {
			return -1
		}
		return int(min(5+uint64(binary.BigEndian.Uint32(b[1:])), 1<<30))
	}
	return -1
}

// replace makes the content of a table one byte array under a name of ours, with as
// much of the former content as fits. It says whether there was room for it.
func replace(table []byte) bool {
	const name = 1 + len(unreadable)
	const before = name + 5
	if len(table) < before {
		return false
	}
	copy(table[before:], table)
	table[0] = byte(len(unreadable))
	copy(table[1:], unreadable)
	table[name] = 'x'
	binary.BigEndian.PutUint32(table[name+1:], uint32(len(table)-before))
	return true
}
