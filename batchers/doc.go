// Package batchers has policies that close batches earlier than the Size, Bytes
// and Timeout of a [broadway.BatcherConfig] do, and functions that choose batch
// keys.
//
// A policy is a pure value: it has no goroutine and no clock, and one policy may
// serve any number of batchers. What it opens for each batch is asked by one
// goroutine. [Any] combines policies, and [Func] makes one of a function.
//
//	broadway.BatcherConfig{
//		Reporter: store,
//		Size:     1000,
//		KeyBy:    batchers.Hashed(16, batchers.MessageKey),
//		Policy: batchers.Any(
//			batchers.Weight(10_000, rowsOf),
//			batchers.Func(false, isLastOfItsFile),
//		),
//	}
package batchers
