// Package sqlite is a [views.Store] in one file and without a server: the embedded default.
//
// The file is in write-ahead mode and synced at every commit, so a write that returned survives a power cut. One connection
// writes and takes all waiting writes into one transaction; several read meanwhile without waiting for it.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// Config says where a store is and what it shows.
type Config struct {
	// Path is the database file; it is made when missing, its directory is not. Required.
	Path string
	// Views adds an operator's view files to the ones of the program; of two with one name the operator's stays. Default none.
	Views fs.FS
	// Readers is how many queries run at once; more wait. Default 4.
	Readers int
	// BusyTimeout is how long a statement waits for another process that writes to the file. Default 10 s.
	BusyTimeout time.Duration
}

// Validate tells everything that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	if c.Path == "" || c.Path == ":memory:" {
		faults = append(faults, fmt.Errorf("path %q: want a file", c.Path))
	}
	if c.Readers < 0 {
		faults = append(faults, fmt.Errorf("readers %d: must be at least 1 (0 is the default, 4)", c.Readers))
	}
	if c.BusyTimeout < 0 {
		faults = append(faults, fmt.Errorf("busy timeout %s: must not be negative (0 is the default, 10s)", c.BusyTimeout))
	}
	return errors.Join(faults...)
}

// Store is the [views.Store] in a file.
type Store struct {
	path  string
	write *sql.DB // one connection
	read  *sql.DB
	shown []views.View

	turn                chan struct{} // holds one token: whoever has it writes
	windows, late, dead *upsert       // of whoever has the turn, as all below
	past                *upsert       // asks what rows held
	aircraft, days      *upsert       // totals
	lasts, fleet        *upsert
	definitions         *upsert
	prepared            map[string]*sql.Stmt
	totals              totals           // scratch
	best                []*codecs.Window // scratch

	mu      sync.Mutex
	waiting []*request
}

var _ views.Store = (*Store)(nil)

// Open opens or makes the database file.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open sqlite: %w", err)
	}
	shown, err := Views(c.Views)
	if err != nil {
		return nil, fmt.Errorf("open sqlite %q: %w", c.Path, err)
	}
	if c.BusyTimeout == 0 {
		c.BusyTimeout = 10 * time.Second
	}
	if c.Readers == 0 {
		c.Readers = 4
	}
	s := &Store{path: c.Path, shown: shown, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	if s.write, err = open(c, 1, "_txlock=immediate", "_pragma=cache_size(-16384)"); err != nil {
		return nil, err
	}
	if s.read, err = open(c, c.Readers, "_pragma=query_only(1)", "_pragma=cache_size(-8192)", "_pragma=mmap_size(1073741824)"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if err := s.write.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open sqlite %q: %w", c.Path, err), s.Close())
	}
	return s, nil
}

func open(c Config, connections int, extra ...string) (*sql.DB, error) {
	params := append([]string{
		fmt.Sprintf("_pragma=busy_timeout(%d)", c.BusyTimeout.Milliseconds()),
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(FULL)",
	}, extra...)
	name := "file:" + (&url.URL{Path: filepath.ToSlash(c.Path)}).EscapedPath() + "?" + strings.Join(params, "&")
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, fmt.Errorf("open sqlite %q: %w", c.Path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// Name is "sqlite".
func (s *Store) Name() string { return "sqlite" }

// Ping tells whether the file can be read.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.read.PingContext(ctx); err != nil {
		return s.fault("ping", err)
	}
	return nil
}

// Close closes the file. Writes and queries under way are ended first.
func (s *Store) Close() error {
	if err := errors.Join(s.read.Close(), s.write.Close()); err != nil {
		return fmt.Errorf("close sqlite %q: %w", s.path, err)
	}
	return nil
}

// fault names what was done to which file, and whether the same may succeed later.
func (s *Store) fault(what string, err error) error {
	err = fmt.Errorf("%s sqlite %q: %w", what, s.path, err)
	if refused(err) {
		return views.Permanent(err)
	}
	return err
}

// refused tells whether the rows are at fault: a constraint they break, a type or a size that no column takes. A file that
// is full, locked, unreadable or lacks its tables is mended from outside, and then takes the same rows.
func refused(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	return slices.Contains([]int{sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}, e.Code()&0xff)
}

//go:embed schema/*.sql definitions/*.sql
var files embed.FS

// Views lists the views of the store: the shared ones, its own, and an operator's directory on top (nil for none).
func Views(operator fs.FS) ([]views.View, error) {
	own, err := fs.Sub(files, "definitions")
	if err != nil {
		return nil, fmt.Errorf("read views: %w", err)
	}
	mine, err := views.ReadViews(own)
	if err != nil {
		return nil, fmt.Errorf("read views: %w", err)
	}
	theirs, err := views.ReadViews(operator)
	if err != nil {
		return nil, fmt.Errorf("read views: %w", err)
	}
	return views.Merge(views.Shared(), mine, theirs), nil
}

// Views lists what can be asked.
func (s *Store) Views(context.Context) ([]views.View, error) { return slices.Clone(s.shown), nil }
