package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// request is one call of Write that waits to be taken into a transaction.
type request struct {
	batch views.Batch
	done  chan error // one answer
}

// Write makes the batch durable. Whoever gets the turn takes every waiting batch into its transaction, so that many small
// writers share one sync of the disk.
func (s *Store) Write(ctx context.Context, b views.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	if err := b.Validate(); err != nil {
		return s.fault("write", err)
	}
	if err := ctx.Err(); err != nil {
		return s.fault("write", err)
	}
	r := &request{batch: b, done: make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, r)
	s.mu.Unlock()
	select {
	case <-s.turn:
		s.writeWaiting(context.WithoutCancel(ctx))
		s.turn <- struct{}{}
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if s.withdraw(r) {
			return s.fault("write", ctx.Err())
		}
	}
	return <-r.done
}

// withdraw takes the request back if nobody writes it yet.
func (s *Store) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.waiting)
	s.waiting = slices.DeleteFunc(s.waiting, func(w *request) bool { return w == r })
	return len(s.waiting) < before
}

// writeWaiting writes all that waits in one transaction. If rows are refused, each batch is tried alone, so that nobody
// gets the error of another's row.
func (s *Store) writeWaiting(ctx context.Context) {
	s.mu.Lock()
	requests := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	if len(requests) == 0 {
		return
	}
	var all views.Batch
	for _, r := range requests {
		all.Windows = append(all.Windows, r.batch.Windows...)
		all.Late = append(all.Late, r.batch.Late...)
		all.Dead = append(all.Dead, r.batch.Dead...)
	}
	err := s.transaction(ctx, all)
	for _, r := range requests {
		if err != nil && !views.Retryable(err) && len(requests) > 1 {
			r.done <- s.transaction(ctx, r.batch)
			continue
		}
		r.done <- err
	}
}

func (s *Store) transaction(ctx context.Context, b views.Batch) error {
	if err := s.prepare(ctx); err != nil {
		return s.fault("write", err)
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.fault("write", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing to roll back once committed
	if err := s.put(ctx, tx, b.Latest()); err != nil {
		return s.fault("write", err)
	}
	if err := tx.Commit(); err != nil {
		return s.fault("write", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, tx *sql.Tx, b views.Batch) error {
	windows, err := s.changed(ctx, tx, b.Windows)
	if err != nil {
		return fmt.Errorf("look for %d windows: %w", len(b.Windows), err)
	}
	if err := putRows(ctx, tx, s.windows, windows, appendWindow); err != nil {
		return fmt.Errorf("upsert %d windows: %w", len(windows), err)
	}
	if err := s.putTotals(ctx, tx); err != nil {
		return fmt.Errorf("add up %d windows: %w", len(windows), err)
	}
	if err := putRows(ctx, tx, s.late, b.Late, appendLetter); err != nil {
		return fmt.Errorf("upsert %d late events: %w", len(b.Late), err)
	}
	if err := putRows(ctx, tx, s.dead, b.Dead, appendLetter); err != nil {
		return fmt.Errorf("upsert %d dead letters: %w", len(b.Dead), err)
	}
	return nil
}

const (
	windowColumns = "registration_number, window_definition, window_anchor, window_start, window_kind, window_end, event_count, event_types, " +
		"first_event_time, last_event_time, last_event_type, aircraft_id, revision, final, withdrawn"
	windowConflict = "(registration_number, window_definition, window_anchor) DO UPDATE SET window_start = excluded.window_start, " +
		"window_kind = excluded.window_kind, window_end = excluded.window_end, event_count = excluded.event_count, " +
		"event_types = excluded.event_types, first_event_time = excluded.first_event_time, " +
		"last_event_time = excluded.last_event_time, last_event_type = excluded.last_event_type, " +
		"aircraft_id = excluded.aircraft_id, revision = excluded.revision, final = excluded.final, " +
		"withdrawn = excluded.withdrawn WHERE excluded.revision > windows.revision"
	letterColumns = "source_topic, source_partition, source_offset, reason, detail, event_time, registration_number, " +
		"record_key, payload, payload_base64"
	letterConflict = "(source_topic, source_partition, source_offset) DO NOTHING"
)

func appendWindow(args []any, w *codecs.Window) []any {
	var first, last, lastType, aircraft any // null of a window without events
	if !w.Empty() {
		first, last, lastType = w.First, w.Last, views.CleanText(w.LastType)
	}
	if w.HasAircraftID {
		aircraft = w.AircraftID
	}
	return append(args, views.CleanText(w.Registration), views.CleanText(w.Definition), w.Anchor(), w.Start, views.CleanText(w.Kind), w.End, w.Count,
		string(views.AppendEventTypes(nil, w.Types)), first, last, lastType, aircraft, w.Revision, w.Final, w.Withdrawn)
}

func appendLetter(args []any, l *codecs.Letter) []any {
	r := views.Row(l)
	return append(args, r.Topic, r.Partition, r.Offset, r.Reason, r.Detail, orNull(r.EventTime), orNull(r.Registration),
		orNull(r.Key), orNull(r.Payload), orNull(r.PayloadBase64))
}

func orNull[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// rowsAtOnce is how many rows one statement takes: enough to make its fixed cost small.
const rowsAtOnce = 64

// upsert is a table's prepared statements: for one row, and for rowsAtOnce.
type upsert struct {
	one, many *sql.Stmt
	args      []any // scratch
}

// prepare makes the statements when they are first needed; the caller has the turn.
func (s *Store) prepare(ctx context.Context) (err error) {
	for _, u := range []struct {
		to                       **upsert
		table, columns, conflict string
	}{
		{&s.windows, "windows", windowColumns, windowConflict},
		{&s.late, "late_events", letterColumns, letterConflict},
		{&s.dead, "dead_letters", letterColumns, letterConflict},
		{&s.aircraft, "aircraft_totals", aircraftColumns, aircraftConflict},
		{&s.days, "day_totals", dayColumns, dayConflict},
		{&s.lasts, "last_events", lastColumns, lastConflict},
		{&s.fleet, "fleet_totals", fleetColumns, fleetConflict},
		{&s.definitions, "definitions", definitionColumns, definitionConflict},
	} {
		if *u.to != nil {
			continue
		}
		if *u.to, err = s.prepareUpsert(ctx, u.table, u.columns, u.conflict); err != nil {
			return err
		}
	}
	if s.past == nil {
		if s.past, err = s.prepareBoth(ctx, pastOf); err != nil {
			return fmt.Errorf("prepare query of windows: %w", err)
		}
	}
	for _, text := range []string{aircraftAgain, dayAgain, lastForget, lastAgain, windowsOfDay, windowsOfHour} {
		if err := s.prepareOnce(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) prepareUpsert(ctx context.Context, table, columns, conflict string) (*upsert, error) {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", strings.Count(columns, ",")+1), ", ") + ")"
	text := func(rows int) string {
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s ON CONFLICT %s",
			table, columns, strings.TrimSuffix(strings.Repeat(row+", ", rows), ", "), conflict)
	}
	both, err := s.prepareBoth(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("prepare upsert into %q: %w", table, err)
	}
	return both, nil
}

// prepareBoth prepares a statement for one row, and for rowsAtOnce.
func (s *Store) prepareBoth(ctx context.Context, text func(rows int) string) (*upsert, error) {
	one, err := s.write.PrepareContext(ctx, text(1))
	if err != nil {
		return nil, err
	}
	many, err := s.write.PrepareContext(ctx, text(rowsAtOnce))
	if err != nil {
		return nil, errors.Join(err, one.Close()) //nolint:sqlclosecheck // otherwise it is kept as long as the store
	}
	return &upsert{one: one, many: many}, nil
}

// putRows upserts rows with the table's statements inside the transaction.
func putRows[R any](ctx context.Context, tx *sql.Tx, u *upsert, rows []R, args func([]any, *R) []any) error {
	one, many := tx.StmtContext(ctx, u.one), tx.StmtContext(ctx, u.many) //nolint:sqlclosecheck // closed in the next two lines
	defer one.Close()
	defer many.Close()
	for len(rows) > 0 {
		n, stmt := 1, one
		if len(rows) >= rowsAtOnce {
			n, stmt = rowsAtOnce, many
		}
		u.args = u.args[:0]
		for i := range rows[:n] {
			u.args = args(u.args, &rows[i])
		}
		if _, err := stmt.ExecContext(ctx, u.args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	clear(u.args)
	return nil
}
