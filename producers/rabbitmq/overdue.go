package rabbitmq

import (
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// lookAfter is how often the buffer is looked at: often enough within half of the
// time-out for acknowledging.
func (o *owner) lookAfter() time.Duration {
	if o.p.cfg.AckTimeout <= 0 {
		return 24 * time.Hour
	}
	return max(o.p.cfg.AckTimeout/32, time.Millisecond)
}

// returnOverdue hands back what was never fetched, once the first of it has waited
// for half of the time-out for acknowledging, as the broker closes the channel
// otherwise. All of it, as the broker puts it back in order.
func (o *owner) returnOverdue(now time.Time) error {
	limit := o.p.cfg.AckTimeout / 2
	overdue := func(waiting []*broadway.Message) bool {
		if limit <= 0 || len(waiting) == 0 {
			return false
		}
		first, _ := waiting[0].Metadata.(*Metadata) // nil when it is not kept
		return first != nil && now.Sub(first.came) >= limit
	}
	o.mu.Lock()
	n := len(o.buffer) + len(o.suspects)
	late := overdue(o.buffer) || overdue(o.suspects)
	o.mu.Unlock()
	if !late {
		return nil
	}
	o.p.cfg.Logger.Warn("rabbitmq: messages that nobody fetched waited for half of the time-out for acknowledging, and are handed back",
		"queue", o.queue, "messages", n)
	return o.emptyBuffer()
}
