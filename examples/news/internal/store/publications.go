package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

// columns are those of the tables outcomes and publications.
const columns = `post, platform, format, key, outcome, at_micros, latency_micros, attempts, remote_id, error`

// rowsPerStatement keeps a statement well below the 32,766 parameters that
// SQLite allows.
const rowsPerStatement = 500

// Outcomes returns what is already known about a post: its final outcomes.
func (s *Store) Outcomes(ctx context.Context, id string) ([]post.Publication, error) {
	list, err := query(ctx, s.db, `SELECT `+columns+` FROM outcomes WHERE post = $1 ORDER BY platform`, id)
	if err != nil {
		return nil, fmt.Errorf("store: outcomes of post %s: %w", id, err)
	}
	return list, nil
}

// Remember keeps a final outcome. The first one stays.
func (s *Store) Remember(ctx context.Context, p post.Publication) error {
	if _, err := insert(ctx, s.db, "outcomes", []post.Publication{p}); err != nil {
		return fmt.Errorf("store: outcome of post %s on %s: %w", p.Post, p.Platform, err)
	}
	return nil
}

// Report writes one row for each publication, all or none, and returns those that
// were new: a row that is there stays as it is.
func (s *Store) Report(ctx context.Context, list []post.Publication) ([]post.Publication, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("store: report: %w", err)
	}
	var fresh []post.Publication
	for part := range slices.Chunk(list, rowsPerStatement) {
		some, err := insert(ctx, tx, "publications", part)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("store: report: %w", err), tx.Rollback())
		}
		fresh = append(fresh, some...)
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("store: report: %w", err)
	}
	return fresh, nil
}

// Publications returns the whole report.
func (s *Store) Publications(ctx context.Context) ([]post.Publication, error) {
	list, err := query(ctx, s.db, `SELECT `+columns+` FROM publications ORDER BY post, platform`)
	if err != nil {
		return nil, fmt.Errorf("store: publications: %w", err)
	}
	return list, nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// insert writes rows and returns those that were not there before.
func insert(ctx context.Context, db querier, table string, list []post.Publication) ([]post.Publication, error) {
	var q strings.Builder
	q.WriteString("INSERT INTO " + table + " (" + columns + ") VALUES ")
	var args []any
	for i, p := range list {
		if i > 0 {
			q.WriteString(", ")
		}
		row := []any{
			p.Post, p.Platform, p.Format, p.Key, p.Outcome,
			p.At.UnixMicro(), p.Latency.Microseconds(), p.Attempts, p.RemoteID, clean(p.Error),
		}
		q.WriteString("(")
		for j := range row {
			if j > 0 {
				q.WriteString(", ")
			}
			q.WriteString("$" + strconv.Itoa(len(args)+j+1))
		}
		q.WriteString(")")
		args = append(args, row...)
	}
	q.WriteString(" ON CONFLICT DO NOTHING RETURNING " + columns)
	return query(ctx, db, q.String(), args...)
}

// clean makes a platform's own words fit for PostgreSQL, which refuses invalid
// UTF-8 and the zero character.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

func query(ctx context.Context, db querier, statement string, args ...any) (list []post.Publication, err error) {
	rows, err := db.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p post.Publication
		var at, latency int64
		err := rows.Scan(&p.Post, &p.Platform, &p.Format, &p.Key, &p.Outcome, &at, &latency, &p.Attempts, &p.RemoteID, &p.Error)
		if err != nil {
			return nil, err
		}
		p.At, p.Latency = time.UnixMicro(at).UTC(), time.Duration(latency)*time.Microsecond
		list = append(list, p)
	}
	return list, rows.Err()
}
