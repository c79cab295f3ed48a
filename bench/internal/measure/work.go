// Package measure runs workloads: each system does the same work in a process of its own, in turns, so that a machine whose speed
// drifts is the same to all of them.
package measure

import (
	"context"
	"strings"
	"time"
)

// Workload is one piece of work that several systems do.
type Workload struct {
	// Name is what -only names it by.
	Name string
	// Title and Does are for readers: what is done, and what is counted.
	Title, Does string
	// Messages is the full size; Least is the smallest that still tells something.
	Messages, Least int
	// Rounds is how often each system runs, 9 when 0.
	Rounds int
	// Needs is what must run beside it.
	Needs Needs
	// Systems run in turns, another one first in each round.
	Systems []System
	// Axis names what the systems differ in when they are one system at several points of an axis, such as "workers"; "" when they are
	// not. The report says how flat the axis is.
	Axis string
	// Targets are what the project means to reach.
	Targets []Target
}

// Needs says which broker a workload works on, and what is in it.
type Needs struct {
	Kafka, RabbitMQ bool
	// Partitions is how many the Kafka topic has.
	Partitions int
	// Codec compresses the Kafka topic: "", lz4, zstd.
	Codec string
	// Keys is how many keys the records have, 0 meaning none.
	Keys int
	// Empty is for workloads that write while they read: a topic that is new in each round, or an empty queue.
	Empty bool
}

// System is one way to do the work.
type System struct {
	// Name says who, Version which.
	Name, Version string
	// Once is for what takes so long that one round must do.
	Once bool
	// Fraction is the part of the messages that a slow system moves, 0 meaning all: its rate is what is compared.
	Fraction float64
	// Partitions replaces those of the workload's topic when above 0.
	Partitions int
	// Reads is for what acknowledges nothing: what it has settled is not looked up afterwards.
	Reads bool
	// Setup builds what the system runs, in a folder that Run gets as Input.Built and that may hold an earlier run's. It runs before the
	// first round, and is not measured. Nil when there is nothing to build.
	Setup func(ctx context.Context, dir string) error
	// Run does the work. It returns once all of it is done and acknowledged.
	Run func(context.Context, Input) (Output, error)
}

// Ours says whether the system is this project.
func (s System) Ours() bool {
	return strings.HasPrefix(s.Name, "broadway") || strings.HasPrefix(s.Name, "stages")
}

// Target is what one system should reach against another, of the medians of one run.
type Target struct {
	// System and Peer are names. With no Peer the figure itself counts; with neither the highest of all systems over the lowest, which is
	// how flat an axis is.
	System, Peer string
	// Measure is "rate", "cpu" (seconds a message), "rss" (MiB), "rss/flight" (resident bytes, less what the process had before the work
	// began, for each byte in flight), "allocs" (a message), or "p50", "p99" and "p99.9" (milliseconds).
	Measure string
	// Difference is for System-Peer, in place of the ratio System/Peer.
	Difference bool
	// AtLeast or AtMost is the bound.
	AtLeast, AtMost float64
}

// Input is what a system is told.
type Input struct {
	Messages int    `json:"messages"`
	Kafka    string `json:"kafka,omitempty"`    // host:port
	Topic    string `json:"topic,omitempty"`    // has Messages records
	Group    string `json:"group,omitempty"`    // a new one in each round
	RabbitMQ string `json:"rabbitmq,omitempty"` // amqp://…
	Queue    string `json:"queue,omitempty"`    // has Messages messages
	Profile  string `json:"profile,omitempty"`  // a folder for profiles
	Built    string `json:"built,omitempty"`    // the folder of Setup
}

// Output is what a system says of its run. Its CPU time is asked of the operating system.
type Output struct {
	// Messages is how many were done, Sum the sum of what was read out of each: the check that all of them were.
	Messages int    `json:"messages"`
	Sum      uint64 `json:"sum"`
	// Elapsed is from the first ask to the last acknowledgement.
	Elapsed time.Duration `json:"elapsed"`
	// Mallocs is how many allocations were made meanwhile.
	Mallocs uint64 `json:"mallocs"`
	// Peak is the most memory that the process had resident, in bytes, and Base what it had before the system ran. A system that is a
	// process of its own says them, and its allocations, or 0 when it does not know.
	Peak int64 `json:"peak"`
	Base int64 `json:"base"`
	// Begun is the CPU time that the process had taken before the system ran: it links all peers, which takes some time to begin.
	Begun time.Duration `json:"begun"`
	// Flight is the most bytes that were handed to this project's pipeline and not settled, as it accounts them; 0 when not asked.
	Flight int64 `json:"flight,omitempty"`
	// Latency is how late messages were settled that were due at a steady rate; nil for other work.
	Latency *Percentiles `json:"latency,omitempty"`
}

// Payload is the size of each message, in bytes.
const Payload = 200

// WantSum is the Sum of n messages: message i, from 0, holds i+1.
func WantSum(n int) uint64 { return uint64(n) * uint64(n+1) / 2 }
