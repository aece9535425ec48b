package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/sqlite"
	"klgstream.dev/views/viewtest"
)

func TestStore(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) views.Store { return open(t, filepath.Join(t.TempDir(), "views.db")) })
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func query(t *testing.T, s views.Store, q views.Query) views.Result {
	t.Helper()
	r, err := s.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func migrated(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s := open(t, path)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func batch(rows int64) views.Batch {
	var b views.Batch
	for i := range rows {
		b.Windows = append(b.Windows, viewtest.Window(fmt.Sprintf("N%d", i), 0, 1))
	}
	return b
}

// S1: what was written is there for whoever opens the file next, in a path that needs escaping, too.
func TestRowsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20.db")
	s := migrated(t, path)
	if err := s.Write(t.Context(), batch(3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	if rows := len(query(t, again, views.Query{View: "aircraft_windows"}).Rows); rows != 3 {
		t.Errorf("%d rows, want 3", rows)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// S1 rests on these settings; a driver that stops understanding one must not go unseen.
func TestFileIsDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "views.db")
	migrated(t, path)
	mode := other(t, path).pragma(t, "journal_mode")
	if mode != "wal" {
		t.Errorf("journal mode %q, want wal", mode)
	}
	if got := sqlite.Synchronous(t.Context(), open(t, path)); got != 2 {
		t.Errorf("synchronous is %d, want 2 (FULL)", got)
	}
}

// another process's connection.
type connection struct{ *sql.DB }

func other(t *testing.T, path string) connection {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return connection{db}
}

func (c connection) pragma(t *testing.T, name string) (value string) {
	t.Helper()
	if err := c.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func (c connection) exec(t *testing.T, text string) {
	t.Helper()
	if _, err := c.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// S6: a disk that is full is mended from outside; the same rows go in then.
func TestFullDiskIsRetryable(t *testing.T) {
	s := migrated(t, filepath.Join(t.TempDir(), "views.db"))
	if err := s.Write(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	sqlite.LimitPages(t.Context(), s, 20)
	err := s.Write(t.Context(), batch(5000))
	if err == nil || !views.Retryable(err) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("want a retryable error about a full disk, got %v", err)
	}
	if rows := len(query(t, s, views.Query{View: "aircraft_windows", Limit: views.MaxLimit}).Rows); rows != 1 {
		t.Errorf("%d rows after a failed write, want the 1 from before", rows)
	}
	sqlite.LimitPages(t.Context(), s, 1<<30)
	if err := s.Write(t.Context(), batch(5000)); err != nil {
		t.Error(err)
	}
}

// S6: another process that holds the file costs time only.
func TestLockedFileIsRetryable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "views.db")
	migrated(t, path)
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	holder := other(t, path)
	holder.exec(t, "BEGIN IMMEDIATE")
	if err := s.Write(t.Context(), batch(1)); err == nil || !views.Retryable(err) {
		t.Errorf("want a retryable error, got %v", err)
	}
	holder.exec(t, "ROLLBACK")
	if err := s.Write(t.Context(), batch(1)); err != nil {
		t.Error(err)
	}
}

// TestMissingTablesAreRetryable keeps a sink from dead-lettering everything because somebody forgot to migrate.
func TestMissingTablesAreRetryable(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "views.db"))
	if err := s.Write(t.Context(), batch(1)); err == nil || !views.Retryable(err) {
		t.Errorf("want a retryable error, got %v", err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), batch(1)); err != nil {
		t.Error(err)
	}
}

// TestBatchesThatWaitShareATransaction has many writers queue behind one that cannot go on, and among them one whose row
// breaks a constraint: only that one is refused.
func TestBatchesThatWaitShareATransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	other(t, path).exec(t, `CREATE TRIGGER picky BEFORE INSERT ON windows WHEN NEW.registration_number = 'POISON'
		BEGIN SELECT RAISE(ABORT, 'no such aircraft'); END`)
	release := sqlite.TakeTurn(s)
	var group sync.WaitGroup
	for i := range int64(10) {
		group.Go(func() {
			b := views.Batch{Windows: []codecs.Window{viewtest.Window(fmt.Sprintf("N%d", i), 0, 1)}}
			if i == 7 {
				b.Windows[0].Registration = "POISON"
			}
			err := s.Write(t.Context(), b)
			if refused := err != nil && !views.Retryable(err); refused != (i == 7) {
				t.Errorf("batch %d: %v", i, err)
			}
		})
	}
	sqlite.AwaitQueue(s, 10)
	release()
	group.Wait()
	if rows := len(query(t, s, views.Query{View: "aircraft_windows"}).Rows); rows != 9 {
		t.Errorf("%d rows, want 9", rows)
	}
}

// TestCancelledBatchLeavesTheQueue has a writer give up while another has the turn: its rows are not written later.
func TestCancelledBatchLeavesTheQueue(t *testing.T) {
	s := migrated(t, filepath.Join(t.TempDir(), "views.db"))
	release := sqlite.TakeTurn(s)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() { answer <- s.Write(ctx, batch(3)) }()
	sqlite.AwaitQueue(s, 1)
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("want the cancellation, got %v", err)
	}
	release()
	if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{viewtest.Window("N9", 0, 1)}}); err != nil {
		t.Fatal(err)
	}
	if rows := len(query(t, s, views.Query{View: "aircraft_windows"}).Rows); rows != 1 {
		t.Errorf("%d rows, want 1", rows)
	}
}

const mine = `-- Aircraft by letter.
-- columns:
--   letter text: first letter of the registration
--   aircraft integer: how many
-- key: letter
SELECT substr(registration_number, 1, 1) AS letter, count(DISTINCT registration_number) AS aircraft FROM windows GROUP BY 1`

func TestOperatorAddsAView(t *testing.T) {
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	if err := s.Write(t.Context(), batch(3)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{mine, strings.Replace(mine, "count(", "100 + count(", 1)} { // changed by its author
		operated, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Views: fstest.MapFS{"by_letter.sql": {Data: []byte(text)}}})
		if err != nil {
			t.Fatal(err)
		}
		defer operated.Close()
		if err := operated.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := int64(3)
		if text != mine {
			want = 103
		}
		if got := query(t, operated, views.Query{View: "by_letter"}).Rows[0][1]; got != want {
			t.Errorf("%v aircraft, want %d", got, want)
		}
	}
}

func TestWrongViewsAreFoundAtStart(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no header":    {"SELECT 1", "no description"},
		"wrong SQL":    {strings.Replace(mine, "FROM windows", "FROM nowhere", 1), "nowhere"},
		"column":       {strings.Replace(mine, "AS letter", "AS first", 1), `column "letter" is described`},
		"undescribed":  {strings.Replace(mine, "SELECT", "SELECT 5 AS more,", 1), `column "more" is selected`},
		"syntax error": {strings.Replace(mine, "GROUP BY", "GROUP", 1), "syntax error"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "views.db")
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Views: fstest.MapFS{"by_letter.sql": {Data: []byte(c.text)}}})
			if err == nil {
				defer s.Close()
				err = s.Migrate(t.Context())
				if views.Retryable(err) {
					t.Errorf("waiting does not mend %v", err)
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "by_letter") {
				t.Errorf("want an error about by_letter with %q, got %v", c.want, err)
			}
		})
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	other(t, path).exec(t, "PRAGMA user_version = 99")
	if err := s.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "schema version 99 is newer") || views.Retryable(err) {
		t.Errorf("want a refusal, got %v", err)
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	_, err := sqlite.Open(t.Context(), sqlite.Config{Path: ":memory:", Readers: -1, BusyTimeout: -1})
	for _, part := range []string{`path ":memory:"`, "readers -1", "busy timeout -1ns"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "no", "such", "dir.db")}); err == nil {
		t.Error("opened a file in a directory that is not there")
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, rows := range []int64{1, 100, 10_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			s, err := sqlite.Open(b.Context(), sqlite.Config{Path: filepath.Join(b.TempDir(), "views.db")})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if err := s.Migrate(b.Context()); err != nil {
				b.Fatal(err)
			}
			all := batch(rows)
			b.ReportAllocs()
			for b.Loop() {
				for i := range all.Windows {
					all.Windows[i].Revision++
				}
				if err := s.Write(b.Context(), all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
