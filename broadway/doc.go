// Package broadway consumes message queues through a pipeline whose speed is set
// by its slowest stage, from the back to the front: consumers ask for messages,
// and producers fetch no more than was asked. Nothing is acknowledged before
// everything downstream has succeeded.
//
//	            ┌──────────┐     ┌───────────┐     ┌─────────┐     ┌──────────┐
//	source ───▶ │ producer │ ──▶ │ processor │ ──▶ │ batcher │ ──▶ │ reporter │
//	   ▲        └──────────┘     └───────────┘     └─────────┘     └──────────┘
//	   │              ▲ demand          ▲ demand         ▲ demand        │
//	   └──────────────┴─── acknowledge ─┴────────────────┴───────────────┘
//
// A [Config] names producers, one [Processor] that handles messages one by one,
// and batchers, whose [Reporter] handles groups. [New] checks it, and
// [Pipeline.Run] runs it until its context ends or its sources are done:
//
//	p, err := broadway.New(broadway.Config{
//		Producers: []broadway.Producer{source},
//		Processor: broadway.ProcessorConfig{Handler: handle},
//		Batchers:  []broadway.BatcherConfig{{Size: 100, Reporter: insert}},
//		Failure:   broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: dlq},
//	})
//	...
//	err = p.Run(ctx)
//
// # Bounds
//
// What is handed to the pipeline and not settled never exceeds MaxUnsettled
// messages and MaxUnsettledBytes; what is asked of producers counts. There is no
// queue that could grow beyond that. When no credit is free while a worker is idle
// the fullest open batch is reported as it is, so that bounds never stop a
// pipeline.
//
// # Order
//
// Without PartitionBy there is none, and no message waits behind a slow one while a
// worker is idle. With it, messages of equal value are handled in order through
// processors and reporters: the first handling of each, within one ownership of
// their source partition. Order holds within a batcher and batch key. Kafka sources
// promise an order by topic, partition and key; Unordered gives it up.
//
// # Failure
//
// A handler fails a message by an error, a panic, runtime.Goexit or its Timeout;
// a reporter fails members of a batch by [*BatchError]. What fails is tried again
// with backoff, occupying no worker, and after MaxAttempts the policy's [Action] is
// taken. Errors carry advice: [Reject], [Retry], [Unavailable].
//
// Delivery is at least once: a message that settled may come again after a crash,
// a rebalance or a lost connection.
//
// # Ends
//
// Cancelling Run's context stops fetching only: what was fetched is finished within
// DrainTimeout. [Pipeline.Abort] stops now and settles nothing.
package broadway
