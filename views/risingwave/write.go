package risingwave

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// rowsAtOnce is the most rows of one statement: below what RisingWave takes as one atomic change (32 chunks of 1024).
const rowsAtOnce = 10_000

// maxStatementBytes ends a statement of large rows, far below what either database takes.
const maxStatementBytes = 32 << 20

// table is how rows get into one table.
type table struct {
	name    string
	columns []string // names
	types   []string // of the parameters, as arrays
	casts   []string // of the values, where they differ
}

var windowsTable = table{
	name: "windows",
	columns: []string{
		"registration_number", "window_definition", "window_anchor", "window_start", "window_kind", "window_end", "event_count",
		"event_types", "first_event_time", "last_event_time", "last_event_type", "aircraft_id", "revision", "final", "withdrawn",
	},
	types: []string{
		"varchar", "varchar", "timestamptz", "timestamptz", "varchar", "timestamptz", "bigint",
		"varchar", "timestamptz", "timestamptz", "varchar", "bigint", "bigint", "boolean", "boolean",
	},
	casts: []string{7: "jsonb", 14: ""},
}

var letterColumns = table{
	columns: []string{
		"source_topic", "source_partition", "source_offset", "reason", "detail", "event_time", "registration_number",
		"record_key", "payload", "payload_base64",
	},
	types: []string{"varchar", "integer", "bigint", "varchar", "varchar", "timestamptz", "varchar", "varchar", "varchar", "varchar"},
	casts: make([]string, 10),
}

const (
	// A row of the same revision is the same row: leaving it spares PostgreSQL a dead tuple per replayed row.
	windowConflict = "ON CONFLICT (registration_number, window_definition, window_anchor) DO UPDATE SET " +
		"window_start = excluded.window_start, window_kind = excluded.window_kind, window_end = excluded.window_end, " +
		"event_count = excluded.event_count, event_types = excluded.event_types, first_event_time = excluded.first_event_time, " +
		"last_event_time = excluded.last_event_time, last_event_type = excluded.last_event_type, aircraft_id = excluded.aircraft_id, " +
		"revision = excluded.revision, final = excluded.final, withdrawn = excluded.withdrawn " +
		"WHERE excluded.revision > windows.revision"
	letterConflict = "ON CONFLICT (source_topic, source_partition, source_offset) DO NOTHING"
)

// insert is the statement that unnests one array per column. Its text does not depend on the rows.
func (t table) insert(name, conflict string) string {
	names, unnested := make([]string, len(t.columns)), make([]string, len(t.columns))
	for i, column := range t.columns {
		names[i] = column
		if t.casts[i] != "" {
			names[i] = fmt.Sprintf("CAST(%s AS %s)", column, t.casts[i])
		}
		unnested[i] = fmt.Sprintf("unnest($%d::%s[]) AS %s", i+1, t.types[i], column)
	}
	return strings.TrimSpace(fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM (SELECT %s) AS incoming %s",
		name, strings.Join(t.columns, ", "), strings.Join(names, ", "), strings.Join(unnested, ", "), conflict))
}

// change is one statement with its arguments.
type change struct {
	text string
	args []any
}

// Write makes the batch durable.
func (s *Store) Write(ctx context.Context, b views.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	if err := b.Validate(); err != nil {
		return s.fault("write to", err)
	}
	f, err := s.flavour(ctx)
	if err != nil {
		return s.fault("write to", err)
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return s.fault("write to", err)
	}
	defer conn.Release()
	if err := f.write(ctx, conn.Conn(), f.changes(b.Latest())); err != nil {
		return s.fault(fmt.Sprintf("write %d rows to", b.Len()), err)
	}
	return nil
}

// write runs the changes: in RisingWave one by one and then FLUSH, on one connection, which keeps their order; in PostgreSQL
// as one transaction, which a single statement is by itself.
func (f *flavour) write(ctx context.Context, conn *pgx.Conn, changes []change) error {
	if f.flush {
		changes = append(changes, change{text: "FLUSH"})
	}
	run := func(db executor) error {
		for _, c := range changes {
			if _, err := db.Exec(ctx, c.text, c.args...); err != nil {
				return err
			}
		}
		return nil
	}
	if f.flush || len(changes) == 1 {
		return run(conn)
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return run(tx) })
}

// changes turns rows into statements.
func (f *flavour) changes(b views.Batch) []change {
	list := chunks(nil, b.Windows, len(windowsTable.columns), windowsTable.insert("windows", f.conflict), appendWindow)
	list = chunks(list, b.Late, len(letterColumns.columns), letterColumns.insert("late_events", f.ignore), appendLetter)
	return chunks(list, b.Dead, len(letterColumns.columns), letterColumns.insert("dead_letters", f.ignore), appendLetter)
}

// chunks adds as many statements as the rows need.
func chunks[R any](list []change, rows []R, columns int, text string, add func([]array, *R)) []change {
	if len(rows) == 0 {
		return list
	}
	arrays := make([]array, columns)
	for len(rows) > 0 {
		for i := range arrays {
			arrays[i].text = arrays[i].text[:0]
		}
		n := 0
		for ; n < len(rows) && n < rowsAtOnce && (n == 0 || size(arrays) < maxStatementBytes); n++ {
			add(arrays, &rows[n])
			if n == 0 && len(rows) > 1 {
				arrays = grown(arrays, min(len(rows), rowsAtOnce))
			}
		}
		args := make([]any, columns)
		for i := range arrays {
			args[i] = arrays[i].literal()
		}
		list = append(list, change{text, args})
		rows = rows[n:]
	}
	return list
}

// grown makes room for rows like the first one.
func grown(arrays []array, rows int) []array {
	for i := range arrays {
		first := len(arrays[i].text)
		arrays[i].text = slices.Grow(arrays[i].text, min(first*rows, maxStatementBytes))
	}
	return arrays
}

func size(arrays []array) (n int) {
	for i := range arrays {
		n += len(arrays[i].text)
	}
	return n
}

func appendWindow(a []array, w *codecs.Window) {
	a[0].string(w.Registration)
	a[1].string(w.Definition)
	a[2].time(w.Anchor())
	a[3].time(w.Start)
	a[4].string(w.Kind)
	a[5].time(w.End)
	a[6].int(w.Count)
	var types [128]byte
	a[7].bytes(views.AppendEventTypes(types[:0], w.Types))
	if w.Empty() {
		a[8].null()
		a[9].null()
		a[10].null()
	} else {
		a[8].time(w.First)
		a[9].time(w.Last)
		a[10].string(w.LastType)
	}
	if w.HasAircraftID {
		a[11].int(w.AircraftID)
	} else {
		a[11].null()
	}
	a[12].int(w.Revision)
	a[13].bool(w.Final)
	a[14].bool(w.Withdrawn)
}

func appendLetter(a []array, l *codecs.Letter) {
	r := views.Row(l)
	a[0].string(r.Topic)
	a[1].int(int64(r.Partition))
	a[2].int(r.Offset)
	a[3].string(r.Reason)
	a[4].string(r.Detail)
	if r.EventTime != nil {
		a[5].time(*r.EventTime)
	} else {
		a[5].null()
	}
	a[6].pointer(r.Registration)
	a[7].pointer(r.Key)
	a[8].pointer(r.Payload)
	a[9].pointer(r.PayloadBase64)
}

// array is an array literal being written: {1,NULL,"text"}, the form that both databases read.
type array struct {
	text []byte
	day  int64  // that date is of, in days since the epoch
	date []byte // of the last time written, up to its hours; most times of a batch are of few days
}

func (a *array) next() {
	if len(a.text) == 0 {
		a.text = append(a.text, '{')
		return
	}
	a.text = append(a.text, ',')
}

// literal ends the array.
func (a *array) literal() string {
	if len(a.text) == 0 {
		return "{}"
	}
	a.text = append(a.text, '}')
	return string(a.text)
}

func (a *array) null() { a.next(); a.text = append(a.text, "NULL"...) }

func (a *array) int(n int64) {
	a.next()
	a.text = strconv.AppendInt(a.text, n, 10)
}

func (a *array) bool(b bool) {
	a.next()
	a.text = strconv.AppendBool(a.text, b)
}

// time writes UTC with its zone, because RisingWave takes no time without one.
func (a *array) time(ms int64) {
	a.next()
	const perDay = 24 * 60 * 60 * 1000
	day, ofDay := ms/perDay, ms%perDay
	if ofDay < 0 {
		day, ofDay = day-1, ofDay+perDay
	}
	if day != a.day || a.date == nil {
		a.day, a.date = day, time.UnixMilli(ms).UTC().AppendFormat(a.date[:0], `"2006-01-02 `)
	}
	digits := func(n int64) (tens, ones byte) { return byte('0' + n/10), byte('0' + n%10) }
	h1, h0 := digits(ofDay / 3_600_000)
	m1, m0 := digits(ofDay / 60_000 % 60)
	s1, s0 := digits(ofDay / 1000 % 60)
	f1, f0 := digits(ofDay / 10 % 100)
	a.text = append(a.text, a.date...)
	a.text = append(a.text, h1, h0, ':', m1, m0, ':', s1, s0, '.', f1, f0, byte('0'+ofDay%10), 'Z', '"')
}

// string is always quoted, so that no text is taken for NULL or for an array.
func (a *array) string(s string) { quoted(a, views.CleanText(s)) }

// bytes is the same for text that is clean.
func (a *array) bytes(s []byte) { quoted(a, s) }

func quoted[T string | []byte](a *array, s T) {
	a.next()
	text := append(a.text, '"')
	done := 0
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			text = append(append(text, s[done:i]...), '\\')
			done = i
		}
	}
	a.text = append(append(text, s[done:]...), '"')
}

func (a *array) pointer(s *string) {
	if s == nil {
		a.null()
		return
	}
	a.string(*s)
}
