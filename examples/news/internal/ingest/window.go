package ingest

import (
	"context"
	"sync"
)

// Window is A's credit while a queue stands between A and B: its bound, less
// what was published and is not yet committed. Without it a slow B would not
// slow A down: A's own pipeline settles a post as soon as the queue has it.
type Window struct {
	bound int

	mu      sync.Mutex // protects following fields
	taken   int
	highest int
	freed   chan struct{} // closed when credit comes back; nil without a waiter
}

// NewWindow makes a window of bound posts, of which already lie in the queue.
func NewWindow(bound, already int) *Window {
	return &Window{bound: bound, taken: already, highest: already}
}

// Bound is the most that may be out at once.
func (w *Window) Bound() int { return w.bound }

// Highest is the most that was out at once.
func (w *Window) Highest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.highest
}

// Out is how much is out now.
func (w *Window) Out() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken
}

// Take claims 1 to n credits, waiting until one is free, or returns 0 with the
// cause of ctx.
func (w *Window) Take(ctx context.Context, n int) (int, error) {
	for {
		got, freed := w.try(n)
		if got > 0 {
			return got, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (w *Window) try(n int) (int, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := min(n, w.bound-w.taken); got > 0 {
		w.taken += got
		w.highest = max(w.highest, w.taken)
		return got, nil
	}
	if w.freed == nil {
		w.freed = make(chan struct{})
	}
	return 0, w.freed
}

// Return gives back n credits: so many posts were committed, or never went out.
func (w *Window) Return(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = max(w.taken-n, 0)
	if w.freed != nil && w.taken < w.bound {
		close(w.freed)
		w.freed = nil
	}
}

// Empty waits until nothing is out, or returns the cause of ctx.
func (w *Window) Empty(ctx context.Context) error {
	for {
		w.mu.Lock()
		taken := w.taken
		if taken > 0 && w.freed == nil {
			w.freed = make(chan struct{})
		}
		freed := w.freed
		w.mu.Unlock()
		if taken == 0 {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
