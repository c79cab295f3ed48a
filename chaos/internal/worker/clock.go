package worker

import (
	"sync/atomic"
	"time"
)

// jumps is a wall clock that somebody sets, again and again: to be this far off at each reading.
type jumps struct {
	offsets []time.Duration
	read    atomic.Int64
}

// now is what the clock shows, without a monotonic reading.
func (j *jumps) now() time.Time {
	now := time.Now()
	if len(j.offsets) == 0 {
		return now
	}
	at := int(j.read.Add(1)-1) % len(j.offsets)
	return now.Round(0).Add(j.offsets[at])
}
