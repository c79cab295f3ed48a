package ingest

import (
	"context"
	"fmt"
	"sync"
)

// Position is how far a source has been read and settled.
type Position struct {
	// After is the id of the newest post of the settled prefix: everything up to
	// it is done with. Empty at the beginning.
	After string
	// Settled is how many posts that prefix has.
	Settled int64
}

// CursorStore keeps the position of a source over restarts.
type CursorStore interface {
	// LoadCursor returns the saved position of name, zero if there is none.
	LoadCursor(ctx context.Context, name string) (Position, error)
	// SaveCursor keeps pos unless a later position (by Settled) is kept already.
	SaveCursor(ctx context.Context, name string, pos Position) error
}

// Cursor moves over the longest prefix of settled posts: what settles out of
// turn waits for its predecessors, so a restart reads some posts again and never
// loses one.
type Cursor struct {
	store CursorStore
	name  string

	mu      sync.Mutex // protects following fields
	pos     Position
	order   []string // given and not passed, in their order
	settled map[string]bool
}

// LoadCursor reads the position of name.
func LoadCursor(ctx context.Context, store CursorStore, name string) (*Cursor, error) {
	pos, err := store.LoadCursor(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("ingest: load cursor %s: %w", name, err)
	}
	return &Cursor{store: store, name: name, pos: pos, settled: make(map[string]bool)}, nil
}

// Position is where the cursor stands.
func (c *Cursor) Position() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pos
}

// Give tells that posts went out, in this order.
func (c *Cursor) Give(ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = append(c.order, ids...)
}

// Settle tells that posts are done with, and saves the position if it moved. A
// post that never went out, or settled before, changes nothing.
func (c *Cursor) Settle(ctx context.Context, ids ...string) error {
	pos, moved := c.settle(ids)
	if !moved {
		return nil
	}
	// Two of these may run at once and finish in either order: the store keeps
	// the later position.
	if err := c.store.SaveCursor(ctx, c.name, pos); err != nil {
		return fmt.Errorf("ingest: save cursor %s: %w", c.name, err)
	}
	return nil
}

func (c *Cursor) settle(ids []string) (pos Position, moved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.settled[id] = true
	}
	for len(c.order) > 0 && c.settled[c.order[0]] {
		c.pos.After = c.order[0]
		c.pos.Settled++
		delete(c.settled, c.order[0])
		c.order = c.order[1:]
		moved = true
	}
	if len(c.order) == 0 {
		clear(c.settled) // only strangers are left
	}
	return c.pos, moved
}
