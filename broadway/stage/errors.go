package stage

import (
	"errors"
	"fmt"
)

var (
	// ErrStop is what a [Consumer]'s function returns when it wants no more
	// events. The consumer ends without an error, and so does each stage all of
	// whose subscribers have stopped.
	ErrStop = errors.New("stage: no more events wanted")
	// ErrEnded says that a stage has ended, or is about to: it takes no more
	// events and no more subscriptions.
	ErrEnded = errors.New("stage: the stage has ended")
	// ErrOverDemand says that a fetch function returned more events than it was
	// asked for.
	ErrOverDemand = errors.New("stage: fetch returned more than it was asked for")
	// ErrAlreadySubscribed says that a consumer would get each event of a
	// broadcast twice.
	ErrAlreadySubscribed = errors.New("stage: already subscribed")
	// ErrPartitionTaken says that a partition has a subscriber already.
	ErrPartitionTaken = errors.New("stage: the partition has a subscriber")
	// ErrCycle says that a stage would be subscribed to itself, through others
	// or directly. It could never end.
	ErrCycle = errors.New("stage: a stage cannot be subscribed to itself")
	// ErrOtherRun says that two stages are not run by the same call of [Run].
	ErrOtherRun = errors.New("stage: not run by the same call of Run")
	// ErrGoexit says that a function ended its goroutine by runtime.Goexit.
	ErrGoexit = errors.New("stage: the function called runtime.Goexit")

	// errHalted is how a loop says that it ended because Run is to end.
	errHalted = errors.New("stage: halted")
)

// Error is an error of one stage, by name.
type Error struct {
	// Stage is the name given to the stage's constructor.
	Stage string
	// Err is what its function returned, or what was wrong with the stage.
	Err error
}

// Error returns the stage's name and its error.
func (e *Error) Error() string { return fmt.Sprintf("stage %q: %v", e.Stage, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// PanicError is a panic of a stage's function.
type PanicError struct {
	// Value is what it panicked with.
	Value any
	// Stack is the stack of its goroutine, as runtime/debug.Stack returns it.
	Stack []byte
}

// Error returns the value, then the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the value if it is an error, such as a [*CreditError].
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// UndeliveredError says that a stage whose sources had ended held events that no
// subscriber was there to take.
type UndeliveredError struct {
	// Events is how many it held at least.
	Events int
}

// Error returns how many events were held.
func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("stage: %d events are left, with no subscriber to take them", e.Events)
}
