package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"klgstream.dev/views"
)

// Migrate brings the file to the newest schema in one transaction and sets its views as described. PRAGMA user_version
// counts the schema files that were run.
func (s *Store) Migrate(ctx context.Context) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.fault("migrate", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing to roll back once committed
	if err := migrate(ctx, tx, s.shown); err != nil {
		return s.fault("migrate", err)
	}
	if err := tx.Commit(); err != nil {
		return s.fault("migrate", err)
	}
	return nil
}

func migrate(ctx context.Context, tx *sql.Tx, shown []views.View) error {
	if err := migrateTables(ctx, tx); err != nil {
		return err
	}
	var faults []error
	for _, v := range shown {
		if err := setView(ctx, tx, v); err != nil {
			faults = append(faults, wrongView(v, err))
		}
	}
	for _, v := range shown {
		if err := checkView(ctx, tx, v); err != nil {
			faults = append(faults, wrongView(v, err))
		}
	}
	return errors.Join(faults...)
}

// wrongView names the view. Waiting mends a file that is locked or full, or a transaction that ran out of time, but no view
// that SQLite does not understand.
func wrongView(v views.View, err error) error {
	named := fmt.Errorf("view %q: %w", v.Name, err)
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_ERROR {
		return views.Permanent(named)
	}
	return named
}

func migrateTables(ctx context.Context, tx *sql.Tx) error {
	steps, err := fs.Glob(files, "schema/*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if version > len(steps) {
		return views.Permanent(fmt.Errorf("schema version %d is newer than this program's %d: use the newer program, or another file", version, len(steps)))
	}
	for i, step := range steps[version:] {
		text, err := fs.ReadFile(files, step)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("run %s: %w", step, err)
		}
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version+i+1)); err != nil {
			return fmt.Errorf("set schema version: %w", err)
		}
	}
	return nil
}

// setView makes the view as described, unless it is there word by word.
func setView(ctx context.Context, tx *sql.Tx, v views.View) error {
	if v.Table {
		return nil
	}
	create := fmt.Sprintf("CREATE VIEW %q AS %s", v.Name, v.SQL)
	var kind, text string
	err := tx.QueryRowContext(ctx, "SELECT type, sql FROM sqlite_schema WHERE name = ?", v.Name).Scan(&kind, &text)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	case kind != "view":
		return fmt.Errorf("there is a %s of that name", kind)
	case text == create:
		return nil
	default:
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("DROP VIEW %q", v.Name)); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, create)
	return err
}

// checkView compares the columns of the relation with their description.
func checkView(ctx context.Context, tx *sql.Tx, v views.View) error {
	rows, err := tx.QueryContext(ctx, fmt.Sprintf("SELECT * FROM %q LIMIT 0", v.Name))
	if err != nil {
		return err
	}
	defer rows.Close()
	there, err := rows.Columns()
	if err != nil {
		return err
	}
	return errors.Join(views.Permanent(views.CompareColumns(v, there)), rows.Err())
}
