package acknowledgers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// shelf is a Publisher that keeps records, and refuses what refuse says.
type shelf struct {
	records []broadway.Record
	refuse  func(records []broadway.Record) error
}

func (s *shelf) Publish(_ context.Context, records ...broadway.Record) error {
	s.records = append(s.records, records...)
	if s.refuse != nil {
		return s.refuse(records)
	}
	return nil
}

func (s *shelf) Close() error { return nil }

func header(r broadway.Record, key string) string {
	i := slices.IndexFunc(r.Headers, func(h broadway.Header) bool { return h.Key == key })
	if i < 0 {
		return "(none)"
	}
	return string(r.Headers[i].Value)
}

// failAll sends items through a pipeline that fails each with err.
func failAll(t *testing.T, letters broadway.DeadLetterer, err error, items ...broadwaytest.Item) []broadwaytest.Settled {
	t.Helper()
	return broadwaytest.RunBatch(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(context.Context, *broadway.Message) error { return err }},
		Failure: broadway.FailurePolicy{
			MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond},
			Action: broadway.ActionDeadLetter, DeadLetter: letters,
		},
		Logger: slog.New(slog.DiscardHandler),
	}, items...)
}

// envelope is the metadata of a message that came with key and headers.
type envelope struct {
	id, origin string
	key        []byte
	headers    []broadway.Header
}

func (e envelope) MessageID() string                 { return e.id }
func (e envelope) MessageOrigin() string             { return e.origin }
func (e envelope) MessageKey() []byte                { return e.key }
func (e envelope) MessageHeaders() []broadway.Header { return e.headers }

func TestDeadLetterIsACopy(t *testing.T) {
	ref := broadway.NewAckRef(acknowledgers.Noop{}, nil, 0)
	headers := []broadway.Header{
		{Key: "b", Value: []byte{0, 0xff, '\n'}}, {Key: "a"}, {Key: "a", Value: []byte{}}, {Key: "", Value: []byte("x")},
	}
	for name, c := range map[string]struct{ payload, key []byte }{
		"binary": {[]byte{0, 1, 0xfe, '\r', '\n'}, []byte{0xc3, 0x28}},
		"nil":    {nil, nil},
		"empty":  {[]byte{}, []byte{}},
	} {
		s := &shelf{}
		d := &acknowledgers.DeadLetters{Publisher: s, Destination: "dead"}
		m := broadway.NewMessage(ref, 1, c.payload)
		m.Metadata = envelope{"orders/0/7", "orders", c.key, headers}
		if err := d.DeadLetter(t.Context(), []*broadway.Message{m}); err != nil {
			t.Fatal(err)
		}
		r := s.records[0]
		same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
		if !same(r.Payload, c.payload) || !same(r.Key, c.key) || r.Destination != "dead" || r.ID != "orders/0/7" {
			t.Errorf("%s: published %+v", name, r)
		}
		if null := header(r, acknowledgers.HeaderNull); (null == "") != (c.payload == nil) {
			t.Errorf("%s: the null header is %q", name, null)
		}
		if r.Source == nil {
			t.Errorf("%s: without its source", name)
		}
		for i, h := range headers {
			if r.Headers[i].Key != h.Key || !same(r.Headers[i].Value, h.Value) {
				t.Errorf("%s: header %d is %+v, was %+v", name, i, r.Headers[i], h)
			}
		}
		if len(headers) != 4 || header(r, acknowledgers.HeaderOrigin) != "orders" || header(r, acknowledgers.HeaderID) != "orders/0/7" {
			t.Errorf("%s: headers %+v", name, r.Headers)
		}
	}
}

func TestDeadLetterSaysWhy(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 500, time.FixedZone("", 3600))
	s := &shelf{}
	d := &acknowledgers.DeadLetters{
		Publisher: s, Now: func() time.Time { return now },
		Route: func(m *broadway.Message) string { return m.Metadata.(broadway.Enveloped).MessageOrigin() + ".dead" },
	}
	settled := failAll(t, d, errors.New("does not parse"),
		broadwaytest.Item{Payload: []byte("x"), Metadata: envelope{id: "orders/0/7", origin: "orders"}, Batcher: "processor"})
	if settled[0].Result != broadwaytest.DeadLettered {
		t.Errorf("settled as %+v", settled[0])
	}
	r := s.records[0]
	for key, want := range map[string]string{
		acknowledgers.HeaderReason:   "does not parse",
		acknowledgers.HeaderAttempts: "2",
		acknowledgers.HeaderStage:    "processor",
		acknowledgers.HeaderTime:     "2026-11-23T11:00:00.000Z",
	} {
		if got := header(r, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if r.Destination != "orders.dead" {
		t.Errorf("published to %q", r.Destination)
	}
}

func TestReasonIsBoundedAndValid(t *testing.T) {
	for name, text := range map[string]string{
		"5 MB":            strings.Repeat("x", 5<<20),
		"of wide runes":   strings.Repeat("世", 2000),
		"one byte off":    "a" + strings.Repeat("é", 2000),
		"invalid":         strings.Repeat("\xff", 3000),
		"half invalid":    strings.Repeat("a\xff", 3000),
		"cut in a rune":   strings.Repeat("x", 1023) + "世",
		"just fitting":    strings.Repeat("x", 1024),
		"short":           "no",
		"invalid, short":  "no\xc3(",
		"with a NUL byte": "no\x00",
	} {
		s := &shelf{}
		failAll(t, &acknowledgers.DeadLetters{Publisher: s}, broadway.Reject(errors.New(text)),
			broadwaytest.Item{Payload: []byte("x")})
		got := header(s.records[0], acknowledgers.HeaderReason)
		if len(got) > acknowledgers.MaxReason || !utf8.ValidString(got) {
			t.Errorf("%s: a reason of %d bytes, valid: %v", name, len(got), utf8.ValidString(got))
		}
		if len(text) <= 1024 && utf8.ValidString(text) && got != text {
			t.Errorf("%s: %q became %q", name, text, got)
		}
		if len(text) > 1024 && name != "invalid" && len(got) < acknowledgers.MaxReason-utf8.UTFMax {
			t.Errorf("%s: cut to %d bytes", name, len(got))
		}
	}
}

func FuzzDeadLetterHeadersStayBounded(f *testing.F) {
	f.Add("reason", "id", "origin", "batcher")
	f.Add(strings.Repeat("世", 400), strings.Repeat("\xff", 300), "", strings.Repeat("x", 256))
	f.Fuzz(func(t *testing.T, reason, id, origin, batcher string) {
		s := &shelf{}
		m := broadway.NewMessage(broadway.NewAckRef(acknowledgers.Noop{}, nil, 0), 1, nil)
		m.Batcher = batcher
		m.Metadata = envelope{id: id, origin: reason + origin}
		d := &acknowledgers.DeadLetters{Publisher: s}
		if err := d.DeadLetter(t.Context(), []*broadway.Message{m}); err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, h := range s.records[0].Headers {
			if !utf8.Valid(h.Value) || len(h.Value) > 255 {
				t.Errorf("%s: %d bytes, valid: %v", h.Key, len(h.Value), utf8.Valid(h.Value))
			}
			total += len(h.Key) + len(h.Value)
		}
		if total > 2560 || len(s.records[0].ID) > 255 {
			t.Errorf("headers of %d bytes, ID of %d", total, len(s.records[0].ID))
		}
	})
}

// A message that fails, is replayed, and fails again, fifty times.
func TestReplaysDoNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := memory.NewQueue(memory.QueueConfig{Name: "work"})
		dead := memory.NewQueue(memory.QueueConfig{Name: "dead"})
		original := broadway.Record{
			Key: []byte("k"), Payload: []byte("payload"),
			Headers: []broadway.Header{{Key: "mine", Value: []byte("1")}, {Key: "x-broadway-other", Value: []byte("2")}},
		}
		if err := work.Publish(t.Context(), original); err != nil {
			t.Fatal(err)
		}
		letters := memory.New(memory.Config{Queue: dead})
		stop := startFailing(t, work, &acknowledgers.DeadLetters{Publisher: dead})
		var first []broadway.Header
		for round := range 50 {
			got, err := letters.Fetch(t.Context(), broadway.Demand{Messages: 10, Bytes: 1 << 20})
			if err != nil || len(got) != 1 {
				t.Fatalf("round %d: %d dead letters, %v", round, len(got), err)
			}
			e := got[0].Metadata.(broadway.Enveloped)
			headers := e.MessageHeaders()
			if first == nil {
				first = headers
			}
			if size(headers) != size(first) || string(got[0].Payload) != "payload" || string(e.MessageKey()) != "k" {
				t.Fatalf("round %d: headers of %d bytes, at first %d", round, size(headers), size(first))
			}
			for i, h := range original.Headers {
				if headers[i].Key != h.Key || !bytes.Equal(headers[i].Value, h.Value) {
					t.Fatalf("round %d: header %+v became %+v", round, h, headers[i])
				}
			}
			replay := broadway.Record{Key: e.MessageKey(), Payload: got[0].Payload, Headers: headers}
			if err := work.Publish(t.Context(), replay); err != nil {
				t.Fatal(err)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// size is that of headers, without their digits: an ID counts up.
func size(headers []broadway.Header) int {
	n := 0
	for _, h := range headers {
		if h.Key != acknowledgers.HeaderID {
			n += len(h.Key) + len(h.Value)
		}
	}
	return n
}

// startFailing runs a pipeline that dead-letters all of queue.
func startFailing(t *testing.T, queue *memory.Queue, letters broadway.DeadLetterer) (stop func() error) {
	t.Helper()
	reason := errors.New(strings.Repeat("no good ", 1000))
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Queue: queue})},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return broadway.Reject(reason) }},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	return func() error {
		cancel()
		return <-over
	}
}

func TestUnconfirmedLettersAreNamed(t *testing.T) {
	ref := broadway.NewAckRef(acknowledgers.Noop{}, nil, 0)
	var messages []*broadway.Message
	for i := range int64(4) {
		messages = append(messages, broadway.NewMessage(ref, i, fmt.Append(nil, i)))
	}
	odd := func([]broadway.Record) error {
		return &broadway.PublishError{Errs: []error{nil, io.ErrClosedPipe, nil, io.ErrShortWrite}}
	}
	d := &acknowledgers.DeadLetters{Publisher: &shelf{refuse: odd}}
	err := d.DeadLetter(t.Context(), messages)
	var be *broadway.BatchError
	if !errors.As(err, &be) || be.Len() != 2 {
		t.Errorf("two of four unconfirmed: %v", err)
	}
	for name, refuse := range map[string]func([]broadway.Record) error{
		"all":            func([]broadway.Record) error { return io.ErrClosedPipe },
		"a wrong number": func([]broadway.Record) error { return &broadway.PublishError{Errs: make([]error, 3)} },
	} {
		d := &acknowledgers.DeadLetters{Publisher: &shelf{refuse: refuse}}
		if err := d.DeadLetter(t.Context(), messages); err == nil || errors.As(err, &be) {
			t.Errorf("%s unconfirmed: %v", name, err)
		}
	}
	if err := (&acknowledgers.DeadLetters{}).DeadLetter(t.Context(), messages); err == nil {
		t.Error("without a publisher, letters count as confirmed")
	}
}

// What the broker does not confirm is published again, and nothing is settled
// before that.
func TestUnconfirmedLettersArePublishedAgain(t *testing.T) {
	refused := false
	s := &shelf{refuse: func(records []broadway.Record) error {
		i := slices.IndexFunc(records, func(r broadway.Record) bool { return string(r.Payload) == "b" })
		if i < 0 || refused {
			return nil
		}
		refused = true
		errs := make([]error, len(records))
		errs[i] = io.ErrClosedPipe
		return &broadway.PublishError{Errs: errs}
	}}
	synctest.Test(t, func(t *testing.T) {
		settled := failAll(t, &acknowledgers.DeadLetters{Publisher: s}, broadway.Reject(io.ErrUnexpectedEOF),
			broadwaytest.Item{Payload: []byte("a")}, broadwaytest.Item{Payload: []byte("b")}, broadwaytest.Item{Payload: []byte("c")})
		for _, m := range settled {
			if m.Result != broadwaytest.DeadLettered {
				t.Errorf("%s was settled as %s", m.Payload, m.Result)
			}
		}
	})
	times := map[string]int{}
	for _, r := range s.records {
		times[string(r.Payload)]++
	}
	if times["a"] != 1 || times["b"] != 2 || times["c"] != 1 {
		t.Errorf("published %v", times)
	}
}

func TestNoopAcceptsEverything(t *testing.T) {
	ref := broadway.NewAckRef(acknowledgers.Noop{}, nil, 0)
	m := []*broadway.Message{broadway.NewMessage(ref, 1, nil)}
	if err := ref.Acknowledger().Ack(t.Context(), ref, m, m); err != nil {
		t.Error(err)
	}
}
