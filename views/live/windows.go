package live

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views/httpapi"
)

// Decode reads the open windows of a registration from its record of the group table.
type Decode func(registration string, record []byte) ([]codecs.Window, error)

// Windows are the windows that are still open.
type Windows struct {
	table  *Table
	decode Decode
}

var _ httpapi.Live = (*Windows)(nil)

// NewWindows reads open windows from a table; how, the processors' topology knows.
func NewWindows(table *Table, decode Decode) *Windows { return &Windows{table, decode} }

// AsOf implements httpapi.Live.
func (w *Windows) AsOf() time.Time { return w.table.AsOf() }

// Windows implements httpapi.Live.
func (w *Windows) Windows(_ context.Context, registration string) ([]codecs.Window, error) {
	if err := w.table.Ready(); err != nil {
		return nil, fmt.Errorf("%w: %w", httpapi.ErrUnavailable, err)
	}
	record := w.table.Find(registration)
	if record == nil {
		return nil, httpapi.ErrNotFound
	}
	out, err := w.decode(registration, record)
	if err != nil {
		return nil, fmt.Errorf("decode windows of %q: %w", registration, err)
	}
	slices.SortFunc(out, func(a, b codecs.Window) int {
		return cmp.Or(cmp.Compare(b.Start, a.Start), cmp.Compare(a.Definition, b.Definition), cmp.Compare(b.End, a.End))
	})
	return out, nil
}
