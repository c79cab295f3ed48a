// Package check decides from ledgers and from what went over the wire whether messages were lost, repeated, out of order, or
// acknowledged too early. It is pure, and asks nothing of the framework.
package check

import (
	"errors"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// Evidence is all that is known of a run. No slice need be sorted.
type Evidence struct {
	Produced []ledger.Produced
	Sink     []ledger.Observation
	Dead     []ledger.Drained
	Residual []ledger.Drained
	Gaps     []ledger.Gap
	Faults   []ledger.Fault
	Offsets  []ledger.Sample
	Wire     []wire.Event
	Torn     int // lines of ledgers that their writers did not finish
	End      End
	Rules    Rules
}

// End is how the source was left, after the drain.
type End struct {
	Lag            int64 // of all partitions
	Ready, Unacked int64 // of all queues
	// GroupState is Kafka's word; empty when not asked.
	GroupState string
	// Metrics are the framework's own at rest, nil when a process did not live to tell.
	Metrics *Metrics
}

// Metrics are counts of messages that must add up.
type Metrics struct {
	Received, Succeeded, DeadLettered, Retried, Abandoned, InFlight int64
}

// Rules say what a scenario allows. For lost, phantom and commit-ahead there is no rule: they must be 0.
type Rules struct {
	// Source is the topic or queue under test (several with commas), and Group who reads it. Other traffic on the wire is not
	// looked at. Empty: any.
	Source, Group string
	// TopicIDs gives names to topic ids, in hex, where commits have only these.
	TopicIDs map[string]string
	// Ordered demands order per key.
	Ordered bool
	// Slack is how long after a fault's end its repeats may come. Default 11 s: a session time-out of 6 s, and 5 s.
	Slack time.Duration
	// Backlog says that more is left at a fault's end than is worked off within Slack. A repeat waits there for its turn, however slow
	// the machine: then it is the observation before it that must not be later than Slack.
	Backlog bool
	// Duplicates, Doubles and Stale are how many repeats after faults, ids both in the sink and dead-lettered, and writes of
	// overtaken generations are allowed.
	Duplicates, Doubles, Stale int
	// Skipped is what the framework says that it skipped.
	Skipped int64
	// Residual allows messages to be left in the source.
	Residual bool
	// Undecodable allows connections whose bytes could not be read, because the scenario corrupts them.
	Undecodable bool
	// Recreated are the times at which the topic was deleted and made again: offsets and commits begin anew there. Rewound are
	// those at which committed offsets were removed or set back: commits begin anew.
	Recreated, Rewound []int64
	// Committed says that only committed messages may be seen.
	Committed bool
	// RejectDrops says that rejecting without requeue hands a message to a dead-letter exchange of the broker, which settles it.
	RejectDrops bool
}

// Read gathers the ledgers of dir. Rules and End are the caller's.
func Read(dir string) (Evidence, error) {
	var e Evidence
	errs := []error{
		read(dir, ledger.KindProduced, &e.Produced, &e.Torn),
		read(dir, ledger.KindSink, &e.Sink, &e.Torn),
		read(dir, ledger.KindDead, &e.Dead, &e.Torn),
		read(dir, ledger.KindResidual, &e.Residual, &e.Torn),
		read(dir, ledger.KindGaps, &e.Gaps, &e.Torn),
		read(dir, ledger.KindFaults, &e.Faults, &e.Torn),
		read(dir, ledger.KindOffsets, &e.Offsets, &e.Torn),
		read(dir, ledger.KindWire, &e.Wire, &e.Torn),
	}
	return e, errors.Join(errs...)
}

func read[T any](dir, kind string, into *[]T, torn *int) error {
	entries, n, err := ledger.Read[T](dir, kind)
	*into = entries
	*torn += n
	return err
}
