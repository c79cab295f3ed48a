package broadway

import (
	"cmp"
	"errors"
	"fmt"
)

// Defaults of MessageLimits.
const (
	DefaultMaxPayload     = 16 << 20
	DefaultMaxKey         = 64 << 10
	DefaultMaxHeaders     = 1000
	DefaultMaxHeaderBytes = 64 << 10
)

// ErrOverLimit is why a message failed that is larger than Config.MessageLimits allows.
// The error tells sizes only.
var ErrOverLimit = errors.New("broadway: the message is over a limit")

// HeaderSizer is an optional interface of source metadata that is [Enveloped].
type HeaderSizer interface {
	// MessageHeaderSize is how many headers there are, and how many bytes their
	// keys and values have in sum. It does not allocate, as MessageHeaders may.
	MessageHeaderSize() (n, bytes int)
}

// MessageLimits is what handlers are prepared for: whoever can write to a source
// can write large messages. One that is over a limit reaches no handler. It fails
// with ErrOverLimit and goes the way of FailurePolicy.Action, without a second
// attempt; acknowledgers.DeadLetters makes a reference of it.
//
// Zero values mean the defaults that are stated, -1 means no limit.
type MessageLimits struct {
	// Payload bounds a payload, in bytes. Default 16 MiB.
	Payload int64
	// Key bounds a key, in bytes. Default 64 KiB.
	Key int
	// Headers bounds the number of headers. Default 1000.
	Headers int
	// HeaderBytes bounds all headers of a message in sum, keys and values, in
	// bytes. Default 64 KiB.
	HeaderBytes int
}

func (l MessageLimits) withDefaults() MessageLimits {
	l.Payload = cmp.Or(l.Payload, DefaultMaxPayload)
	l.Key = cmp.Or(l.Key, DefaultMaxKey)
	l.Headers = cmp.Or(l.Headers, DefaultMaxHeaders)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, DefaultMaxHeaderBytes)
	return l
}

func (l *MessageLimits) check(e *mistakes) {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Payload", l.Payload}, {"Key", int64(l.Key)}, {"Headers", int64(l.Headers)}, {"HeaderBytes", int64(l.HeaderBytes)},
	} {
		e.add(f.value < -1, "MessageLimits."+f.name, f.value, "must be positive, 0 for the default, or -1 for no limit")
	}
}

// exceeded says which limit m is over, nil when none. Nearly every message is
// found to be small by its size alone, which counts key and headers: n headers
// take no less than n bytes (and one more), nor does a key of n.
func (l *MessageLimits) exceeded(m *Message) error {
	payload := int64(len(m.Payload))
	if over(payload, l.Payload) {
		return fmt.Errorf("%w: its payload has %d bytes, more than %d", ErrOverLimit, payload, l.Payload)
	}
	rest := m.size - payload
	if !over(rest, int64(l.Key)) && !over(rest, int64(l.HeaderBytes)) && !over(rest+1, int64(l.Headers)) {
		return nil
	}
	e, ok := m.Metadata.(Enveloped)
	if !ok {
		return nil
	}
	if n := len(e.MessageKey()); over(int64(n), int64(l.Key)) {
		return fmt.Errorf("%w: its key has %d bytes, more than %d", ErrOverLimit, n, l.Key)
	}
	n, bytes := headerSize(e)
	if over(int64(n), int64(l.Headers)) {
		return fmt.Errorf("%w: it has %d headers, more than %d", ErrOverLimit, n, l.Headers)
	}
	if over(int64(bytes), int64(l.HeaderBytes)) {
		return fmt.Errorf("%w: its headers have %d bytes, more than %d", ErrOverLimit, bytes, l.HeaderBytes)
	}
	return nil
}

func headerSize(e Enveloped) (n, bytes int) {
	if s, ok := e.(HeaderSizer); ok {
		return s.MessageHeaderSize()
	}
	headers := e.MessageHeaders()
	for _, h := range headers {
		bytes += len(h.Key) + len(h.Value)
	}
	return len(headers), bytes
}

// over says whether n is more than most, which is negative for no limit.
func over(n, most int64) bool { return most >= 0 && n > most }
