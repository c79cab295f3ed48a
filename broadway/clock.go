package broadway

import "time"

// clock makes numbers of times, by the monotonic clock: Unix nanoseconds as the wall
// clock had them at base, whatever it was set to since. By the wall clock itself, an
// hour that somebody puts it forward would be an hour that every handler has taken.
type clock struct{ base time.Time }

// nanos is t, which has a monotonic reading.
func (c clock) nanos(t time.Time) int64 { return c.base.UnixNano() + int64(t.Sub(c.base)) }

// time is the time of a number, with a monotonic reading.
func (c clock) time(nanos int64) time.Time {
	return c.base.Add(time.Duration(nanos - c.base.UnixNano()))
}
