package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strings"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// note is what a commit says in its metadata besides its offset: marks, for attempts
// over crashes, and the spans above the offset that have settled, so that whoever
// owns the partition next repeats only what was open.
//
// As a string it is notePrefix and, in base64 without padding: flags; who wrote it
// (8 bytes, and the generation as uvarint); the base as uvarint; the topic's id; the
// epoch as varint; if the flags say so, the rest of the marks (see marks.append); how
// the spans are written and the spans; and the CRC-32C of all that.
//
// Runs are pairs of uvarints, a gap and a length, from the base on. A bitmap has
// one bit for each offset after the base, which itself is never settled, least
// significant bit first.
type note struct {
	topic [16]byte // the topic's id; zero when the broker does not tell
	base  int64    // the committed offset
	// epoch is the leader epoch of the last offset that n is about (see end), or a
	// later one; -1 when it is not known.
	epoch int32
	// by is the producer that wrote it, and its generation then.
	by    writer
	marks marks
	// spans rise, do not touch, and lie above base.
	spans []acknowledgers.Span
}

const (
	// noteNames is what notes of all versions begin with; anything else is
	// somebody else's.
	noteNames  = "gobroadway/"
	notePrefix = noteNames + "2 "

	// mostNote is how many characters a broker takes by default
	// (offset.metadata.max.bytes), and leastNote how many hold a note without spans:
	// a broker that takes fewer gets none.
	mostNote  = 4096
	leastNote = 288
)

const (
	flagClosed byte = 1 << iota
	flagRunning
	flagSuspect // there is more of the marks
)

const (
	spansNone byte = iota
	spansRuns
	spansBitmap
)

// errDoubt is why a note is not used: it is damaged, or of another version.
var errDoubt = errors.New("kafka: the metadata of a commit cannot be read")

// end is the offset after the last one that n says something about: what has
// settled, or is tried; 0 if it says nothing.
func (n *note) end() (end int64) {
	if k := len(n.spans); k > 0 {
		end = n.spans[k-1].End
	}
	if n.marks.attempt > 0 {
		end = max(end, n.marks.trial+1)
	}
	return end
}

// checksum is the CRC-32C. The standard library makes the table once.
func checksum(raw []byte) uint32 {
	return crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
}

// foreign says whether metadata was written by somebody else.
func foreign(metadata string) bool {
	return metadata != "" && !strings.HasPrefix(metadata, noteNames)
}

// encode writes n in at most most characters. Spans that do not fit are left out,
// those farthest from the base: untold is how many offsets they cover.
func (n *note) encode(most int) (metadata string, untold int64) {
	raw := make([]byte, 0, 256)
	raw = append(raw, n.marks.flags())
	raw = n.by.append(raw)
	raw = binary.AppendUvarint(raw, uint64(n.base))
	raw = append(raw, n.topic[:]...)
	raw = binary.AppendVarint(raw, int64(n.epoch))
	raw = n.marks.append(raw, n.base)

	room := base64.RawStdEncoding.DecodedLen(most-len(notePrefix)) - len(raw) - 1 - 4
	kind, body, untold := packSpans(n.base, n.spans, room)
	raw = append(append(raw, kind), body...)
	raw = binary.BigEndian.AppendUint32(raw, checksum(raw))
	return notePrefix + base64.RawStdEncoding.EncodeToString(raw), untold
}

// packSpans writes as much of spans as room bytes hold, in the way that tells
// more, or else takes less.
func packSpans(base int64, spans []acknowledgers.Span, room int) (kind byte, body []byte, untold int64) {
	if len(spans) == 0 {
		return spansNone, nil, 0
	}
	runs, left := packRuns(base, spans, room)
	bits, unset := packBitmap(base, spans, room)
	switch {
	case unset < left || unset == left && len(bits) < len(runs):
		return spansBitmap, bits, unset
	case len(runs) == 0:
		return spansNone, nil, left
	}
	return spansRuns, runs, left
}

func packRuns(base int64, spans []acknowledgers.Span, room int) (body []byte, untold int64) {
	full := false
	for _, s := range spans {
		fits := len(body)
		if !full {
			body = binary.AppendUvarint(body, uint64(s.First-base))
			body = binary.AppendUvarint(body, uint64(s.Len()))
			full = len(body) > room
		}
		if full {
			body = body[:fits]
			untold += s.Len()
		}
		base = s.End
	}
	return body, untold
}

func packBitmap(base int64, spans []acknowledgers.Span, room int) (body []byte, untold int64) {
	first := base + 1
	most := first + 8*int64(max(room, 0)) // the first offset without a bit
	end := min(spans[len(spans)-1].End, most)
	body = make([]byte, max(end-first+7, 0)/8)
	for _, s := range spans {
		for offset := s.First; offset < min(s.End, most); offset++ {
			body[(offset-first)/8] |= 1 << ((offset - first) % 8)
		}
		untold += max(s.End-max(s.First, most), 0)
	}
	return body, untold
}

// decodeNote reads what encode wrote. Whatever else it is given is errDoubt.
func decodeNote(metadata string) (*note, error) {
	text, ours := strings.CutPrefix(metadata, notePrefix)
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if !ours || err != nil || len(raw) < 4 || len(metadata) > math.MaxInt16 {
		return nil, errDoubt
	}
	raw, sum := raw[:len(raw)-4], raw[len(raw)-4:]
	if binary.BigEndian.Uint32(sum) != checksum(raw) {
		return nil, errDoubt
	}
	r := noteReader{src: raw}
	n := &note{}
	flags := r.byte()
	n.by = r.writer()
	n.base = r.uvarint()
	copy(n.topic[:], r.take(len(n.topic)))
	n.epoch = r.epoch()
	n.marks = r.marks(flags, n.base)
	switch r.byte() {
	case spansNone:
		r.bad = r.bad || len(r.src) > 0
	case spansRuns:
		n.spans = r.runs(n.base)
	case spansBitmap:
		n.spans = r.bitmap(n.base)
	default:
		r.bad = true
	}
	if r.bad {
		return nil, errDoubt
	}
	return n, nil
}

// noteReader takes values off src. Once one was not there it is bad for good.
type noteReader struct {
	src []byte
	bad bool
}

func (r *noteReader) take(n int) []byte {
	if r.bad || len(r.src) < n {
		r.bad = true
		return nil
	}
	head := r.src[:n]
	r.src = r.src[n:]
	return head
}

func (r *noteReader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// uvarint is not negative.
func (r *noteReader) uvarint() int64 {
	v, n := binary.Uvarint(r.src)
	if n <= 0 || v > math.MaxInt64 {
		r.bad = true
		return 0
	}
	r.take(n)
	return int64(v)
}

func (r *noteReader) epoch() int32 {
	v, n := binary.Varint(r.src)
	if n <= 0 || v < -1 || v > math.MaxInt32 {
		r.bad = true
		return -1
	}
	r.take(n)
	return int32(v)
}

// add is a sum of offsets, which must be an offset.
func (r *noteReader) add(a, b int64) int64 {
	if b > math.MaxInt64-a {
		r.bad = true
		return 0
	}
	return a + b
}

func (r *noteReader) runs(at int64) (spans []acknowledgers.Span) {
	for len(r.src) > 0 && !r.bad {
		gap, n := r.uvarint(), r.uvarint()
		s := acknowledgers.Span{First: r.add(at, gap)}
		s.End = r.add(s.First, n)
		r.bad = r.bad || gap == 0 || n == 0
		spans = append(spans, s)
		at = s.End
	}
	return spans
}

func (r *noteReader) bitmap(base int64) (spans []acknowledgers.Span) {
	if r.add(base, 8*int64(len(r.src))+1); r.bad {
		return nil
	}
	at := base
	for _, b := range r.src {
		for bit := range 8 {
			at++
			if b>>bit&1 == 0 {
				continue
			}
			if k := len(spans); k > 0 && spans[k-1].End == at {
				spans[k-1].End++
			} else {
				spans = append(spans, acknowledgers.Span{First: at, End: at + 1})
			}
		}
	}
	return spans
}
