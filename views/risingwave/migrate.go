package risingwave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"klgstream.dev/views"
)

// step is one file of the schema.
type step struct {
	name string
	text string
}

// steps lists the schema's files in order.
func (f *flavour) steps() ([]step, error) {
	names, err := fs.Glob(files, "schema/"+f.name+"/*.sql")
	if err != nil {
		return nil, err
	}
	var list []step
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		list = append(list, step{name: path.Base(name), text: string(text)})
	}
	return list, nil
}

// statements splits a script at its semicolons, without comments: RisingWave takes one statement at a time. The program's
// own scripts have no quoted semicolons, except in the bodies of functions between two $$.
func statements(script string) []string {
	var code strings.Builder
	for line := range strings.Lines(script) {
		text, _, _ := strings.Cut(line, "--")
		code.WriteString(strings.TrimRight(text, " \n") + "\n")
	}
	var list []string
	var statement strings.Builder
	for i, part := range strings.Split(code.String(), "$$") {
		if body := i%2 == 1; body {
			statement.WriteString("$$" + part + "$$")
			continue
		}
		for j, piece := range strings.Split(part, ";") {
			if j > 0 {
				list, statement = ended(list, statement.String()), strings.Builder{}
			}
			statement.WriteString(piece)
		}
	}
	return ended(list, statement.String())
}

// ended adds a statement to the list, unless there is nothing in it.
func ended(list []string, statement string) []string {
	if statement = strings.TrimSpace(statement); statement == "" {
		return list
	}
	return append(list, statement)
}

// executor is what a migration runs on: a connection, or a transaction of one.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Migrate makes the tables that are missing and sets the views as described. In PostgreSQL it is one transaction, one at a
// time. In RisingWave, which has neither transactions nor locks for that, each statement can be repeated, and a view that
// changed is away while it is made anew.
func (s *Store) Migrate(ctx context.Context) error {
	f, err := s.flavour(ctx)
	if err != nil {
		return s.fault("migrate", err)
	}
	if f.flush {
		err = s.migrateRisingWave(ctx, f)
	} else {
		err = s.migratePostgreSQL(ctx, f)
	}
	if err != nil {
		return s.fault("migrate", err)
	}
	return nil
}

func (s *Store) migratePostgreSQL(ctx context.Context, f *flavour) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// 0x6b6c67 is "klg": every migration of this program takes the same lock, until its transaction ends.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(7040103)"); err != nil {
			return fmt.Errorf("wait for other migrations: %w", err)
		}
		return f.migrate(ctx, tx)
	})
}

func (s *Store) migrateRisingWave(ctx context.Context, f *flavour) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for attempt := 1; ; attempt++ {
		err = f.migrate(ctx, conn)
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || attempt == 5 || e.Code != "42710" && e.Code != "42704" {
			break // otherwise another migration made or dropped the same a moment before
		}
	}
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "FLUSH")
	return err
}

// bookkeeping is the table of what was done: one row per file of the schema and per view, with the digest of its text.
const bookkeeping = "CREATE TABLE IF NOT EXISTS klgstream_schema (name varchar PRIMARY KEY, digest varchar)"

func (f *flavour) migrate(ctx context.Context, db executor) error {
	if _, err := db.Exec(ctx, bookkeeping); err != nil {
		return fmt.Errorf("make table %q: %w", "klgstream_schema", err)
	}
	done, err := f.done(ctx, db)
	if err != nil {
		return fmt.Errorf("read table %q: %w", "klgstream_schema", err)
	}
	if err := f.migrateTables(ctx, db, done); err != nil {
		return err
	}
	if err := f.migrateViews(ctx, db, done); err != nil {
		return err
	}
	var faults []error
	for _, v := range f.shown {
		if err := f.check(ctx, db, v); err != nil {
			faults = append(faults, wrongView(v, err))
		}
	}
	return errors.Join(faults...)
}

// done reads what is in the database: digests by name.
func (f *flavour) done(ctx context.Context, db executor) (map[string]string, error) {
	rows, err := db.Query(ctx, "SELECT name, digest FROM klgstream_schema")
	if err != nil {
		return nil, err
	}
	done := map[string]string{}
	var name, digest string
	_, err = pgx.ForEachRow(rows, []any{&name, &digest}, func() error { done[name] = digest; return nil })
	return done, err
}

// note writes down that something is in the database.
func (f *flavour) note(ctx context.Context, db executor, name, digest string) error {
	insert := "INSERT INTO klgstream_schema (name, digest) VALUES ($1, $2)"
	if !f.flush {
		insert += " ON CONFLICT (name) DO UPDATE SET digest = excluded.digest"
	}
	_, err := db.Exec(ctx, insert, name, digest)
	return err
}

func (f *flavour) migrateTables(ctx context.Context, db executor, done map[string]string) error {
	steps, err := f.steps()
	if err != nil {
		return err
	}
	for _, step := range steps {
		if done[step.name] != "" {
			continue
		}
		for _, statement := range statements(step.text) {
			if _, err := db.Exec(ctx, statement); err != nil {
				return fmt.Errorf("run %s: %w", step.name, err)
			}
		}
		if err := f.note(ctx, db, step.name, digest(step.text)); err != nil {
			return fmt.Errorf("note %s: %w", step.name, err)
		}
	}
	return nil
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// migrateViews makes the views that are new, and makes anew those that changed or are built on one that did.
func (f *flavour) migrateViews(ctx context.Context, db executor, done map[string]string) error {
	ordered := views.Dependent(f.shown)
	var stale []views.View
	for _, v := range ordered {
		changed := done["view "+v.Name] != digest(f.create(v))
		if !v.Table && (changed || slices.ContainsFunc(stale, func(s views.View) bool { return v.Uses(s.Name) })) {
			stale = append(stale, v)
		}
	}
	for _, v := range slices.Backward(stale) {
		if _, err := db.Exec(ctx, f.drop(v)); err != nil {
			return wrongView(v, err)
		}
	}
	for _, v := range stale {
		if _, err := db.Exec(ctx, f.create(v)); err != nil {
			return wrongView(v, err)
		}
		if err := f.note(ctx, db, "view "+v.Name, digest(f.create(v))); err != nil {
			return fmt.Errorf("note view %q: %w", v.Name, err)
		}
	}
	return nil
}

func (f *flavour) kind(v views.View) string {
	if f.flush && v.Materialized {
		return "MATERIALIZED VIEW"
	}
	return "VIEW"
}

func (f *flavour) drop(v views.View) string {
	return fmt.Sprintf("DROP %s IF EXISTS %q", f.kind(v), v.Name)
}

func (f *flavour) create(v views.View) string {
	if f.flush {
		return fmt.Sprintf("CREATE %s IF NOT EXISTS %q AS\n%s", f.kind(v), v.Name, v.SQL)
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %q AS\n%s", v.Name, v.SQL)
}

// check compares the columns of the relation with their description; a difference stays one.
func (f *flavour) check(ctx context.Context, db executor, v views.View) error {
	rows, err := db.Query(ctx, fmt.Sprintf("SELECT * FROM %q LIMIT 0", v.Name))
	if err != nil {
		return err
	}
	defer rows.Close()
	var there []string
	for _, field := range rows.FieldDescriptions() {
		there = append(there, field.Name)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	return views.Permanent(views.CompareColumns(v, there))
}

// wrongView names the view. A database that understood the statement and refused it (class 42 in PostgreSQL, 0A for what it
// does not have) will do so again. Everything else may be the way to it: a connection that breaks in the middle of a
// statement says so in many forms, and a sink that took one of them for a mistake in the view would end because of it.
func wrongView(v views.View, err error) error {
	named := fmt.Errorf("view %q: %w", v.Name, err)
	e, ok := errors.AsType[*pgconn.PgError](err)
	if ok && (strings.HasPrefix(e.Code, "42") || strings.HasPrefix(e.Code, "0A") || strings.HasPrefix(e.Code, "2BP")) {
		return views.Permanent(named)
	}
	return named
}
