// Package memory is a source that lives in this process: a finite list of
// payloads, a generator, or a queue that the program pushes to. It keeps the
// whole contract of a broker (demand in messages and bytes, redelivery of what
// is released or requeued, partitions, sessions that end), so that a pipeline
// can be tried, and tested, without one. It works within testing/synctest.
//
//	      Push, Publish                 Fetch(demand)
//	program ──────────► Queue ────────────────► Producer ─────► pipeline
//	                      ▲                                        │
//	                      └────── released, requeued ◄── Ack ──────┘
//
// A [Queue] plays the broker and a [Producer] one session with it: what a
// producer leaves unsettled at Close goes back to the queue, and a fresh
// producer of the same queue gets it. Nothing survives the process.
package memory
