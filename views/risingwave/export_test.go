package risingwave

import (
	"context"

	"klgstream.dev/views"
)

// Setting is what a connection of the store is set to.
func Setting(ctx context.Context, s *Store, name string) (value string) {
	if err := s.pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
		panic(err)
	}
	return value
}

// Statements splits a script.
var Statements = statements

// Insert is the statement that PostgreSQL is sent for a batch of windows.
func Insert(b views.Batch) (text string, args []any) {
	both, err := flavours(nil)
	if err != nil {
		panic(err)
	}
	c := both[PostgreSQL].changes(b)[0]
	return c.text, c.args
}

// Exec runs a statement on a connection of the store.
func Exec(ctx context.Context, s *Store, text string, args []any) error {
	_, err := s.pool.Exec(ctx, text, args...)
	return err
}
