package broadway

import (
	"context"
	"errors"
	"fmt"
)

// Record is a message to be published.
type Record struct {
	// Destination is a topic, or a routing key. Empty means the publisher's own.
	Destination string
	// Key is the partitioning key; nil means none. Sources without keys ignore it.
	Key []byte
	// Payload is the body. Nil is not empty where the broker can tell.
	Payload []byte
	// Headers are kept in order where the broker can.
	Headers []Header
	// ID identifies the record to its reader, where the broker has such a field.
	ID string
	// Source is the Metadata of the message that the record is a copy of, a dead
	// letter or a replay; nil for a record of the program's own. A publisher to
	// the same broker keeps what its source's metadata says beyond key and
	// headers: on AMQP the properties, and the types of headers that are
	// unchanged. One to another broker carries them as headers: see [Propertied].
	Source any
}

// ErrTooLarge is wrapped by the error of a record that cannot be published as it
// is, however often it is tried: it is larger than the broker, its protocol or a
// configured limit allows. Dead letters put a reference in its place: see
// acknowledgers.DeadLetters.
var ErrTooLarge = errors.New("broadway: larger than is allowed")

// Propertied is an optional interface of source metadata: what its broker knows of
// a message besides key and headers.
type Propertied interface {
	// MessageProperties are the headers that carry it on another broker, by which
	// a publisher to the first one knows it again. Their keys begin with
	// "x-broadway-".
	MessageProperties() []Header
}

// Annotated is an optional interface of source metadata: what no copy of the
// message can carry, such as a time to live that would end the copy.
type Annotated interface {
	// MessageAnnotations are headers that tell it to whoever looks at a dead
	// letter. Their keys begin with "x-broadway-source-", and replays drop them.
	MessageAnnotations() []Header
}

// Abridged is an optional interface of source metadata, of messages whose payload
// may be less than what the source holds because all of it was too large. The
// dead letter of an abridged message is a reference.
type Abridged interface {
	// MessageOriginal tells of the whole payload: its size in bytes, -1 when that
	// is not known, and its SHA-256, nil when that is not known. With abridged
	// false the message has it, and the rest means nothing.
	MessageOriginal() (size int64, sha256 []byte, abridged bool)
}

// Publisher writes records to a broker. See producers/kafka and
// producers/rabbitmq. It is safe for concurrent use. Those that are made of a
// config report its mistakes as a [Validator].
type Publisher interface {
	// Publish returns nil once the broker has confirmed every record; a
	// *PublishError that names those that it has not; or another error when
	// none is known to be confirmed.
	Publish(ctx context.Context, records ...Record) error
	// Close flushes and closes.
	Close() error
}

// Addressed is an optional interface of a Publisher: whether records that name no
// Destination go anywhere.
type Addressed interface{ HasDestination() bool }

// PublishError names the records of one Publish that were not confirmed.
type PublishError struct {
	// Errs has one entry for each record, nil for a confirmed one.
	Errs []error
}

// Error says how many records failed, and the first reason.
func (e *PublishError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("broadway: %d of %d records not confirmed, the first: %v", n, len(e.Errs), first)
}

// Unwrap gives the reasons.
func (e *PublishError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
