package views

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ParseQuery reads a query for the view from the parameters of a URL and checks it:
//
//	registration_number=N14228            a filter for equality
//	window_start.ge=2013-01-01T10:00:00Z  column, dot, comparison (see [Ops])
//	window_kind.in=tumbling,session       a list of values
//	order=-event_count,window_start       columns to sort by, descending behind a minus
//	limit=500                             rows of a page
//	cursor=…                              where the page before ended
//
// A filter may be given several times; all of them hold. The error is a [*QueryError] with everything that is wrong.
func ParseQuery(v View, values url.Values) (Query, error) {
	q := Query{View: v.Name}
	f := faults{view: v.Name}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains(reserved, name) && len(values[name]) > 1 {
			f.add(name, strings.Join(values[name], " "), "given "+strconv.Itoa(len(values[name]))+" times", "give it once")
			continue
		}
		for _, value := range values[name] {
			q.parameter(name, value, &f)
		}
	}
	plan(v, q, &f)
	return q, f.err()
}

func (q *Query) parameter(name, value string, f *faults) {
	switch name {
	case "cursor":
		q.Cursor = value
	case "order":
		q.Order = parseOrder(value)
	case "limit":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			f.add("limit", value, "must be a whole number from 1 to "+strconv.Itoa(MaxLimit), "leave it out for "+strconv.Itoa(DefaultLimit))
			return
		}
		q.Limit = n
	default:
		column, op, found := strings.Cut(name, ".")
		if !found {
			op = string(Equal)
		}
		q.Filters = append(q.Filters, Filter{Column: column, Op: Op(op), Value: value})
	}
}
