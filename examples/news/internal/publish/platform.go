package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Platform is a place to publish on. Its methods are called concurrently.
type Platform interface {
	// Name is short and constant: it is part of keys and metrics.
	Name() string
	// Format is which rendering it takes.
	Format() string
	// Publish makes one attempt and returns what the platform calls the result.
	// An attempt with the key of an earlier one must not publish twice. An error
	// is tried again unless it is a *RefusedError.
	Publish(ctx context.Context, a *render.Article, key string) (remote string, err error)
}

// RefusedError is a platform's no for good: the same call would fail again.
type RefusedError struct {
	// Status is the HTTP status, 0 where there is none.
	Status int
	// Reason is what the platform said.
	Reason string
}

// Error says what was refused and why.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("publish: refused with status %d: %s", e.Status, e.Reason)
}

// BusyError is a platform's no for now.
type BusyError struct {
	Status int
	Reason string
	// After is how long the platform wants to be left alone, 0 if it did not say.
	After time.Duration
}

// Error says what failed and why.
func (e *BusyError) Error() string {
	return fmt.Sprintf("publish: status %d: %s", e.Status, e.Reason)
}

// ErrDown is wrapped by errors about a platform that keeps failing: the post is
// not to blame and should be tried again later.
var ErrDown = errors.New("publish: the platform is down")

// refused says whether err will not go away.
func refused(err error) bool {
	var r *RefusedError
	return errors.As(err, &r)
}
