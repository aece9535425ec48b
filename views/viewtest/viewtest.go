// Package viewtest is the exam that every [views.Store] sits: what the package documentation of views promises (S1 to S6),
// asked of a store over an empty database.
package viewtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// Run sits the exam. open returns a store over an empty database of its own, not yet migrated, and closes it when the test
// that it is given ends.
func Run(t *testing.T, open func(t *testing.T) views.Store) {
	t.Helper()
	for _, exam := range []struct {
		name string
		run  func(t *testing.T, s views.Store)
	}{
		{"migrates", migrates},
		{"describes its views", describes},
		{"keeps the highest revision (S2)", keepsHighest},
		{"takes any order and repetition (S2)", takesAnyOrder},
		{"tells cumulating windows apart", tellsCumulatingApart},
		{"hides what was withdrawn (S3)", hidesWithdrawn},
		{"keeps letters once (S4)", keepsLettersOnce},
		{"gives typed values", givesTypes},
		{"keeps odd texts", keepsOddTexts},
		{"takes names that become one", takesNamesThatBecomeOne},
		{"filters", filters},
		{"orders with nulls last", orders},
		{"pages every row once (S5)", pages},
		{"pages large rows", pagesLargeRows},
		{"refuses wrong queries", refusesQueries},
		{"takes no SQL from outside", takesNoSQL},
		{"reads any time zone", readsZones},
		{"sums each event once", sumsOnce},
		{"finds the busiest hours", findsBusiest},
		{"derives days, last events and counts", derives},
		{"takes many writers at once", takesManyWriters},
		{"reads while it writes", readsWhileWriting},
		{"takes huge batches", takesHugeBatches},
		{"refuses hopeless rows for good (S6)", refusesHopeless},
		{"can be cancelled", cancels},
		{"closes twice", closesTwice},
	} {
		t.Run(exam.name, func(t *testing.T) {
			s := open(t)
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			exam.run(t, s)
		})
	}
}

// Base is the time that the rows of this package count from: 2013-01-01T05:00:00Z.
const Base = int64(1_357_016_400_000)

const hour = int64(time.Hour / time.Millisecond)

// Window makes a tumbling:1h window: of that aircraft, that many hours behind [Base], holding count arrivals. Its revision
// is as the window operator makes it.
func Window(registration string, hours, count int64) codecs.Window {
	start := Base + hours*hour
	w := codecs.Window{
		Registration: registration, Definition: "tumbling:1h", Kind: "tumbling",
		Start: start, End: start + hour, Count: count, Revision: 2 * count,
	}
	if count > 0 {
		w.First, w.Last, w.LastType = start+1, start+count, "arrived"
		w.Types = []codecs.TypeCount{{Type: "arrived", Count: count}}
	}
	return w
}

// Letter makes a letter about the record at that offset of partition 0 of aircraft-events.
func Letter(offset int64, reason string) codecs.Letter {
	return codecs.Letter{
		Reason: reason, Detail: "because", Topic: "aircraft-events", Offset: offset, EventTime: Base + offset,
		Registration: "N14228", Key: []byte("N14228"), Value: []byte(`{"event_type":"arrived"}`),
	}
}

func write(t *testing.T, s views.Store, b views.Batch) {
	t.Helper()
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, s views.Store, q views.Query) views.Result {
	t.Helper()
	r, err := s.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// column is the named column of every row.
func column(t *testing.T, r views.Result, name string) []any {
	t.Helper()
	at := slices.IndexFunc(r.Columns, func(c views.Column) bool { return c.Name == name })
	if at < 0 {
		t.Fatalf("view %q has no column %q", r.View, name)
	}
	out := make([]any, len(r.Rows))
	for i, row := range r.Rows {
		out[i] = row[at]
	}
	return out
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func eq(column, value string) views.Filter {
	return views.Filter{Column: column, Op: views.Equal, Value: value}
}

func migrates(t *testing.T, s views.Store) {
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 1)}})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want(t, "rows after more migrations", len(ask(t, s, views.Query{View: "aircraft_windows"}).Rows), 1)
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func describes(t *testing.T, s views.Store) {
	list, err := s.Views(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"aircraft_windows", "aircraft_stats", "aircraft_days", "busiest_aircraft", "busiest_hours", "daily_activity", "last_seen",
		"letter_counts", "late_events", "dead_letters",
	} {
		if _, err := views.Find(list, name); err != nil {
			t.Error(err)
		}
	}
	for _, v := range list {
		r := ask(t, s, views.Query{View: v.Name})
		want(t, "columns of "+v.Name, r.Columns, v.Columns)
		want(t, "rows of "+v.Name, len(r.Rows), 0)
		for _, c := range v.Columns {
			if c.Description == "" {
				t.Errorf("column %q of view %q has no description", c.Name, v.Name)
			}
		}
	}
}

func keepsHighest(t *testing.T, s views.Store) {
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 2)}})
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 5)}})
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 3)}})
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "event_count", column(t, r, "event_count"), []any{int64(5)})
	want(t, "revision", column(t, r, "revision"), []any{int64(10)})
	want(t, "last_event_time", column(t, r, "last_event_time"), []any{views.Time(Base + 5)})
	final := Window("N1", 0, 5)
	final.Revision, final.Final = 11, true
	write(t, s, views.Batch{Windows: []codecs.Window{final, Window("N1", 0, 5)}})
	want(t, "final", column(t, ask(t, s, views.Query{View: "aircraft_windows"}), "final"), []any{true})
}

// takesAnyOrder writes every revision of some windows in shuffled order, some of them again, in batches of any size.
func takesAnyOrder(t *testing.T, s views.Store) {
	random := rand.New(rand.NewPCG(1, 2))
	var rows []codecs.Window
	for aircraft := range int64(5) {
		for revision := range int64(8) {
			w := Window(fmt.Sprintf("N%d", aircraft), aircraft%2, revision+1)
			rows = append(rows, w)
			if random.IntN(2) == 0 {
				rows = append(rows, w)
			}
		}
	}
	random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for chunk := range slices.Chunk(rows, 7) {
		write(t, s, views.Batch{Windows: chunk})
	}
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "event_count", column(t, r, "event_count"), slices.Repeat([]any{int64(8)}, 5))
	write(t, s, views.Batch{Windows: rows})
	want(t, "rows after a replay", ask(t, s, views.Query{View: "aircraft_windows"}).Rows, r.Rows)
}

// tellsCumulatingApart has windows that share their start, as cumulating ones do, come in one batch.
func tellsCumulatingApart(t *testing.T, s views.Store) {
	var b views.Batch
	for step := range int64(3) {
		w := Window("N1", 0, step+1)
		w.Definition, w.Kind, w.End = "cumulating:1h/1d", "cumulating", Base+(step+1)*hour
		b.Windows = append(b.Windows, w)
	}
	write(t, s, b)
	write(t, s, b)
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "event_count", column(t, r, "event_count"), []any{int64(1), int64(2), int64(3)})
	want(t, "window_end", column(t, r, "window_end"), []any{views.Time(Base + hour), views.Time(Base + 2*hour), views.Time(Base + 3*hour)})
	q := views.Query{View: "aircraft_windows", Limit: 1}
	want(t, "windows walked", len(walk(t, s, q)), 3)
}

func hidesWithdrawn(t *testing.T, s views.Store) {
	session := Window("N1", 0, 3)
	session.Definition, session.Kind = "session:30m", "session"
	stale := session
	write(t, s, views.Batch{Windows: []codecs.Window{session}})
	session.Withdrawn, session.Revision = true, 7
	write(t, s, views.Batch{Windows: []codecs.Window{session}})
	write(t, s, views.Batch{Windows: []codecs.Window{stale}})
	for _, view := range []string{"aircraft_windows", "aircraft_stats"} {
		want(t, "rows of "+view, len(ask(t, s, views.Query{View: view}).Rows), 0)
	}
	empty := codecs.Window{Registration: "N2", Definition: "session:30m", Kind: "session", Start: Base, End: Base + 1, Revision: 5, Withdrawn: true}
	write(t, s, views.Batch{Windows: []codecs.Window{empty}})
	stale.Revision = 9
	write(t, s, views.Batch{Windows: []codecs.Window{stale}})
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "window that came back with a higher revision", column(t, r, "registration_number"), []any{"N1"})
}

func keepsLettersOnce(t *testing.T, s views.Store) {
	batch := views.Batch{
		Late: []codecs.Letter{Letter(1, "late"), Letter(2, "late"), Letter(1, "late")},
		Dead: []codecs.Letter{Letter(3, "bad-json")},
	}
	write(t, s, batch)
	write(t, s, batch)
	r := ask(t, s, views.Query{View: "late_events"})
	want(t, "late offsets", column(t, r, "source_offset"), []any{int64(1), int64(2)})
	r = ask(t, s, views.Query{View: "dead_letters"})
	want(t, "dead offsets", column(t, r, "source_offset"), []any{int64(3)})
	want(t, "reason", column(t, r, "reason"), []any{"bad-json"})
	want(t, "payload", column(t, r, "payload"), []any{`{"event_type":"arrived"}`})
}

func givesTypes(t *testing.T, s views.Store) {
	with, without := Window("N1", 0, 3), Window("N2", 0, 1)
	with.AircraftID, with.HasAircraftID = math.MaxInt64, true
	with.Types = []codecs.TypeCount{{Type: "arrived", Count: 2}, {Type: "departed", Count: 1}}
	unknown := Letter(7, "bad-json")
	unknown.EventTime, unknown.Registration, unknown.Key = math.MinInt64, "", nil
	write(t, s, views.Batch{Windows: []codecs.Window{with, without}, Dead: []codecs.Letter{unknown}})
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "window_start", column(t, r, "window_start")[0], views.Time(Base))
	want(t, "zone", column(t, r, "window_start")[0].(time.Time).Location().String(), "UTC")
	want(t, "aircraft_id", column(t, r, "aircraft_id"), []any{int64(math.MaxInt64), nil})
	want(t, "final", column(t, r, "final"), []any{false, false})
	types, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if part := `"event_types":{"arrived":2,"departed":1}`; !strings.Contains(strings.ReplaceAll(string(types), " ", ""), part) {
		t.Errorf("JSON has no %s: %s", part, types)
	}
	r = ask(t, s, views.Query{View: "dead_letters"})
	for _, name := range []string{"event_time", "registration_number", "record_key", "payload_base64"} {
		want(t, name, column(t, r, name), []any{nil})
	}
}

func keepsOddTexts(t *testing.T, s views.Store) {
	odd := "Ü'\"\\;{}(),NULL\n\t 🛩\U0010FFFF"
	w := Window(odd, 0, 2)
	w.LastType = odd
	w.Types = []codecs.TypeCount{{Type: odd, Count: 1}, {Type: "nul\x00byte", Count: 1}}
	binary := Letter(1, "bad-json")
	binary.Value, binary.Key = []byte{0xff, 0, 'x'}, []byte{0xfe, 'k', 0}
	empty := Letter(2, "empty")
	empty.Value, empty.Key, empty.Detail = []byte{}, []byte{}, ""
	null := Letter(3, "NULL")
	null.Value, null.Detail = []byte("NULL"), "null"
	write(t, s, views.Batch{Windows: []codecs.Window{w}, Dead: []codecs.Letter{binary, empty, null}})
	r := ask(t, s, views.Query{View: "aircraft_windows", Filters: []views.Filter{eq("registration_number", odd)}})
	want(t, "registration_number", column(t, r, "registration_number"), []any{odd})
	want(t, "last_event_type", column(t, r, "last_event_type"), []any{odd})
	r = ask(t, s, views.Query{View: "dead_letters"})
	want(t, "payload", column(t, r, "payload"), []any{nil, "", "NULL"})
	want(t, "payload_base64", column(t, r, "payload_base64"), []any{"/wB4", nil, nil})
	want(t, "record_key", column(t, r, "record_key"), []any{"\uFFFDk\uFFFD", "", "N14228"})
	want(t, "detail", column(t, r, "detail"), []any{"because", "", "null"})
}

// takesNamesThatBecomeOne brings windows in one batch whose keys are the same once no database's text holds what they differ in.
func takesNamesThatBecomeOne(t *testing.T, s views.Store) {
	odd, known := Window("A\x00", 0, 2), Window("A\uFFFD", 0, 3)
	write(t, s, views.Batch{Windows: []codecs.Window{known, odd, Window("B", 0, 1)}})
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "registration_number", column(t, r, "registration_number"), []any{"A\uFFFD", "B"})
	want(t, "revision", column(t, r, "revision"), []any{int64(6), int64(2)})
}

// fleet writes windows that differ in every column that the tests below filter and sort by, and returns them by key.
func fleet(t *testing.T, s views.Store) []codecs.Window {
	t.Helper()
	var rows []codecs.Window
	for _, registration := range []string{"N1", "N10", "N2", "n1", "Ä1", "RA-12345"} {
		for hours := range int64(6) {
			w := Window(registration, hours, (hours*7+int64(len(registration)))%5+1)
			if hours%3 != 0 {
				w.AircraftID, w.HasAircraftID = hours%2*100, true
			}
			w.Final = hours%2 == 0
			rows = append(rows, w)
		}
	}
	write(t, s, views.Batch{Windows: rows})
	return views.Batch{Windows: rows}.Latest().Windows
}

func filters(t *testing.T, s views.Store) {
	all := fleet(t, s)
	at := func(hours int64) string { return views.Time(Base + hours*hour).Format(time.RFC3339) }
	for _, c := range []struct {
		name  string
		query []views.Filter
		keep  func(w codecs.Window) bool
	}{
		{"none", nil, func(codecs.Window) bool { return true }},
		{"text equal", []views.Filter{eq("registration_number", "N1")}, func(w codecs.Window) bool { return w.Registration == "N1" }},
		{"text less, by bytes", []views.Filter{{Column: "registration_number", Op: views.Less, Value: "a"}}, func(w codecs.Window) bool { return w.Registration < "a" }},
		{"prefix", []views.Filter{{Column: "registration_number", Op: views.Prefix, Value: "N1"}}, func(w codecs.Window) bool { return strings.HasPrefix(w.Registration, "N1") }},
		{"prefix beyond ASCII", []views.Filter{{Column: "registration_number", Op: views.Prefix, Value: "Ä"}}, func(w codecs.Window) bool { return strings.HasPrefix(w.Registration, "Ä") }},
		{"prefix is no pattern", []views.Filter{{Column: "registration_number", Op: views.Prefix, Value: "%"}}, func(codecs.Window) bool { return false }},
		{"empty prefix", []views.Filter{{Column: "registration_number", Op: views.Prefix}}, func(codecs.Window) bool { return true }},
		{"in", []views.Filter{{Column: "registration_number", Op: views.In, Value: "N2,n1,none"}}, func(w codecs.Window) bool { return w.Registration == "N2" || w.Registration == "n1" }},
		{"number greater", []views.Filter{{Column: "event_count", Op: views.Greater, Value: "3"}}, func(w codecs.Window) bool { return w.Count > 3 }},
		{"number at most", []views.Filter{{Column: "event_count", Op: views.LessOrEqual, Value: "3"}}, func(w codecs.Window) bool { return w.Count <= 3 }},
		{"time range", []views.Filter{{Column: "window_start", Op: views.GreaterOrEqual, Value: at(1)}, {Column: "window_start", Op: views.Less, Value: at(3)}}, func(w codecs.Window) bool { return w.Start >= Base+hour && w.Start < Base+3*hour }},
		{"time in", []views.Filter{{Column: "window_start", Op: views.In, Value: at(1) + "," + at(4)}}, func(w codecs.Window) bool { return w.Start == Base+hour || w.Start == Base+4*hour }},
		{"time between milliseconds", []views.Filter{{Column: "window_start", Op: views.GreaterOrEqual, Value: "2013-01-01T05:00:00.0005Z"}}, func(w codecs.Window) bool { return w.Start > Base }},
		{"boolean", []views.Filter{eq("final", "true")}, func(w codecs.Window) bool { return w.Final }},
		{"null", []views.Filter{{Column: "aircraft_id", Op: views.Null, Value: "true"}}, func(w codecs.Window) bool { return !w.HasAircraftID }},
		{"not null", []views.Filter{{Column: "aircraft_id", Op: views.Null, Value: "false"}}, func(w codecs.Window) bool { return w.HasAircraftID }},
		{"not equal keeps nulls", []views.Filter{{Column: "aircraft_id", Op: views.NotEqual, Value: "100"}}, func(w codecs.Window) bool { return !w.HasAircraftID || w.AircraftID != 100 }},
		{"less drops nulls", []views.Filter{{Column: "aircraft_id", Op: views.Less, Value: "100"}}, func(w codecs.Window) bool { return w.HasAircraftID && w.AircraftID < 100 }},
		{"least and greatest numbers", []views.Filter{{Column: "event_count", Op: views.Greater, Value: "-9223372036854775808"}, {Column: "event_count", Op: views.Less, Value: "9223372036854775807"}}, func(codecs.Window) bool { return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keys []any
			for _, w := range all {
				if c.keep(w) {
					keys = append(keys, w.Registration+"@"+at((w.Start-Base)/hour))
				}
			}
			r := ask(t, s, views.Query{View: "aircraft_windows", Filters: c.query})
			want(t, "rows", rowKeys(t, r), keys)
		})
	}
}

func rowKeys(t *testing.T, r views.Result) []any {
	t.Helper()
	var keys []any
	starts := column(t, r, "window_start")
	for i, registration := range column(t, r, "registration_number") {
		keys = append(keys, registration.(string)+"@"+starts[i].(time.Time).Format(time.RFC3339))
	}
	return keys
}

func orders(t *testing.T, s views.Store) {
	fleet(t, s)
	r := ask(t, s, views.Query{View: "aircraft_windows", Order: []views.Order{{Column: "registration_number", Desc: true}}})
	got := slices.CompactFunc(column(t, r, "registration_number"), func(a, b any) bool { return a == b })
	want(t, "registrations, descending by bytes", got, []any{"Ä1", "n1", "RA-12345", "N2", "N10", "N1"})
	for _, desc := range []bool{false, true} {
		r := ask(t, s, views.Query{View: "aircraft_windows", Order: []views.Order{{Column: "aircraft_id", Desc: desc}}})
		got := slices.CompactFunc(column(t, r, "aircraft_id"), func(a, b any) bool { return a == b })
		ids := []any{int64(0), int64(100), nil}
		if desc {
			ids = []any{int64(100), int64(0), nil}
		}
		want(t, fmt.Sprintf("aircraft ids, descending %v", desc), got, ids)
	}
	r = ask(t, s, views.Query{View: "busiest_hours"})
	totals := column(t, r, "total_events")
	if !slices.IsSortedFunc(totals, func(a, b any) int { return int(b.(int64) - a.(int64)) }) {
		t.Errorf("busiest_hours is not in its own order: %v", totals)
	}
}

// pages walks views in every kind of order with small pages and compares with the same rows in one page.
func pages(t *testing.T, s views.Store) {
	fleet(t, s)
	var letters []codecs.Letter
	for offset := range int64(9) {
		l := Letter(offset, "late")
		if offset%2 == 0 {
			l.EventTime, l.Registration = math.MinInt64, ""
		}
		letters = append(letters, l)
	}
	write(t, s, views.Batch{Late: letters})
	for _, q := range []views.Query{
		{View: "aircraft_windows"},
		{View: "aircraft_windows", Order: []views.Order{{Column: "registration_number", Desc: true}}},
		{View: "aircraft_windows", Order: []views.Order{{Column: "event_count"}, {Column: "window_start", Desc: true}}},
		{View: "aircraft_windows", Order: []views.Order{{Column: "aircraft_id"}}},
		{View: "aircraft_windows", Order: []views.Order{{Column: "aircraft_id", Desc: true}, {Column: "final"}}},
		{View: "aircraft_windows", Order: []views.Order{{Column: "window_start", Desc: true}}, Filters: []views.Filter{{Column: "event_count", Op: views.Greater, Value: "1"}}},
		{View: "late_events", Order: []views.Order{{Column: "event_time"}, {Column: "registration_number", Desc: true}}},
		{View: "aircraft_stats", Order: []views.Order{{Column: "total_events", Desc: true}}},
		{View: "busiest_hours"},
	} {
		whole := ask(t, s, q)
		want(t, "cursor of a whole view", whole.Next, "")
		for _, limit := range []int{1, 2, 5, len(whole.Rows), len(whole.Rows) + 1} {
			q.Limit, q.Cursor = limit, ""
			want(t, fmt.Sprintf("%v in pages of %d", q, limit), walk(t, s, q), whole.Rows)
		}
	}
}

// pagesLargeRows asks for more than a page may hold in bytes: it ends early, and the next ones have the rest.
func pagesLargeRows(t *testing.T, s views.Store) {
	const letters = 20
	for i := range int64(letters) {
		l := Letter(i, "not_json")
		l.Value = []byte(strings.Repeat("x", 1<<20))
		write(t, s, views.Batch{Dead: []codecs.Letter{l}})
	}
	first := ask(t, s, views.Query{View: "dead_letters"})
	if n := first.Bytes(); n > views.MaxPageBytes || len(first.Rows) < 10 {
		t.Errorf("a page has %d rows of %d bytes, at most %d may be", len(first.Rows), n, views.MaxPageBytes)
	}
	var offsets []any
	for _, row := range walk(t, s, views.Query{View: "dead_letters", Limit: 100}) {
		offsets = append(offsets, row[2])
	}
	var all []any
	for i := range int64(letters) {
		all = append(all, i)
	}
	want(t, "offsets", offsets, all)
}

// walk follows cursors to the end and returns all rows.
func walk(t *testing.T, s views.Store, q views.Query) [][]any {
	t.Helper()
	var rows [][]any
	for range 1000 {
		r := ask(t, s, q)
		if len(r.Rows) > q.Limit {
			t.Fatalf("page of %d rows, limit %d", len(r.Rows), q.Limit)
		}
		rows = append(rows, r.Rows...)
		if r.Next == "" {
			return rows
		}
		q.Cursor = r.Next
	}
	t.Fatal("cursors lead nowhere")
	return nil
}

func refusesQueries(t *testing.T, s views.Store) {
	fleet(t, s)
	if _, err := s.Query(t.Context(), views.Query{View: "nothing"}); !errors.Is(err, views.ErrUnknownView) {
		t.Errorf("unknown view: %v", err)
	}
	next := ask(t, s, views.Query{View: "aircraft_windows", Limit: 1}).Next
	for name, q := range map[string]views.Query{
		"limit too large":             {View: "aircraft_windows", Limit: views.MaxLimit + 1},
		"negative limit":              {View: "aircraft_windows", Limit: -1},
		"unknown column":              {View: "aircraft_windows", Filters: []views.Filter{eq("withdrawn", "true")}},
		"unknown order":               {View: "aircraft_windows", Order: []views.Order{{Column: "withdrawn"}}},
		"unknown comparison":          {View: "aircraft_windows", Filters: []views.Filter{{Column: "event_count", Op: "=", Value: "1"}}},
		"no number":                   {View: "aircraft_windows", Filters: []views.Filter{eq("event_count", "1 OR 1=1")}},
		"NUL":                         {View: "aircraft_windows", Filters: []views.Filter{eq("registration_number", "N\x00")}},
		"no cursor":                   {View: "aircraft_windows", Cursor: "%%%"},
		"cursor of another order":     {View: "aircraft_windows", Cursor: next, Order: []views.Order{{Column: "event_count"}}},
		"cursor of another direction": {View: "aircraft_windows", Cursor: next, Order: []views.Order{{Column: "registration_number", Desc: true}}},
		"cursor of another view":      {View: "late_events", Cursor: next},
	} {
		_, err := s.Query(t.Context(), q)
		if fault, ok := errors.AsType[*views.QueryError](err); !ok || len(fault.Faults) != 1 || views.Retryable(err) {
			t.Errorf("%s: want a query error with one fault, got %v", name, err)
		}
	}
}

func takesNoSQL(t *testing.T, s views.Store) {
	all := fleet(t, s)
	for _, attempt := range []string{
		"' OR '1'='1", `" OR 1=1 --`, "N1'; DROP TABLE windows; --", "N1\\", "$1", "?1", ":a", "%", "_", "1); DELETE FROM windows; --",
		`event_count" FROM windows; DROP TABLE windows; --`, "registration_number) --", "*", "1", "{1,2}", `\x41`, "E'\\''",
	} {
		for _, op := range []views.Op{views.Equal, views.Prefix, views.In} {
			q := views.Query{View: "aircraft_windows", Filters: []views.Filter{{Column: "registration_number", Op: op, Value: attempt}}}
			want(t, fmt.Sprintf("rows where registration %s %q", op, attempt), len(ask(t, s, q).Rows), 0)
		}
		for _, q := range []views.Query{
			{View: "aircraft_windows", Filters: []views.Filter{eq(attempt, "1")}},
			{View: "aircraft_windows", Filters: []views.Filter{{Column: "event_count", Op: views.Op(attempt), Value: "1"}}},
			{View: "aircraft_windows", Order: []views.Order{{Column: attempt}}},
			{View: "aircraft_windows", Cursor: attempt},
			{View: attempt},
		} {
			if _, err := s.Query(t.Context(), q); err == nil {
				t.Errorf("%+v was answered", q)
			}
		}
		write(t, s, views.Batch{Windows: []codecs.Window{Window("X"+attempt, 0, 1)}, Dead: []codecs.Letter{{Topic: attempt, Reason: attempt, Value: []byte(attempt)}}})
		r := ask(t, s, views.Query{View: "aircraft_windows", Filters: []views.Filter{eq("registration_number", "X"+attempt)}})
		want(t, "the row of "+attempt, column(t, r, "registration_number"), []any{"X" + attempt})
	}
	r := ask(t, s, views.Query{View: "aircraft_windows", Filters: []views.Filter{{Column: "registration_number", Op: views.NotEqual, Value: "X"}}, Limit: views.MaxLimit})
	want(t, "rows left", len(r.Rows), len(all)+17)
}

func readsZones(t *testing.T, s views.Store) {
	first, last := Window("N1", 0, 1), Window("N1", 0, 1)
	first.Start, first.End, first.First, first.Last = views.MinTime, views.MinTime+hour, views.MinTime+1, views.MinTime+1
	last.Start, last.End = time.Date(9999, 12, 31, 22, 0, 0, 0, time.UTC).UnixMilli(), time.Date(9999, 12, 31, 23, 0, 0, 0, time.UTC).UnixMilli()
	last.First, last.Last = last.End-1, last.End-1
	before := Window("N1", 0, 1)
	before.Start, before.End, before.First, before.Last = -1, hour-1, -1, -1
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 1), first, last, before}})
	for _, text := range []string{
		"2013-01-01T05:00:00Z", "2013-01-01T05:00:00.000Z", "2013-01-01T00:00:00-05:00", "2013-01-01T10:45:00+05:45",
		"2013-01-01T05:00:00", "2013-01-01T05:00", "1357016400000",
	} {
		r := ask(t, s, views.Query{View: "aircraft_windows", Filters: []views.Filter{eq("window_start", text)}})
		want(t, "windows from "+text, column(t, r, "window_start"), []any{views.Time(Base)})
	}
	r := ask(t, s, views.Query{View: "aircraft_windows", Order: []views.Order{{Column: "window_start"}}})
	want(t, "all windows", column(t, r, "window_start"), []any{views.Time(views.MinTime), views.Time(-1), views.Time(Base), views.Time(last.Start)})
	want(t, "their ends", column(t, r, "window_end"), []any{views.Time(views.MinTime + hour), views.Time(hour - 1), views.Time(Base + hour), views.Time(last.End)})
	for _, limit := range []int{1, 2} {
		q := views.Query{View: "aircraft_windows", Order: []views.Order{{Column: "window_start", Desc: true}}, Limit: limit}
		want(t, "windows walked", len(walk(t, s, q)), 4)
	}
}

// sumsOnce has one aircraft in windows of several definitions, of which aircraft_stats may count one.
func sumsOnce(t *testing.T, s views.Store) {
	session := Window("N1", 0, 9)
	session.Definition, session.Kind = "session:30m", "session"
	write(t, s, views.Batch{Windows: []codecs.Window{session}})
	stats := func() [][]any {
		return ask(t, s, views.Query{View: "aircraft_stats"}).Rows
	}
	want(t, "stats from sessions", stats(), [][]any{{"N1", int64(9), views.Time(Base + 1), views.Time(Base + 9)}})
	hopping, day := Window("N1", 0, 7), Window("N1", 0, 6)
	hopping.Definition, hopping.Kind = "hopping:24h/1h", "hopping"
	day.Definition, day.End = "tumbling:2h", Base+2*hour
	write(t, s, views.Batch{Windows: []codecs.Window{hopping, day}})
	want(t, "stats from tumbling:2h", stats(), [][]any{{"N1", int64(6), views.Time(Base + 1), views.Time(Base + 6)}})
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 3), Window("N1", 2, 2), Window("N2", 1, 1)}})
	want(t, "stats from tumbling:1h", stats(), [][]any{
		{"N1", int64(5), views.Time(Base + 1), views.Time(Base + 2*hour + 2)},
		{"N2", int64(1), views.Time(Base + hour + 1), views.Time(Base + hour + 1)},
	})
}

func findsBusiest(t *testing.T, s views.Store) {
	day := Window("N1", 0, 99)
	day.Definition, day.End = "tumbling:1d", Base+24*hour
	quarter := func(registration string, quarter, count int64) codecs.Window {
		w := Window(registration, 0, count)
		w.Definition, w.Start = "tumbling:15m", Base+quarter*hour/4
		w.End = w.Start + hour/4
		return w
	}
	write(t, s, views.Batch{Windows: []codecs.Window{
		day, quarter("N1", 0, 1), quarter("N1", 3, 2), quarter("N2", 1, 4), quarter("N1", 4, 3), quarter("N1", -400_000*4-1, 1),
	}})
	want(t, "busiest hours", ask(t, s, views.Query{View: "busiest_hours"}).Rows, [][]any{
		{views.Time(Base), int64(7), int64(2)},
		{views.Time(Base + hour), int64(3), int64(1)},
		{views.Time(Base - 400_001*hour), int64(1), int64(1)},
	})
}

// derives has two aircraft over midnight, a withdrawn session that nobody may see, and letters of three kinds.
func derives(t *testing.T, s views.Store) {
	midnight := (Base/(24*hour) + 1) * 24 * hour
	at := func(registration string, offset, count int64, definition string) codecs.Window {
		w := Window(registration, 0, count)
		w.Definition, w.Kind = definition, definition[:strings.IndexByte(definition, ':')]
		w.Start = midnight + offset*hour
		w.End = w.Start + hour
		w.First, w.Last = w.Start+1, w.Start+count
		return w
	}
	departed := at("N1", 1, 3, "session:30m")
	departed.LastType, departed.Last, departed.AircraftID, departed.HasAircraftID = "departed", midnight+2*hour, 7, true
	withdrawn := at("N2", 50, 9, "session:30m")
	withdrawn.Withdrawn = true
	early, late, unknown := Letter(1, "late"), Letter(2, "late"), Letter(3, "not_json")
	early.EventTime, late.EventTime, unknown.EventTime = midnight, midnight+5, math.MinInt64
	write(t, s, views.Batch{
		Windows: []codecs.Window{
			at("N1", -1, 2, "tumbling:1h"), at("N1", 0, 1, "tumbling:1h"), at("N1", 1, 3, "tumbling:1h"), at("N2", -2, 4, "tumbling:1h"), departed, withdrawn,
		},
		Late: []codecs.Letter{late, early}, Dead: []codecs.Letter{unknown},
	})
	rows := func(view string) [][]any { return ask(t, s, views.Query{View: view}).Rows }
	yesterday, today := views.Time(midnight-24*hour), views.Time(midnight)
	want(t, "aircraft_days", rows("aircraft_days"), [][]any{
		{"N1", yesterday, int64(2), int64(1), views.Time(midnight - hour + 1), views.Time(midnight - hour + 2)},
		{"N1", today, int64(4), int64(2), views.Time(midnight + 1), views.Time(midnight + hour + 3)},
		{"N2", yesterday, int64(4), int64(1), views.Time(midnight - 2*hour + 1), views.Time(midnight - 2*hour + 4)},
	})
	want(t, "daily_activity", rows("daily_activity"), [][]any{{yesterday, int64(6), int64(2)}, {today, int64(4), int64(1)}})
	want(t, "last_seen", rows("last_seen"), [][]any{
		{"N1", views.Time(midnight + 2*hour), "departed", int64(7)}, {"N2", views.Time(midnight - 2*hour + 4), "arrived", nil},
	})
	want(t, "busiest_aircraft", rows("busiest_aircraft"), [][]any{
		{"N1", int64(6), views.Time(midnight + hour + 3)}, {"N2", int64(4), views.Time(midnight - 2*hour + 4)},
	})
	want(t, "letter_counts", rows("letter_counts"), [][]any{
		{"late", "late", int64(2), views.Time(midnight), views.Time(midnight + 5)}, {"dead", "not_json", int64(1), nil, nil},
	})
}

// takesManyWriters has several sinks write revisions of the same windows at once.
func takesManyWriters(t *testing.T, s views.Store) {
	var group sync.WaitGroup
	for writer := range int64(6) {
		group.Go(func() {
			for round := range int64(8) {
				var b views.Batch
				for aircraft := range int64(20) {
					b.Windows = append(b.Windows, Window(fmt.Sprintf("N%02d", (aircraft*7+writer)%20), 0, (round*5+writer)%12+1))
				}
				b.Late = []codecs.Letter{Letter(round, "late")}
				if err := s.Write(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	r := ask(t, s, views.Query{View: "aircraft_windows"})
	want(t, "event_count", column(t, r, "event_count"), slices.Repeat([]any{int64(12)}, 20))
	want(t, "late events", len(ask(t, s, views.Query{View: "late_events"}).Rows), 8)
}

// readsWhileWriting asks all the time while batches come, each of which sets all windows to one count: no reader may see a
// count go down.
func readsWhileWriting(t *testing.T, s views.Store) {
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for count := range int64(30) {
			if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{Window("N1", 0, count+1), Window("N2", 0, count+1)}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		group.Go(func() { neverDown(t, s, done) })
	}
	group.Wait()
	want(t, "counts in the end", column(t, ask(t, s, views.Query{View: "aircraft_windows"}), "event_count"), []any{int64(30), int64(30)})
}

func neverDown(t *testing.T, s views.Store, done <-chan struct{}) {
	last := int64(0)
	for {
		select {
		case <-done:
			return
		default:
		}
		r, err := s.Query(t.Context(), views.Query{View: "aircraft_stats", Filters: []views.Filter{eq("registration_number", "N1")}})
		if err != nil {
			t.Error(err)
			return
		}
		for _, row := range r.Rows {
			if count := row[1].(int64); count < last {
				t.Errorf("count went down from %d to %d", last, count)
			} else {
				last = count
			}
		}
	}
}

func takesHugeBatches(t *testing.T, s views.Store) {
	const rows = 40_000 // more values than one statement can bind in any of the databases
	var b views.Batch
	for i := range int64(rows) {
		b.Windows = append(b.Windows, Window(fmt.Sprintf("N%d", i%1000), i/1000, 1))
	}
	large := Letter(0, "too-large")
	large.Value = []byte(strings.Repeat("x", 2<<20))
	b.Dead = []codecs.Letter{large}
	write(t, s, b)
	r := ask(t, s, views.Query{View: "aircraft_stats", Limit: views.MaxLimit})
	want(t, "aircraft", len(r.Rows), 1000)
	want(t, "events of each", column(t, r, "total_events"), slices.Repeat([]any{int64(40)}, 1000))
	r = ask(t, s, views.Query{View: "dead_letters"})
	want(t, "bytes of the large letter", len(column(t, r, "payload")[0].(string)), 2<<20)
	write(t, s, views.Batch{})
}

func refusesHopeless(t *testing.T, s views.Store) {
	nameless, far, negative, endless := Window("", 0, 1), Window("N1", 0, 1), Window("N1", 0, 1), Window("N1", 1, 1)
	far.End = math.MaxInt64
	negative.Count = -1
	endless.Count = math.MaxInt64 // no sum would hold it and another
	never := Letter(1, "late")
	never.EventTime = math.MaxInt64
	for name, b := range map[string]views.Batch{
		"nameless": {Windows: []codecs.Window{Window("N9", 0, 1), nameless}},
		"far":      {Windows: []codecs.Window{far}},
		"negative": {Windows: []codecs.Window{negative}},
		"endless":  {Windows: []codecs.Window{endless}},
		"never":    {Late: []codecs.Letter{never}},
		"dead":     {Dead: []codecs.Letter{never}},
	} {
		if err := s.Write(t.Context(), b); err == nil || views.Retryable(err) {
			t.Errorf("%s: want an error for good, got %v", name, err)
		}
	}
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 1)}})
	most := Window("N1", 1, 1)
	most.Count = views.MaxCount
	write(t, s, views.Batch{Windows: []codecs.Window{most}})
	want(t, "total_events", column(t, ask(t, s, views.Query{View: "aircraft_stats"}), "total_events"), []any{int64(views.MaxCount + 1)})
}

func cancels(t *testing.T, s views.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, views.Batch{Windows: []codecs.Window{Window("N1", 0, 1)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if _, err := s.Query(ctx, views.Query{View: "aircraft_stats"}); !errors.Is(err, context.Canceled) {
		t.Errorf("query: %v", err)
	}
	if err := s.Ping(ctx); err == nil {
		t.Error("ping answered")
	}
	write(t, s, views.Batch{Windows: []codecs.Window{Window("N1", 0, 2)}})
	want(t, "rows", len(ask(t, s, views.Query{View: "aircraft_stats"}).Rows), 1)
}

func closesTwice(t *testing.T, s views.Store) {
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Write(t.Context(), views.Batch{Windows: []codecs.Window{Window("N1", 0, 1)}}); err == nil {
		t.Error("a closed store took a row")
	}
}
