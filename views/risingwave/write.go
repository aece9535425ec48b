package risingwave

import (
	"context"
	"fmt"
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
	for len(rows) > 0 {
		arrays := make([]array, columns)
		for i := range arrays {
			arrays[i].text.Grow(min(len(rows), rowsAtOnce) * 16) // most values are a number, a short text or a time
		}
		n := 0
		for ; n < len(rows) && n < rowsAtOnce && (n == 0 || size(arrays) < maxStatementBytes); n++ {
			add(arrays, &rows[n])
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

func size(arrays []array) (n int) {
	for i := range arrays {
		n += arrays[i].text.Len()
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
	a[7].string(string(views.AppendEventTypes(nil, w.Types)))
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
type array struct{ text strings.Builder }

func (a *array) next() {
	if a.text.Len() == 0 {
		a.text.WriteByte('{')
		return
	}
	a.text.WriteByte(',')
}

// literal ends the array.
func (a *array) literal() string {
	if a.text.Len() == 0 {
		return "{}"
	}
	a.text.WriteByte('}')
	return a.text.String()
}

func (a *array) null() { a.next(); a.text.WriteString("NULL") }

func (a *array) int(n int64) {
	a.next()
	var digits [20]byte
	a.text.Write(strconv.AppendInt(digits[:0], n, 10))
}

func (a *array) bool(b bool) {
	a.next()
	if b {
		a.text.WriteString("true")
		return
	}
	a.text.WriteString("false")
}

// time writes UTC with its zone, because RisingWave takes no time without one.
func (a *array) time(ms int64) {
	a.next()
	var text [40]byte
	a.text.Write(time.UnixMilli(ms).UTC().AppendFormat(text[:0], `"2006-01-02 15:04:05.000Z"`))
}

// string is always quoted, so that no text is taken for NULL or for an array.
func (a *array) string(s string) {
	a.next()
	a.text.WriteByte('"')
	for s = views.CleanText(s); ; {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		a.text.WriteString(s[:i])
		a.text.WriteByte('\\')
		a.text.WriteByte(s[i])
		s = s[i+1:]
	}
	a.text.WriteString(s)
	a.text.WriteByte('"')
}

func (a *array) pointer(s *string) {
	if s == nil {
		a.null()
		return
	}
	a.string(*s)
}
