// Package acknowledgers has the disciplines by which messages settle. They know
// no broker: a producer brings the connection.
//
//   - [Offsets]: cumulative. A source that keeps one position per partition is
//     told the end of the longest settled prefix.
//   - [Deliveries]: single. A source that numbers its deliveries is told of each
//     of them once, of many by one frame where nothing before them is open.
//   - [DeadLetters]: a copy first. A failed message is published elsewhere, and
//     settled once that is confirmed.
//   - [Noop]: nothing. A source that keeps nothing need not be told.
//
// Offsets and Deliveries are ledgers: values without goroutine, clock or lock,
// that a producer's acknowledger consults.
package acknowledgers
