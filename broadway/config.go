package broadway

import (
	"log/slog"
	"time"
)

// Defaults of a Config.
const (
	DefaultMaxDemand         = 10
	DefaultBatchSize         = 100
	DefaultBatchTimeout      = time.Second
	DefaultMaxAttempts       = 3
	DefaultMaxUnsettledBytes = 64 << 20
	DefaultDrainTimeout      = 30 * time.Second
	DefaultBackoffInitial    = 100 * time.Millisecond
	DefaultBackoffMax        = 10 * time.Second
	DefaultBackoffFactor     = 2
	DefaultBackoffJitter     = 0.2
)

// Config describes a pipeline. Zero values mean the defaults that are stated;
// -1 means off where that is stated.
type Config struct {
	// Name is used in logs, metrics and Stats. Default "pipeline".
	Name string
	// Producers are the sources: at least one.
	Producers []Producer
	// Processor is the pool that handles messages one by one.
	Processor ProcessorConfig
	// Batchers group processed messages for reporters. None means that messages
	// are settled after their processor.
	Batchers []BatcherConfig
	// Failure says what happens to messages that fail.
	Failure FailurePolicy

	// MessageLimits is how large messages may be that handlers get.
	MessageLimits MessageLimits

	// MaxUnsettled bounds the messages that are handed to the pipeline and not
	// settled. Default: Concurrency x MaxDemand of the processor plus, for each
	// batcher, Size x (Concurrency + 1); at least the prefetch of its producers. What
	// waits for another attempt counts: where that is much, set it to several times
	// the Size of a batch, or batches close early (TriggerPressure).
	MaxUnsettled int
	// MaxUnsettledBytes bounds the same in bytes: what is kept in memory for them,
	// which is payloads, keys and headers, and MessageOverhead for each. A single
	// larger message passes when nothing else is unsettled; at least two messages
	// of each producer always do. Default 64 MiB.
	MaxUnsettledBytes int64

	// DrainTimeout bounds the whole drain. Its last fifth, at least 2 s (and at
	// most half of it), is kept from handlers, for acknowledging and closing.
	// Default 30 s.
	DrainTimeout time.Duration
	// FailFast makes Run return when a producer's first connection fails,
	// instead of trying again.
	FailFast bool
	// ReconnectBackoff is the wait between attempts to connect or to fetch
	// after an error. Default 1 s to 30 s, factor 2, jitter 0.2.
	ReconnectBackoff Backoff

	// Logger defaults to slog.Default(). Payloads and header values are never
	// logged.
	Logger *slog.Logger
	// Observer is told what happens. Default: nobody.
	Observer Observer
}

// ProcessorConfig describes the processor pool.
type ProcessorConfig struct {
	// Handler is required.
	Handler Processor
	// Concurrency is the number of workers. Default 2 x GOMAXPROCS.
	Concurrency int
	// MaxDemand is how many messages each worker asks for: with an empty queue
	// the pool asks for Concurrency x MaxDemand. Default 10.
	MaxDemand int
	// MinDemand is a hint for chunking: the pool asks again once the queue has
	// fallen to Concurrency x MinDemand. With an empty queue any free credit is
	// asked for. Default MaxDemand / 2; must be below MaxDemand.
	MinDemand int
	// Timeout bounds one handling: its context ends then, and the message fails with
	// ErrHandlerTimeout. Default none.
	//
	// A handler that has not returned a grace later (the Timeout again, at least
	// 10 ms and at most 0.6 s) is stuck: nothing can end it. It is named in the log,
	// to a StuckObserver and in Stats.Stuck, and another worker takes its worker's
	// place. Its message has failed, but is not tried again, nor its key handled, before
	// it returns; what it returns does not matter then. A handler without a Timeout is never stuck: see
	// ProcessorStats.Oldest for the one that has run for longest.
	Timeout time.Duration
	// MaxStuck is how many stuck handlers have their workers replaced at a time.
	// While there are more the pipeline is unhealthy and handles nothing. Default
	// Concurrency, so that there are never more than twice as many goroutines; -1
	// replaces none.
	MaxStuck int
	// RetryStuck lets go of the message and of the key of a stuck handler at once: it
	// may be tried again, or settled, while the handler still runs.
	RetryStuck bool
	// PartitionBy makes messages of equal value be handled in order, through
	// processors and reporters: the first handling, within one ownership of
	// their source partition. Default: what the producers promise (Kafka: by
	// topic, partition and key; others none).
	PartitionBy func(*Message) uint64
	// Unordered gives up the order that producers promise by default. It cannot
	// be combined with PartitionBy.
	Unordered bool
}

// BatcherConfig describes one batcher and its reporters.
type BatcherConfig struct {
	// Name is what messages choose it by. Default "default"; must be unique.
	Name string
	// Reporter is required.
	Reporter Reporter
	// Concurrency is the number of reporters. Default 1.
	Concurrency int
	// Size closes a batch that holds so many messages. Default 100. Batches close
	// before that by Bytes, Timeout and Policy, and when MaxUnsettled is used up, so
	// that nothing else could come (TriggerPressure).
	Size int
	// Bytes closes a batch before the message that would exceed it; a single
	// larger message makes a batch of its own. Default none.
	Bytes int64
	// Timeout closes a batch once its oldest member has waited so long.
	// Default 1 s; -1 means never. A quarter of its source's Traits.AckTimeout closes
	// it in any case, so that there is time to report a member again.
	Timeout time.Duration
	// KeyBy sets the batch key of messages whose handler set none.
	KeyBy func(*Message) string
	// Policy closes batches earlier than the above. Default none.
	Policy BatchPolicy
	// ReportTimeout bounds one report, as the processor's Timeout does a handling.
	// No member of a batch whose reporter is stuck settles, or is tried again, before
	// it returns. Default none.
	ReportTimeout time.Duration
	// MaxStuck is how many stuck reporters are replaced at a time. While there are
	// more the pipeline is unhealthy and the batcher reports nothing. Default
	// Concurrency; -1 replaces none.
	MaxStuck int
	// RetryStuck lets go of the batch of a stuck reporter at once: its members may be
	// tried again, or settled, while the reporter still runs.
	RetryStuck bool
}
