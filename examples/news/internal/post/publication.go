package post

import "time"

// The outcomes of a publishing. Both are final.
const (
	Published = "published"
	GivenUp   = "given_up"
)

// Publication is what became of one post on one platform: B hands it to C, and
// C writes one row for it.
type Publication struct {
	// Post is the id of the post, Platform where it went, Format in which form.
	Post     string
	Platform string
	Format   string
	// Key is the idempotency key that every attempt carried.
	Key string
	// Outcome is Published or GivenUp, At when it was known, in UTC.
	Outcome string
	At      time.Time
	// Latency is the time from the first attempt to the outcome, waits included.
	Latency time.Duration
	// Attempts counts calls of the platform: 0 if the post could not be rendered.
	Attempts int
	// RemoteID is what the platform calls the publishing; empty if given up.
	RemoteID string
	// Error is the last reason, empty if there was none.
	Error string
}
