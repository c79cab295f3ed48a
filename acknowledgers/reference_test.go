package acknowledgers_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// abridged is the metadata of a message that came with a part of its payload.
type abridged struct {
	envelope
	size int64
	sum  []byte
}

func (a abridged) MessageOriginal() (int64, []byte, bool) { return a.size, a.sum, a.size != 0 }

// limited refuses records whose payload is longer than limit, each of them by name.
func limited(limit int) func([]broadway.Record) error {
	return func(records []broadway.Record) error {
		errs, refused := make([]error, len(records)), false
		for i, r := range records {
			if len(r.Payload) > limit {
				errs[i], refused = fmt.Errorf("%d bytes: %w", len(r.Payload), broadway.ErrTooLarge), true
			}
		}
		if !refused {
			return nil
		}
		return &broadway.PublishError{Errs: errs}
	}
}

func letter(t *testing.T, seq int64, payload []byte, metadata any) *broadway.Message {
	t.Helper()
	m := broadway.NewMessage(broadway.NewAckRef(acknowledgers.Noop{}, nil, 0), seq, payload)
	m.Metadata = metadata
	return m
}

func TestWhatTheBrokerFindsTooLargeBecomesAReference(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 1000)
	from := func(id string) envelope {
		return envelope{id, "orders", []byte("key"), []broadway.Header{{Key: "mine", Value: big}}}
	}
	s := &shelf{refuse: limited(5000)}
	d := &acknowledgers.DeadLetters{Publisher: s}
	err := d.DeadLetter(t.Context(), []*broadway.Message{
		letter(t, 1, []byte("small"), from("orders/0/1")), letter(t, 2, big, from("orders/0/2")), letter(t, 3, []byte("also"), from("orders/0/3")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.records) != 4 {
		t.Fatalf("%d records were published, want three and a reference", len(s.records))
	}
	for _, r := range s.records[:3] {
		if acknowledgers.IsReference(r.Headers) {
			t.Errorf("%s is a reference before it was refused", r.ID)
		}
	}
	r := s.records[3]
	sum := sha256.Sum256(big)
	if !acknowledgers.IsReference(r.Headers) || header(r, acknowledgers.HeaderSize) != "10000" ||
		header(r, acknowledgers.HeaderSHA256) != hex.EncodeToString(sum[:]) || header(r, acknowledgers.HeaderID) != "orders/0/2" ||
		header(r, acknowledgers.HeaderOrigin) != "orders" {
		t.Errorf("the reference has the headers %q", r.Headers)
	}
	if !bytes.Equal(r.Payload, big[:acknowledgers.MaxReferencePayload]) || string(r.Key) != "key" || header(r, "mine") != "(none)" || r.Source != nil {
		t.Errorf("the reference holds %d bytes, key %q, source %v", len(r.Payload), r.Key, r.Source)
	}
}

func TestReferencesAreMadeBeforeAnybodyRefuses(t *testing.T) {
	long := bytes.Repeat([]byte("k"), 300)
	for name, c := range map[string]struct {
		payload  []byte
		metadata any
		size     string
		sum      string
	}{
		"the payload is over the limit": {make([]byte, 101), envelope{}, "101", hexSum(make([]byte, 101))},
		"the key is":                    {nil, envelope{key: long}, "0", hexSum(nil)},
		"the headers are":               {[]byte("x"), envelope{headers: []broadway.Header{{Key: "h", Value: long}}}, "1", hexSum([]byte("x"))},
		"abridged":                      {[]byte("x"), abridged{size: 1 << 30, sum: []byte{0xab}}, "1073741824", "ab"},
		"abridged, nothing known":       {nil, abridged{size: -1}, "-1", ""},
	} {
		s := &shelf{}
		d := &acknowledgers.DeadLetters{Publisher: s, MaxBytes: 100}
		if err := d.DeadLetter(t.Context(), []*broadway.Message{letter(t, 1, c.payload, c.metadata)}); err != nil {
			t.Fatal(err)
		}
		r := s.records[0]
		if len(s.records) != 1 || header(r, acknowledgers.HeaderSize) != c.size || header(r, acknowledgers.HeaderSHA256) != c.sum || len(r.Key) > 255 {
			t.Errorf("%s: published %d times, with %q", name, len(s.records), r.Headers)
		}
	}
	s := &shelf{}
	d := &acknowledgers.DeadLetters{Publisher: s, MaxBytes: 100}
	m := letter(t, 1, make([]byte, 90), abridged{envelope: envelope{key: []byte("0123456789"), headers: []broadway.Header{
		{Key: acknowledgers.HeaderReason, Value: long}, {Key: acknowledgers.HeaderSize, Value: []byte("7")},
	}}})
	if err := d.DeadLetter(t.Context(), []*broadway.Message{m}); err != nil || acknowledgers.IsReference(s.records[0].Headers) {
		t.Errorf("100 bytes, without headers of our own, are a reference: %v, %q", err, s.records[0].Headers)
	}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// A reference is tried once for each call, and is confirmed like any other letter.
func TestReferencesThatAreNotConfirmedAreNamed(t *testing.T) {
	s := &shelf{refuse: limited(10)}
	d := &acknowledgers.DeadLetters{Publisher: s}
	small, large := letter(t, 1, []byte("small"), envelope{}), letter(t, 2, make([]byte, 5000), envelope{})
	err := d.DeadLetter(t.Context(), []*broadway.Message{small, large})
	var be *broadway.BatchError
	if !errors.As(err, &be) || be.Len() != 1 || len(s.records) != 3 {
		t.Errorf("DeadLetter: %v, after %d records", err, len(s.records))
	}
	s = &shelf{refuse: func([]broadway.Record) error { return fmt.Errorf("all: %w", broadway.ErrTooLarge) }}
	d.Publisher = s
	if err := d.DeadLetter(t.Context(), []*broadway.Message{large}); !errors.As(err, &be) || len(s.records) != 2 {
		t.Errorf("DeadLetter: %v, after %d records", err, len(s.records))
	}
	calls := 0
	d.Publisher = &shelf{refuse: func([]broadway.Record) error {
		if calls++; calls == 1 {
			return limited(10)([]broadway.Record{{Payload: large.Payload}})
		}
		return io.ErrClosedPipe
	}}
	if err := d.DeadLetter(t.Context(), []*broadway.Message{large}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("DeadLetter: %v", err)
	}
}

func TestSpillStoresWhatAReferenceStandsFor(t *testing.T) {
	var stored []string
	full := true
	s := &shelf{}
	d := &acknowledgers.DeadLetters{Publisher: s, MaxBytes: 100, Spill: func(_ context.Context, m *broadway.Message) (string, error) {
		if len(m.Payload) > 1000 && full {
			return "", io.ErrShortWrite
		}
		stored = append(stored, m.ID())
		return "spilled/" + m.ID(), nil
	}}
	messages := []*broadway.Message{
		letter(t, 1, []byte("small"), envelope{id: "a"}), letter(t, 2, make([]byte, 200), envelope{id: "b"}), letter(t, 3, make([]byte, 2000), envelope{id: "c"}),
	}
	err := d.DeadLetter(t.Context(), messages)
	var be *broadway.BatchError
	if !errors.As(err, &be) || be.Len() != 1 || !slices.Equal(stored, []string{"b"}) || len(s.records) != 2 {
		t.Fatalf("DeadLetter: %v; stored %q, published %d", err, stored, len(s.records))
	}
	if got := header(s.records[1], acknowledgers.HeaderSpill); got != "spilled/b" {
		t.Errorf("the reference says %q", got)
	}
	full = false
	if err := d.DeadLetter(t.Context(), messages[2:]); err != nil || header(s.records[2], acknowledgers.HeaderSpill) != "spilled/c" {
		t.Errorf("DeadLetter: %v", err)
	}
}

// invalid is a Publisher that reports mistakes of its config.
type invalid struct{ shelf }

func (*invalid) Validate() error { return errors.Join(io.ErrNoProgress, io.ErrShortBuffer) }

// addressed is a Publisher that knows where records go, or that they go nowhere.
type addressed struct {
	shelf
	has bool
}

func (a *addressed) HasDestination() bool { return a.has }

// Dead letters that would go nowhere are found before anything runs.
func TestDeadLettersHaveADestination(t *testing.T) {
	route := func(*broadway.Message) string { return "dead" }
	for name, tt := range map[string]struct {
		letters acknowledgers.DeadLetters
		ok      bool
	}{
		"none":            {acknowledgers.DeadLetters{Publisher: &addressed{}}, false},
		"its own":         {acknowledgers.DeadLetters{Publisher: &addressed{}, Destination: "dead"}, true},
		"a route":         {acknowledgers.DeadLetters{Publisher: &addressed{}, Route: route}, true},
		"the publisher's": {acknowledgers.DeadLetters{Publisher: &addressed{has: true}}, true},
		"nobody can tell": {acknowledgers.DeadLetters{Publisher: &shelf{}}, true},
	} {
		if err := tt.letters.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeadLettersAreValidated(t *testing.T) {
	_, err := broadway.New(broadway.Config{Failure: broadway.FailurePolicy{
		Action: broadway.ActionDeadLetter, DeadLetter: &acknowledgers.DeadLetters{Publisher: &invalid{}, MaxBytes: -1},
	}})
	for _, want := range []string{
		"Failure.DeadLetter.MaxBytes: -1", "Failure.DeadLetter.Publisher: " + io.ErrNoProgress.Error(), "Failure.DeadLetter.Publisher: " + io.ErrShortBuffer.Error(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New does not say %q: %v", want, err)
		}
	}
	if err := (&acknowledgers.DeadLetters{}).Validate(); err == nil || !strings.Contains(err.Error(), "Publisher") {
		t.Errorf("Validate: %v", err)
	}
	if err := (&acknowledgers.DeadLetters{Publisher: &shelf{}}).Validate(); err != nil {
		t.Error(err)
	}
}
