package broadway

import "time"

// State is where a pipeline stands in its life.
type State uint8

const (
	// StateNew has not run.
	StateNew State = iota
	// StateConnecting makes its first connections.
	StateConnecting
	// StateRunning fetches when there is demand.
	StateRunning
	// StatePaused fetches nothing; queued work goes on.
	StatePaused
	// StateDraining fetches no more and finishes its work.
	StateDraining
	// StateStopped has returned from Run.
	StateStopped
)

// String is the state's name.
func (s State) String() string {
	names := [...]string{"new", "connecting", "running", "paused", "draining", "stopped"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Stats is a picture of a pipeline. Counts are since Run; a message counts as
// settled when it left the pipeline with the outcome named.
type Stats struct {
	Name  string
	State State

	Fetched      int64
	Succeeded    int64
	Failed       int64
	DeadLettered int64
	Released     int64
	Retried      int64
	// Stale counts settles of messages whose AckRef had ended.
	Stale int64

	// Unsettled is what was fetched and is not settled, now and at its highest;
	// MaxUnsettled is its bound. The same in bytes.
	Unsettled             int
	HighestUnsettled      int
	MaxUnsettled          int
	UnsettledBytes        int64
	HighestUnsettledBytes int64
	MaxUnsettledBytes     int64
	// OldestUnsettled is the age of the oldest message that is not settled.
	OldestUnsettled time.Duration

	Producers []ProducerStats
	Processor ProcessorStats
	Batchers  []BatcherStats

	// WaitingFor says, in words, why nothing moves when nothing does: "messages
	// from orders", "a free reporter of batcher default", ….
	WaitingFor string
	// Err is why the pipeline is unhealthy, nil when it is not.
	Err error
}

// ProducerStats is a picture of one producer.
type ProducerStats struct {
	Name string
	Kind string
	// Connected says that the first connection was made.
	Connected bool
	// Asked is how many messages the Fetch that runs now may return; 0 when
	// none runs.
	Asked int
	// Fetched counts its messages.
	Fetched int64
	// LastFetch is when Fetch last returned messages.
	LastFetch time.Time
	// Err is what Fetch, Connect or the producer's Health reported last, nil
	// when it works.
	Err error
	Lag []Lag
}

// ProcessorStats is a picture of the pool.
type ProcessorStats struct {
	Concurrency int
	// Busy counts workers within a handler.
	Busy int
	// Queued is how many messages wait for a worker; Parked is how many wait
	// for their next attempt, at any stage.
	Queued int
	Parked int
}

// BatcherStats is a picture of one batcher and its reporters.
type BatcherStats struct {
	Name        string
	Concurrency int
	// Held is how many messages it holds, now and at its highest: those that
	// wait for it, in open batches, in closed ones and being reported. Bound is
	// the most that it may hold.
	Held        int
	HighestHeld int
	Bound       int
	// Open and Closed count batches that fill, and that wait for a reporter.
	Open   int
	Closed int
	// Reporting counts reporters at work.
	Reporting int
}

// Stage is one line of a Topology.
type Stage struct {
	// Kind is "producer", "processor", "batcher" or "reporter".
	Kind string
	Name string
	// Concurrency is how many of it run at once.
	Concurrency int
}
