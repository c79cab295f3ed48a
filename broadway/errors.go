package broadway

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrDrainTimeout is wrapped by Run's error when the drain did not finish in
	// Config.DrainTimeout. What was left is unsettled at its source.
	ErrDrainTimeout = errors.New("broadway: drain timed out")
	// ErrAborted is wrapped by Run's error after Abort.
	ErrAborted = errors.New("broadway: aborted")
	// ErrHandlerTimeout is why a message failed whose handling took longer than
	// its stage's Timeout.
	ErrHandlerTimeout = errors.New("broadway: handler timed out")
	// ErrGoexit is why a message failed whose handler called runtime.Goexit.
	ErrGoexit = errors.New("broadway: handler called runtime.Goexit")
	// ErrAttemptsExhausted is why a message failed without being handled: all of
	// FailurePolicy.MaxAttempts attempts ended with their process. See [Producer].
	ErrAttemptsExhausted = errors.New("broadway: attempts exhausted")
	// ErrUnknownBatcher is why a message failed that names no batcher of its
	// pipeline.
	ErrUnknownBatcher = errors.New("broadway: unknown batcher")
	// ErrBatchContract is why all messages of a batch failed whose *BatchError names
	// a message twice, or one that is not in the batch.
	ErrBatchContract = errors.New("broadway: batch error breaks its contract")
	// ErrRunning is returned by a second Run.
	ErrRunning = errors.New("broadway: pipeline has run already")
)

// PanicError is why a message failed whose handler panicked.
type PanicError struct {
	// Value is what the handler panicked with.
	Value any
	// Stack is the stack of the panic.
	Stack []byte
}

// Error says what the panic value was, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("broadway: handler panicked: %v", e.Value) }

// advice is an error that says how to go on after it.
type advice struct {
	err   error
	kind  adviceKind
	after time.Duration
}

type adviceKind uint8

const (
	adviseRetry adviceKind = iota
	adviseReject
	adviseRetryAfter
	adviseUnavailable
	adviseFatal
)

func (a *advice) Error() string { return a.err.Error() }
func (a *advice) Unwrap() error { return a.err }

// Reject marks err, if it is not nil, as final: the message is not tried again and its policy's
// Action is taken. Use it for what no retry mends, such as a payload that does
// not decode.
func Reject(err error) error { return advise(err, adviseReject, 0) }

// Retry marks err so that the next attempt comes after the given wait instead of
// the policy's backoff. It counts as an attempt. Keep the wait well below half of the
// source's Traits.AckTimeout, where it has one: beyond it the message is given back,
// and begins with its first attempt again, so that MaxAttempts is never reached.
func Retry(err error, after time.Duration) error { return advise(err, adviseRetryAfter, after) }

// Unavailable marks err as an outage of something downstream, not a fault of the
// message. It opens the circuit of the stage: the processors, or the reporters of
// that batcher, are given nothing more, so that demand stops; connections and group
// memberships stay. After the policy's backoff one message is tried alone (by a
// reporter, in a batch of its own), again and again until one succeeds, which
// closes the circuit. No attempt is counted, and what failed keeps its place.
func Unavailable(err error) error { return advise(err, adviseUnavailable, 0) }

// Fatal marks an error of a producer as final: the pipeline drains and Run
// returns it.
func Fatal(err error) error { return advise(err, adviseFatal, 0) }

func advise(err error, kind adviceKind, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &advice{err: err, kind: kind, after: after}
}

// classify is the one place where the advice in an error is read. The outermost
// advice wins.
func classify(err error) (adviceKind, time.Duration) {
	var a *advice
	if errors.As(err, &a) {
		return a.kind, a.after
	}
	return adviseRetry, 0
}

type needBytes int64

func (n needBytes) Error() string {
	return fmt.Sprintf("broadway: the next message needs a demand of %d bytes", int64(n))
}

// NeedBytes is what a Producer's Fetch returns when its next message alone
// weighs more than was asked for. The pipeline asks again once so much is free,
// or once nothing is unsettled.
func NeedBytes(size int64) error { return needBytes(size) }

// NeededBytes is the size in an error made by NeedBytes, and whether it is one.
func NeededBytes(err error) (int64, bool) {
	if err == nil {
		return 0, false
	}
	var n needBytes
	ok := errors.As(err, &n)
	return int64(n), ok
}

// BatchError fails members of a batch; members that it does not name succeeded.
// A reporter makes one with new(BatchError), calls Fail, and returns it.
type BatchError struct {
	failures []batchFailure
}

type batchFailure struct {
	message *Message
	err     error
}

// Fail names m as failed because of err, which may carry advice (see Reject).
func (e *BatchError) Fail(m *Message, err error) {
	if err == nil {
		err = errors.New("broadway: failed without a reason")
	}
	e.failures = append(e.failures, batchFailure{m, err})
}

// Len is how many members were named.
func (e *BatchError) Len() int { return len(e.failures) }

// Err is e, or nil when no member was named: `return failures.Err()`.
func (e *BatchError) Err() error {
	if e == nil || len(e.failures) == 0 {
		return nil
	}
	return e
}

// Error says how many members failed, and the first reason.
func (e *BatchError) Error() string {
	if len(e.failures) == 0 {
		return "broadway: no member of the batch failed"
	}
	return fmt.Sprintf("broadway: %d members of the batch failed, the first with: %v", len(e.failures), e.failures[0].err)
}
