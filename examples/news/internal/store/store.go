// Package store is the example's memory over restarts: A's cursor, B's outcomes
// and C's report, in SQLite or PostgreSQL. Both speak the same statements.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open database. It is safe for concurrent use.
type Store struct {
	db   *sql.DB
	name string
}

// Open opens the database and brings its tables up to date. A source that begins
// with postgres:// or postgresql:// is PostgreSQL; anything else is the path of
// a SQLite file, which is created if need be, for its owner only.
func Open(ctx context.Context, source string) (*Store, error) {
	s, dialect, err := connect(source)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.db, dialect); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %s: %w", s.name, err), s.db.Close())
	}
	return s, nil
}

func connect(source string) (*Store, goose.Dialect, error) {
	if IsPostgres(source) {
		return connectPostgres(source)
	}
	return connectSQLite(source)
}

// IsPostgres says whether source names a PostgreSQL database.
func IsPostgres(source string) bool {
	return strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://")
}

func connectPostgres(source string) (*Store, goose.Dialect, error) {
	u, err := url.Parse(source)
	if err != nil {
		return nil, "", errors.New("store: the database's address cannot be read") // err would quote the password
	}
	db, err := sql.Open("pgx", source)
	if err != nil {
		return nil, "", fmt.Errorf("store: %s: %w", u.Redacted(), err)
	}
	db.SetMaxOpenConns(8)
	return &Store{db: db, name: u.Redacted()}, goose.DialectPostgres, nil
}

func connectSQLite(path string) (*Store, goose.Dialect, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, "", fmt.Errorf("store: %w", err)
	}
	file, err := os.OpenFile(abs, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("store: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, "", fmt.Errorf("store: %w", err)
	}
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/…
	}
	u := url.URL{Scheme: "file", Path: slashed, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, "", fmt.Errorf("store: %w", err)
	}
	// SQLite has one writer anyway: waiting for the one connection is cheaper,
	// and fairer, than waiting for the file's lock.
	db.SetMaxOpenConns(1)
	return &Store{db: db, name: abs}, goose.DialectSQLite3, nil
}

func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db, files)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Name is the file or the address, without a password.
func (s *Store) Name() string { return s.name }

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Identity is a random name that the database got when it was first used. What
// belongs to it elsewhere (a topic, a queue) is named after it, so that a
// restart finds it again and another database does not.
func (s *Store) Identity(ctx context.Context) (string, error) {
	fresh := strings.ToLower(rand.Text()[:10])
	_, err := s.db.ExecContext(ctx, `INSERT INTO identity (one, name) VALUES (1, $1) ON CONFLICT DO NOTHING`, fresh)
	if err != nil {
		return "", fmt.Errorf("store: identity: %w", err)
	}
	var name string
	if err := s.db.QueryRowContext(ctx, `SELECT name FROM identity`).Scan(&name); err != nil {
		return "", fmt.Errorf("store: identity: %w", err)
	}
	return name, nil
}
