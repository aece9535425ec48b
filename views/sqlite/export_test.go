package sqlite

import (
	"context"
	"fmt"
	"runtime"

	"klgstream.dev/views"
)

// LimitPages makes the file as good as on a disk with so many pages.
func LimitPages(ctx context.Context, s *Store, pages int) {
	if _, err := s.write.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
		panic(err)
	}
}

// Synchronous is what the writer's connection is set to.
func Synchronous(ctx context.Context, s *Store) (level int) {
	if err := s.write.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level); err != nil {
		panic(err)
	}
	return level
}

// TakeTurn keeps everybody from writing until release.
func TakeTurn(s *Store) (release func()) {
	<-s.turn
	return func() { s.turn <- struct{}{} }
}

// AwaitQueue waits until so many batches wait for their turn.
func AwaitQueue(s *Store, batches int) {
	for {
		s.mu.Lock()
		n := len(s.waiting)
		s.mu.Unlock()
		if n >= batches {
			return
		}
		runtime.Gosched()
	}
}

// Plan is how SQLite goes about a query: the lines of EXPLAIN QUERY PLAN.
func Plan(ctx context.Context, s *Store, v views.View, q views.Query) []string {
	text, args, err := v.Select(q, dialect)
	if err != nil {
		panic(err)
	}
	rows, err := s.read.QueryContext(ctx, "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		panic(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var id, parent, unused int
		var line string
		if err := rows.Scan(&id, &parent, &unused, &line); err != nil {
			panic(err)
		}
		lines = append(lines, line)
	}
	if rows.Err() != nil {
		panic(rows.Err())
	}
	return lines
}

// TotalsSchema is the file that makes the totals and fills them from the rows.
func TotalsSchema() string {
	text, err := files.ReadFile("schema/002_totals.sql")
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Filling is what finds the statements there that fill a table.
var Filling = filling
