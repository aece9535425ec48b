package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is an input record as the truth sees it.
type event struct {
	at           coordinate
	registration string
	kind         string
	time         int64
	id           int64
	hasID        bool
}

// coordinate is where a record lies in the input topic.
type coordinate struct {
	partition int32
	offset    int64
}

func (c coordinate) String() string { return fmt.Sprintf("%d@%d", c.partition, c.offset) }

// decode reads an event the slow and obvious way (X2).
func decode(data []byte) (event, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil || m == nil {
		return event{}, errors.Join(err, errors.New("not an object"))
	}
	var e event
	var err error
	if e.kind, err = text(m, 64, "event_type", "eventType"); err != nil {
		return e, err
	}
	if e.registration, err = text(m, 32, "registration_number", "registrationNumber"); err != nil {
		return e, err
	}
	if id, ok := member(m, "aircraft_id", "aircraftId"); ok && string(id) != "null" {
		e.hasID = true
		if err := json.Unmarshal(id, &e.id); err != nil {
			return e, err
		}
	}
	stamp, ok := member(m, "timestamp")
	if !ok {
		return e, errors.New("no timestamp")
	}
	e.time, err = moment(stamp)
	return e, err
}

func member(m map[string]json.RawMessage, names ...string) (json.RawMessage, bool) {
	for _, n := range names {
		if v, ok := m[n]; ok {
			return v, true
		}
	}
	return nil, false
}

func text(m map[string]json.RawMessage, limit int, names ...string) (string, error) {
	raw, ok := member(m, names...)
	if !ok {
		return "", fmt.Errorf("no %s", names[0])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", err
	}
	if names[0] == "registration_number" {
		s = strings.ToUpper(strings.TrimSpace(s))
	}
	if len(s) == 0 || len(s) > limit {
		return "", fmt.Errorf("%s of %d bytes", names[0], len(s))
	}
	return s, nil
}

// moment reads a timestamp as ms since the epoch.
func moment(raw json.RawMessage) (int64, error) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return 0, err
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("timestamp %q", s)
}

// definition is a window definition in the truth's own words, all in ms.
type definition struct {
	name, kind               string
	size, slide, gap, offset int64
}

// parseDefinition reads the definitions that workloads use: no zones.
func parseDefinition(name string) (definition, error) {
	kind, rest, _ := strings.Cut(name, ":")
	d := definition{name: name, kind: kind}
	rest, offset, _ := strings.Cut(rest, "+")
	first, second, _ := strings.Cut(rest, "/")
	fields := []struct {
		text string
		to   *int64
	}{{offset, &d.offset}}
	switch kind {
	case "tumbling":
		fields = append(fields, []struct {
			text string
			to   *int64
		}{{first, &d.size}, {first, &d.slide}}...)
	case "hopping":
		fields = append(fields, []struct {
			text string
			to   *int64
		}{{first, &d.size}, {second, &d.slide}}...)
	case "cumulating":
		fields = append(fields, []struct {
			text string
			to   *int64
		}{{first, &d.slide}, {second, &d.size}}...)
	case "session":
		fields = append(fields, struct {
			text string
			to   *int64
		}{first, &d.gap})
	default:
		return d, fmt.Errorf("parse window definition %q: unknown kind", name)
	}
	for _, f := range fields {
		if f.text == "" {
			continue
		}
		v, err := time.ParseDuration(f.text)
		if err != nil {
			return d, fmt.Errorf("parse window definition %q: %w", name, err)
		}
		*f.to = v.Milliseconds()
	}
	return d, nil
}

// span is a window, [start, end) in ms.
type span struct{ start, end int64 }

// spans are the windows of an event that is not counted in sessions.
func (d *definition) spans(t int64) []span {
	switch d.kind {
	case "tumbling", "hopping":
		var out []span
		for s := floor(t, d.slide, d.offset); s > t-d.size; s -= d.slide {
			out = append(out, span{s, s + d.size})
		}
		return out
	case "cumulating":
		var out []span
		start := floor(t, d.size, d.offset)
		for e := floor(t, d.slide, d.offset) + d.slide; e <= start+d.size; e += d.slide {
			out = append(out, span{start, e})
		}
		return out
	}
	return nil
}

// floor is the largest border at or before t.
func floor(t, step, offset int64) int64 {
	return int64(math.Floor(float64(t-offset)/float64(step)))*step + offset
}

// windowID names a window as the output topic's key does.
type windowID struct {
	definition   string
	anchor       int64
	registration string
}

func (w windowID) String() string {
	return fmt.Sprintf("%s|%d|%s", w.definition, w.anchor, w.registration)
}

// tally is what a window must say.
type tally struct {
	span
	count       int64
	types       map[string]int64
	first, last int64
	lastType    string
	id          int64
	hasID       bool
}

func (t *tally) add(e *event) {
	if t.types == nil {
		t.types = make(map[string]int64)
		t.first, t.last = math.MaxInt64, math.MinInt64
	}
	t.count++
	t.types[e.kind]++
	t.first = min(t.first, e.time)
	switch {
	case e.time > t.last:
		t.last, t.lastType, t.id, t.hasID = e.time, e.kind, e.id, e.hasID
	case e.time == t.last:
		t.lastType = max(t.lastType, e.kind)
		if e.hasID && (!t.hasID || e.id > t.id) {
			t.id, t.hasID = e.id, true
		}
	}
}

// Truth is what must come of an input log.
type Truth struct {
	events    []event               // that can be decoded and are where they may be
	dead      map[coordinate]string // reason known to the truth, or ""
	all       map[coordinate][]byte // every record's value
	where     map[coordinate]*event // of events
	windows   map[windowID]*tally   // of all events
	published int
}

// logRecord is one record read back from a topic.
type logRecord struct {
	partition  int32
	offset     int64
	producer   int64 // its id
	key, value []byte
	headers    []logHeader
}

type logHeader struct {
	key   string
	value []byte
}

// newTruth computes what must come of the input log (X1). home is the partition of a registration; nil if events may be anywhere.
func newTruth(input []logRecord, definitions []definition, home func(string) int32) *Truth {
	t := &Truth{
		dead: make(map[coordinate]string), all: make(map[coordinate][]byte), where: make(map[coordinate]*event),
		published: len(input),
	}
	for _, r := range input {
		at := coordinate{r.partition, r.offset}
		t.all[at] = r.value
		e, err := decode(r.value)
		switch {
		case err != nil:
			t.dead[at] = ""
		case home != nil && home(e.registration) != r.partition:
			t.dead[at] = "wrong_partition"
		default:
			e.at = at
			t.events = append(t.events, e)
		}
	}
	for i := range t.events {
		t.where[t.events[i].at] = &t.events[i]
	}
	t.windows = tallies(t.events, definitions)
	return t
}

// tallies counts events in all their windows.
func tallies(events []event, definitions []definition) map[windowID]*tally {
	out := make(map[windowID]*tally)
	for i := range definitions {
		d := &definitions[i]
		if d.kind == "session" {
			d.sessions(events, out)
			continue
		}
		for k := range events {
			for _, s := range d.spans(events[k].time) {
				d.add(out, s, &events[k])
			}
		}
	}
	return out
}

func (d *definition) add(out map[windowID]*tally, s span, e *event) {
	id := windowID{d.name, s.start, e.registration}
	if d.kind == "cumulating" {
		id.anchor = s.end
	}
	t := out[id]
	if t == nil {
		t = &tally{span: s}
		out[id] = t
	}
	t.add(e)
}

// sessions sorts each registration's events by time: a distance of at most the gap is one session.
func (d *definition) sessions(events []event, out map[windowID]*tally) {
	of := make(map[string][]*event)
	for i := range events {
		of[events[i].registration] = append(of[events[i].registration], &events[i])
	}
	for _, list := range of {
		slices.SortStableFunc(list, func(a, b *event) int { return int(a.time - b.time) })
		for len(list) > 0 {
			n := 1
			for n < len(list) && list[n].time-list[n-1].time <= d.gap {
				n++
			}
			s := span{list[0].time, list[n-1].time + d.gap}
			for _, e := range list[:n] {
				d.add(out, s, e)
			}
			list = list[n:]
		}
	}
}
