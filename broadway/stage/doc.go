// Package stage moves events between goroutines by demand: a stage hands on only
// what the next one asked for, so the slowest sets the pace, from the back to the
// front, and no queue overflows.
//
//	            ask 500               ask 5
//	          ◀─────────            ◀───────
//	┌──────────┐       ┌──────────────────┐       ┌──────────┐
//	│ Producer │       │ ProducerConsumer │       │ Consumer │
//	└──────────┘       └──────────────────┘       └──────────┘
//	          ─────────▶            ───────▶
//	           500 events            5 events
//
//	fetch(ctx, 500)      handle(ctx, chunk)       handle(ctx, chunk)
//	([]E, error)         ([]O, error)             error
//
// A [Producer] fetches when it is asked, or is given events by other goroutines. A
// [ProducerConsumer] makes events of events. A [Consumer] handles them. Each is a
// goroutine; [Run] starts them and waits for them. Events travel in slices, as they
// were fetched.
//
// # Subscriptions
//
// Any number of stages [Subscribe] to any number of others, before and during Run. A
// [Subscription] says how many events may be on their way to a consumer or wait
// for it, MaxDemand, and how few are left when it asks for more, MinDemand. Each has
// a ledger, a [Credit], that asserts this bound at each step.
//
// How a stage shares its events among its subscribers is its [Dispatcher]: each to
// one of them, the one with the most demand first ([ByDemand]); each to all of them
// ([Broadcast]); or each to the one of its [Partition].
//
// # Bounds
//
// Nothing here is unbounded. Events beyond the demand come from [Producer.Emit], from
// stages that make many of one, and from asks whose consumer has gone. They wait in
// the stage's buffer, of [Options].Buffer events; when it is full, whoever emits
// waits, or events are discarded and counted, by choice ([Overflow]).
//
// # Order
//
// What one stage gets from one other is in the order in which that one emitted it.
// Between several stages there is no order.
//
// The demand follows the design of Elixir's GenStage: with one subscription, asks and
// chunks have the same sizes in the same sequence. What differs: an invalid
// Subscription is an error at once, buffers are bounded, a blocked partition does not
// stall the others until its buffer is full and keeps what it holds for its next
// subscriber, and what nobody is there to take in the end is an error.
package stage
