package broadwaytest

import (
	"context"
	"slices"
	"sync"
)

// history remembers what happened, in order, and tells who waits for it.
type history[T any] struct {
	mu      sync.Mutex // protects following fields
	items   []T
	changed chan struct{} // closed at the next change; nil without a waiter
}

func (h *history[T]) add(item T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.items = append(h.items, item)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

func (h *history[T]) all() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.items)
}

// wait returns once enough says so of all items, or with the cause of ctx.
func (h *history[T]) wait(ctx context.Context, enough func([]T) bool) error {
	for {
		h.mu.Lock()
		done := enough(h.items)
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// faults are what a double was told to do instead of its work.
type faults struct {
	mu   sync.Mutex // protects following fields
	errs []error
	gate chan struct{}
}

// fail makes the next calls return errs, one each; nil lets a call pass.
func (f *faults) fail(errs []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, errs...)
}

// block makes calls wait until the function that it returns is called.
func (f *faults) block() func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// pass waits at the gate, if there is one, and gives the error of this call.
func (f *faults) pass(ctx context.Context) error {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) == 0 {
		return nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return err
}
