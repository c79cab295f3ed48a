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

// Headers that DeadLetters adds. A record that has them from an earlier round
// gets new ones in their place, so that replays do not make it grow.
const (
	// HeaderOrigin is the topic or queue that the message came from.
	HeaderOrigin = "x-broadway-origin"
	// HeaderID is the message's ID there.
	HeaderID = "x-broadway-id"
	// HeaderStage is the stage that failed the message: "processor", or a batcher.
	HeaderStage = "x-broadway-stage"
	// HeaderReason is the error text, in valid UTF-8.
	HeaderReason = "x-broadway-reason"
	// HeaderAttempts is how often the stage that failed had handled the message.
	HeaderAttempts = "x-broadway-attempts"
	// HeaderTime is when it was given up, as RFC 3339 in UTC with milliseconds.
	HeaderTime = "x-broadway-time"
)

const (
	// MaxReason is the most that HeaderReason takes, in bytes.
	MaxReason = 1024
	// maxName bounds the other headers, and a record's ID: an AMQP short string.
	maxName = 255

	timeFormat = "2006-01-02T15:04:05.000Z07:00"
)

var ownHeaders = [...]string{
	HeaderOrigin, HeaderID, HeaderStage, HeaderReason, HeaderAttempts, HeaderTime,
}

// DeadLetters is the [broadway.DeadLetterer] that publishes failed messages, as
// they came, to a destination of a broker: payload, key and headers are copied
// byte by byte (the latter two where the source's metadata is
// [broadway.Enveloped]), and headers that say why are added, of at most 2.5 KiB
// in all. It is safe for concurrent use.
type DeadLetters struct {
	// Publisher is required.
	Publisher broadway.Publisher
	// Destination is the topic or routing key. Empty means the Publisher's own.
	Destination string
	// Route chooses the destination of each message. Default: Destination.
	Route func(*broadway.Message) string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

var _ broadway.DeadLetterer = (*DeadLetters)(nil)

// DeadLetter publishes messages in one call of the Publisher. It returns nil once
// every one is confirmed, a [*broadway.BatchError] that names those that are
// not, or another error when none is.
func (d *DeadLetters) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	if d.Publisher == nil {
		return errors.New("acknowledgers: DeadLetters has no Publisher")
	}
	records := make([]broadway.Record, len(messages))
	for i, m := range messages {
		records[i] = d.record(m)
	}
	err := d.Publisher.Publish(ctx, records...)
	var partial *broadway.PublishError
	if !errors.As(err, &partial) {
		return err
	}
	if len(partial.Errs) != len(messages) {
		return fmt.Errorf("acknowledgers: publishing %d dead letters told of %d: %w", len(messages), len(partial.Errs), err)
	}
	unconfirmed := new(broadway.BatchError)
	for i, err := range partial.Errs {
		if err != nil {
			unconfirmed.Fail(messages[i], err)
		}
	}
	return unconfirmed.Err()
}

// record is the dead letter of m.
func (d *DeadLetters) record(m *broadway.Message) broadway.Record {
	r := broadway.Record{Destination: d.Destination, Payload: m.Payload}
	if d.Route != nil {
		r.Destination = d.Route(m)
	}
	origin := ""
	if e, ok := m.Metadata.(broadway.Enveloped); ok {
		origin = e.MessageOrigin()
		r.Key = e.MessageKey()
		r.Headers = slices.DeleteFunc(slices.Clone(e.MessageHeaders()), own)
	}
	if id, ok := m.Metadata.(broadway.Identifier); ok {
		r.ID = bounded(id.MessageID(), maxName)
	}
	for _, h := range []struct {
		key, value string
		bound      int
	}{
		{HeaderOrigin, origin, maxName},
		{HeaderID, r.ID, maxName},
		{HeaderStage, m.Stage(), maxName},
		{HeaderReason, reason(m.Err()), MaxReason},
		{HeaderAttempts, strconv.Itoa(m.Attempt), maxName},
		{HeaderTime, d.now().UTC().Format(timeFormat), maxName},
	} {
		r.Headers = append(r.Headers, broadway.Header{Key: h.key, Value: []byte(bounded(h.value, h.bound))})
	}
	return r
}

func (d *DeadLetters) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

func own(h broadway.Header) bool { return slices.Contains(ownHeaders[:], h.Key) }

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
