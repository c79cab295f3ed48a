package ledger

import "slices"

// Kinds name the ledgers of a run: the files of a kind are kind-*.jsonl.
const (
	KindProduced = "produced" // Produced
	KindSink     = "sink"     // Observation
	KindDead     = "dead"     // Drained, of the dead letters
	KindResidual = "residual" // Drained, of what is left in the source
	KindGaps     = "gaps"     // Gap
	KindFaults   = "faults"   // Fault
	KindOffsets  = "offsets"  // Sample
	KindWire     = "wire"     // wire.Event
)

// State says what became of the sending of an id.
type State string

// What a producer knows of an id. A line with Attempted is written before it is sent, another when its fate is known; an id that
// has the first only counts as Unknown.
const (
	Attempted State = "attempted"
	Acked     State = "acked"   // the broker has it
	Failed    State = "failed"  // the broker has refused it
	Unknown   State = "unknown" // the connection broke, or the time was up: it may have it
)

// Produced is a line of the producers, who know nothing of the framework under test.
type Produced struct {
	ID     string `json:"id"`
	Key    string `json:"key,omitempty"`
	KeySeq int64  `json:"keyseq"` // ascends within Key
	Sum    string `json:"sum"`    // of [Sum]
	State  State  `json:"state"`
	// Source is the topic or queue.
	Source    string `json:"source"`
	Partition int32  `json:"partition,omitempty"` // of an acked record of Kafka
	Offset    int64  `json:"offset,omitempty"`    // of an acked record of Kafka
	// At is the time of [Now].
	At int64 `json:"at"`
}

// Stage is where in a consumer an observation was made.
type Stage string

// Stages of a consumer.
const (
	// Success is the downstream success. It is written before the handler returns, and is all that counts as having an id.
	Success Stage = "success"
	// Dropped is written where the handler settles a message without success on purpose.
	Dropped Stage = "dropped"
	// Seen is written when a handler begins. It tells how far a process had come that died.
	Seen Stage = "seen"
	// Refused is written when a handler fails an id.
	Refused Stage = "refused"
)

// Observation is a line of the sink.
type Observation struct {
	ID     string `json:"id"`
	Key    string `json:"key,omitempty"`
	KeySeq int64  `json:"keyseq"`
	Sum    string `json:"sum"`
	Stage  Stage  `json:"stage"`
	Source string `json:"source"`
	// Partition, Offset and Generation are Kafka's.
	Partition  int32 `json:"partition,omitempty"`
	Offset     int64 `json:"offset,omitempty"`
	Generation int32 `json:"generation,omitempty"`
	// Session, Tag and Redelivered are RabbitMQ's. Session counts the channels of a process.
	Session     int64  `json:"session,omitempty"`
	Tag         uint64 `json:"tag,omitempty"`
	Redelivered bool   `json:"redelivered,omitempty"`

	PID     int   `json:"pid"`
	Attempt int   `json:"attempt,omitempty"`
	Seq     int64 `json:"seq"` // ascends within a process
	At      int64 `json:"at"`
}

// Drained is a message that an independent client found after a run, in the dead letters or still in the source.
type Drained struct {
	ID     string `json:"id"`
	Key    string `json:"key,omitempty"`
	KeySeq int64  `json:"keyseq"`
	Sum    string `json:"sum"`
	// Source is the topic or queue that it was found in.
	Source    string `json:"source"`
	Partition int32  `json:"partition,omitempty"`
	Offset    int64  `json:"offset,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Attempts  int    `json:"attempts,omitempty"`
	// Reference is the SHA-256 that a dead letter gives in place of a message that was too large. Added is how many bytes of headers it
	// was given.
	Reference string `json:"reference,omitempty"`
	Added     int    `json:"added,omitempty"`
	At        int64  `json:"at"`
}

// Why says why an offset holds no message for a consumer.
type Why string

// Reasons of gaps.
const (
	Marker    Why = "marker"    // a control record of a transaction
	Aborted   Why = "aborted"   // a record of an aborted transaction
	Compacted Why = "compacted" // a later record of the key has replaced it
	Deleted   Why = "deleted"   // retention, or an operator, has removed it
)

// Gap is a range of offsets, First included and Next not, that no consumer can be handed.
type Gap struct {
	Source    string `json:"source"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"`
	Next      int64  `json:"next"`
	Why       Why    `json:"why"`
}

// Fault is a line of the fault journal. It is written when the fault is over, or twice with one Number: the later line counts.
type Fault struct {
	Number int    `json:"number"`
	Kind   string `json:"kind"`
	Target string `json:"target,omitempty"` // a process id, a connection, a broker
	// Source and Partitions are what it hits. Empty: anything.
	Source     string  `json:"source,omitempty"`
	Partitions []int32 `json:"partitions,omitempty"`
	// Unsettled is how many messages the target held, where that is known.
	Unsettled int `json:"unsettled,omitempty"`
	// Clean faults, a stop in good order for one, excuse no duplicates.
	Clean bool  `json:"clean,omitempty"`
	From  int64 `json:"from"`
	Until int64 `json:"until,omitempty"` // 0: it goes on
}

// Sample is what the broker itself says of a partition, asked past the proxy.
type Sample struct {
	Source    string `json:"source"`
	Partition int32  `json:"partition"`
	Group     string `json:"group"`
	State     string `json:"state,omitempty"` // of the group
	Committed int64  `json:"committed"`       // -1: nothing
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	At        int64  `json:"at"`
}

// Hits says whether a fault can concern a partition of a topic, or a queue.
func (f Fault) Hits(source string, partition int32) bool {
	return (f.Source == "" || f.Source == source) && (len(f.Partitions) == 0 || slices.Contains(f.Partitions, partition))
}
