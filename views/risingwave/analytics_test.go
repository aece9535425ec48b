package risingwave_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
)

var rewrite = flag.Bool("rewrite", false, "accept what the analysts' queries answer and what the schema is now")

const analytics = "../../deploy/analytics"

// golden compares with a file, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(analytics, name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check(t, name+" (go test -rewrite accepts)", got, string(want))
}

// TestSchemaFiles keeps the scripts for people as Migrate makes it.
func TestSchemaFiles(t *testing.T) {
	for _, name := range []string{risingwave.RisingWave, risingwave.PostgreSQL} {
		script, err := risingwave.Schema(name)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "schema/"+name+".sql", script)
	}
}

// TestScriptsPassTheGuard reads what people run by hand.
func TestScriptsPassTheGuard(t *testing.T) {
	for _, name := range []string{"risingwave_source.sql", "risingwave_without_sink.sql", "aircraft_events.sql"} {
		text, err := os.ReadFile(filepath.Join(analytics, "events", name))
		if err != nil {
			t.Fatal(err)
		}
		list := risingwave.Statements(string(text))
		if len(list) == 0 {
			t.Errorf("%s has no statement", name)
		}
		for _, statement := range list {
			if err := guard(statement, nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestPsqlRunsTheSchema has psql run the script twice, and Migrate over it.
func TestPsqlRunsTheSchema(t *testing.T) {
	server := postgres(t)
	url := server.database(t)
	for range 2 {
		c := exec.CommandContext(t.Context(), filepath.Join(server.bin, "psql"), url, "-v", "ON_ERROR_STOP=1", "-q", "-f", filepath.Join(analytics, "schema/postgresql.sql"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := open(t, risingwave.Config{URL: url}).Migrate(t.Context()); err != nil {
		t.Error(err)
	}
}

// sqlBelow is the first SQL block below a heading.
func sqlBelow(text, heading string) string {
	_, text, _ = strings.Cut(text, heading)
	_, text, _ = strings.Cut(text, "```sql\n")
	text, _, _ = strings.Cut(text, "```")
	return text
}

// TestReadmeIsTrue holds the page for analysts to the answers, and has PostgreSQL take its example of a view
// and its account that can only read.
func TestReadmeIsTrue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(analytics, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	answers, err := filepath.Glob(filepath.Join(analytics, "queries/*.txt"))
	if err != nil || len(answers) < 10 {
		t.Fatalf("%d answers: %v", len(answers), err)
	}
	for _, file := range answers {
		if answer, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "```\n"+string(answer)+"```") {
			t.Errorf("the page has not the answer of %s (%v)", file, err)
		}
	}
	url := postgres(t).database(t)
	s := open(t, risingwave.Config{URL: url, Views: fstest.MapFS{"by_letter.sql": {Data: []byte(sqlBelow(string(text), "## Your own view"))}}})
	if err := s.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	owner := connect(t, url)
	if _, err := owner.Exec(t.Context(), sqlBelow(string(text), "## Connect")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := owner.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY analyst; DROP ROLE analyst"); err != nil {
			t.Error(err)
		}
	})
	analyst := connect(t, strings.Replace(url, "postgres@", "analyst@", 1))
	if _, err := analyst.Exec(t.Context(), "SELECT * FROM aircraft_windows"); err != nil {
		t.Errorf("an analyst reads: %v", err)
	}
	if _, err := analyst.Exec(t.Context(), "DELETE FROM windows"); err == nil {
		t.Error("an analyst may delete")
	}
	list, err := s.Views(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if !strings.Contains(string(text), "`"+v.Name+"`") && v.Name != "by_letter" {
			t.Errorf("the page does not name view %q", v.Name)
		}
	}
}

// week is the embedded week of real flights: events, and what was counted of them.
type week struct {
	events  []event
	windows []codecs.Window
	late    []codecs.Letter
}

type event struct {
	codecs.Event
	registration, kind, payload string
	fields                      map[string]any
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// realWeek reads the flights and puts them into the windows that Flink found, which the rest of the program is held to as well.
func realWeek(t *testing.T) *week {
	t.Helper()
	w := &week{}
	var decoder codecs.Decoder
	for line := range bytes.Lines(unzip(t, devstack.Flights())) {
		e := event{payload: string(bytes.TrimSpace(line))}
		if err := decoder.Decode(&e.Event, line); err != nil {
			t.Fatal(err)
		}
		e.registration, e.kind = string(e.Registration), string(e.Type)
		if err := json.Unmarshal(line, &e.fields); err != nil {
			t.Fatal(err)
		}
		w.events = append(w.events, e)
	}
	w.windows = append(w.aggregate(t, "tumbling_1h", "tumbling:1h", "tumbling"), w.aggregate(t, "session_30m", "session:30m", "session")...)
	for _, row := range expected(t, "late_bound5m_lateness0.events") {
		line := number(t, row[0])
		e := w.events[line-1]
		w.late = append(w.late, codecs.Letter{
			Reason: "late", Topic: "aircraft-events", Offset: line - 1, EventTime: e.Time, Registration: e.registration, Value: []byte(e.payload),
		})
	}
	return w
}

func expected(t *testing.T, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile("../../processors/window/testdata/expected-w1/" + name + ".csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(unzip(t, data))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// aggregate folds the events into the windows of one definition.
func (w *week) aggregate(t *testing.T, name, definition, kind string) (list []codecs.Window) {
	t.Helper()
	byAircraft := map[string][]*event{}
	for i := range w.events {
		byAircraft[w.events[i].registration] = append(byAircraft[w.events[i].registration], &w.events[i])
	}
	for _, row := range expected(t, name) {
		win := codecs.Window{
			Registration: row[0], Definition: definition, Kind: kind, Start: number(t, row[1]), End: number(t, row[2]), Count: number(t, row[3]),
		}
		for _, e := range byAircraft[win.Registration] {
			if e.Time >= win.Start && e.Time < win.End {
				e.Registration, e.Type = []byte(e.registration), []byte(e.kind) // the decoder's own bytes are used again
				win.Add(&e.Event, nil)
			}
		}
		win.Revision, win.Final = 2*win.Count+1, true
		list = append(list, win)
	}
	return list
}

// load puts the week into an empty database, with the view of the events.
func (w *week) load(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	s := open(t, risingwave.Config{URL: url})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), views.Batch{Windows: w.windows, Late: w.late}); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	for _, file := range []string{"postgresql_table.sql", "aircraft_events.sql"} {
		text, err := os.ReadFile(filepath.Join(analytics, "events", file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), string(text)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var rows [][]any
	for i, e := range w.events {
		rows = append(rows, []any{"0", fmt.Sprintf("%06d", i), e.payload})
	}
	if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"aircraft_events_source"}, []string{"source_partition", "source_offset", "payload"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestAnalystsQueries runs each query of deploy/analytics over the real week. Its answer is the file beside it; what can be
// told from the events alone is told so, too.
func TestAnalystsQueries(t *testing.T) {
	w := realWeek(t)
	conn := w.load(t, postgres(t).database(t))
	files, err := filepath.Glob(filepath.Join(analytics, "queries/*.sql"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d queries, want ten: %v", len(files), err)
	}
	answers := map[string][][]string{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := guard(string(text), nil); err != nil {
			t.Errorf("%s: RisingWave would refuse: %v", name, err)
		}
		answers[name] = answer(t, conn, string(text))
		golden(t, "queries/"+name+".txt", table(answers[name]))
	}
	w.checkBusiest(t, answers["02_busiest_hours"][1:])
	w.checkDelays(t, answers["04_delay_by_carrier"][1:])
	w.checkSums(t, answers)
}

// answer is the heads of the columns and the rows, as text.
func answer(t *testing.T, conn *pgx.Conn, text string) [][]string {
	t.Helper()
	rows, err := conn.Query(t.Context(), text, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var list [][]string
	var head []string
	for _, f := range rows.FieldDescriptions() {
		head = append(head, f.Name)
	}
	list = append(list, head)
	for rows.Next() {
		var row []string
		for _, value := range rows.RawValues() {
			row = append(row, string(value))
		}
		list = append(list, row)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return list
}

func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// checkBusiest counts events and aircraft per hour from the events.
func (w *week) checkBusiest(t *testing.T, rows [][]string) {
	t.Helper()
	events, aircraft := map[int64]int{}, map[int64]map[string]bool{}
	for _, e := range w.events {
		h := e.Time / 3_600_000
		events[h]++
		if aircraft[h] == nil {
			aircraft[h] = map[string]bool{}
		}
		aircraft[h][e.registration] = true
	}
	var hours []int64
	for h := range events {
		hours = append(hours, h)
	}
	slices.SortFunc(hours, func(a, b int64) int {
		if events[a] != events[b] {
			return events[b] - events[a]
		}
		return int(a - b)
	})
	for i, row := range rows {
		h := hours[i]
		check(t, "busiest hour", row, []string{
			time.UnixMilli(h * 3_600_000).UTC().Format("2006-01-02 15:04:05+00"), strconv.Itoa(events[h]), strconv.Itoa(len(aircraft[h])),
		})
	}
}

// checkDelays computes each carrier's delays from the events.
func (w *week) checkDelays(t *testing.T, rows [][]string) {
	t.Helper()
	delays := map[string][]float64{}
	for _, e := range w.events {
		if e.kind == "departed" {
			carrier := e.fields["flight"].(string)[:2]
			delays[carrier] = append(delays[carrier], e.fields["delay_min"].(float64))
		}
	}
	check(t, "carriers", len(rows), len(delays))
	for _, row := range rows {
		list := delays[row[0]]
		slices.Sort(list)
		sum := 0.0
		for _, d := range list {
			sum += d
		}
		middle := (list[(len(list)-1)/2] + list[len(list)/2]) / 2
		mean, err := strconv.ParseFloat(row[2], 64)
		if err != nil || mean-sum/float64(len(list)) > 0.05+1e-9 || sum/float64(len(list))-mean > 0.05+1e-9 {
			t.Errorf("mean delay of %s is %s, want %f", row[0], row[2], sum/float64(len(list)))
		}
		check(t, "delays of "+row[0], []string{row[1], row[3], row[4]}, []string{
			strconv.Itoa(len(list)), strconv.FormatFloat(middle, 'f', -1, 64), strconv.FormatFloat(list[len(list)-1], 'f', -1, 64),
		})
	}
}

// checkSums holds totals of several answers to totals of the events.
func (w *week) checkSums(t *testing.T, answers map[string][][]string) {
	t.Helper()
	sum := func(name string, column int) (n int64) {
		for _, row := range answers[name][1:] {
			n += number(t, row[column])
		}
		return n
	}
	count := func(keep func(e event) bool) (n int64) {
		for _, e := range w.events {
			if keep(e) {
				n++
			}
		}
		return n
	}
	check(t, "events in sessions", sum("05_session_lengths", 2), int64(len(w.events)))
	check(t, "sessions", sum("05_session_lengths", 1), int64(len(expected(t, "session_30m"))))
	check(t, "events of all days", sum("10_day_over_day", 1), int64(len(w.events)))
	check(t, "late events of all days", sum("06_late_rate", 2), int64(len(w.late)))
	check(t, "departures", sum("04_delay_by_carrier", 1), count(func(e event) bool { return e.kind == "departed" }))
	for _, row := range answers["08_busiest_routes"][1:] {
		check(t, "landings on "+row[0]+"-"+row[1], number(t, row[2]), count(func(e event) bool {
			return e.kind == "landed" && e.fields["origin"] == row[0] && e.fields["dest"] == row[1]
		}))
	}
	for _, row := range answers["07_cancellations"][1:] {
		check(t, "cancellations of "+row[0], number(t, row[1]), count(func(e event) bool { return e.kind == "cancelled" && e.registration == row[0] }))
	}
	for _, row := range answers["03_gone_quiet"][1:] {
		check(t, "events of quiet "+row[0], number(t, row[3]), count(func(e event) bool { return e.registration == row[0] }))
	}
	for _, row := range answers["01_utilisation"][1:] {
		hours := map[int64]bool{}
		events := count(func(e event) bool {
			mine := e.registration == row[0] && views.Time(e.Time).Format(time.DateOnly) == row[1][:10]
			if mine {
				hours[e.Time/3_600_000] = true
			}
			return mine
		})
		check(t, "utilisation of "+row[0], row[2:], []string{strconv.Itoa(len(hours)), strconv.FormatInt(events, 10)})
	}
}
