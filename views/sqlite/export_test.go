package sqlite

import (
	"context"
	"fmt"
	"runtime"
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
