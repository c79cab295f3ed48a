package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// pacer keeps to the API's rate limit. It reads the limit's headers, and turns
// "too many requests" into an error: left alone, the client library would try
// again by itself, out of sight, waiting up to an hour.
type pacer struct {
	next http.RoundTripper

	mu    sync.Mutex // protects following field
	until time.Time  // no call before
}

// limitedError is a call that the API refused for its rate limit.
type limitedError struct{ until time.Time }

func (e *limitedError) Error() string {
	return fmt.Sprintf("ingest: rate limited until %s", e.until.Format(time.TimeOnly))
}

// The longest wait that a server may impose on us, and the wait when it says
// "too many requests" but not for how long.
const (
	maxPause     = 15 * time.Minute
	defaultPause = time.Second
)

// maxBody is the largest answer that is read: forty posts are some 100 KiB.
const maxBody = 8 << 20

// wait returns when the next call may be made, or with the cause of ctx.
func (p *pacer) wait(ctx context.Context) error {
	p.mu.Lock()
	pause := time.Until(p.until)
	p.mu.Unlock()
	return sleep(ctx, pause)
}

// RoundTrip makes the call, and remembers what its answer says about the next.
func (p *pacer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	limited := resp.StatusCode == http.StatusTooManyRequests
	if limited || resp.Header.Get("X-RateLimit-Remaining") == "0" {
		until := resumeAt(resp.Header, time.Now())
		p.mu.Lock()
		p.until = until
		p.mu.Unlock()
		if limited {
			_ = resp.Body.Close() // nothing in it is needed
			return nil, &limitedError{until: until}
		}
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	return resp, nil
}

// resumeAt reads when calls are welcome again: X-RateLimit-Reset, an ISO 8601
// time, or Retry-After in seconds.
func resumeAt(h http.Header, now time.Time) time.Time {
	at := now.Add(defaultPause)
	if reset, err := time.Parse(time.RFC3339Nano, h.Get("X-RateLimit-Reset")); err == nil {
		at = reset
	} else if seconds, err := strconv.Atoi(h.Get("Retry-After")); err == nil {
		at = now.Add(time.Duration(seconds) * time.Second)
	}
	if latest := now.Add(maxPause); at.After(latest) {
		at = latest
	}
	return at
}

// sleep waits for d, or returns the cause of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
