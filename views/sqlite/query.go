package sqlite

import (
	"context"
	"errors"
	"strconv"
	"time"

	"klgstream.dev/views"
)

// dialect is what SQLite's statements differ in: numbered placeholders, and times as milliseconds.
var dialect = views.Dialect{
	Placeholder: func(n int, _ views.Type) string { return "?" + strconv.Itoa(n) },
	Argument:    argument,
}

// argument turns a moment into milliseconds; one between two milliseconds stays a fraction, which compares rightly.
func argument(v any) any {
	t, ok := v.(time.Time)
	if !ok {
		return v
	}
	if t.Nanosecond()%int(time.Millisecond) == 0 {
		return t.UnixMilli()
	}
	return float64(t.UnixMicro()) / 1000
}

// Query answers one page of a view.
func (s *Store) Query(ctx context.Context, q views.Query) (views.Result, error) {
	v, err := views.Find(s.shown, q.View)
	if err != nil {
		return views.Result{}, err
	}
	text, args, err := v.Select(q, dialect)
	if err != nil {
		return views.Result{}, err
	}
	rows, err := s.rows(ctx, len(v.Columns), text, args)
	if err != nil {
		return views.Result{}, s.fault("query view "+strconv.Quote(v.Name)+" of", err)
	}
	return v.PageOf(q, rows)
}

func (s *Store) rows(ctx context.Context, columns int, text string, args []any) (list views.Rows, err error) {
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return list, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row := make([]any, columns)
		into := make([]any, columns)
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return list, err
		}
		if !list.Add(row) {
			break
		}
	}
	return list, rows.Err()
}
