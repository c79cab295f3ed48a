package broadway

import "time"

// Observer is told what happens in a pipeline, with counts: once per fetch,
// visit of a worker, report of a batch, and settling of a group. Its methods are
// called concurrently from the pipeline's own goroutines and must not block.
type Observer interface {
	// Fetched is told of each return of a producer's Fetch.
	Fetched(FetchEvent)
	// Handled is told of each visit of a worker to the queue.
	Handled(HandleEvent)
	// Reported is told of each batch that a reporter has returned from.
	Reported(ReportEvent)
	// Settled is told of each group of messages that left the pipeline.
	Settled(SettleEvent)
}

// FetchEvent is one return of a producer's Fetch.
type FetchEvent struct {
	Pipeline string
	Producer string
	Demand   Demand
	Messages int
	Bytes    int64
	Duration time.Duration
	// Err is nil, or what Fetch returned.
	Err error
}

// HandleEvent is one visit of a worker to the queue: one or more messages.
type HandleEvent struct {
	Pipeline string
	// Succeeded and Failed count handlings, retries included.
	Succeeded int
	Failed    int
	// Duration is the time of the whole visit.
	Duration time.Duration
}

// ReportEvent is one batch that a reporter has returned from.
type ReportEvent struct {
	Pipeline string
	Batcher  string
	Trigger  Trigger
	Messages int
	Bytes    int64
	// Failed counts members that were not reported successfully.
	Failed   int
	Duration time.Duration
}

// SettleEvent is a group of messages that left the pipeline.
type SettleEvent struct {
	Pipeline string
	// Succeeded, Failed (settled by an action other than dead-lettering),
	// DeadLettered and Released (given back, unsettled) count messages.
	Succeeded    int
	Failed       int
	DeadLettered int
	Released     int
	// Stale counts messages of an ended AckRef: dropped, never sent.
	Stale int
	// Err is nil, or why the acknowledger released the group.
	Err error
}

// MessageObserver is an optional interface of an Observer that wants each
// message; it costs two readings of the clock per message.
type MessageObserver interface {
	// MessageHandled is told of each handling by a processor.
	MessageHandled(m *Message, d time.Duration, err error)
}

// RetryObserver is an optional interface of an Observer.
type RetryObserver interface {
	// Retrying is told of each message that is parked for another attempt of
	// stage ("processor", or a batcher's name), and why.
	Retrying(pipeline, stage string, m *Message, wait time.Duration, err error)
}

// StuckObserver is an optional interface of an Observer.
type StuckObserver interface {
	// Stuck is told of each handler or reporter that has not returned a grace after
	// its time-out, and again when it has returned after all.
	Stuck(StuckEvent)
}

// StuckEvent is a handler or a reporter that does not return.
type StuckEvent struct {
	Pipeline string
	Handling
	// Age is how long ago it began.
	Age time.Duration
	// Returned says that it has returned.
	Returned bool
}

// CircuitObserver is an optional interface of an Observer.
type CircuitObserver interface {
	// Circuit is told whenever the circuit of a stage opens, is tried, and closes.
	Circuit(CircuitEvent)
}

// CircuitEvent is a change of the circuit of a stage.
type CircuitEvent struct {
	Pipeline string
	// Stage is "processor", or the name of a batcher.
	Stage string
	State CircuitState
	// Err is why it is not closed.
	Err error
}

type nopObserver struct{}

func (nopObserver) Fetched(FetchEvent)   {}
func (nopObserver) Handled(HandleEvent)  {}
func (nopObserver) Reported(ReportEvent) {}
func (nopObserver) Settled(SettleEvent)  {}
