package views

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Dialect is what a store's SQL differs in from the others' when a query becomes a statement.
type Dialect struct {
	// Placeholder is the n-th argument (from 1), as a value of type t.
	Placeholder func(n int, t Type) string
	// Argument is a value (string, int64, float64, bool or time.Time) as the driver takes it; nil leaves it as it is.
	Argument func(v any) any
	// Sortable is the quoted column as an expression that compares and sorts text by bytes; nil is the column itself.
	Sortable func(quoted string, t Type) string
}

// Select makes the statement for one page of the view: one row more than the page holds, so that [View.Page] can tell
// whether another follows. What is wrong with the query is a [*QueryError].
func (v View) Select(q Query, d Dialect) (text string, args []any, err error) {
	f := faults{view: v.Name}
	p := plan(v, q, &f)
	if err := f.err(); err != nil {
		return "", nil, err
	}
	w := statement{dialect: d}
	w.write("SELECT ")
	for i, c := range v.Columns {
		w.separate(i, ", ")
		w.write(quote(c.Name))
	}
	w.write(" FROM " + quote(v.Name))
	w.where(p)
	w.orderBy(p.order)
	w.write(" LIMIT " + strconv.Itoa(p.limit+1))
	return w.text.String(), w.args, nil
}

// Rows are the rows of a page as a store reads them, bounded in number by the statement and in bytes by [MaxPageBytes].
type Rows struct {
	list  [][]any
	bytes int
	cut   bool
}

// Add takes a row of driver values over, and tells whether there is room for another.
func (r *Rows) Add(row []any) bool {
	r.bytes += size(row)
	r.list = append(r.list, row)
	r.cut = r.bytes > MaxPageBytes && len(r.list) > 1 // a page has one row at least
	return !r.cut
}

// size is about how many bytes a row takes.
func size(row []any) int {
	n := 16 * len(row)
	for _, value := range row {
		switch x := value.(type) {
		case string:
			n += len(x)
		case []byte:
			n += len(x)
		case json.RawMessage:
			n += len(x)
		}
	}
	return n
}

// Bytes is about how many bytes the page takes in memory.
func (r Result) Bytes() (n int) {
	for _, row := range r.Rows {
		n += size(row)
	}
	return n
}

// PageOf is [View.Page] of rows that were added one by one: if they were too large together, the page ends before the last.
func (v View) PageOf(q Query, rows Rows) (Result, error) {
	if rows.cut {
		q.Limit = len(rows.list) - 1
	}
	return v.Page(q, rows.list)
}

// Page makes the result of what the statement of [View.Select] returned for the same query: driver values, one slice per
// row. It takes the slices over.
func (v View) Page(q Query, rows [][]any) (Result, error) {
	for _, row := range rows {
		for i := range row {
			value, err := v.Columns[i].value(row[i])
			if err != nil {
				return Result{}, fmt.Errorf("read view %q: %w", v.Name, err)
			}
			row[i] = value
		}
	}
	r := Result{View: v.Name, Columns: v.Columns, Rows: rows}
	limit := cmp.Or(q.Limit, DefaultLimit)
	if len(rows) <= limit {
		return r, nil
	}
	r.Rows = rows[:limit]
	order := v.totalOrder(q.Order)
	key := make([]any, len(order))
	for i, o := range order {
		at := slices.IndexFunc(v.Columns, func(c Column) bool { return c.Name == o.Column })
		key[i] = r.Rows[limit-1][at]
	}
	r.Next = encodeCursor(v.Name, order, key)
	return r, nil
}

// value brings what a driver returns for the column into the form that [Result.Rows] promises.
func (c Column) value(v any) (any, error) {
	if raw, ok := v.([]byte); ok {
		v = string(raw)
	}
	switch x := v.(type) {
	case nil:
		return nil, nil
	case int32:
		v = int64(x)
	case int16:
		v = int64(x)
	case float32:
		v = float64(x)
	}
	var out any
	switch c.Type {
	case Text:
		out = asType[string](v)
	case Integer:
		out = asType[int64](v)
	case Number:
		out = number(v)
	case Boolean:
		out = boolean(v)
	case Timestamp:
		out = timestamp(v)
	case JSON:
		if s, ok := v.(string); ok {
			out = json.RawMessage(s)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("column %q: want %s, not %T", c.Name, c.Type, v)
	}
	if n, ok := out.(float64); ok && (math.IsNaN(n) || math.IsInf(n, 0)) {
		return nil, nil
	}
	return out, nil
}

func asType[T any](v any) any {
	if x, ok := v.(T); ok {
		return x
	}
	return nil
}

func number(v any) any {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return asType[float64](v)
}

func boolean(v any) any {
	if n, ok := v.(int64); ok {
		return n != 0
	}
	return asType[bool](v)
}

func timestamp(v any) any {
	switch x := v.(type) {
	case int64:
		return time.UnixMilli(x).UTC()
	case time.Time:
		return x.UTC()
	}
	return nil
}

// selection is a query that was checked against its view.
type selection struct {
	conditions []condition
	order      []sortColumn
	after      []any // key of the row that the page follows; nil for the first page
	limit      int
}

type condition struct {
	column Column
	op     Op
	values []any
}

type sortColumn struct {
	Column
	desc bool
}

// plan checks the query against the view and reads its values.
func plan(v View, q Query, f *faults) selection {
	s := selection{limit: cmp.Or(q.Limit, DefaultLimit)}
	if s.limit < 1 || s.limit > MaxLimit {
		f.add("limit", strconv.Itoa(q.Limit), fmt.Sprintf("must be 1 to %d", MaxLimit), "ask for a smaller page and follow its cursor")
	}
	if len(q.Filters) > MaxFilters {
		f.add("filters", strconv.Itoa(len(q.Filters)), fmt.Sprintf("must be at most %d", MaxFilters), "put values of one column into one in filter")
	}
	for _, filter := range q.Filters[:min(len(q.Filters), MaxFilters)] {
		s.conditions = append(s.conditions, planFilter(v, filter, f))
	}
	s.order = planOrder(v, q.Order, f)
	if q.Cursor != "" && len(f.list) == 0 {
		after, err := decodeCursor(v.Name, s.order, q.Cursor)
		if err != nil {
			f.add("cursor", q.Cursor, err.Error(), "use the cursor of the page before, with the same view and order, or none to start over")
		}
		s.after = after
	}
	return s
}

func planFilter(v View, filter Filter, f *faults) condition {
	c, ok := v.Column(filter.Column)
	if !ok {
		f.add("column", filter.Column, fmt.Sprintf("view %q has no such column", v.Name), "use one of "+strings.Join(v.columnNames(), ", "))
		return condition{}
	}
	if !slices.Contains(Ops(), filter.Op) {
		f.add(filter.Column, string(filter.Op), "no such comparison", fmt.Sprintf("use one of %s", joinOps()))
		return condition{}
	}
	if len(filter.Value) > MaxValueBytes {
		f.add(filter.Column, filter.Value, fmt.Sprintf("%d bytes, must be at most %d", len(filter.Value), MaxValueBytes), "shorten it")
		return condition{}
	}
	cond := condition{column: c, op: filter.Op}
	for _, text := range filterValues(filter) {
		value, mend := c.parseFilter(filter.Op, text)
		if mend != "" {
			f.add(filter.Column, text, fmt.Sprintf("does not fit %s of type %s", filter.Op, c.Type), mend)
		}
		cond.values = append(cond.values, value)
	}
	if len(cond.values) > MaxInValues {
		f.add(filter.Column, filter.Value, fmt.Sprintf("%d values, must be at most %d", len(cond.values), MaxInValues), "ask in several queries")
	}
	return cond
}

func joinOps() string {
	ops := Ops()
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = string(op)
	}
	return strings.Join(names, ", ")
}

func filterValues(f Filter) []string {
	if f.Op == In {
		return strings.Split(f.Value, ",")
	}
	return []string{f.Value}
}

// parseFilter reads a filter's value; mend is not empty when it cannot be read.
func (c Column) parseFilter(op Op, text string) (value any, mend string) {
	switch {
	case op == Null:
		return Column{Type: Boolean}.parse(text)
	case c.Type == JSON:
		return nil, "json columns can only be filtered by null"
	case op == Prefix && c.Type != Text:
		return nil, "prefix is for text columns"
	}
	return c.parse(text)
}

// parse reads a value of the column's type; mend is not empty when it cannot be read.
func (c Column) parse(text string) (value any, mend string) {
	var err error
	switch c.Type {
	case Text:
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			mend = "write it in UTF-8 without NUL"
		}
		return text, mend
	case Integer:
		if value, err = strconv.ParseInt(text, 10, 64); err != nil {
			mend = "write a whole number of 64 bits, such as 42"
		}
	case Number:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			mend = "write a number, such as 0.5"
		}
		return n, mend
	case Boolean:
		if value, err = strconv.ParseBool(text); err != nil {
			mend = "write true or false"
		}
	case Timestamp:
		t, ok := parseTime(text)
		if !ok {
			mend = "write RFC 3339 such as 2013-01-01T10:00:00Z (in a URL, + is %2B), a date, or milliseconds since the epoch"
		}
		return t, mend
	case JSON:
		mend = "json has no order"
	}
	return value, mend
}

// parseTime reads a timestamp of a filter: years 1 to 9999, which every store can compare.
func parseTime(text string) (time.Time, bool) {
	t, ok := readTime(text)
	return t, ok && t.Year() >= 1 && t.Year() <= 9999
}

func readTime(text string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms).UTC(), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC().Truncate(time.Microsecond), true
		}
	}
	return time.Time{}, false
}

// totalOrder is the order asked for, or the view's own, with the key behind it.
func (v View) totalOrder(asked []Order) []Order {
	order := slices.Clone(asked)
	if len(order) == 0 {
		order = slices.Clone(v.Order)
	}
	for _, name := range v.Key {
		if !slices.ContainsFunc(order, func(o Order) bool { return o.Column == name }) {
			order = append(order, Order{Column: name})
		}
	}
	return order
}

func planOrder(v View, asked []Order, f *faults) []sortColumn {
	var order []sortColumn
	for _, o := range v.totalOrder(asked) {
		c, ok := v.Column(o.Column)
		switch {
		case !ok:
			f.add("order", o.Column, fmt.Sprintf("view %q has no such column", v.Name), "use some of "+strings.Join(v.columnNames(), ", "))
		case c.Type == JSON:
			f.add("order", o.Column, "json has no order", "order by another column")
		case slices.ContainsFunc(order, func(s sortColumn) bool { return s.Name == c.Name }):
			f.add("order", o.Column, "named twice", "name it once")
		}
		order = append(order, sortColumn{Column: c, desc: o.Desc})
	}
	return order
}

// cursor is what a page's cursor says: which view in which order, and the key of the last row shown.
type cursor struct {
	View  string    `json:"v"`
	Order string    `json:"o"`
	Key   []*string `json:"k"`
}

func orderText(order []Order) string {
	list := make([]string, len(order))
	for i, o := range order {
		list[i] = o.String()
	}
	return strings.Join(list, ",")
}

func encodeCursor(view string, order []Order, key []any) string {
	c := cursor{View: view, Order: orderText(order), Key: make([]*string, len(key))}
	for i, value := range key {
		c.Key[i] = cursorValue(value)
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings only
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func cursorValue(value any) *string {
	var s string
	switch x := value.(type) {
	case nil:
		return nil
	case string:
		s = x
	case int64:
		s = strconv.FormatInt(x, 10)
	case float64:
		s = strconv.FormatFloat(x, 'g', -1, 64)
	case bool:
		s = strconv.FormatBool(x)
	case time.Time:
		s = strconv.FormatInt(x.UnixMicro(), 10) // RFC 3339 ends with the year 9999, windows do not
	}
	return &s
}

// decodeCursor reads what encodeCursor wrote, trusting nothing: a cursor comes from outside.
func decodeCursor(view string, order []sortColumn, text string) ([]any, error) {
	if len(text) > MaxCursorBytes {
		return nil, fmt.Errorf("%d bytes, must be at most %d", len(text), MaxCursorBytes)
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("not a cursor: %w", err)
	}
	var c cursor
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("not a cursor: %w", err)
	}
	asked := make([]Order, len(order))
	for i, o := range order {
		asked[i] = Order{Column: o.Name, Desc: o.desc}
	}
	if c.View != view || c.Order != orderText(asked) || len(c.Key) != len(order) {
		return nil, fmt.Errorf("made for view %q ordered by %q, not for view %q ordered by %q", c.View, c.Order, view, orderText(asked))
	}
	key := make([]any, len(order))
	for i, o := range order {
		if c.Key[i] == nil && !o.Nullable {
			return nil, fmt.Errorf("column %q cannot be null", o.Name)
		}
		if c.Key[i] == nil {
			continue
		}
		value, err := o.parseKey(*c.Key[i])
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", o.Name, err)
		}
		key[i] = value
	}
	return key, nil
}

// parseKey reads a value that cursorValue wrote.
func (c Column) parseKey(text string) (any, error) {
	if c.Type == Timestamp {
		micros, err := strconv.ParseInt(text, 10, 64)
		if err != nil || micros < MinTime*1000 || micros > MaxTime*1000 {
			return nil, fmt.Errorf("not a moment: %.40q", text)
		}
		return time.UnixMicro(micros).UTC(), nil
	}
	value, mend := c.parse(text)
	if mend != "" {
		return nil, errors.New(mend)
	}
	return value, nil
}

// statement is SQL being written, with its arguments.
type statement struct {
	dialect Dialect
	text    strings.Builder
	args    []any
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func (w *statement) write(text string) { w.text.WriteString(text) }

func (w *statement) separate(i int, by string) {
	if i > 0 {
		w.write(by)
	}
}

// argument binds a value and writes its place.
func (w *statement) argument(c Column, value any) {
	if w.dialect.Argument != nil {
		value = w.dialect.Argument(value)
	}
	w.args = append(w.args, value)
	w.write(w.dialect.Placeholder(len(w.args), c.Type))
}

func (w *statement) sortable(c Column) string {
	if w.dialect.Sortable == nil {
		return quote(c.Name)
	}
	return w.dialect.Sortable(quote(c.Name), c.Type)
}

func (w *statement) where(s selection) {
	word := " WHERE "
	for _, c := range s.conditions {
		w.write(word)
		w.condition(c)
		word = " AND "
	}
	if s.after != nil {
		w.write(word)
		w.after(s)
	}
}

var operators = map[Op]string{Equal: " = ", NotEqual: " <> ", Less: " < ", LessOrEqual: " <= ", Greater: " > ", GreaterOrEqual: " >= "}

func (w *statement) condition(c condition) {
	name := quote(c.column.Name)
	switch c.op {
	case Null:
		w.write(name + " IS ")
		if c.values[0] == false {
			w.write("NOT ")
		}
		w.write("NULL")
	case In:
		w.write(name + " IN (")
		for i, value := range c.values {
			w.separate(i, ", ")
			w.argument(c.column, value)
		}
		w.write(")")
	case Prefix:
		w.prefix(c)
	case NotEqual:
		w.write("(" + name + " <> ")
		w.argument(c.column, c.values[0])
		w.write(" OR " + name + " IS NULL)")
	case Equal:
		w.write(name + " = ")
		w.argument(c.column, c.values[0])
	case Less, LessOrEqual, Greater, GreaterOrEqual:
		w.write(w.sortable(c.column) + operators[c.op])
		w.argument(c.column, c.values[0])
	}
}

// prefix is a range of texts, which an index can answer, rather than a pattern, which would need escapes.
func (w *statement) prefix(c condition) {
	text, _ := c.values[0].(string)
	w.write(w.sortable(c.column) + " >= ")
	w.argument(c.column, text)
	if end := successor(text); end != "" {
		w.write(" AND " + w.sortable(c.column) + " < ")
		w.argument(c.column, end)
	}
}

// successor is the least text behind every text that starts with prefix, by bytes; empty when there is none.
func successor(prefix string) string {
	for prefix != "" {
		r, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case r == utf8.MaxRune:
			continue
		case r+1 == 0xD800: // surrogates are no text
			r = 0xDFFF
		}
		return prefix + string(r+1)
	}
	return ""
}

// after keeps the rows behind the cursor's: (a > x) OR (a = x AND b > y) OR …, each column in its direction. A bound on
// the first column alone goes before it, so that an index on it is used.
func (w *statement) after(s selection) {
	first := s.order[0]
	if !first.Nullable {
		w.write(w.sortable(first.Column) + direction(first.desc) + "= ")
		w.argument(first.Column, s.after[0])
		w.write(" AND ")
	}
	w.write("(")
	alternatives := 0
	for i := range s.order {
		if s.after[i] == nil {
			continue // nulls come last: nothing is behind one
		}
		w.separate(alternatives, " OR ")
		alternatives++
		w.write("(")
		for j, o := range s.order[:i] {
			w.same(o, s.after[j])
			w.write(" AND ")
		}
		w.behind(s.order[i], s.after[i])
		w.write(")")
	}
	w.write(")")
}

func direction(desc bool) string {
	if desc {
		return " <"
	}
	return " >"
}

func (w *statement) same(o sortColumn, value any) {
	if value == nil {
		w.write(quote(o.Name) + " IS NULL")
		return
	}
	w.write(quote(o.Name) + " = ")
	w.argument(o.Column, value)
}

func (w *statement) behind(o sortColumn, value any) {
	if o.Nullable {
		w.write("(")
	}
	w.write(w.sortable(o.Column) + direction(o.desc) + " ")
	w.argument(o.Column, value)
	if o.Nullable {
		w.write(" OR " + quote(o.Name) + " IS NULL)")
	}
}

func (w *statement) orderBy(order []sortColumn) {
	w.write(" ORDER BY ")
	for i, o := range order {
		w.separate(i, ", ")
		w.write(w.sortable(o.Column))
		if o.desc {
			w.write(" DESC")
		}
		if o.Nullable {
			w.write(" NULLS LAST")
		}
	}
}
