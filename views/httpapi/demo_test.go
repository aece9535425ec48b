package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// demo is a pipeline that never was: a week of made-up flights which arrive in steps, for the tests that look at the page.
type demo struct {
	*rig
	registry *fakeRegistry
	events   []demoEvent
	sent     int
	windows  map[string]*demoWindow
}

type demoEvent struct {
	registration, kind string
	at                 time.Time
}

type demoWindow struct {
	registration string
	start        time.Time
	count        int64
	types        map[string]int64
	last         demoEvent
}

// demoEvents is a week of departures and landings: more by day than by night, more for some aircraft than for others.
func demoEvents() []demoEvent {
	begin := instant("2013-01-01T05:00:00Z")
	var events []demoEvent
	seed := uint32(7)
	random := func(n int) int { seed = seed*1664525 + 1013904223; return int(seed>>8) % n }
	for day := range 7 {
		for flight := range 420 {
			hour := 9 + random(15) - random(5)*flight%3
			at := begin.Add(time.Duration(day*24+hour-5)*time.Hour + time.Duration(random(3600))*time.Second)
			registration := fmt.Sprintf("N%d%s", 101+random(6+flight/6), []string{"UA", "JB", "DL", "AA"}[flight%4])
			events = append(events, demoEvent{registration, "departed", at}, demoEvent{registration, "landed", at.Add(time.Duration(40+random(200)) * time.Minute)})
		}
	}
	slices.SortStableFunc(events, func(a, b demoEvent) int { return a.at.Compare(b.at) })
	return events
}

// step lets n further events arrive and be counted.
func (d *demo) step(n int) {
	for _, e := range d.events[d.sent:min(d.sent+n, len(d.events))] {
		start := e.at.Truncate(time.Hour)
		key := e.registration + start.String()
		w := d.windows[key]
		if w == nil {
			w = &demoWindow{registration: e.registration, start: start, types: map[string]int64{}}
			d.windows[key] = w
		}
		w.count++
		w.types[e.kind]++
		w.last = e
	}
	d.sent = min(d.sent+n, len(d.events))
	d.publish()
	d.clock.move(time.Second) // so that the next picture is not taken for fresh
}

func (d *demo) watermark() time.Time {
	return d.events[max(0, d.sent-1)].at.Add(-5 * time.Minute)
}

// publish puts what was counted where the API looks for it.
func (d *demo) publish() {
	mark := d.watermark()
	var windows [][]any
	hours := map[time.Time][]any{}
	stats := map[string][]any{}
	for _, w := range d.windows {
		end := w.start.Add(time.Hour)
		types, _ := json.Marshal(w.types)
		windows = append(windows, []any{
			w.registration, "tumbling:1h", "tumbling", w.start, end, w.count, string(types), w.last.at, w.last.at, w.last.kind, mark.After(end), 2 * w.count,
		})
		add(hours, w.start, []any{w.start, w.count, int64(1)}, nil)
		add(stats, w.registration, []any{w.registration, w.count, w.start, w.last.at}, func(old []any) {
			if w.last.at.After(old[3].(time.Time)) {
				old[3] = w.last.at
			}
		})
	}
	d.store.set("aircraft_windows", windows...)
	d.store.set("busiest_hours", values(hours)...)
	d.store.set("aircraft_stats", values(stats)...)
	d.pipeline.set(d.status(mark), nil)
}

// add sums the counts of rows with one key.
func add[K comparable](rows map[K][]any, key K, row []any, more func(old []any)) {
	old, ok := rows[key]
	if !ok {
		rows[key] = row
		return
	}
	old[1] = old[1].(int64) + row[1].(int64)
	if n, ok := old[2].(int64); ok {
		old[2] = n + 1
	}
	if more != nil {
		more(old)
	}
}

func values[K comparable](rows map[K][]any) [][]any {
	var out [][]any
	for _, row := range rows {
		out = append(out, row)
	}
	return out
}

func (d *demo) status(mark time.Time) Status {
	n := int64(d.sent)
	spread := func(total, lag int64, watermark int64) []Partition {
		parts := make([]Partition, 4)
		for i := range parts {
			share := total * int64(23+i*3) / 110
			behind := lag * int64(i+1) / 10
			parts[i] = Partition{ID: int32(i), Committed: max(0, share-behind), End: share, Lag: min(behind, share), Watermark: watermark}
		}
		return parts
	}
	lag := min(n/20, 90)
	if d.sent == len(d.events) {
		lag = 0
	}
	return Status{
		Topics: []Topic{
			{Name: "aircraft-events", Role: RoleInput, Reader: "aircraft-activity", Partitions: spread(n, lag, mark.UnixMilli())},
			{Name: "aircraft-activity-loop", Role: RoleLoop, Reader: "aircraft-activity", Partitions: spread(n*3/4, 0, Unknown)},
			{Name: "aircraft-activity-table", Role: RoleTable, Partitions: spread(n/2, 0, Unknown)},
			{Name: "aircraft-windows", Role: RoleOutput, Reader: "klgstream-sink", Partitions: spread(n*4/5, lag/3, Unknown)},
			{Name: "aircraft-events-late", Role: RoleLate, Partitions: spread(n/90, 0, Unknown)},
			{Name: "aircraft-events-dlq", Role: RoleDead, Partitions: spread(n/400, 0, Unknown)},
		},
		Totals: Totals{Counted: n - n/90, Late: n / 90, Dead: n / 400, Rekeyed: n * 3 / 4},
		Replay: &Replay{Source: "flights-2013-w1", Sent: n, Total: int64(len(d.events)), Done: d.sent == len(d.events)},
	}
}

func newDemo(r *rig, registry *fakeRegistry) *demo {
	d := &demo{rig: r, registry: registry, events: demoEvents(), windows: map[string]*demoWindow{}}
	hour := []views.Column{
		{Name: "hour", Type: views.Timestamp, Description: "hour"},
		{Name: "total_events", Type: views.Integer, Description: "events"},
		{Name: "aircraft", Type: views.Integer, Description: "aircraft"},
	}
	d.store.list = slices.Insert(d.store.list, 2, views.View{Name: "busiest_hours", Description: "Hours", Key: []string{"hour"}, Columns: hour})
	for i, reason := range []string{"not_json", "missing", "bad_timestamp", "not_json"} {
		payload := []any{`{"event_type":"departed","registration_number":"N101UA","timestamp":"yesterday"}`, nil}
		if reason == "not_json" {
			payload = []any{nil, "AAH/3q2+7yB0aGlzIGlzIG5vdCBKU09O"}
		}
		d.store.rows["dead_letters"] = append(d.store.rows["dead_letters"], append([]any{
			"aircraft-events", int64(i % 4), int64(1200 + i*37), reason, "decode event: timestamp \"yesterday\" is " + reason + "; correct it at the producer and send the event again", nil, nil, "N101UA",
		}, payload...))
	}
	for i := range 9 {
		at := d.events[i*40].at
		d.store.rows["late_events"] = append(d.store.rows["late_events"], []any{
			"aircraft-events", int64(i % 4), int64(2000 + i*91), "late", "window tumbling:1h closed before", at, d.events[i*40].registration, nil,
			`{"eventType":"landed","registrationNumber":"` + d.events[i*40].registration + `","timestamp":"` + at.Format(time.RFC3339) + `"}`, nil,
		})
	}
	for i := range 30 {
		name := fmt.Sprintf("N%dUA", 101+i*3)
		registry.known[name] = Aircraft{Registration: name, Type: []string{"B738", "A320", "E190", ""}[i%4], AircraftID: int64(i + 100), HasID: i%3 != 0, Revision: int64(1 + i%4), Created: d.events[i].at, Updated: d.events[i*7].at}
	}
	d.step(1)
	return d
}

// demoLive says that the newest window of an aircraft is open and one event ahead of the store.
type demoLive struct{ d **demo }

func (l demoLive) windows(registration string) []codecs.Window {
	var newest *demoWindow
	for _, w := range (*l.d).windows {
		if w.registration == registration && (newest == nil || w.start.After(newest.start)) {
			newest = w
		}
	}
	if newest == nil || strings.HasPrefix(registration, "X") {
		return nil
	}
	w := codecs.Window{
		Registration: registration, Definition: "tumbling:1h", Kind: "tumbling", Start: newest.start.UnixMilli(), End: newest.start.Add(time.Hour).UnixMilli(),
		Count: newest.count + 1, Revision: 2*newest.count + 2,
	}
	w.First, w.Last, w.LastType = newest.last.at.UnixMilli(), newest.last.at.UnixMilli(), "departed"
	w.Types = []codecs.TypeCount{{Type: "departed", Count: newest.count + 1}}
	return []codecs.Window{w}
}
