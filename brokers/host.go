package brokers

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Host stands in for a test in a program: give it to the functions of this package inside of [Host.Do], which returns as an error
// what would fail the test. Cleanups run at [Host.Close], which ends the brokers that were started. A program that uses one calls
// testing.Init and flag.CommandLine.Parse first, since -short is asked for.
type Host struct {
	testing.TB // never set: this package calls nothing but what is implemented below

	name string
	logf func(format string, args ...any)

	mu       sync.Mutex
	cleanups []func()
	failure  error
	failed   bool
}

// NewHost makes a host; name goes into the names of virtual hosts and the like. logf is told what would be logged by the test.
func NewHost(name string, logf func(format string, args ...any)) *Host {
	return &Host{name: name, logf: logf}
}

// Do runs f, in a goroutine of its own as a test's function has, and returns what it failed with.
func (h *Host) Do(f func()) error {
	var done sync.WaitGroup
	done.Go(f)
	done.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.failure
	h.failure = nil
	return err
}

// Close runs the cleanups, the last one first: brokers end.
func (h *Host) Close() error {
	var err error
	for {
		h.mu.Lock()
		n := len(h.cleanups)
		if n == 0 {
			h.mu.Unlock()
			return err
		}
		last := h.cleanups[n-1]
		h.cleanups = h.cleanups[:n-1]
		h.mu.Unlock()
		err = errors.Join(err, h.Do(last))
	}
}

// Helper does nothing.
func (h *Host) Helper() {}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Cleanup makes f run at Close.
func (h *Host) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

// Failed says whether any Do failed.
func (h *Host) Failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// Logf passes a line on.
func (h *Host) Logf(format string, args ...any) { h.logf(format, args...) }

// Fatalf makes the Do that runs return the error, and ends its goroutine.
func (h *Host) Fatalf(format string, args ...any) {
	h.fail(fmt.Errorf(format, args...))
}

// Fatal is Fatalf without a format.
func (h *Host) Fatal(args ...any) { h.fail(errors.New(fmt.Sprint(args...))) }

// Skip is Fatal: a program cannot be skipped.
func (h *Host) Skip(args ...any) { h.fail(errors.New("skipped: " + fmt.Sprint(args...))) }

func (h *Host) fail(err error) {
	h.mu.Lock()
	h.failure, h.failed = errors.Join(h.failure, err), true
	h.mu.Unlock()
	runtime.Goexit()
}
