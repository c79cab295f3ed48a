package broadway

import (
	"context"
	"time"
)

// Demand is what the pipeline asks of a producer.
type Demand struct {
	// Messages is the most that Fetch may return: at least 1.
	Messages int
	// Bytes is the most that the returned messages may weigh in sum (see
	// [Message.Size]): at least 1.
	Bytes int64
}

// Producer fetches messages from a source. Nothing is fetched that was not
// asked for.
//
// A source that can tell how many attempts at a message ended without an outcome,
// because the process that made them died, sets [Message.Attempt] to one more than
// that before Fetch returns the message; all others leave it at 1. Attempts that
// failed in a process that lived are no matter of the source's, nor is a message
// that was released, requeued, or that came again because a connection broke: what
// cannot be told apart from a crash counts as one, if the source says so in its
// documentation. The first handling of each stage has that Attempt, and later ones
// count on from it. A message with more attempts behind it than
// FailurePolicy.MaxAttempts allows, which is Attempt > MaxAttempts, is not handled:
// neither its processor nor PartitionBy sees it, and the policy's Action is taken
// at once, with [ErrAttemptsExhausted] as the reason and, as Attempt, the number of
// attempts that were made. So a message that kills each process that handles it
// ends in the dead letters, and the messages beside it do not: a source suspects as
// few as it can, by delivering them one at a time after a crash.
type Producer interface {
	// Fetch returns 1 to d.Messages messages that weigh at most d.Bytes; or it
	// blocks until there is one or ctx ends; or it returns an error and no
	// message. It never returns more. It is called by one goroutine at a time.
	//
	// The slice belongs to the pipeline. Messages of one AckRef stand together and in their order; each was
	// claimed with [AckRef.Take].
	//
	// A next message that does not fit into d.Bytes is kept, and Fetch returns
	// what fits before it or, when nothing does, [NeedBytes] of its size.
	//
	// When ctx ends Fetch returns promptly: with the messages that it already
	// took, or with the cause of ctx. [io.EOF] says that the source is finite
	// and done: the pipeline drains and Run returns nil. An error made by
	// [Fatal] stops the pipeline. After any other error the pipeline waits with
	// backoff and calls Fetch again: a producer reconnects by itself.
	Fetch(ctx context.Context, d Demand) ([]*Message, error)
	// Close ends everything that the producer started, after its messages have
	// settled, and makes final what was acknowledged (flushes acks, commits).
	// It is called once, and its own time limits bound it. A producer that was
	// never connected closes too.
	Close() error
}

// Limits are the bounds of a pipeline that a producer may need to know.
type Limits struct {
	// MaxUnsettled and MaxUnsettledBytes bound what is handed to the pipeline
	// and not settled, over all producers.
	MaxUnsettled      int
	MaxUnsettledBytes int64
	// Share is the part of MaxUnsettled that this producer may reserve.
	Share int
}

// Traits are what a producer tells a pipeline about itself before it runs.
type Traits struct {
	// Kind is the kind of source: "kafka", "rabbitmq", "memory".
	Kind string
	// Name tells this source from others of its kind: a topic, a queue.
	Name string
	// Broker says that the source keeps what is not acknowledged, so that a
	// failure policy must be chosen.
	Broker bool
	// Actions are the failure actions that the source can carry out, besides
	// ActionDeadLetter, ActionDrop and ActionStopPipeline, which all can.
	Actions Actions
	// PartitionBy is the order that the source promises by default: messages of
	// equal value are handled in order. Nil promises none.
	PartitionBy func(*Message) uint64
	// Prefetch is a standing reservation of credit: the source pushes up to so
	// many messages to the client, so they count as fetched. 0 means none.
	Prefetch int
	// AckTimeout is the broker's limit on how long a delivery may stay
	// unacknowledged, 0 when there is none. What waits in the pipeline for half of it
	// is given back: since Fetch returned it or, where its metadata is a
	// [DeliveredAt], since then.
	AckTimeout time.Duration
	// Rewinds says that a message that is released comes again together with all
	// that comes after it in its AckRef. So the pipeline stops a reference (see
	// [AckRef.OnRoom]) rather than give back single messages of it.
	Rewinds bool
	// CountsReturns says that the broker counts how often a message was given back,
	// and may take away one that was too often: none is for want of room.
	CountsReturns bool
	// TLSInsecure says that connections are encrypted but the server is not
	// verified.
	TLSInsecure bool
}

// Describer is an optional interface of a Producer.
type Describer interface {
	// Describe is called once, by New, and dials nothing.
	Describe(Limits) Traits
}

// Validator is an optional interface of a Producer: New reports its mistakes
// together with all others.
type Validator interface{ Validate() error }

// Connector is an optional interface of a Producer that has a connection.
type Connector interface {
	// Connect makes the first connection. Run calls it until it succeeds or the
	// pipeline stops, with backoff; with Config.FailFast its first error ends
	// Run. Later connections are the producer's own affair.
	Connect(ctx context.Context) error
}

// Drainer is an optional interface of a Producer whose source pushes.
type Drainer interface {
	// Drain stops the inflow after the last Fetch has returned, and hands back
	// what was delivered to the client but never returned by Fetch. What Fetch
	// returned is settled afterwards, and Close comes last.
	Drain(ctx context.Context) error
}

// Pauser is an optional interface of a Producer that must do more than not be
// asked while the pipeline is paused.
type Pauser interface {
	// Pause stops the inflow, and hands back what was delivered to the client but
	// never returned by Fetch. No Fetch runs until Resume.
	Pause(ctx context.Context) error
	// Resume undoes Pause.
	Resume(ctx context.Context) error
}

// Lag is how far behind one partition or queue is.
type Lag struct {
	// Source is a topic or a queue; Partition is 0 where there are none.
	Source    string
	Partition int
	// Messages is how many wait at the source, unsettled ones included.
	Messages int64
}

// Lagger is an optional interface of a Producer. It returns what is known
// already and asks nobody.
type Lagger interface{ Lag() []Lag }

// Gaps counts what a source that is a log did not hand out, since its producer was
// made.
type Gaps struct {
	// SkippedOffsets counts offsets that were passed over as a policy of the producer
	// says: what retention had removed before it was read, or what is corrupt. Offsets
	// that never held a message, such as those that compaction left, are not among them.
	SkippedOffsets int64
	// Truncations counts cuts of the log below what was read: the broker has lost
	// records, and uses their offsets anew.
	Truncations int64
}

// GapCounter is an optional interface of a Producer. It is asked for [Stats] and does
// not block.
type GapCounter interface{ Gaps() Gaps }

// HealthChecker is an optional interface of a Producer, and of a DeadLetterer: nil, or why it does not work: it does not
// get messages, or cannot publish them, as its broker does not answer. It does not block.
type HealthChecker interface{ Health() error }
