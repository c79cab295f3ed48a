package acknowledgers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gobroadway/gobroadway/broadway"
)

// Headers that DeadLetters adds. A message that has them from an earlier round
// gets new ones in their place, so that failing again does not make it grow.
const (
	// HeaderOrigin is the topic or queue that the message came from.
	HeaderOrigin = "x-broadway-origin"
	// HeaderID is the message's ID there: topic/partition/offset, or the queue
	// and the message id.
	HeaderID = "x-broadway-id"
	// HeaderStage is the stage that failed the message: "processor", or a batcher.
	HeaderStage = "x-broadway-stage"
	// HeaderReason is the error text, in valid UTF-8.
	HeaderReason = "x-broadway-reason"
	// HeaderAttempts is how often the stage that failed had handled the message.
	HeaderAttempts = "x-broadway-attempts"
	// HeaderTime is when it was given up, as RFC 3339 in UTC with milliseconds.
	HeaderTime = "x-broadway-time"
	// HeaderNull is there, and empty, when the payload was nil, not empty: not
	// every broker can tell.
	HeaderNull = "x-broadway-null"
	// HeaderKey is the key, added by publishers to brokers that know none.
	HeaderKey = "x-broadway-key"

	// PrefixSource begins the headers of [broadway.Annotated].
	PrefixSource = "x-broadway-source-"
)

// MaxReason is the most that HeaderReason takes, in bytes.
const MaxReason = 1024

const (
	// maxName bounds the other headers, and a record's ID: an AMQP short string.
	maxName = 255
	// maxID bounds HeaderID, which holds two names and an offset.
	maxID = 600

	timeFormat = "2006-01-02T15:04:05.000Z07:00"
)

var ownHeaders = [...]string{
	HeaderOrigin, HeaderID, HeaderStage, HeaderReason, HeaderAttempts, HeaderTime, HeaderNull, HeaderKey,
	HeaderSize, HeaderSHA256, HeaderSpill,
}

// DeadLetters is the [broadway.DeadLetterer] that publishes failed messages, as
// they came, to a destination of a broker. Payload, key and headers are copied
// byte by byte (the latter two where the source's metadata is
// [broadway.Enveloped]; for what a broker knows besides, see [broadway.Record]),
// and headers that say why are added, of at most 4 KiB in all. It is safe for
// concurrent use.
//
// A message that the broker refuses because of its size ([broadway.ErrTooLarge]),
// that is larger than MaxBytes or than the pipeline allows
// ([broadway.ErrOverLimit]), or of which its source has delivered only a part
// ([broadway.Abridged]), becomes a reference: the first [MaxReferencePayload]
// bytes of its payload, its key if that is no longer than [MaxReferenceKey], none
// of its headers, and HeaderSize and HeaderSHA256 besides the others. Once the
// reference is confirmed the message is settled like any other: Kafka keeps it
// until its retention ends, RabbitMQ does not. Set Spill to keep it elsewhere
// before.
type DeadLetters struct {
	// Publisher is required.
	Publisher broadway.Publisher
	// Destination is the topic or routing key. Empty means the Publisher's own.
	Destination string
	// Route chooses the destination of each message. Default: Destination.
	Route func(*broadway.Message) string
	// MaxBytes is how large payload, key and headers of a message may be in sum,
	// before ours are added. Default: as large as the broker takes.
	MaxBytes int64
	// Spill stores a message elsewhere, before a reference to it is published,
	// and says where: HeaderSpill, cut to 255 bytes. While it fails, the message
	// is unsettled. It may be called again for a message that it has stored.
	Spill func(context.Context, *broadway.Message) (where string, err error)
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

var (
	_ broadway.DeadLetterer  = (*DeadLetters)(nil)
	_ broadway.Validator     = (*DeadLetters)(nil)
	_ broadway.HealthChecker = (*DeadLetters)(nil)
)

// Health is why the Publisher cannot publish now, where that is a
// [broadway.HealthChecker]; nil otherwise.
func (d *DeadLetters) Health() error {
	if p, ok := d.Publisher.(broadway.HealthChecker); ok {
		return p.Health()
	}
	return nil
}

// Validate reports what is wrong with d, and with its Publisher where that is a
// [broadway.Validator].
func (d *DeadLetters) Validate() error {
	var errs []error
	if d.Publisher == nil {
		errs = append(errs, &broadway.FieldError{Field: "Publisher", Reason: "is required"})
	}
	if p, ok := d.Publisher.(broadway.Addressed); ok && d.Destination == "" && d.Route == nil && !p.HasDestination() {
		errs = append(errs, &broadway.FieldError{Field: "Destination", Reason: "or Route is required: the Publisher has none of its own"})
	}
	if d.MaxBytes < 0 {
		errs = append(errs, &broadway.FieldError{Field: "MaxBytes", Value: d.MaxBytes, Reason: "must not be negative; 0 means no limit"})
	}
	if v, ok := d.Publisher.(broadway.Validator); ok {
		errs = append(errs, publisherMistakes(v.Validate())...)
	}
	return errors.Join(errs...)
}

// publisherMistakes are those in err, each as one of the field Publisher.
func publisherMistakes(err error) []error {
	if err == nil {
		return nil
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	errs := make([]error, len(parts))
	for i, part := range parts {
		errs[i] = &broadway.FieldError{Field: "Publisher", Reason: part.Error()}
	}
	return errs
}

// letter is a dead letter on its way.
type letter struct {
	message   *broadway.Message
	record    broadway.Record
	reference bool
	err       error // why it is not confirmed
}

// DeadLetter publishes messages in one call of the Publisher, and those that are
// refused as too large in a second one, as references. It returns nil once every
// one is confirmed, a [*broadway.BatchError] that names those that are not, or
// another error when none is.
func (d *DeadLetters) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	if d.Publisher == nil {
		return errors.New("acknowledgers: DeadLetters has no Publisher")
	}
	letters := make([]letter, len(messages))
	first := make([]*letter, 0, len(messages))
	for i, m := range messages {
		l := &letters[i]
		*l = letter{message: m, record: d.record(m)}
		if d.tooLarge(l) {
			d.refer(ctx, l)
		}
		if l.err == nil {
			first = append(first, l)
		}
	}
	if err := d.publish(ctx, first); err != nil && len(first) == len(letters) {
		return err
	}
	var second []*letter
	for _, l := range first {
		if l.reference || !errors.Is(l.err, broadway.ErrTooLarge) {
			continue
		}
		if d.refer(ctx, l); l.err == nil {
			second = append(second, l)
		}
	}
	if err := d.publish(ctx, second); err != nil && len(second) == len(letters) {
		return err
	}
	unconfirmed := new(broadway.BatchError)
	for i := range letters {
		if l := &letters[i]; l.err != nil {
			unconfirmed.Fail(l.message, l.err)
		}
	}
	return unconfirmed.Err()
}

// publish sets the outcome of each letter. The error is one that concerns them
// all alike.
func (d *DeadLetters) publish(ctx context.Context, letters []*letter) error {
	if len(letters) == 0 {
		return nil
	}
	records := make([]broadway.Record, len(letters))
	for i, l := range letters {
		records[i] = l.record
	}
	err := d.Publisher.Publish(ctx, records...)
	errs, err := outcomes(err, len(records))
	for i, l := range letters {
		l.err = err
		if errs != nil {
			l.err = errs[i]
		}
	}
	if errors.Is(err, broadway.ErrTooLarge) && len(letters) == 1 {
		return nil // a reference may pass
	}
	return err
}

// outcomes takes apart what Publish returned about n records: an error for each,
// or one that concerns them all.
func outcomes(err error, n int) ([]error, error) {
	var partial *broadway.PublishError
	if !errors.As(err, &partial) {
		return nil, err
	}
	if len(partial.Errs) != n {
		return nil, fmt.Errorf("acknowledgers: publishing %d records told of %d: %w", n, len(partial.Errs), err)
	}
	return partial.Errs, nil
}

// tooLarge says whether l has to be a reference before anybody has refused it.
func (d *DeadLetters) tooLarge(l *letter) bool {
	if isAbridged(l.message) || errors.Is(l.message.Err(), broadway.ErrOverLimit) {
		return true
	}
	if d.MaxBytes <= 0 {
		return false
	}
	size := len(l.record.Key) + len(l.record.Payload)
	for _, h := range l.record.Headers {
		if !own(h) {
			size += len(h.Key) + len(h.Value)
		}
	}
	return int64(size) > d.MaxBytes
}

// refer makes l a reference, or fails it.
func (d *DeadLetters) refer(ctx context.Context, l *letter) {
	where := ""
	if d.Spill != nil {
		if where, l.err = d.Spill(ctx, l.message); l.err != nil {
			l.err = fmt.Errorf("acknowledgers: a message that is too large was not stored: %w", l.err)
			return
		}
	}
	l.record = refer(l.record, l.message, d.added(l.message), where)
	l.reference, l.err = true, nil
}

// record is the dead letter of m.
func (d *DeadLetters) record(m *broadway.Message) broadway.Record {
	r := broadway.Record{Destination: d.Destination, Payload: m.Payload, Source: m.Metadata}
	if d.Route != nil {
		r.Destination = d.Route(m)
	}
	if e, ok := m.Metadata.(broadway.Enveloped); ok {
		r.Key = e.MessageKey()
		r.Headers = slices.DeleteFunc(slices.Clone(e.MessageHeaders()), own)
	}
	if id, ok := m.Metadata.(broadway.Identifier); ok {
		r.ID = bounded(id.MessageID(), maxName)
	}
	r.Headers = append(r.Headers, d.added(m)...)
	return r
}

// added are the headers that say why m is a dead letter.
func (d *DeadLetters) added(m *broadway.Message) []broadway.Header {
	origin, id := "", ""
	if e, ok := m.Metadata.(broadway.Enveloped); ok {
		origin = e.MessageOrigin()
	}
	if i, ok := m.Metadata.(broadway.Identifier); ok {
		id = i.MessageID()
	}
	headers := []broadway.Header{
		header(HeaderOrigin, origin, maxName),
		header(HeaderID, id, maxID),
		header(HeaderStage, m.Stage(), maxName),
		header(HeaderReason, reason(m.Err()), MaxReason),
		header(HeaderAttempts, strconv.Itoa(m.Attempt), maxName),
		header(HeaderTime, d.now().UTC().Format(timeFormat), maxName),
	}
	if a, ok := m.Metadata.(broadway.Annotated); ok {
		for _, h := range a.MessageAnnotations() {
			headers = append(headers, header(h.Key, string(h.Value), maxName))
		}
	}
	if m.Payload == nil {
		headers = append(headers, header(HeaderNull, "", 0))
	}
	return headers
}

func header(key, value string, bound int) broadway.Header {
	return broadway.Header{Key: key, Value: []byte(bounded(value, bound))}
}

func (d *DeadLetters) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// own says whether h is a header that a dead letter was given.
func own(h broadway.Header) bool {
	const prefix = "x-broadway-"
	return strings.HasPrefix(h.Key, prefix) &&
		(slices.Contains(ownHeaders[:], h.Key) || strings.HasPrefix(h.Key, PrefixSource))
}

// lookUp is the value of the last header of that key.
func lookUp(headers []broadway.Header, key string) (string, bool) {
	for _, h := range slices.Backward(headers) {
		if h.Key == key {
			return string(h.Value), true
		}
	}
	return "", false
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// bounded is s as valid UTF-8 of at most n bytes, cut between two runes.
func bounded(s string, n int) string {
	if len(s) > n+utf8.UTFMax {
		s = s[:n+utf8.UTFMax] // spares the rest the work; cut again below
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
