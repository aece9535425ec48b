package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

const (
	msPerHour = 60 * 60 * 1000
	msPerDay  = 24 * msPerHour
)

// floor is the beginning of the span that a moment is in.
func floor(ms, span int64) int64 { return ms - (ms%span+span)%span }

// past is what a row held before a write.
type past struct {
	there     bool
	revision  int64
	withdrawn bool
	end       int64
	count     int64
	first     sql.NullInt64
	last      sql.NullInt64
	lastType  sql.NullString
	aircraft  sql.NullInt64
}

func (p *past) counts() bool { return p.there && !p.withdrawn }

// sum is a change of a total. Extremes that may have come closer together cannot be told from a change: again asks for
// adding up the rows instead.
type sum struct {
	windows, events int64
	first, last     sql.NullInt64
	again           bool
}

// add takes a row's change from before to w.
func (s *sum) add(before *past, w *codecs.Window) {
	if before.counts() {
		s.windows--
		s.events -= before.count
		s.again = s.again || w.Withdrawn || before.first.Valid && (w.Empty() || w.First > before.first.Int64 || w.Last < before.last.Int64)
	}
	if w.Withdrawn {
		return
	}
	s.windows++
	s.events += w.Count
	if w.Empty() {
		return
	}
	if !s.first.Valid || w.First < s.first.Int64 {
		s.first = sql.NullInt64{Int64: w.First, Valid: true}
	}
	if !s.last.Valid || w.Last > s.last.Int64 {
		s.last = sql.NullInt64{Int64: w.Last, Valid: true}
	}
}

// aircraftSum is the change of an aircraft's totals over one definition, or of one day of it.
type aircraftSum struct {
	sum

	registration, definition string
	day                      int64
	hours                    []hourSum // of a day
	active                   int64     // change of the active hours
}

// hourSum is the change of the windows that start in an hour.
type hourSum struct {
	start, windows, events int64
	whole                  bool // no other window of the definition can start in it
}

// lastSum is the change of an aircraft's latest event.
type lastSum struct {
	registration string
	best         *codecs.Window // the latest of the rows written; nil without one
	again        bool
}

// fleetKey is a row of fleet_totals.
type fleetKey struct {
	definition  string
	span, start int64
}

type fleetSum struct{ aircraft, events int64 }

// totals gathers what a write changes in the tables that views add up from. Rows come ordered by aircraft, definition and
// anchor, as [views.Batch.Latest] orders them; so do the changes.
type totals struct {
	aircraft, days []aircraftSum
	lasts          []lastSum
	widths         map[string]int64
	fleet          map[fleetKey]fleetSum
}

func (t *totals) clear() {
	t.aircraft, t.days, t.lasts = t.aircraft[:0], t.days[:0], t.lasts[:0]
	if t.fleet == nil {
		t.fleet, t.widths = map[fleetKey]fleetSum{}, map[string]int64{}
	}
	clear(t.fleet)
	clear(t.widths)
}

// add takes the change of one row.
func (t *totals) add(before *past, w *codecs.Window) {
	if width, known := t.widths[w.Definition]; !known || w.End-w.Start < width {
		t.widths[w.Definition] = w.End - w.Start
	}
	t.addLast(before, w)
	tumbling := strings.HasPrefix(w.Definition, "tumbling:")
	if !tumbling && !strings.HasPrefix(w.Definition, "session:") {
		return
	}
	t.aircraft = extend(t.aircraft, w, 0)
	t.aircraft[len(t.aircraft)-1].add(before, w)
	if !tumbling {
		return
	}
	t.days = extend(t.days, w, floor(w.Start, msPerDay))
	t.days[len(t.days)-1].addHour(before, w)
}

// extend makes the last change the one of the window's aircraft, definition and day.
func extend(list []aircraftSum, w *codecs.Window, day int64) []aircraftSum {
	if n := len(list); n > 0 && list[n-1].registration == w.Registration && list[n-1].definition == w.Definition && list[n-1].day == day {
		return list
	}
	if n := len(list); n < cap(list) {
		hours := list[:n+1][n].hours[:0] // its memory
		return append(list, aircraftSum{registration: w.Registration, definition: w.Definition, day: day, hours: hours})
	}
	return append(list, aircraftSum{registration: w.Registration, definition: w.Definition, day: day})
}

func (s *aircraftSum) addHour(before *past, w *codecs.Window) {
	windows, events := s.windows, s.events
	s.add(before, w)
	start := floor(w.Start, msPerHour)
	if n := len(s.hours); n == 0 || s.hours[n-1].start != start {
		s.hours = append(s.hours, hourSum{start: start, whole: w.End-w.Start >= msPerHour})
	}
	hour := &s.hours[len(s.hours)-1]
	hour.windows += s.windows - windows
	hour.events += s.events - events
}

func (t *totals) addLast(before *past, w *codecs.Window) {
	if n := len(t.lasts); n == 0 || t.lasts[n-1].registration != w.Registration {
		t.lasts = append(t.lasts, lastSum{registration: w.Registration})
	}
	l := &t.lasts[len(t.lasts)-1]
	if before.counts() && before.last.Valid {
		last := before.last.Int64
		l.again = l.again || w.Withdrawn || w.Empty() || w.Last < last || w.Last == last && !before.sameLast(w)
	}
	if !w.Withdrawn && !w.Empty() && (l.best == nil || later(w, l.best)) {
		l.best = w
	}
}

// sameLast tells whether the row told the same of its latest event.
func (p *past) sameLast(w *codecs.Window) bool {
	return p.end == w.End && p.lastType.Valid && p.lastType.String == views.CleanText(w.LastType) &&
		p.aircraft.Valid == w.HasAircraftID && (!w.HasAircraftID || p.aircraft.Int64 == w.AircraftID)
}

// later tells whether a's latest event is the one to show.
func later(a, b *codecs.Window) bool {
	return cmp.Or(cmp.Compare(b.Last, a.Last), strings.Compare(a.Definition, b.Definition), cmp.Compare(a.End, b.End)) < 0
}

const pastColumns = "w.revision, w.withdrawn, w.window_end, w.event_count, w.first_event_time, w.last_event_time, w.last_event_type, w.aircraft_id"

// pastOf asks what rows held, by their place in the list of keys.
func pastOf(rows int) string {
	keys := make([]string, rows)
	for i := range keys {
		keys[i] = fmt.Sprintf("(%d, ?, ?, ?)", i)
	}
	return "WITH k (place, registration, definition, anchor) AS (VALUES " + strings.Join(keys, ", ") + ") SELECT k.place, " + pastColumns +
		" FROM k CROSS JOIN windows AS w ON w.registration_number = k.registration AND w.window_definition = k.definition AND w.window_anchor = k.anchor"
}

// changed is the rows that are not there yet in that revision, with their changes gathered.
func (s *Store) changed(ctx context.Context, tx *sql.Tx, rows []codecs.Window) ([]codecs.Window, error) {
	s.totals.clear()
	var news []codecs.Window
	pasts := make([]past, rowsAtOnce)
	for at := 0; at < len(rows); {
		chunk, stmt := rows[at:at+1], s.past.one
		if len(rows)-at >= rowsAtOnce {
			chunk, stmt = rows[at:at+rowsAtOnce], s.past.many
		}
		at += len(chunk)
		clear(pasts)
		if err := s.readPast(ctx, tx, stmt, chunk, pasts); err != nil {
			return nil, err
		}
		for i := range chunk {
			if pasts[i].there && chunk[i].Revision <= pasts[i].revision {
				continue
			}
			s.totals.add(&pasts[i], &chunk[i])
			news = append(news, chunk[i])
		}
	}
	return news, nil
}

func (s *Store) readPast(ctx context.Context, tx *sql.Tx, stmt *sql.Stmt, chunk []codecs.Window, pasts []past) error {
	args := s.past.args[:0]
	for i := range chunk {
		args = append(args, chunk[i].Registration, chunk[i].Definition, chunk[i].Anchor())
	}
	s.past.args = args
	bound := tx.StmtContext(ctx, stmt)
	defer bound.Close()
	found, err := bound.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var place int
		var p past
		if err := found.Scan(&place, &p.revision, &p.withdrawn, &p.end, &p.count, &p.first, &p.last, &p.lastType, &p.aircraft); err != nil {
			return err
		}
		p.there = true
		pasts[place] = p
	}
	return found.Err()
}

// The tables of totals, with how a change is put into them.
const (
	extremes = "first_event = coalesce(min(first_event, excluded.first_event), first_event, excluded.first_event), " +
		"last_event = coalesce(max(last_event, excluded.last_event), last_event, excluded.last_event)"
	aircraftColumns  = "registration_number, window_definition, windows, total_events, first_event, last_event"
	aircraftConflict = "(registration_number, window_definition) DO UPDATE SET windows = windows + excluded.windows, " +
		"total_events = total_events + excluded.total_events, " + extremes
	dayColumns  = "registration_number, window_definition, day, windows, active_hours, total_events, first_event, last_event"
	dayConflict = "(registration_number, window_definition, day) DO UPDATE SET windows = windows + excluded.windows, " +
		"active_hours = active_hours + excluded.active_hours, total_events = total_events + excluded.total_events, " + extremes
	fleetColumns  = "window_definition, span, start, aircraft, total_events"
	fleetConflict = "(window_definition, span, start) DO UPDATE SET aircraft = aircraft + excluded.aircraft, total_events = total_events + excluded.total_events"
	lastColumns   = "registration_number, window_definition, window_end, last_event_time, last_event_type, aircraft_id"
	lastConflict  = "(registration_number) DO UPDATE SET window_definition = excluded.window_definition, window_end = excluded.window_end, " +
		"last_event_time = excluded.last_event_time, last_event_type = excluded.last_event_type, aircraft_id = excluded.aircraft_id " +
		"WHERE excluded.last_event_time > last_event_time OR excluded.last_event_time = last_event_time AND " +
		"(excluded.window_definition, excluded.window_end) < (window_definition, window_end)"
	definitionColumns  = "window_definition, width"
	definitionConflict = "(window_definition) DO UPDATE SET width = excluded.width WHERE excluded.width < width"
)

// Adding up the rows again. Arguments are the key.
const (
	aircraftAgain = "UPDATE aircraft_totals SET (windows, total_events, first_event, last_event) = (" +
		"SELECT count(*), coalesce(sum(event_count), 0), min(first_event_time), max(last_event_time) FROM windows " +
		"WHERE registration_number = ?1 AND window_definition = ?2 AND NOT withdrawn) " +
		"WHERE registration_number = ?1 AND window_definition = ?2"
	dayAgain = "UPDATE day_totals SET (first_event, last_event) = (" +
		"SELECT min(first_event_time), max(last_event_time) FROM windows " +
		"WHERE registration_number = ?1 AND window_definition = ?2 AND window_anchor >= ?3 AND window_anchor < ?3 + 86400000 AND NOT withdrawn) " +
		"WHERE registration_number = ?1 AND window_definition = ?2 AND day = ?3"
	lastForget = "DELETE FROM last_events WHERE registration_number = ?1"
	lastAgain  = "INSERT INTO last_events (" + lastColumns + ") SELECT " + lastColumns + " FROM windows " +
		"WHERE registration_number = ?1 AND NOT withdrawn AND last_event_time IS NOT NULL " +
		"ORDER BY last_event_time DESC, window_definition, window_end LIMIT 1"
	windowsOfDay  = "SELECT windows FROM day_totals WHERE registration_number = ?1 AND window_definition = ?2 AND day = ?3"
	windowsOfHour = "SELECT count(*) FROM windows " +
		"WHERE registration_number = ?1 AND window_definition = ?2 AND window_anchor >= ?3 AND window_anchor < ?3 + 3600000 AND NOT withdrawn"
)

// putTotals brings the gathered changes into their tables; the rows have been written.
func (s *Store) putTotals(ctx context.Context, tx *sql.Tx) error {
	t := &s.totals
	for i := range t.days {
		if err := s.countFleet(ctx, tx, &t.days[i]); err != nil {
			return err
		}
	}
	err := putRows(ctx, tx, s.aircraft, t.aircraft, func(args []any, a *aircraftSum) []any {
		return append(args, a.registration, a.definition, a.windows, a.events, a.first, a.last)
	})
	if err == nil {
		err = putRows(ctx, tx, s.days, t.days, func(args []any, d *aircraftSum) []any {
			return append(args, d.registration, d.definition, d.day, d.windows, d.active, d.events, d.first, d.last)
		})
	}
	if err == nil {
		err = s.putLasts(ctx, tx)
	}
	if err == nil {
		err = s.putFleet(ctx, tx)
	}
	if err == nil {
		err = s.addAgain(ctx, tx)
	}
	return err
}

// countFleet adds a day of an aircraft to the totals over all. An aircraft is one more in a day or an hour when its first
// window there comes, and one less when its last is withdrawn.
func (s *Store) countFleet(ctx context.Context, tx *sql.Tx, d *aircraftSum) error {
	day := fleetKey{d.definition, msPerDay, d.day}
	sum := s.totals.fleet[day]
	sum.events += d.events
	if d.windows != 0 {
		before, err := s.number(ctx, tx, windowsOfDay, d.registration, d.definition, d.day)
		if err != nil {
			return err
		}
		sum.aircraft += sign(before+d.windows) - sign(before)
	}
	s.totals.fleet[day] = sum
	for _, h := range d.hours {
		change := h.windows
		if change != 0 && !h.whole {
			after, err := s.number(ctx, tx, windowsOfHour, d.registration, d.definition, h.start)
			if err != nil {
				return err
			}
			change = sign(after) - sign(after-h.windows)
		}
		d.active += change
		key := fleetKey{d.definition, msPerHour, h.start}
		sum := s.totals.fleet[key]
		s.totals.fleet[key] = fleetSum{sum.aircraft + change, sum.events + h.events}
	}
	return nil
}

func sign(n int64) int64 { return int64(cmp.Compare(n, 0)) }

func (s *Store) putLasts(ctx context.Context, tx *sql.Tx) error {
	best := s.best[:0]
	for i := range s.totals.lasts {
		if l := &s.totals.lasts[i]; l.best != nil && !l.again {
			best = append(best, l.best)
		}
	}
	s.best = best
	return putRows(ctx, tx, s.lasts, best, func(args []any, w **codecs.Window) []any {
		return append(args, (*w).Registration, (*w).Definition, (*w).End, (*w).Last, views.CleanText((*w).LastType),
			sql.NullInt64{Int64: (*w).AircraftID, Valid: (*w).HasAircraftID})
	})
}

func (s *Store) putFleet(ctx context.Context, tx *sql.Tx) error {
	type row struct {
		fleetKey
		fleetSum
	}
	var rows []row
	for key, sum := range s.totals.fleet {
		rows = append(rows, row{key, sum})
	}
	type width struct {
		definition string
		ms         int64
	}
	var widths []width
	for definition, ms := range s.totals.widths {
		widths = append(widths, width{definition, ms})
	}
	if err := putRows(ctx, tx, s.fleet, rows, func(args []any, r *row) []any {
		return append(args, r.definition, r.span, r.start, r.aircraft, r.events)
	}); err != nil {
		return err
	}
	return putRows(ctx, tx, s.definitions, widths, func(args []any, w *width) []any { return append(args, w.definition, w.ms) })
}

// addAgain adds up from the rows what a change could not tell.
func (s *Store) addAgain(ctx context.Context, tx *sql.Tx) error {
	t := &s.totals
	for i := range t.aircraft {
		if a := &t.aircraft[i]; a.again {
			if err := s.run(ctx, tx, aircraftAgain, a.registration, a.definition); err != nil {
				return err
			}
		}
	}
	for i := range t.days {
		if d := &t.days[i]; d.again {
			if err := s.run(ctx, tx, dayAgain, d.registration, d.definition, d.day); err != nil {
				return err
			}
		}
	}
	for i := range t.lasts {
		if l := &t.lasts[i]; l.again {
			if err := s.run(ctx, tx, lastForget, l.registration); err != nil {
				return err
			}
			if err := s.run(ctx, tx, lastAgain, l.registration); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareOnce prepares a statement that totals need now and then.
func (s *Store) prepareOnce(ctx context.Context, text string) error {
	if s.prepared[text] != nil {
		return nil
	}
	stmt, err := s.write.PrepareContext(ctx, text) //nolint:sqlclosecheck // it is kept as long as the store
	if err != nil {
		return fmt.Errorf("prepare %q: %w", text, err)
	}
	if s.prepared == nil {
		s.prepared = map[string]*sql.Stmt{}
	}
	s.prepared[text] = stmt
	return nil
}

func (s *Store) run(ctx context.Context, tx *sql.Tx, text string, args ...any) error {
	bound := tx.StmtContext(ctx, s.prepared[text])
	defer bound.Close()
	_, err := bound.ExecContext(ctx, args...)
	return err
}

// number is the one number of a statement; 0 without a row.
func (s *Store) number(ctx context.Context, tx *sql.Tx, text string, args ...any) (n int64, err error) {
	bound := tx.StmtContext(ctx, s.prepared[text])
	defer bound.Close()
	if err = bound.QueryRowContext(ctx, args...).Scan(&n); errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, err
}
