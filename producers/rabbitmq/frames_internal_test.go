package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// flow is a connection that delivers what r reads.
type flow struct {
	net.Conn
	r io.Reader
}

func (f flow) Read(p []byte) (int, error) { return f.r.Read(p) }

// frame is one frame on channel 1.
func frame(kind byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 1}, uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

// content is the frame of properties with a content type, a table and a priority.
func content(table []byte) []byte {
	b := make([]byte, 14)
	b[1] = 60
	binary.BigEndian.PutUint16(b[12:], 1<<15|1<<13|1<<11)
	b = append(b, "\x04text"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(table)))
	return frame(frameContent, append(append(b, table...), 7))
}

// field is a value with a length.
func field(kind byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(value))), value...)
}

func entry(key string, value []byte) []byte {
	return append(append([]byte{byte(len(key))}, key...), value...)
}

// deep is a value in n tables and arrays within each other, by turns.
func deep(n int) []byte {
	value := []byte{'t', 1}
	for i := range n {
		if i%2 == 0 {
			value = field('F', entry("k", value))
		} else {
			value = field('A', value)
		}
	}
	return value
}

var errSyntax = errors.New("the client would end the connection")

// decode reads a table as the client does.
func decode(r io.Reader, table bool, depth int) error {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return err
	}
	if depth > 32 {
		return errSyntax
	}
	raw := make([]byte, min(n, 1<<20))
	if _, err := io.ReadFull(r, raw); err != nil {
		return err
	}
	in := bytes.NewReader(raw)
	for elements := 0; in.Len() > 0; elements++ {
		if elements == 8192 {
			return errSyntax
		}
		if table {
			n, _ := in.ReadByte()
			if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
				return err
			}
		}
		if err := decodeField(in, depth); err != nil {
			return err
		}
	}
	return nil
}

func decodeField(in *bytes.Reader, depth int) error {
	kind, err := in.ReadByte()
	if err != nil {
		return err
	}
	sizes := map[byte]int64{'V': 0, 't': 1, 'b': 1, 'B': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'f': 4, 'D': 5, 'l': 8, 'd': 8, 'T': 8}
	n, ok := sizes[kind]
	switch {
	case ok:
	case kind == 'F' || kind == 'A':
		return decode(in, kind == 'F', depth+1)
	case kind == 'S' || kind == 'x':
		var size uint32
		if err := binary.Read(in, binary.BigEndian, &size); err != nil {
			return err
		}
		n = int64(size)
	default:
		return errSyntax
	}
	_, err = io.CopyN(io.Discard, in, n)
	return err
}

// headersOf reads the table out of a frame of content.
func headersOf(b []byte) error { return decode(bytes.NewReader(b[frameHead+14+5:]), true, 0) }

// pass reads all of a stream through frames, size bytes at a time.
func pass(from io.Reader, size int) (out []byte, flattened int64) {
	f := &frames{conn: flow{r: from}}
	for p := make([]byte, size); ; {
		n, err := f.Read(p)
		out = append(out, p[:n]...)
		if err != nil {
			return out, f.flattened.Load()
		}
	}
}

// readAll does so in as many ways as a stream may come.
func readAll(t *testing.T, stream []byte) (out []byte, flattened int64) {
	t.Helper()
	out, flattened = pass(bytes.NewReader(stream), 1<<20)
	for name, from := range map[string]func(io.Reader) io.Reader{
		"whole":    func(r io.Reader) io.Reader { return r },
		"bytewise": iotest.OneByteReader,
		"halves":   iotest.HalfReader,
		"late EOF": iotest.DataErrReader,
	} {
		for _, size := range []int{1, 5, 100} {
			got, n := pass(from(bytes.NewReader(stream)), size)
			if !bytes.Equal(got, out) || n != flattened {
				t.Fatalf("%s, %d at a time: %x (%d), want %x (%d)", name, size, got, n, out, flattened)
			}
		}
	}
	return out, flattened
}

func TestHeadersTheClientCannotReadBecomeBytes(t *testing.T) {
	many := bytes.Repeat([]byte{'V'}, maxElements)
	for _, tt := range []struct {
		name  string
		table []byte
		want  []byte // nil when it is to stay
	}{
		{"none", nil, nil},
		{"every type", entry("all", field('A', []byte("Vt\x01b\x01B\x01s\x00\x01u\x00\x01I\x00\x00\x00\x01i\x00\x00\x00\x01f\x00\x00\x00\x01D\x00\x00\x00\x00\x01"+
			"l\x00\x00\x00\x00\x00\x00\x00\x01d\x00\x00\x00\x00\x00\x00\x00\x01T\x00\x00\x00\x00\x00\x00\x00\x01S\x00\x00\x00\x01ax\x00\x00\x00\x01a"))), nil},
		{"as deep as can be", entry("deep", deep(32)), nil},
		{"as many as can be", entry("many", field('A', many)), nil},
		{"too deep", entry("deep", deep(33)), bytes.Replace(entry("deep", deep(33)), []byte("F\x00\x00\x00\x04"), []byte("x\x00\x00\x00\x04"), 1)},
		{"too many", entry("many", field('A', append(many, 'V'))), entry("many", field('x', append(many, 'V')))},
		{"of an unknown type", entry("odd", field('F', entry("k", []byte{'?'}))), entry("odd", field('x', entry("k", []byte{'?'})))},
		{"longer than what is around it", entry("odd", field('A', []byte("S\x00\x00\x00\x09a"))), entry("odd", field('x', []byte("S\x00\x00\x00\x09a")))},
		{"unreadable in all", bytes.Repeat([]byte("\x01?V"), maxElements+1),
			entry(unreadable, field('x', bytes.Repeat([]byte("\x01?V"), maxElements+1)[:3*(maxElements+1)-len(unreadable)-6]))},
		{"too short for a name", []byte("\x01??"), []byte("\x01??")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent := content(tt.table)
			before := frame(1, []byte("a method, \x02 or so"))
			after := append(frame(3, sent), frame(8, nil)...) // a body that looks like a frame of content
			out, flattened := readAll(t, bytes.Join([][]byte{before, sent, after, sent}, nil))
			want := sent
			if tt.want != nil {
				want = content(tt.want)
			}
			if !bytes.Equal(out, bytes.Join([][]byte{before, want, after, want}, nil)) {
				t.Errorf("read %x", out)
			}
			if changed := !bytes.Equal(want, sent); changed != (flattened == 2) || flattened > 2 {
				t.Errorf("%d changed", flattened)
			}
		})
	}
}

// What is no AMQP passes unread, and so does the end of a broken stream, but for a
// frame that never becomes whole.
func TestWhatIsNoAMQPPasses(t *testing.T) {
	for _, stream := range []string{"AMQP\x00\x00\x09\x01 and more", "\x01\x00\x01\x7f\xff\xff\xff\x02", "\x01\x00\x01\x00\x00\x00\x09half"} {
		if out, _ := readAll(t, []byte(stream)); string(out) != stream {
			t.Errorf("%q was read as %q", stream, out)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(entry("deep", deep(40)), []byte("body"), uint16(7))
	f.Add(entry("k", field('A', []byte("Vt\x01"))), []byte{}, uint16(1))
	f.Add([]byte("\x20 a name for what is not readable \x00\x00?"), []byte{}, uint16(300))
	f.Fuzz(func(t *testing.T, table, body []byte, size uint16) {
		if len(table)+len(body) > maxFrame/2 {
			return // more than a frame
		}
		sent := content(table)
		stream := bytes.Join([][]byte{frame(1, []byte("deliver")), sent, frame(3, body)}, nil)
		out, flattened := pass(bytes.NewReader(stream), 1<<20)
		if got, n := pass(iotest.HalfReader(bytes.NewReader(stream)), 1+int(size)); !bytes.Equal(got, out) || n != flattened {
			t.Fatalf("%d at a time: %x (%d), want %x (%d)", 1+int(size), got, n, out, flattened)
		}
		at := len(frame(1, []byte("deliver")))
		if len(out) != len(stream) || !bytes.Equal(out[:at+frameHead+14+9], stream[:at+frameHead+14+9]) ||
			!bytes.Equal(out[at+len(sent)-2:], stream[at+len(sent)-2:]) {
			t.Fatalf("more than the table was changed")
		}
		got := out[at : at+len(sent)]
		if err := headersOf(got); err != nil && len(table) > 6+len(unreadable) {
			t.Errorf("%v, %x", err, got)
		}
		if headersOf(sent) == nil && flattened != 0 {
			t.Error("a table that the client reads was changed")
		}
		if again, flattened := pass(bytes.NewReader(out), 1<<20); flattened != 0 || !bytes.Equal(again, out) {
			t.Errorf("changed again: %x", again)
		}
	})
}
