package views

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Limits of a query. Each bounds what an outsider can make a database do with one request.
const (
	DefaultLimit   = 100      // rows of a page when the query does not say
	MaxLimit       = 10_000   // most rows of a page
	MaxPageBytes   = 16 << 20 // about, of its texts; a page of more has fewer rows than its limit, and the next goes on
	MaxFilters     = 32       // most filters of a query
	MaxInValues    = 500      // most values of one in filter
	MaxValueBytes  = 4 << 10
	MaxCursorBytes = 16 << 10
)

// Query asks for one page of a view. The zero value of everything but View asks for its first [DefaultLimit] rows in the
// view's own order.
type Query struct {
	View    string   // name of the view
	Filters []Filter // all of them must hold
	Order   []Order  // most significant first; the view's key is always added, so that the order is total
	Limit   int      // rows of the page, 1 to [MaxLimit]; 0 is [DefaultLimit]
	Cursor  string   // [Result.Next] of the page before; empty for the first
}

// Op is how a filter compares a column with a value.
type Op string

// The comparisons. A row whose column is null matches [NotEqual] and [Null] only.
const (
	Equal          Op = "eq"
	NotEqual       Op = "ne"
	Less           Op = "lt"
	LessOrEqual    Op = "le"
	Greater        Op = "gt"
	GreaterOrEqual Op = "ge"
	In             Op = "in"     // the value is a list, separated by commas
	Prefix         Op = "prefix" // the column is text and starts with the value
	Null           Op = "null"   // the value is true or false
)

// Ops lists the comparisons there are.
func Ops() []Op {
	return []Op{Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, In, Prefix, Null}
}

// Filter keeps rows whose column compares with the value. The value is text, read as the column's type: a timestamp in
// RFC 3339 (a zone may miss: UTC), as a date, or in milliseconds since the epoch.
type Filter struct {
	Column string
	Op     Op
	Value  string
}

// Order is one column to sort by. Nulls come last either way.
type Order struct {
	Column string
	Desc   bool
}

// String is the order as [ParseQuery] reads it: the column, behind a minus if it descends.
func (o Order) String() string {
	if o.Desc {
		return "-" + o.Column
	}
	return o.Column
}

// Result is one page of a view.
type Result struct {
	View    string
	Columns []Column
	// Rows has one value per column: string, int64, float64, bool, time.Time (UTC), json.RawMessage, or nil.
	Rows [][]any
	// Next is the cursor of the page behind this one; empty when this is the last.
	Next string
}

// TimeLayout is how a timestamp is written in JSON: RFC 3339, UTC, milliseconds.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// MarshalJSON writes the page as {"view", "columns": [{"name", "type", …}], "rows": [{column: value}], "next"}, columns in
// their order, timestamps by [TimeLayout], next null on the last page.
func (r Result) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(struct {
		View    string   `json:"view"`
		Columns []Column `json:"columns"`
	}{r.View, r.Columns})
	if err != nil {
		return nil, fmt.Errorf("encode columns of view %q: %w", r.View, err)
	}
	var b bytes.Buffer
	b.Write(head[:len(head)-1])
	b.WriteString(`,"rows":[`)
	for i := range r.Rows {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := r.encodeRow(&b, i); err != nil {
			return nil, err
		}
	}
	b.WriteString(`],"next":`)
	if err := encodeValue(&b, nullIfEmpty(r.Next)); err != nil {
		return nil, err
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (r Result) encodeRow(b *bytes.Buffer, row int) error {
	b.WriteByte('{')
	for i, value := range r.Rows[row] {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "%q:", r.Columns[i].Name)
		if err := encodeValue(b, value); err != nil {
			return fmt.Errorf("encode row %d of view %q: column %q: %w", row, r.View, r.Columns[i].Name, err)
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeValue(b *bytes.Buffer, value any) error {
	if t, ok := value.(time.Time); ok {
		fmt.Fprintf(b, "%q", t.UTC().Format(TimeLayout))
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	b.Write(text)
	return nil
}

// Fault is one thing that is wrong with a query.
type Fault struct {
	Parameter string `json:"parameter"` // what of the query: "limit", "order", "cursor", or a column
	Value     string `json:"value"`     // what it was, clipped
	Reason    string `json:"reason"`    // what is wrong with it, and the limit
	Mend      string `json:"mend"`      // what to write instead
}

// String is the fault as a sentence.
func (f Fault) String() string {
	return fmt.Sprintf("%s %q: %s; %s", f.Parameter, f.Value, f.Reason, f.Mend)
}

// QueryError is everything that is wrong with a query. It is never retryable.
type QueryError struct {
	View   string
	Faults []Fault
}

// Error names the view and every fault.
func (e *QueryError) Error() string {
	faults := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		faults[i] = f.String()
	}
	return fmt.Sprintf("query view %q: %s", e.View, strings.Join(faults, "\n"))
}

// Retryable is false: the same query stays wrong.
func (e *QueryError) Retryable() bool { return false }

// faults gathers what is wrong with a query.
type faults struct {
	view string
	list []Fault
}

func (f *faults) add(parameter, value, reason, mend string) {
	const most = 64
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	f.list = append(f.list, Fault{Parameter: parameter, Value: value, Reason: reason, Mend: mend})
}

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return &QueryError{View: f.view, Faults: f.list}
}

// Validate tells everything that is wrong with the query for this view, as a [*QueryError].
func (q Query) Validate(v View) error {
	f := faults{view: v.Name}
	plan(v, q, &f)
	return f.err()
}
