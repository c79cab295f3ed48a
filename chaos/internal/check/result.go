package check

import (
	"fmt"
	"slices"
	"time"
)

// Counter names one thing that a Result counts.
type Counter string

// What is counted. The first group must be 0, see [Musts].
const (
	Lost           Counter = "lost"              // acked to the producer, and nowhere
	Phantom        Counter = "phantom"           // seen, and never sent
	Corrupt        Counter = "corrupt"           // seen with another content
	AbortedSeen    Counter = "aborted_seen"      // messages of aborted transactions, where only committed ones may be seen
	CommitAhead    Counter = "commit_ahead"      // commits beyond a message that was not settled yet
	SamplesAhead   Counter = "samples_ahead"     // samples of committed offsets beyond such a message
	CommitRegress  Counter = "commit_regress"    // accepted commits below an earlier one
	AckAhead       Counter = "ack_ahead"         // acks of messages that were not settled yet
	StaleAck       Counter = "stale_ack"         // acks of tags that their channel did not have open
	SettledUnsaved Counter = "dlq_after_settle"  // settled before the dead letter was confirmed
	DupUnexplained Counter = "dup_unexplained"   // repeats without a fault near them
	Inversions     Counter = "inversions"        // first observations behind a later one of their key
	Undecoded      Counter = "undecoded"         // connections whose bytes could not be read, unless the rules allow it
	SkipUntold     Counter = "skipped_untold"    // offsets passed over that the framework did not tell of
	EndState       Counter = "end_state"         // what was left behind; metrics that do not add up
	OverDuplicates Counter = "dup_over"          // repeats after faults, above the rule
	OverDoubles    Counter = "double_over"       // double-settled ids, above the rule
	OverStale      Counter = "stale_writes_over" // stale writes, above the rule

	Duplicates  Counter = "duplicated"   // all repeats
	DupAfter    Counter = "dup_after"    // repeats after a fault
	DupProducer Counter = "dup_producer" // ids that the producer sent twice, and were seen so
	Double      Counter = "double"       // in the sink and dead-lettered
	Rewinds     Counter = "rewinds"      // repeats behind their key's newest
	StaleWrites Counter = "stale_writes" // observations by an overtaken generation
	Recovered   Counter = "recovered"    // unknown to the producer, and seen
	Removed     Counter = "removed"      // acked, and deleted, compacted or aborted before they were seen
	Skipped     Counter = "skipped"      // offsets passed over with neither sink nor dead letter, markers apart
	DeadUntimed Counter = "dead_untimed" // dead letters whose confirmation was not on the wire
	DupUnmarked Counter = "dup_unmarked" // repeats from a queue that were not marked redelivered
)

// Offenders is how many of each counter's offenders a Result names.
const Offenders = 10

// Result is what came out.
type Result struct {
	Counts map[Counter]int `json:"counts"`
	// First names the first offenders of a counter.
	First map[Counter][]string `json:"first,omitempty"`

	Acked        int `json:"acked"`
	Unknown      int `json:"unknown"`
	Observations int `json:"observations"`
	Dead         int `json:"dead"`
	Commits      int `json:"commits"` // on the wire, one for each partition
	Acks         int `json:"acks"`    // messages that acks covered
	Torn         int `json:"torn"`

	// Recoveries are the times from the end of each fault to the next success, ascending.
	Recoveries []time.Duration `json:"recoveries,omitempty"`
}

// Musts are the counters that must be 0.
func Musts() []Counter {
	return []Counter{
		Lost, Phantom, Corrupt, AbortedSeen, CommitAhead, SamplesAhead, CommitRegress, AckAhead, StaleAck, SettledUnsaved, DupUnexplained,
		Inversions, Undecoded, SkipUntold, EndState, OverDuplicates, OverDoubles, OverStale,
	}
}

// Broken are the counters of [Musts] that are not 0, in their order.
func (r Result) Broken() []Counter {
	return slices.DeleteFunc(Musts(), func(c Counter) bool { return r.Counts[c] == 0 })
}

// Pass says that nothing is broken.
func (r Result) Pass() bool { return len(r.Broken()) == 0 }

// Reasons says for each broken counter how many, and who first.
func (r Result) Reasons() []string {
	var reasons []string
	for _, c := range r.Broken() {
		reasons = append(reasons, fmt.Sprintf("%s %d: %q", c, r.Counts[c], r.First[c]))
	}
	return reasons
}

// Recovery is the median and the longest time to recover, 0 without faults.
func (r Result) Recovery() (median, longest time.Duration) {
	if n := len(r.Recoveries); n > 0 {
		return r.Recoveries[n/2], r.Recoveries[n-1]
	}
	return 0, 0
}

// add counts an offender.
func (r *Result) add(c Counter, format string, args ...any) {
	r.Counts[c]++
	if len(r.First[c]) < Offenders {
		r.First[c] = append(r.First[c], fmt.Sprintf(format, args...))
	}
}
