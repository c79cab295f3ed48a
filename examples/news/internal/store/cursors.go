package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
)

// LoadCursor returns the saved position of name, zero if there is none.
func (s *Store) LoadCursor(ctx context.Context, name string) (ingest.Position, error) {
	var pos ingest.Position
	err := s.db.QueryRowContext(ctx, `SELECT after, settled FROM cursors WHERE name = $1`, name).Scan(&pos.After, &pos.Settled)
	if errors.Is(err, sql.ErrNoRows) {
		return ingest.Position{}, nil
	}
	if err != nil {
		return ingest.Position{}, fmt.Errorf("store: cursor %s: %w", name, err)
	}
	return pos, nil
}

// SaveCursor keeps pos unless a later position is kept already.
func (s *Store) SaveCursor(ctx context.Context, name string, pos ingest.Position) error {
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO cursors (name, after, settled) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET after = excluded.after, settled = excluded.settled
		WHERE excluded.settled > cursors.settled`, name, pos.After, pos.Settled)
	if err != nil {
		return fmt.Errorf("store: cursor %s: %w", name, err)
	}
	return nil
}
