package broadway

import (
	"context"
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
}

// Publisher writes records to a broker. See producers/kafka and
// producers/rabbitmq. It is safe for concurrent use.
type Publisher interface {
	// Publish returns nil once the broker has confirmed every record; a
	// *PublishError that names those that it has not; or another error when
	// none is known to be confirmed.
	Publish(ctx context.Context, records ...Record) error
	// Close flushes and closes.
	Close() error
}

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
