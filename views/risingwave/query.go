package risingwave

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/views"
)

// Query answers one page of a view.
func (s *Store) Query(ctx context.Context, q views.Query) (views.Result, error) {
	f, err := s.flavour(ctx)
	if err != nil {
		return views.Result{}, s.fault("query", err)
	}
	v, err := views.Find(f.shown, q.View)
	if err != nil {
		return views.Result{}, err
	}
	text, args, err := v.Select(q, f.dialect)
	if err != nil {
		return views.Result{}, err
	}
	rows, err := s.rows(ctx, v, text, args)
	if err != nil {
		return views.Result{}, s.fault("query view "+strconv.Quote(v.Name)+" of", err)
	}
	return v.PageOf(q, rows)
}

// rows reads a statement's rows in binary form, which holds every moment; as text, years beyond 9999 cannot be read. Its
// parameters are single values, which RisingWave takes in binary form as well.
func (s *Store) rows(ctx context.Context, v views.View, text string, args []any) (list views.Rows, err error) {
	rows, err := s.pool.Query(ctx, text, append([]any{pgx.QueryExecModeDescribeExec}, args...)...)
	if err != nil {
		return list, err
	}
	defer rows.Close()
	for rows.Next() {
		cells := make([]any, len(v.Columns))
		for i, c := range v.Columns {
			cells[i] = cell(c.Type)
		}
		if err := rows.Scan(cells...); err != nil {
			return list, err
		}
		for i := range cells {
			cells[i] = content(cells[i])
		}
		if !list.Add(cells) {
			return list, nil // closing lets go of the rest
		}
	}
	return list, rows.Err()
}

// cell is where a column's value is read into: a pointer to a pointer, nil for null.
func cell(t views.Type) any {
	switch t {
	case views.Text:
		return new(*string)
	case views.Integer:
		return new(*int64)
	case views.Number:
		return new(*float64)
	case views.Boolean:
		return new(*bool)
	case views.Timestamp:
		return new(*time.Time)
	case views.JSON:
		return new(*json.RawMessage)
	}
	return new(any)
}

// content is what was read.
func content(cell any) any {
	switch p := cell.(type) {
	case **string:
		return value(*p)
	case **int64:
		return value(*p)
	case **float64:
		return value(*p)
	case **bool:
		return value(*p)
	case **time.Time:
		return value(*p)
	case **json.RawMessage:
		if *p == nil {
			return nil
		}
		return []byte(**p)
	}
	return nil
}

func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}
