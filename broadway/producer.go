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
type Producer interface {
	// Fetch returns 1 to d.Messages messages that weigh at most d.Bytes; or it
	// blocks until there is one or ctx ends; or it returns an error and no
	// message. It never returns more. It is called by one goroutine at a time.
	//
	// Messages of one AckRef stand together and in their order; each was
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
	// unacknowledged, 0 when there is none.
	AckTimeout time.Duration
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
	Pause(ctx context.Context) error
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

// HealthChecker is an optional interface of a Producer: nil, or why it does not
// get messages, such as a broker that does not answer. It does not block.
type HealthChecker interface{ Health() error }
