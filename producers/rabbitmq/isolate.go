package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/gobroadway/gobroadway/broadway"
)

// A message that the broker finds wrong (too large, an exchange that is not there
// or that the user may not write to) costs the channel, and the error does not
// name the message. What was on its way on that channel is published again, one
// message at a time and with nothing else beside it, so that each has an outcome
// of its own.

// refused is why a message is not confirmed that was on its way when the broker
// closed the channel: its fault, or another's.
type refused struct{ reason error }

func (e *refused) Error() string {
	return fmt.Sprintf("%v: the broker closed the channel: %v", ErrUnconfirmed, e.reason)
}

func (e *refused) Unwrap() []error { return []error{ErrUnconfirmed, e.reason} }

// lost is why a message is not confirmed whose channel is no more. It waits until
// the owner knows why, which it does at once.
func (o *outlet) lost() error {
	<-o.over
	if o.refusal != nil {
		return &refused{o.refusal}
	}
	return fmt.Errorf("%w: the connection was lost", ErrUnconfirmed)
}

// isolate gives those messages of j an outcome of their own that share one: each
// is published again, alone.
func (p *Publisher) isolate(ctx context.Context, j *job) {
	if j.err != nil {
		return // given up: its items may be the writer's still
	}
	closed := map[target]error{}
	for i := range j.items {
		it := &j.items[i]
		var r *refused
		if !errors.As(it.err, &r) {
			continue
		}
		if err := closed[target{it.exchange, it.key}]; err != nil {
			it.err = err
			continue
		}
		if err := p.tooLarge(it, r.reason); err != nil {
			it.err = err
			continue
		}
		if it.err = p.putAlone(ctx, it); !errors.As(it.err, &r) {
			continue
		}
		if err := p.tooLarge(it, r.reason); err != nil {
			it.err = err
		} else if aboutTarget(r.reason) {
			closed[target{it.exchange, it.key}] = it.err
		}
	}
}

// target is where a message goes.
type target struct{ exchange, key string }

// aboutTarget says whether the broker refused where a message goes, not the
// message.
func aboutTarget(reason error) bool {
	const accessRefused, notFound = 403, 404
	var e *Error
	return errors.As(reason, &e) && (e.Code == accessRefused || e.Code == notFound)
}

// putAlone publishes what it holds while nothing else is on its way.
func (p *Publisher) putAlone(ctx context.Context, it *item) error {
	j := newJob(ctx, 1)
	j.alone = true
	j.items[0] = item{exchange: it.exchange, key: it.key, message: it.message}
	if err := p.put(ctx, j); err != nil {
		return err
	}
	if j.err != nil {
		return j.err
	}
	return j.items[0].err
}

// sizes finds the two in what the broker says of a message that is too large:
// "message size 2000 is larger than configured max size 1000".
var sizes = regexp.MustCompile(`size ([0-9]+) .*larger than .*size ([0-9]+)`)

// errLarger is why a message with so many bytes is not sent.
func errLarger(size int, most int64) error {
	return fmt.Errorf("rabbitmq: %w: the message has %d bytes, more than %d", broadway.ErrTooLarge, size, most)
}

// tooLarge is an error when the broker's reason is that it is too large, by the
// size of its body. The limit that the broker names is kept: what is larger
// costs no further channel of this connection.
func (p *Publisher) tooLarge(it *item, reason error) error {
	const preconditionFailed, contentTooLarge = 406, 311
	size := len(it.message.Body)
	if largest := p.largest.Load(); largest > 0 && int64(size) > largest {
		return errLarger(size, largest)
	}
	var e *Error
	if errors.As(reason, &e) && (e.Code == preconditionFailed || e.Code == contentTooLarge) {
		if m := sizes.FindStringSubmatch(e.Reason); m != nil && m[1] == strconv.Itoa(size) {
			if largest, err := strconv.ParseInt(m[2], 10, 64); err == nil {
				p.largest.Store(largest)
			}
			return fmt.Errorf("rabbitmq: %w: %w", broadway.ErrTooLarge, e)
		}
	}
	return nil
}
