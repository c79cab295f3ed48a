package rabbitmq

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// FieldError is a mistake in a Config or a PublisherConfig.
type FieldError struct {
	// Field is the path of the field, such as "Declare.Type".
	Field string
	// Err is what is wrong with it.
	Err error
}

// Error names the field and what is wrong with it.
func (e *FieldError) Error() string { return "rabbitmq: " + e.Field + ": " + e.Err.Error() }

// Unwrap is Err.
func (e *FieldError) Unwrap() error { return e.Err }

func mistake(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Validate reports every mistake of c, each as a *FieldError.
func (c Config) Validate() error {
	_, errs := c.server()
	errs = append(errs, backoffMistakes(c.Backoff)...)
	if c.Queue == "" && c.Declare == nil {
		errs = append(errs, mistake("Queue", "is required; a name that the broker chooses needs Declare"))
	}
	errs = append(errs, nameMistake("Queue", c.Queue)...)
	if c.Declare != nil {
		errs = append(errs, c.Declare.mistakes("Declare", c.Queue)...)
		errs = append(errs, c.Declare.limitMistakes()...)
	}
	errs = append(errs, topologyMistakes(c.Exchanges, c.Bindings)...)
	for i, b := range c.Bindings {
		if b.Queue != "" && b.Queue != c.Queue {
			errs = append(errs, mistake(fmt.Sprintf("Bindings[%d].Queue", i), "%q is not the queue, %q", b.Queue, c.Queue))
		}
	}
	errs = append(errs, c.Consumer.mistakes()...)
	if c.Prefetch < 0 || c.Prefetch > MaxPrefetch {
		errs = append(errs, mistake("Prefetch", "%d is not between 1 and %d", c.Prefetch, MaxPrefetch))
	}
	errs = append(errs, durationMistake("AckTimeout", c.AckTimeout, true)...)
	errs = append(errs, durationMistake("LagInterval", c.LagInterval, true)...)
	return errors.Join(errs...)
}

func (c Consumer) mistakes() []error {
	errs := nameMistake("Consumer.Tag", c.Tag)
	if c.Priority != 0 {
		errs = append(errs, clash("Consumer", c.Arguments, "x-priority", "Priority")...)
	}
	return append(errs, tableMistakes("Consumer.Arguments", c.Arguments)...)
}

// durationMistake finds a negative d; -1 passes where it means off.
func durationMistake(field string, d time.Duration, off bool) []error {
	if d >= 0 || off && d == -1 {
		return nil
	}
	if off {
		return []error{mistake(field, "%v is negative (-1 means off)", d)}
	}
	return []error{mistake(field, "%v is negative", d)}
}

// nameMistake finds a name that AMQP's short strings cannot carry.
func nameMistake(field, name string) []error {
	if len(name) > maxShortString {
		return []error{mistake(field, "has %d bytes, more than %d", len(name), maxShortString)}
	}
	return nil
}

// clash finds an argument that a field sets too.
func clash(prefix string, arguments Table, argument, field string) []error {
	if _, ok := arguments[argument]; !ok {
		return nil
	}
	return []error{mistake(prefix+".Arguments", "%s is set by %s.%s too", argument, prefix, field)}
}

func backoffMistakes(b broadway.Backoff) []error {
	var errs []error
	errs = append(errs, durationMistake("Backoff.Initial", b.Initial, false)...)
	errs = append(errs, durationMistake("Backoff.Max", b.Max, false)...)
	if b.Initial > 0 && b.Max > 0 && b.Initial > b.Max {
		errs = append(errs, mistake("Backoff.Initial", "%v is more than Backoff.Max, %v", b.Initial, b.Max))
	}
	if b.Factor != 0 && !(b.Factor >= 1) {
		errs = append(errs, mistake("Backoff.Factor", "%v is less than 1", b.Factor))
	}
	if b.Jitter != -1 && (b.Jitter < 0 || b.Jitter > 1 || math.IsNaN(b.Jitter)) {
		errs = append(errs, mistake("Backoff.Jitter", "%v is not between 0 and 1 (-1 means none)", b.Jitter))
	}
	return errs
}
