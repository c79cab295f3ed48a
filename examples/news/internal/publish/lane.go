package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Patience says how long a platform is tried. Zero values mean the defaults.
type Patience struct {
	// Attempts is the most calls for one post. Default 6.
	Attempts int
	// Timeout bounds one call. Default 1 s.
	Timeout time.Duration
	// Backoff is the wait after the first failed call; it doubles up to
	// MaxBackoff, spread by a quarter. Defaults 50 ms and 2 s. A platform that
	// says how long it wants to be left alone is heeded, up to 10 s.
	Backoff    time.Duration
	MaxBackoff time.Duration
	// Down is how many of the last twice as many calls must have failed for the
	// platform to count as down. Default 20.
	Down int
	// Rest is how long a platform that is down is left alone. Default 2 s.
	Rest time.Duration
}

func (p Patience) withDefaults() Patience {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&p.Attempts, 6)
	orInt(&p.Down, 20)
	orTime(&p.Timeout, time.Second)
	orTime(&p.Backoff, 50*time.Millisecond)
	orTime(&p.MaxBackoff, 2*time.Second)
	orTime(&p.Rest, 2*time.Second)
	return p
}

// maxAfter is the longest wait that a platform can impose.
const maxAfter = 10 * time.Second

// lane is one platform and its own retries, circuit and time limit, so that one
// platform's trouble is not another's.
type lane struct {
	Platform
	run failsafe.Executor[string]
}

func newLane(p Platform, patience Patience) *lane {
	patience = patience.withDefaults()
	retry := retrypolicy.NewBuilder[string]().
		WithMaxAttempts(patience.Attempts).
		WithBackoff(patience.Backoff, patience.MaxBackoff).
		WithJitterFactor(0.25).
		WithDelayFunc(asTold).
		AbortIf(func(_ string, err error) bool { return refused(err) || errors.Is(err, circuitbreaker.ErrOpen) }).
		ReturnLastFailure().
		Build()
	circuit := circuitbreaker.NewBuilder[string]().
		HandleIf(func(_ string, err error) bool {
			return err != nil && !refused(err) && !errors.Is(err, context.Canceled)
		}).
		WithFailureThresholdRatio(uint(patience.Down), 2*uint(patience.Down)).
		WithSuccessThreshold(3).
		WithDelay(patience.Rest).
		Build()
	return &lane{Platform: p, run: failsafe.With[string](retry, circuit, timeout.New[string](patience.Timeout))}
}

// asTold is the wait that a platform asked for, -1 for the usual one.
func asTold(exec failsafe.ExecutionAttempt[string]) time.Duration {
	var busy *BusyError
	if errors.As(exec.LastError(), &busy) && busy.After > 0 {
		return min(busy.After, maxAfter)
	}
	return -1
}

// outcome is the final one of a post on this platform; or an error when there is
// none yet: the platform is down, or ctx ended. A post that cannot be rendered
// is given up without a call.
func (l *lane) outcome(ctx context.Context, id string, article func() (*render.Article, error)) (post.Publication, error) {
	p := post.Publication{Post: id, Platform: l.Name(), Format: l.Format(), Key: Key(l.Name(), id)}
	a, err := article()
	if err != nil {
		p.Outcome, p.Error, p.At = post.GivenUp, err.Error(), time.Now().UTC()
		return p, nil //nolint:nilerr // the outcome says it
	}
	start := time.Now()
	p.RemoteID, err = l.run.WithContext(ctx).GetWithExecution(func(exec failsafe.Execution[string]) (string, error) {
		p.Attempts++
		return l.Publish(exec.Context(), a, p.Key)
	})
	p.At, p.Latency = time.Now().UTC(), time.Since(start)
	switch {
	case err == nil:
		p.Outcome = post.Published
	case ctx.Err() != nil:
		return p, context.Cause(ctx)
	case errors.Is(err, circuitbreaker.ErrOpen):
		return p, fmt.Errorf("%w: %s", ErrDown, l.Name())
	default:
		p.Outcome, p.Error = post.GivenUp, err.Error()
	}
	return p, nil
}

// Key is the idempotency key of a post on a platform: the same for every
// attempt, whoever makes it.
func Key(platform, id string) string { return "news-" + platform + "-" + id }
