// Package risingwave is a [views.Store] in RisingWave, or in PostgreSQL, whose wire protocol RisingWave speaks. Which of the
// two answers is asked of version() when a connection is made.
//
// What differs, and why:
//
//   - RisingWave has no ON CONFLICT in INSERT: its tables say how rows of one key are settled, by a version column.
//     PostgreSQL's statements say so.
//   - RisingWave answers an INSERT before it is durable: a write ends with FLUSH. It has no read-write transactions, so a
//     write that failed half way leaves rows, which the next attempt finds at their revision. PostgreSQL's writes are one
//     transaction.
//   - RisingWave takes arrays as text only, and 32767 parameters at most: rows travel as one array literal per column,
//     unnested in lock step, in PostgreSQL as well.
//   - RisingWave keeps views up to date as rows come (materialized views); PostgreSQL computes them when asked.
//   - RisingWave gives almost every error the code XX000, so its text must tell what waiting cannot mend.
package risingwave

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"klgstream.dev/views"
)

// Config says where the database is and what it shows.
type Config struct {
	// URL is the address as pgx takes it, postgresql://user:password@host:port/database. Required.
	URL string
	// Views adds an operator's view files to the ones of the program; of two with one name the operator's stays. Default none.
	Views fs.FS
	// Connections is the most connections at once. Default 8.
	Connections int
	// ConnectTimeout ends an attempt to connect. Default 10 s, or what the URL says.
	ConnectTimeout time.Duration
	// Tracer watches statements; for tests. Default none.
	Tracer pgx.QueryTracer
}

// Validate tells everything that is wrong with the configuration. It does not repeat the URL, which holds a password.
func (c Config) Validate() error {
	var faults []error
	if c.URL == "" {
		faults = append(faults, errors.New("url: required, such as postgresql://root@localhost:4566/dev"))
	} else if _, err := pgxpool.ParseConfig(c.URL); err != nil {
		faults = append(faults, fmt.Errorf("url: %w", err)) // pgx leaves the password out
	}
	if c.Connections < 0 || c.Connections > 1000 {
		faults = append(faults, fmt.Errorf("connections %d: must be 1 to 1000 (0 is the default, 8)", c.Connections))
	}
	if c.ConnectTimeout < 0 {
		faults = append(faults, fmt.Errorf("connect timeout %s: must not be negative (0 is the default, 10s)", c.ConnectTimeout))
	}
	return errors.Join(faults...)
}

// flavour is one of the two databases, with everything that differs between them.
type flavour struct {
	name     string
	shown    []views.View
	flush    bool   // FLUSH makes writes durable, and transactions do not
	conflict string // clause of a window's INSERT
	ignore   string // clause of a letter's INSERT
	dialect  views.Dialect
	refused  func(*pgconn.PgError) bool
}

// Store is the [views.Store] in a database server.
type Store struct {
	pool *pgxpool.Pool
	at   string // host:port/database, for errors
	both map[string]*flavour
	is   atomic.Pointer[flavour] // nil until the first connection
}

var _ views.Store = (*Store)(nil)

// Open makes the store. It does not connect: a database that is away is found away by what is asked of it.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	both, err := flavours(c.Views)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	conn := config.ConnConfig
	s := &Store{at: fmt.Sprintf("%s:%d/%s", conn.Host, conn.Port, conn.Database), both: both}
	config.MaxConns = 8
	if c.Connections > 0 {
		config.MaxConns = int32(c.Connections)
	}
	switch {
	case c.ConnectTimeout > 0:
		conn.ConnectTimeout = c.ConnectTimeout
	case conn.ConnectTimeout == 0:
		conn.ConnectTimeout = 10 * time.Second
	}
	conn.DefaultQueryExecMode = pgx.QueryExecModeExec // parameters as text, nothing prepared by name
	conn.Tracer = c.Tracer
	config.AfterConnect = s.greet
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open database %s: %w", s.at, err)
	}
	return s, nil
}

var risingWave = regexp.MustCompile(`-RisingWave-\d`)

// greet asks a new connection which database it is, and has PostgreSQL wait for its disk (S1) if it was told not to.
func (s *Store) greet(ctx context.Context, conn *pgx.Conn) error {
	var version string
	if err := conn.QueryRow(ctx, "SELECT version()").Scan(&version); err != nil {
		return fmt.Errorf("ask version: %w", err)
	}
	if risingWave.MatchString(version) {
		s.is.Store(s.both[RisingWave])
		return nil
	}
	s.is.Store(s.both[PostgreSQL])
	_, err := conn.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
	return err
}

// The names of the two databases.
const (
	RisingWave = "risingwave"
	PostgreSQL = "postgresql"
)

// Name is "risingwave" or "postgresql"; "postgresql" too before the first connection told.
func (s *Store) Name() string {
	if f := s.is.Load(); f != nil {
		return f.name
	}
	return PostgreSQL
}

// flavour is which database it is; it connects if that was never done.
func (s *Store) flavour(ctx context.Context) (*flavour, error) {
	if f := s.is.Load(); f != nil {
		return f, nil
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	conn.Release()
	return s.is.Load(), nil
}

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, "SELECT 1"); err != nil {
		return s.fault("ping", err)
	}
	return nil
}

// Close closes the connections when what uses them has ended.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// Views lists what can be asked.
func (s *Store) Views(ctx context.Context) ([]views.View, error) {
	f, err := s.flavour(ctx)
	if err != nil {
		return nil, s.fault("list views of", err)
	}
	return slices.Clone(f.shown), nil
}

// connectError is pgx's on one line, each try once: its own has a line for each, with and without TLS.
type connectError struct{ err *pgconn.ConnectError }

// Unwrap is pgx's.
func (e *connectError) Unwrap() error { return e.err }

// Error says where and as whom it was tried, and what came of it.
func (e *connectError) Error() string {
	tries := strings.Split(e.err.Unwrap().Error(), "\n")
	for i := range tries {
		tries[i] = strings.TrimSpace(tries[i])
	}
	slices.Sort(tries)
	return fmt.Sprintf("connect as %q: %s", e.err.Config.User, strings.Join(slices.Compact(tries), "; "))
}

// fault names what was done to which database, and whether the same may succeed later.
func (s *Store) fault(what string, err error) error {
	f := s.is.Load()
	name := "database"
	if f != nil {
		name = f.name
	}
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = &connectError{e}
	}
	named := fmt.Errorf("%s %s %s: %w", what, name, s.at, err)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && f != nil && f.refused(e) {
		return views.Permanent(named)
	}
	return named
}

// refusedByPostgreSQL tells whether the rows are at fault, by SQLSTATE class: 22 is data that a type cannot hold, 23 a broken
// constraint, 54 a limit. Everything else (a server that stops, a lock, a full disk, a table that somebody dropped) is
// mended from outside.
func refusedByPostgreSQL(e *pgconn.PgError) bool {
	return len(e.Code) == 5 && slices.Contains([]string{"22", "23", "54"}, e.Code[:2])
}

// refusedByRisingWave tells the same by the text, because the code says nothing: what cannot be computed from a row, or
// cannot be held by a column. An unknown text is taken for a passing fault, so that no row is given up by mistake.
func refusedByRisingWave(e *pgconn.PgError) bool { return rowFault.MatchString(e.Message) }

var rowFault = regexp.MustCompile(`(?i)expr error|invalid input syntax|invalid parameter|out of range|failed to (parse|cast)|null value in column|not-null constraint`)

//go:embed schema definitions
var files embed.FS

// flavours reads what the two databases show.
func flavours(operator fs.FS) (map[string]*flavour, error) {
	theirs, err := views.ReadViews(operator)
	if err != nil {
		return nil, err
	}
	both := map[string]*flavour{
		RisingWave: {name: RisingWave, flush: true, dialect: dialect, refused: refusedByRisingWave},
		PostgreSQL: {
			name: PostgreSQL, dialect: dialectOfPostgreSQL, refused: refusedByPostgreSQL,
			conflict: windowConflict, ignore: letterConflict,
		},
	}
	for name, f := range both {
		dir, err := fs.Sub(files, "definitions/"+name)
		if err != nil {
			return nil, err
		}
		own, err := views.ReadViews(dir)
		if err != nil {
			return nil, err
		}
		f.shown = views.Merge(views.Shared(), own, theirs)
	}
	return both, nil
}

// dialect is what RisingWave's queries differ in: every argument says its type, because the type cannot always be told from
// the place.
var dialect = views.Dialect{Placeholder: placeholder}

// dialectOfPostgreSQL also compares text by bytes, whatever the database's collation.
var dialectOfPostgreSQL = views.Dialect{
	Placeholder: placeholder,
	Sortable: func(quoted string, t views.Type) string {
		if t == views.Text {
			return quoted + ` COLLATE "C"`
		}
		return quoted
	},
}

func placeholder(n int, t views.Type) string {
	return fmt.Sprintf("$%d::%s", n, map[views.Type]string{
		views.Text: "varchar", views.Integer: "bigint", views.Number: "double precision", views.Boolean: "boolean",
		views.Timestamp: "timestamptz", views.JSON: "jsonb",
	}[t])
}

// Schema is everything that Migrate would make in an empty database of that name ([RisingWave] or [PostgreSQL]), as a script
// for psql.
func Schema(name string) (string, error) {
	both, err := flavours(nil)
	if err != nil {
		return "", err
	}
	f, ok := both[name]
	if !ok {
		return "", fmt.Errorf("write schema of %q: want %q or %q", name, RisingWave, PostgreSQL)
	}
	steps, err := f.steps()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, step := range steps {
		b.WriteString(step.text)
		b.WriteByte('\n')
	}
	for _, v := range views.Dependent(f.shown) {
		if !v.Table {
			fmt.Fprintf(&b, "-- %s\n%s;\n\n", v.Description, f.create(v))
		}
	}
	return strings.TrimSpace(b.String()) + "\n", nil
}
