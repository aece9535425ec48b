package risingwave

import "context"

// Setting is what a connection of the store is set to.
func Setting(ctx context.Context, s *Store, name string) (value string) {
	if err := s.pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
		panic(err)
	}
	return value
}

// Statements splits a script.
var Statements = statements
