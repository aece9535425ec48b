package risingwave_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/viewtest"
)

func TestPostgreSQL(t *testing.T) {
	server := postgres(t)
	viewtest.Run(t, func(t *testing.T) views.Store { return open(t, risingwave.Config{URL: server.database(t)}) })
}

func open(t testing.TB, c risingwave.Config) *risingwave.Store {
	t.Helper()
	s, err := risingwave.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestServerSortsByLanguage keeps the exam sharp: over a database that sorts by bytes anyway it could not tell.
func TestServerSortsByLanguage(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), postgres(t).database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var byLanguage bool
	if err := conn.QueryRow(t.Context(), "SELECT 'a' < 'B'").Scan(&byLanguage); err != nil {
		t.Fatal(err)
	}
	if !byLanguage {
		t.Log("this PostgreSQL has no ICU: the exam does not show that text is compared by bytes")
	}
	if os.Getenv("KLGSTREAM_REQUIRE_POSTGRES") == "1" && !byLanguage {
		t.Error("PostgreSQL with ICU is required")
	}
}

// S1, although the server is told not to wait for its disk.
func TestWritesWaitForTheDisk(t *testing.T) {
	s := open(t, risingwave.Config{URL: postgres(t).database(t), Connections: 1})
	if got := risingwave.Setting(t.Context(), s, "synchronous_commit"); got != "on" {
		t.Errorf("synchronous_commit is %q", got)
	}
}

// S1 and S6: the server is stopped in the middle of everything and comes back.
func TestServerDies(t *testing.T) {
	server := postgres(t)
	s := open(t, risingwave.Config{URL: server.database(t)})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	row := func(count int64) views.Batch {
		return views.Batch{Windows: []codecs.Window{viewtest.Window("N1", 0, count)}, Late: []codecs.Letter{viewtest.Letter(count, "late")}}
	}
	if err := s.Write(t.Context(), row(1)); err != nil {
		t.Fatal(err)
	}
	server.kill()
	if err := s.Write(t.Context(), row(2)); err == nil || !views.Retryable(err) {
		t.Errorf("want a retryable error while it is away, got %v", err)
	}
	if _, err := s.Query(t.Context(), views.Query{View: "aircraft_stats"}); err == nil {
		t.Error("a server that is away answered")
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a server that is away answered a ping")
	}
	if err := server.run(); err != nil {
		t.Fatal(err)
	}
	check(t, "rows after it came back", counts(t, s), []any{int64(1)})
	if err := s.Write(t.Context(), row(3)); err != nil {
		t.Fatal(err)
	}
	check(t, "rows after another write", counts(t, s), []any{int64(3)})
}

func counts(t *testing.T, s views.Store) (list []any) {
	t.Helper()
	r, err := s.Query(t.Context(), views.Query{View: "aircraft_windows"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		list = append(list, row[5])
	}
	return list
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestAwayFromTheStart makes a store while nobody listens, as a sink does that starts before its database.
func TestAwayFromTheStart(t *testing.T) {
	s := open(t, risingwave.Config{URL: "postgresql://root:secret@127.0.0.1:1/dev"})
	_, listed := s.Views(t.Context())
	_, asked := s.Query(t.Context(), views.Query{View: "aircraft_stats"})
	for what, err := range map[string]error{
		"migrate": s.Migrate(t.Context()), "views": listed, "query": asked, "ping": s.Ping(t.Context()),
		"write": s.Write(t.Context(), views.Batch{Windows: []codecs.Window{viewtest.Window("N1", 0, 1)}}),
	} {
		if err == nil || !views.Retryable(err) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1:1/dev") ||
			!strings.Contains(err.Error(), `connect as "root": `) || strings.Count(err.Error(), "dial error") != 1 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: want a retryable error of one line that names the server, what went wrong once, and not the password, got %v", what, err)
		}
	}
	check(t, "name", s.Name(), "postgresql")
}

func TestConfigTellsAllFaults(t *testing.T) {
	_, err := risingwave.Open(t.Context(), risingwave.Config{URL: "postgresql://u:secret@host:port/db", Connections: -1, ConnectTimeout: -1})
	for _, part := range []string{"url:", "connections -1", "connect timeout -1ns"} {
		if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q is missing in %v, or the password is not", part, err)
		}
	}
	if _, err := risingwave.Open(t.Context(), risingwave.Config{}); err == nil || !strings.Contains(err.Error(), "url: required") {
		t.Errorf("without URL: %v", err)
	}
}

const mine = `-- Aircraft by letter.
-- columns:
--   letter text: first letter of the registration
--   aircraft integer: how many
-- key: letter
SELECT substr(registration_number, 1, 1) AS letter, count(*) AS aircraft FROM aircraft_stats GROUP BY substr(registration_number, 1, 1)`

func TestOperatorAddsAView(t *testing.T) {
	url := postgres(t).database(t)
	for _, text := range []string{mine, strings.Replace(mine, "count(", "100 + count(", 1)} { // changed by its author
		s := open(t, risingwave.Config{URL: url, Views: fstest.MapFS{"a_by_letter.sql": {Data: []byte(text)}}})
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{viewtest.Window("N1", 0, 1), viewtest.Window("N2", 0, 1)}}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Query(t.Context(), views.Query{View: "a_by_letter"})
		if err != nil {
			t.Fatal(err)
		}
		want := int64(2)
		if text != mine {
			want = 102
		}
		check(t, "aircraft", r.Rows[0][1], want)
	}
}

func TestWrongViewsAreFoundAtStart(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"wrong SQL":   {strings.Replace(mine, "FROM aircraft_stats", "FROM nowhere", 1), "nowhere"},
		"column":      {strings.Replace(mine, "AS letter", "AS first", 1), `column "letter" is described`},
		"undescribed": {strings.Replace(mine, "SELECT", "SELECT 5 AS more,", 1), `column "more" is selected`},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, risingwave.Config{URL: postgres(t).database(t), Views: fstest.MapFS{"by_letter.sql": {Data: []byte(c.text)}}})
			err := s.Migrate(t.Context())
			if err == nil || views.Retryable(err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"by_letter"`) {
				t.Errorf("want an error for good about by_letter with %q, got %v", c.want, err)
			}
		})
	}
}

// TestRowFaultsAreForGood has the database refuse a row that passed our own checks.
func TestRowFaultsAreForGood(t *testing.T) {
	url := postgres(t).database(t)
	s := open(t, risingwave.Config{URL: url})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(text string) {
		if _, err := conn.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	batch := views.Batch{Windows: []codecs.Window{viewtest.Window("N1", 0, 1)}, Late: []codecs.Letter{viewtest.Letter(1, "late")}}
	exec("ALTER TABLE late_events ADD CONSTRAINT picky CHECK (reason <> 'late')")
	if err := s.Write(t.Context(), batch); err == nil || views.Retryable(err) {
		t.Errorf("constraint: want an error for good, got %v", err)
	}
	check(t, "rows of a write that failed half way", len(counts(t, s)), 0)
	exec("ALTER TABLE late_events RENAME TO gone")
	if err := s.Write(t.Context(), batch); err == nil || !views.Retryable(err) {
		t.Errorf("missing table: want a retryable error, got %v", err)
	}
}

// TestOperatorsTextComparesByBytes asks a view whose text sorts by a language: pages and prefixes are by bytes all the same.
func TestOperatorsTextComparesByBytes(t *testing.T) {
	s := open(t, risingwave.Config{URL: postgres(t).database(t), Views: fstest.MapFS{"names.sql": {Data: []byte(`-- Names.
-- columns:
--   name text: the registration
-- key: name
SELECT registration_number COLLATE "default" AS name FROM aircraft_stats`)}}})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var b views.Batch
	for _, name := range []string{"a", "B", "b", "A", "aB", "Ab", "ab"} {
		b.Windows = append(b.Windows, viewtest.Window(name, 0, 1))
	}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	ask := func(q views.Query) (names []any) {
		for q.View = "names"; ; {
			r, err := s.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range r.Rows {
				names = append(names, row[0])
			}
			if q.Cursor = r.Next; q.Cursor == "" {
				return names
			}
		}
	}
	check(t, "names in pages of two", ask(views.Query{Limit: 2}), []any{"A", "Ab", "B", "a", "aB", "ab", "b"})
	check(t, "names from a", ask(views.Query{Filters: []views.Filter{{Column: "name", Op: views.Prefix, Value: "a"}}}), []any{"a", "aB", "ab"})
}

// TestNewestWindowsComeFromAnIndex has PostgreSQL say how it finds the newest windows: along an index, with only windows of one
// moment, aircraft and definition left to put into order.
func TestNewestWindowsComeFromAnIndex(t *testing.T) {
	url := postgres(t).database(t)
	if err := open(t, risingwave.Config{URL: url}).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SET enable_seqscan = off"); err != nil { // an empty table is read faster without the index
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `EXPLAIN SELECT * FROM aircraft_windows ORDER BY window_start DESC, registration_number COLLATE "C", window_definition COLLATE "C", window_end LIMIT 101`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	for _, want := range []string{"Index Scan using windows_by_start", "Incremental Sort"} {
		if !strings.Contains(plan, want) {
			t.Errorf("no %q in the plan:\n%s", want, plan)
		}
	}
}
