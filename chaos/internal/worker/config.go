// Package worker is the consumer process of chaos: pipelines built with the library's public API, a sink that writes down each
// success before its handler or reporter returns, and faults that strike by id or at a step.
package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Config is what a worker does. The zero value of a field means the library's default, unless it says otherwise.
type Config struct {
	// Name is what the worker calls itself to the broker; member i of several is Name-i.
	Name string
	// Dir is where its ledger goes.
	Dir string
	// Members is how many pipelines run at once, each a consumer of its own. Default 1.
	Members int

	// Exactly one of these is the source.
	Kafka  *Kafka
	Rabbit *Rabbit

	// Of the pipeline.
	Concurrency       int
	MaxDemand         int
	MaxUnsettled      int
	MaxUnsettledBytes int64
	Unordered         bool
	Timeout           time.Duration
	RetryStuck        bool
	Batch             *Batch
	MaxAttempts       int
	Backoff           time.Duration // the first; the longest is 16 times that
	DrainTimeout      time.Duration
	FailFast          bool
	// Action is "dead_letter", "drop", "reject", "requeue", "requeue_once", "stop_partition" or "stop_pipeline". Default
	// "dead_letter", which needs DeadLetter: a topic, or a queue.
	Action     string
	DeadLetter string

	// Delay is how long each handling takes.
	Delay time.Duration
	// Faults strike by id.
	Faults []Fault
	// FailPoint, if its At is set, kills the process at a step.
	FailPoint FailPoint
	// Corpus is for messages that do not name themselves: an id is a place in a topic, or a message-id, and the sum is over
	// everything that must not change.
	Corpus bool
	// NoLimits takes away the limits of messages. MaxPayload sets the one of payloads.
	NoLimits   bool
	MaxPayload int64
	// Verify makes handlers fail what is not as its producer made it.
	Verify bool
	// Report is a folder for reports, which reporters write before the sink.
	Report string
	// Clock is by how much the wall clock of dead letters is off, one after the other.
	Clock []time.Duration
	// Listen, if set, is the address of /healthz and /readyz.
	Listen string
	// Bounces is how often each member is started and stopped before it runs for good.
	Bounces int
	// NoSink makes handlers write no success: for scenarios whose sink is elsewhere.
	NoSink bool
}

// Kafka is a source of rig K.
type Kafka struct {
	Brokers           []string
	Topic, Group      string
	Window            int
	SessionTimeout    time.Duration
	HeartbeatInterval time.Duration
	RebalanceTimeout  time.Duration
	MetadataInterval  time.Duration
	CommitInterval    time.Duration
	MaxBytes          int // also of a partition
	MaxBatchBytes     int
	MaxPartitionBytes int
	// OutOfRange is "fail", "earliest" or "latest"; Corrupt "stop" or "skip".
	OutOfRange, Corrupt string
	ReadCommitted       bool
}

// Rabbit is a source of rig R.
type Rabbit struct {
	URL, Queue string
	Prefetch   int
	// Single says that the queue has a single active consumer.
	Single     bool
	Heartbeat  time.Duration
	AckTimeout time.Duration
	BackoffMax time.Duration
	// CA, a file of PEM, makes the connections encrypted and is all that they trust.
	CA string
}

// Batch makes the sink a reporter of batches, instead of the handler.
type Batch struct {
	Size          int
	Timeout       time.Duration
	Concurrency   int
	ReportTimeout time.Duration
}

// Kinds of faults.
const (
	Panic    = "panic"     // with a string
	PanicNil = "panic_nil" // panic(nil)
	Goexit   = "goexit"
	Error    = "error"
	Reject   = "reject"      // broadway.Reject
	Down     = "unavailable" // broadway.Unavailable
	Hang     = "hang"        // ignores its context, for For, and fails then
	Slow     = "slow"        // takes For, or until its context ends
	Die      = "die"         // the process kills itself
)

// Kinds of faults of a reporter that strike the batch in which the message is.
const (
	Twice = "twice" // names a member twice
	Alien = "alien" // names a message that is not in the batch
	Half  = "half"  // panics after half of the batch was written
	Whole = "whole" // another error than a *broadway.BatchError
)

// Fault strikes messages at a stage. Which ones is decided by their ids alone, so that a replay strikes the same.
type Fault struct {
	Kind string
	// Reporter strikes in the reporter: a member by Error, Reject, Down and Hang, the whole batch by the others. Otherwise the handler.
	Reporter bool
	// Of each Every ids by their hash the one that is Rest: 100 is one in a hundred. 0 is none but IDs.
	Every, Rest uint32
	IDs         []string
	Part        string // of an id; "" is none
	// Times is how often a message is struck, counted within this process; 0 is always.
	Times int
	For   time.Duration
	// Text is how long the text of an Error or a Reject is, at least.
	Text int
}

// Steps of a FailPoint.
const (
	AfterFetch    = "after-fetch"    // Fetch has returned messages
	BeforeHandler = "before-handler" // a handler begins
	BeforeSink    = "before-sink"    // the sink is about to be written
	AfterSink     = "after-sink"     // the sink is written, and its handler or reporter has not returned
	WithinReport  = "within-report"  // half of a report is written
	AfterReport   = "after-report"   // a report is durable, and its reporter has not returned
	WithinBatch   = "within-batch"   // half of a batch is written
	AfterHandled  = "after-handled"  // a worker's visit is over
	AfterReported = "after-reported" // a reporter has returned
	AfterSettled  = "after-settled"  // the source has been told, and its commit or ack may be on its way
	BeforeDead    = "before-dead"    // a dead letter is about to be published
	AfterDead     = "after-dead"     // a dead letter is confirmed, and its message not settled
	BeforeLeaving = "before-leaving" // the pipeline is told to drain
)

// FailPoint is a step at which the process kills itself (SIGKILL) the N-th time that it comes there, from 1.
type FailPoint struct {
	At string
	N  int
	// Draining counts from the first SIGTERM on.
	Draining bool
}

// Read reads a configuration.
func Read(file string) (Config, error) {
	var cfg Config
	text, err := os.ReadFile(file)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(text, &cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", file, err)
	}
	cfg.Members = max(1, cfg.Members)
	return cfg, nil
}
