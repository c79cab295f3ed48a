// Package rig has what is broken: real brokers, the links to them, worker processes and disks, and the functions that break them.
//
// Two rigs stand behind a proxy each (reliability.md, section 2.0): [Kafka] with a direct listener beside the one whose advertised
// address is the proxy, and [RabbitMQ]. What a client of the framework says goes through the proxy, where a tap sees it; what the
// checker asks never does.
package rig

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Host lets package brokers, whose functions report to a test, work for a program: a failure is an error of [Host.Do], and
// cleanups run at [Host.Close].
type Host struct {
	testing.TB // never set: what is not implemented below is not called by brokers

	name string
	logf func(format string, args ...any)

	mu       sync.Mutex
	cleanups []func()
	failure  error
	failed   bool
}

// NewHost makes a host; name goes into the names of virtual hosts and the like. logf is told what brokers logs.
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

// Skip is Fatal: a scenario that cannot run has not passed.
func (h *Host) Skip(args ...any) { h.fail(errors.New("skipped: " + fmt.Sprint(args...))) }

func (h *Host) fail(err error) {
	h.mu.Lock()
	h.failure, h.failed = errors.Join(h.failure, err), true
	h.mu.Unlock()
	runtime.Goexit()
}
