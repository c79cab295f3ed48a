package broadway

import "time"

// DefaultBatcher is the name of the batcher of messages that name none.
const DefaultBatcher = "default"

// Trigger is why a batch was closed.
type Trigger uint8

const (
	// TriggerSize says that the batch holds Size messages.
	TriggerSize Trigger = iota
	// TriggerBytes says that the next message would have exceeded Bytes.
	TriggerBytes
	// TriggerTimeout says that the oldest member reached the batch's Timeout.
	TriggerTimeout
	// TriggerFlush says that a message with BatchMode Flush closed it.
	TriggerFlush
	// TriggerPolicy says that the batcher's Policy closed it.
	TriggerPolicy
	// TriggerPressure says that no credit was free while a worker was idle: the
	// batch could not have grown.
	TriggerPressure
	// TriggerDrain says that the pipeline, or the source of a member, drains.
	TriggerDrain
)

// String is the trigger's name in metrics: "size", "bytes", "timeout", ….
func (t Trigger) String() string {
	names := [...]string{"size", "bytes", "timeout", "flush", "policy", "pressure", "drain"}
	if int(t) < len(names) {
		return names[t]
	}
	return "unknown"
}

// Batch is what a reporter gets: messages of one batcher and one key, in the
// order in which their processors finished (the order of their key, with
// PartitionBy).
type Batch struct {
	// Messages has at least one member.
	Messages []*Message
	// Batcher and Key are what the messages named.
	Batcher string
	Key     string
	// Trigger is why the batch was closed.
	Trigger Trigger
	// Bytes is the sum of the members' sizes.
	Bytes int64
}

// BatchPolicy decides when a batch is complete, beyond Size, Bytes and Timeout.
// Package batchers has policies; a policy is a pure value that is asked by one
// goroutine.
type BatchPolicy interface {
	// Open is the state of a new batch, whose first message comes at now.
	Open(now time.Time) BatchState
}

// BatchState watches one open batch.
type BatchState interface {
	// Fits says whether m may join. If not, the batch is closed before m, which
	// opens the next one; a batch's first message always joins.
	Fits(m *Message) bool
	// Add tells that m joined, and returns whether the batch is complete.
	Add(m *Message) bool
	// Deadline is when the batch must be closed at the latest; zero for never. It is
	// asked after each Add, and only ever comes nearer: a later one is ignored.
	Deadline() time.Time
}
