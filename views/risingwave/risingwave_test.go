package risingwave_test

import (
	"errors"
	"strings"
	"testing"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/viewtest"
)

func TestRisingWave(t *testing.T) {
	postgres(t)
	viewtest.Run(t, func(t *testing.T) views.Store { return openRisingWave(t, newStandIn(t)) })
}

func openRisingWave(t *testing.T, s *standIn) *risingwave.Store {
	t.Helper()
	return open(t, risingwave.Config{URL: s.url(), Tracer: watchman{t}})
}

func migrated(t *testing.T, s *standIn) *risingwave.Store {
	t.Helper()
	store := openRisingWave(t, s)
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, "name", store.Name(), risingwave.RisingWave)
	s.statementsHeard()
	return store
}

func batch(count int64) views.Batch {
	return views.Batch{
		Windows: []codecs.Window{viewtest.Window("N1", 0, count), viewtest.Window("N2", 0, count)},
		Late:    []codecs.Letter{viewtest.Letter(count, "late")}, Dead: []codecs.Letter{viewtest.Letter(count, "not_json")},
	}
}

// S1: the acknowledged write outlives a crash, although RisingWave acknowledges INSERT before it is durable.
func TestWriteEndsWithFlush(t *testing.T) {
	s := newStandIn(t)
	store := migrated(t, s)
	if err := store.Write(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	heard := s.statementsHeard()
	check(t, "statements", len(heard), 4)
	check(t, "last statement", heard[len(heard)-1], "FLUSH")
	s.crash()
	check(t, "rows after a crash", counts(t, openRisingWave(t, s)), []any{int64(1), int64(1)})
}

// TestCrashBeforeFlushIsAnError has the database crash at every statement of a write in turn: the write is not taken for
// done, and repeating it brings every row once.
func TestCrashBeforeFlushIsAnError(t *testing.T) {
	for _, at := range []string{"INSERT INTO windows", "INSERT INTO late_events", "INSERT INTO dead_letters", "FLUSH"} {
		t.Run(at, func(t *testing.T) {
			s := newStandIn(t)
			store := migrated(t, s)
			s.setScript(func(sql string) error {
				if strings.HasPrefix(sql, at) {
					return errCrash
				}
				return nil
			})
			if err := store.Write(t.Context(), batch(1)); err == nil || !views.Retryable(err) {
				t.Fatalf("want a retryable error, got %v", err)
			}
			s.setScript(nil)
			check(t, "rows after the crash", len(counts(t, openRisingWave(t, s))), 0)
			var err error
			for range 20 { // the pool may hold more connections of before the crash
				if err = store.Write(t.Context(), batch(2)); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			check(t, "rows after another attempt", counts(t, store), []any{int64(2), int64(2)})
		})
	}
}

// TestErrorsAreToldApartByText has RisingWave fail with its one code.
func TestErrorsAreToldApartByText(t *testing.T) {
	s := newStandIn(t)
	store := migrated(t, s)
	for text, retryable := range map[string]bool{
		"Expr error: Numeric out of range":                                      false,
		"Failed to cast `x` to jsonb":                                           false,
		"null value in column \"revision\" violates not-null":                   false,
		"Service unavailable: cluster is under recovering":                      true,
		"gRPC request to stream service failed: connection refused":             true,
		"Barrier read is unavailable for now. Likely the cluster is recovering": true,
		"Storage error: ObjectStore failed with IO error":                       true,
		"table not found: windows":                                              true,
	} {
		s.setScript(func(sql string) error {
			if strings.HasPrefix(sql, "INSERT") {
				return errors.New(text)
			}
			return nil
		})
		err := store.Write(t.Context(), batch(1))
		if err == nil || views.Retryable(err) != retryable {
			t.Errorf("%s: want retryable %v, got %v", text, retryable, err)
		}
		if err != nil && (!strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "risingwave")) {
			t.Errorf("%v does not say what was wrong with what", err)
		}
	}
}

// TestHalfAWriteIsFinishedByTheNext: without transactions the rows of the first statement stay.
func TestHalfAWriteIsFinishedByTheNext(t *testing.T) {
	s := newStandIn(t)
	store := migrated(t, s)
	failed := false
	s.setScript(func(sql string) error {
		if strings.HasPrefix(sql, "INSERT INTO late_events") && !failed {
			failed = true
			return errors.New("Service unavailable")
		}
		return nil
	})
	if err := store.Write(t.Context(), batch(1)); err == nil {
		t.Fatal("the write was taken for done")
	}
	if err := store.Write(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	check(t, "windows", counts(t, store), []any{int64(1), int64(1)})
	r, err := store.Query(t.Context(), views.Query{View: "late_events"})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "late events", len(r.Rows), 1)
}

// TestOldViewsAreMadeAnew migrates a database that another version of the program left.
func TestMigrationRepeatsNothing(t *testing.T) {
	s := newStandIn(t)
	store := migrated(t, s)
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, sql := range s.statementsHeard() {
		if strings.HasPrefix(sql, "DROP") || strings.Contains(sql, "VIEW") || strings.HasPrefix(sql, "INSERT") {
			t.Errorf("repeated: %s", sql)
		}
	}
}

// TestDatabaseDiesBehindTheStandIn keeps the stand-in honest: what it acknowledged and flushed is in PostgreSQL.
func TestStandInKeepsNothingToItself(t *testing.T) {
	s := newStandIn(t)
	store := migrated(t, s)
	if err := store.Write(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	behind := open(t, risingwave.Config{URL: s.database})
	r, err := behind.Query(t.Context(), views.Query{View: "aircraft_windows"})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "rows behind it", len(r.Rows), 2)
}
