package risingwave_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/viewtest"
)

// anyWindow is one that PostgreSQL takes.
func anyWindow(r *rand.Rand) codecs.Window {
	return viewtest.AnyWindow(r, []string{"N1", "N2", "N3", "n4", "Ö\xff"}, []string{"landed", "departed"})
}

// totalled are the views that PostgreSQL answers from totals.
var totalled = []string{"aircraft_days", "aircraft_stats", "busiest_hours", "daily_activity", "last_seen"}

// plain is the view as a query of windows alone: as all stores but PostgreSQL define it, or as PostgreSQL once did.
func plain(t testing.TB, view string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../definitions", view+".sql"))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = os.ReadFile(filepath.Join("testdata/plain", view+".sql"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// compareTotals compares each view with the query that needs no totals.
func compareTotals(t *testing.T, conn *pgx.Conn, when string) {
	t.Helper()
	for _, view := range totalled {
		kept, so := "SELECT * FROM "+view, plain(t, view)
		for what, text := range map[string]string{"kept and not so": kept + " EXCEPT ALL (" + so + ")", "so and not kept": "(" + so + ") EXCEPT ALL " + kept} {
			rows, err := conn.Query(t.Context(), "SELECT CAST(found AS text) FROM ("+text+") AS found")
			if err != nil {
				t.Fatal(view, err)
			}
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(view, err)
			}
			if len(found) > 0 {
				t.Errorf("%s: %s: %s: %s", when, view, what, strings.Join(found, " "))
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// totals is an empty database with the program's schema.
func totals(t *testing.T) (*risingwave.Store, *pgx.Conn) {
	t.Helper()
	url := postgres(t).database(t)
	s := open(t, risingwave.Config{URL: url})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, connect(t, url)
}

// TestTotalsAreExact has three writers write any revisions of the same windows in any order, again and again, final ones, some that are
// final no longer, some withdrawn, deletes some by hand, and compares the views with what the windows say.
func TestTotalsAreExact(t *testing.T) {
	t.Parallel()
	s, conn := totals(t)
	for round := range 40 {
		var writers errgroup.Group
		for writer := range 3 {
			writers.Go(func() error {
				r := rand.New(rand.NewPCG(uint64(round), uint64(writer)))
				var b views.Batch
				for range 1 + r.IntN(60) {
					b.Windows = append(b.Windows, anyWindow(r))
				}
				for range 1 + r.IntN(2) { // a replay changes nothing
					if err := s.Write(t.Context(), b); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := writers.Wait(); err != nil {
			t.Fatal(err)
		}
		if round%5 == 4 {
			if _, err := conn.Exec(t.Context(), "DELETE FROM windows WHERE registration_number = 'N2' AND event_count = 3"); err != nil {
				t.Fatal(err)
			}
		}
		compareTotals(t, conn, fmt.Sprint("round ", round))
	}
	for _, kind := range []string{"final AND NOT withdrawn", "NOT final AND NOT withdrawn", "withdrawn", "first_event_time IS NULL"} {
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM windows WHERE "+kind).Scan(&n); err != nil || n < 20 {
			t.Errorf("%d rows are %s, error %v: too few to have been tested", n, kind, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT klgstream_add_up()"); err != nil {
		t.Fatal(err)
	}
	compareTotals(t, conn, "added up anew")
	if _, err := conn.Exec(t.Context(), "TRUNCATE windows"); err != nil {
		t.Fatal(err)
	}
	compareTotals(t, conn, "emptied")
}

// TestNoFleetViewReadsEveryWindow has PostgreSQL say how it answers over many windows of which few are open: of the table of windows it
// reads the open ones alone, by their index, and a page of aircraft and days is read no further than it goes.
func TestNoFleetViewReadsEveryWindow(t *testing.T) {
	t.Parallel()
	_, conn := totals(t)
	for _, statement := range []string{
		`INSERT INTO windows
		 SELECT 'N' || i % 1000, 'tumbling:1h', start, start, 'tumbling', start + INTERVAL '1 hour', 3, '{"landed": 3}', start, start, 'landed', i, 6, i < 29900, false
		 FROM generate_series(0, 29999) AS i, LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + i / 1000 * INTERVAL '12 hours' AS start) AS at`,
		"ANALYZE",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	compareTotals(t, conn, "after one large statement")
	for view, order := range map[string]string{
		"aircraft_days":    `registration_number COLLATE "C", day`,
		"aircraft_stats":   `total_events DESC, registration_number COLLATE "C"`,
		"busiest_aircraft": `total_events DESC, registration_number COLLATE "C"`,
		"busiest_hours":    "total_events DESC, hour",
		"daily_activity":   "day",
		"last_seen":        `last_event_time DESC, registration_number COLLATE "C"`,
	} {
		rows, err := conn.Query(t.Context(), "EXPLAIN SELECT * FROM "+view+" ORDER BY "+order+" LIMIT 101")
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		for _, line := range lines {
			if strings.Contains(line, "on windows") && !strings.Contains(line, "using windows_open") && !strings.Contains(line, "Bitmap Heap Scan") {
				t.Errorf("%s reads more than the open windows:\n%s", view, plan)
			}
		}
		if !strings.Contains(plan, "windows_open") {
			t.Errorf("%s does not use the index of open windows:\n%s", view, plan)
		}
		if view == "aircraft_days" && (!strings.Contains(plan, "Merge Append") || !strings.Contains(plan, "using day_totals_pkey")) {
			t.Errorf("%s is not read in order:\n%s", view, plan)
		}
	}
}

// TestTotalsOfAnOlderDatabase migrates a database with rows from before there were totals, open ones and closed ones.
func TestTotalsOfAnOlderDatabase(t *testing.T) {
	t.Parallel()
	s, conn := totals(t)
	for _, statement := range []string{
		"DROP VIEW aircraft_days, busiest_aircraft, aircraft_stats, busiest_hours, daily_activity, last_seen",
		"DROP FUNCTION klgstream_windows_changed, klgstream_windows_gone, klgstream_add_up, klgstream_add CASCADE",
		"DROP TABLE definitions, aircraft_totals, day_totals, fleet_totals",
		"DROP INDEX windows_open",
		"CREATE INDEX windows_by_definition ON windows (window_definition, window_start)",
		"DELETE FROM klgstream_schema WHERE name = '003_totals.sql' OR name LIKE 'view %'",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(statement, err)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	var b views.Batch
	for range 500 {
		b.Windows = append(b.Windows, anyWindow(r))
	}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	compareTotals(t, conn, "migrated")
	if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{anyWindow(r), anyWindow(r), anyWindow(r)}}); err != nil {
		t.Fatal(err)
	}
	compareTotals(t, conn, "written to")
}
