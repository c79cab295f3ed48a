package memory

import (
	"strconv"

	"github.com/gobroadway/gobroadway/broadway"
)

// Metadata is the Metadata of a message from memory, as a *Metadata. It is
// read-only.
type Metadata struct {
	// Queue is the name of the queue.
	Queue string
	// Number counts the messages of the queue, from 1. It stays the same over
	// redeliveries.
	Number int64
	// Partition is where the message lies, from 0.
	Partition int
	// Deliveries counts this delivery and those before it.
	Deliveries int
	// Key and Headers are those of the record; nil when it had none.
	Key     []byte
	Headers []broadway.Header
}

// MessageID is the name of the queue and the message's number in it.
func (m *Metadata) MessageID() string { return m.Queue + "/" + strconv.FormatInt(m.Number, 10) }

// MessageOrigin is the name of the queue.
func (m *Metadata) MessageOrigin() string { return m.Queue }

// MessageKey is the record's key, nil when it had none.
func (m *Metadata) MessageKey() []byte { return m.Key }

// MessageHeaders are the record's headers.
func (m *Metadata) MessageHeaders() []broadway.Header { return m.Headers }

// Outcome is what became of one delivery.
type Outcome uint8

const (
	// Succeeded was acknowledged.
	Succeeded Outcome = iota
	// Dropped failed and was settled by ActionDrop (or by no choice).
	Dropped
	// DeadLettered failed, lies in the dead letters, and was settled.
	DeadLettered
	// Rejected failed and was discarded.
	Rejected
	// Requeued failed and will be delivered again.
	Requeued
	// Released was not processed and will be delivered again.
	Released
	// Stopped failed, stays unsettled, and stopped its partition.
	Stopped
)

// String is the outcome's name, such as "dead_lettered".
func (o Outcome) String() string {
	names := [...]string{"succeeded", "dropped", "dead_lettered", "rejected", "requeued", "released", "stopped"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// Counts says what became of the deliveries of a queue.
type Counts struct {
	// Delivered counts what Fetch returned, redeliveries included.
	Delivered int64
	// Succeeded and the following count deliveries by their Outcome.
	Succeeded    int64
	Dropped      int64
	DeadLettered int64
	Rejected     int64
	Requeued     int64
	Released     int64
	Stopped      int64
	// Stale counts settles without effect: of a session that had ended, or of a
	// message that was settled before.
	Stale int64
}

// Settled is the number of messages that the queue is rid of.
func (c Counts) Settled() int64 { return c.Succeeded + c.Dropped + c.DeadLettered + c.Rejected }

func (c *Counts) add(o Outcome) {
	switch o {
	case Succeeded:
		c.Succeeded++
	case Dropped:
		c.Dropped++
	case DeadLettered:
		c.DeadLettered++
	case Rejected:
		c.Rejected++
	case Requeued:
		c.Requeued++
	case Released:
		c.Released++
	case Stopped:
		c.Stopped++
	}
}
