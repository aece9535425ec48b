package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/sqlite"
	"klgstream.dev/views/viewtest"
)

// compareTotals compares every table of totals with what the rows add up to.
func compareTotals(t *testing.T, path string) {
	t.Helper()
	file := other(t, path)
	wanted := map[string][]string{}
	head, _, _ := strings.Cut(sqlite.TotalsSchema(), "CREATE TRIGGER")
	for _, match := range sqlite.Filling.FindAllStringSubmatch(head, -1) {
		wanted[match[1]] = append(wanted[match[1]], "SELECT * FROM ("+match[2]+")")
	}
	if len(wanted) != 6 {
		t.Fatalf("%d tables of totals are filled, want 6", len(wanted))
	}
	for table, selects := range wanted {
		kept := "SELECT * FROM " + table
		switch table {
		case "aircraft_totals", "day_totals":
			kept += " WHERE windows > 0"
		case "fleet_totals":
			kept += " WHERE aircraft > 0"
		}
		rows := strings.Join(selects, " UNION ALL ")
		for what, text := range map[string]string{"kept and not so": kept + " EXCEPT SELECT * FROM (" + rows + ")", "so and not kept": rows + " EXCEPT " + kept} {
			if found := file.lines(t, text); len(found) > 0 {
				t.Errorf("%s: %s: %v", table, what, found)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// lines are the rows of a statement as text.
func (c connection) lines(t *testing.T, text string) (list []string) {
	t.Helper()
	rows, err := c.QueryContext(t.Context(), text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		cells, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.Trim(fmt.Sprint(cells), "[]"))
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return list
}

func anyWindow(r *rand.Rand) codecs.Window {
	return viewtest.AnyWindow(r, []string{"N1", "N2", "N3", "Ö\xff", "Ö\xfe"}, []string{"landed", "departed", "x\x00"})
}

// TestTotalsAreExact writes any revisions in any order, again and again, withdraws some, and compares the totals with the rows.
func TestTotalsAreExact(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 120 {
		var b views.Batch
		for range 1 + r.IntN(200) {
			b.Windows = append(b.Windows, anyWindow(r))
		}
		for range r.IntN(4) {
			letter := viewtest.Letter(r.Int64N(500), []string{"late", "later"}[r.IntN(2)])
			if r.IntN(3) == 0 {
				letter.EventTime = codecs.NoTime
			}
			b.Late, b.Dead = append(b.Late, letter), append(b.Dead, letter)
		}
		for range 1 + r.IntN(2) { // a replay changes nothing
			if err := s.Write(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		if round%10 == 9 || round < 5 {
			compareTotals(t, path)
		}
	}
	for _, kind := range []string{"withdrawn", "NOT withdrawn AND first_event_time IS NULL", "NOT withdrawn AND first_event_time < last_event_time"} {
		if n := len(other(t, path).lines(t, "SELECT 1 FROM windows WHERE "+kind)); n < 20 {
			t.Errorf("%d rows are %s: too few to have been tested", n, kind)
		}
	}
}

// TestTotalsOfAnOlderFile migrates a file with rows from before there were totals.
func TestTotalsOfAnOlderFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	r := rand.New(rand.NewPCG(1, 1))
	var b views.Batch
	for range 500 {
		b.Windows = append(b.Windows, anyWindow(r))
	}
	b.Late = []codecs.Letter{viewtest.Letter(1, "late")}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want := query(t, s, views.Query{View: "aircraft_days"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := other(t, path)
	for _, v := range file.lines(t, "SELECT name FROM sqlite_schema WHERE type = 'view'") {
		file.exec(t, "DROP VIEW "+v)
	}
	for _, table := range []string{"definitions", "aircraft_totals", "day_totals", "fleet_totals", "last_events", "letter_totals"} {
		file.exec(t, "DROP TABLE "+table)
	}
	file.exec(t, "DROP TRIGGER late_event_counts; DROP TRIGGER dead_letter_counts; DROP INDEX windows_by_start")
	file.exec(t, "CREATE INDEX windows_by_definition ON windows (window_definition, window_start); PRAGMA user_version = 1")
	s = migrated(t, path)
	compareTotals(t, path)
	if got := query(t, s, views.Query{View: "aircraft_days"}); !slices.EqualFunc(got.Rows, want.Rows, slices.Equal) {
		t.Errorf("days %v, want %v", got.Rows, want.Rows)
	}
}

// TestNoViewReadsEveryWindow looks at how SQLite answers each view as it is, and the orders and filters that readers use: by an
// index, without putting rows into order first. The one view of all windows walks along an index until its page is full.
func TestNoViewReadsEveryWindow(t *testing.T) {
	t.Parallel()
	s := migrated(t, filepath.Join(t.TempDir(), "views.db"))
	all, err := s.Views(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := []views.Filter{{Column: "registration_number", Op: views.Equal, Value: "N1"}}
	newest := []views.Order{{Column: "window_start", Desc: true}}
	for _, v := range all {
		queries := []views.Query{{}}
		if _, has := v.Column("registration_number"); has && !v.Table && v.Name != "busiest_aircraft" {
			queries = append(queries, views.Query{Filters: one})
		}
		if v.Name == "aircraft_windows" {
			queries = append(queries, views.Query{Order: newest}, views.Query{Order: newest, Filters: one})
		}
		for _, q := range queries {
			for _, line := range sqlite.Plan(t.Context(), s, v, q) {
				scans := strings.HasPrefix(line, "SCAN windows") && (v.Name != "aircraft_windows" || len(q.Filters) > 0)
				sorts := strings.Contains(line, "TEMP B-TREE FOR ORDER") && slices.Contains([]string{"aircraft_windows", "aircraft_stats", "aircraft_days", "last_seen"}, v.Name) && len(q.Filters) == 0
				if scans || sorts || strings.HasPrefix(line, "SCAN late_events") && v.Name == "letter_counts" {
					t.Errorf("%s %+v: %s", v.Name, q, line)
				}
			}
			t.Log(v.Name, q.Filters, q.Order, sqlite.Plan(t.Context(), s, v, q))
		}
	}
}

// TestLatestEventOfTheSameTime has a revision tell another type of the same moment.
func TestLatestEventOfTheSameTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	w := viewtest.Window("N1", 0, 3)
	for _, kind := range []string{"landed", "departed"} {
		w.LastType, w.Revision = kind, w.Revision+1
		if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{w}}); err != nil {
			t.Fatal(err)
		}
		compareTotals(t, path)
	}
}

// TestVerify: rows and totals that the sink wrote agree, and another program's write to either is found.
func TestVerify(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	s := migrated(t, path)
	r := rand.New(rand.NewPCG(2, 1))
	for range 5 {
		var b views.Batch
		for range 200 {
			b.Windows = append(b.Windows, anyWindow(r))
		}
		b.Late = []codecs.Letter{viewtest.Letter(1, "late")}
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if differ, err := s.Verify(t.Context()); err != nil || len(differ) > 0 {
		t.Fatalf("what the sink wrote differs: %v %v", differ, err)
	}
	other(t, path).exec(t, "UPDATE aircraft_totals SET total_events = total_events + 1 WHERE registration_number = (SELECT min(registration_number) FROM aircraft_totals WHERE windows > 0); "+
		"DELETE FROM late_events")
	differ, err := s.Verify(t.Context())
	if err != nil || len(differ) != 2 || !strings.HasPrefix(differ[0], "aircraft_totals in ") || differ[1] != "letter_totals in 1 rows" {
		t.Errorf("found %q %v", differ, err)
	}
}
