package kafka

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// spansAt makes rising spans above base of gaps and lengths, one byte each.
func spansAt(base int64, shape []byte) (spans []acknowledgers.Span) {
	at := base
	for i := 0; i+1 < len(shape); i += 2 {
		first := at + 1 + int64(shape[i])
		at = first + 1 + int64(shape[i+1])
		spans = append(spans, acknowledgers.Span{First: first, End: at})
	}
	return spans
}

func lengths(spans []acknowledgers.Span) (n int64) {
	for _, s := range spans {
		n += s.Len()
	}
	return n
}

func checkNote(t *testing.T, n note, most int) {
	t.Helper()
	text, untold := n.encode(most)
	if len(text) > most || !utf8.ValidString(text) || foreign(text) {
		t.Fatalf("%d of %d characters: %q", len(text), most, text)
	}
	got, err := decodeNote(text)
	if err != nil {
		t.Fatalf("%+v: %v", n, err)
	}
	if told := lengths(got.spans); told+untold != lengths(n.spans) {
		t.Fatalf("told %d and %d untold of %d", told, untold, lengths(n.spans))
	}
	// Of what there is, nothing nearer to the base was left out.
	if k := len(got.spans); k > 0 && !slices.Equal(got.spans, spansBelow(n.spans, got.spans[k-1].End)) {
		t.Fatalf("told %v of %v", got.spans, n.spans)
	}
	want := n
	want.spans = got.spans
	if !reflect.DeepEqual(*got, want) {
		t.Fatalf("%+v came back as %+v", want, *got)
	}
}

func TestNotesComeBack(t *testing.T) {
	alternating := make([]byte, 40_000)
	for name, n := range map[string]note{
		"empty":       {epoch: -1},
		"run":         {base: 5, epoch: 1, spans: spansAt(5, []byte{0, 200})},
		"alternating": {base: 1 << 40, epoch: 1, spans: spansAt(1<<40, alternating)},
		"suspect": {base: 900, epoch: 3, by: writer{1 << 63, 12}, spans: spansAt(900, []byte{0, 200}), marks: marks{
			starts: 3, until: 1028, goal: 4900, trial: 907, attempt: 9, running: true, lost: [mostLost]writer{{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}, {8, 8}},
		}},
		"reached": {base: 900, epoch: -1, marks: marks{closed: true, starts: 1, reach: 1028, goal: 4900}},
		"sparse":  {base: 0, epoch: 1, spans: spansAt(0, []byte(strings.Repeat("\xff\x00", 10_000)))},
	} {
		t.Run(name, func(t *testing.T) {
			for _, most := range []int{leastNote, 400, mostNote} {
				checkNote(t, n, most)
			}
		})
	}
	n := note{base: 1 << 40, epoch: 1, spans: spansAt(1<<40, alternating[:24_000])}
	if _, untold := n.encode(mostNote); untold != 0 {
		t.Errorf("every other one of 24,000 offsets: %d do not fit", untold)
	}
}

func TestDamagedNotesAreDoubted(t *testing.T) {
	n := note{base: 77, epoch: 2, spans: spansAt(77, []byte{0, 0, 3, 9, 1, 1})}
	text, _ := n.encode(mostNote)
	for i := range text {
		for _, c := range []byte{'A', 'z', '!', 0xff} {
			damaged := text[:i] + string([]byte{c}) + text[i+1:]
			if damaged == text {
				continue
			}
			if got, err := decodeNote(damaged); err == nil {
				t.Errorf("%q was read as %+v", damaged, got)
			}
		}
		if _, err := decodeNote(text[:i]); err == nil {
			t.Errorf("the first %d characters were read", i)
		}
	}
	for _, other := range []string{"", "x", "gobroadway/1 AAAA", notePrefix, "consumer-7", text + "A"} {
		if _, err := decodeNote(other); err == nil {
			t.Errorf("%q was read", other)
		}
	}
}

// FuzzNote writes notes and reads them back, and reads whatever else there is: with
// a checksum that is right, so that the rest is read too.
func FuzzNote(f *testing.F) {
	f.Add([]byte{3, 1, 0, 200}, int64(12), uint8(1), 300)
	f.Add([]byte("any"), int64(0), uint8(0), mostNote)
	f.Fuzz(func(t *testing.T, shape []byte, base int64, few uint8, most int) {
		if got, err := decodeNote(string(shape)); err == nil {
			t.Fatalf("%+v", got)
		}
		if got, err := decodeNote(sealed(shape)); err == nil {
			last := got.base
			for _, s := range got.spans {
				if s.First <= last || s.End <= s.First {
					t.Fatalf("spans %v above %d", got.spans, got.base)
				}
				last = s.End
			}
		}
		if base < 0 || base > 1<<60 || most < leastNote || most > mostNote {
			return
		}
		n := note{base: base, epoch: int32(few) - 1, spans: spansAt(base, shape), by: writer{uint64(base), int32(few)}}
		n.marks = marks{closed: few&1 > 0, starts: int32(few & 2), until: base*int64(few>>2&1) + int64(few>>2&1), attempt: int32(few >> 4)}
		if n.marks.attempt > 0 {
			n.marks.trial, n.marks.running = base+int64(few), few&8 > 0
			n.marks.lost[0] = n.by
		}
		checkNote(t, n, most)
	})
}

// sealed is a note of any bytes, with its checksum.
func sealed(raw []byte) string {
	raw = binary.BigEndian.AppendUint32(bytes.Clone(raw), checksum(raw))
	return notePrefix + base64.RawStdEncoding.EncodeToString(raw)
}

// TestNotesGetShorterOnce: a broker that takes shorter notes only gets them, however
// many it has refused at once; one that takes none gets none in the end.
func TestNotesGetShorterOnce(t *testing.T) {
	for limit, want := range map[int]int{3000: 2000, 1000: 1000, 400: 288, 100: 0} {
		s, own := &session{mostNote: mostNote, log: slog.New(slog.DiscardHandler)}, &ownership{}
		own.session.Store(s)
		for refused := true; refused && s.mostNote > 0; {
			refused = false
			var due []commitment
			codes := map[topicPartition]code{}
			for i := range 10 {
				d := commitment{partition: topicPartition{"t", int32(i)}, own: own, metadata: strings.Repeat("x", min(s.mostNote, 4000))}
				due = append(due, d)
				if len(d.metadata) > limit {
					codes[d.partition], refused = codeMetadataTooLarge, true
				}
			}
			if refused && s.confirm(due, codes) == nil {
				t.Error("what was refused is not tried again")
			}
		}
		if s.mostNote != want {
			t.Errorf("a broker that takes %d characters gets %d, want %d", limit, s.mostNote, want)
		}
	}
}
