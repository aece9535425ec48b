package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Violation is one thing that is wrong with what came out.
type Violation struct {
	// Kind is what sort of wrong: lost, doubled, wrong, extra, unfinished, contradiction, fate, foreign, stale.
	Kind string
	// What says where, with both values.
	What string
}

// String names the kind and what it was found in.
func (v Violation) String() string { return v.Kind + ": " + v.What }

// result is one record of the output topic.
type result struct {
	Registration string           `json:"registration_number"`
	Definition   string           `json:"window_definition"`
	Kind         string           `json:"window_kind"`
	Start        time.Time        `json:"window_start"`
	End          time.Time        `json:"window_end"`
	Count        int64            `json:"event_count"`
	Types        map[string]int64 `json:"event_types"`
	First        *time.Time       `json:"first_event_time"`
	Last         *time.Time       `json:"last_event_time"`
	LastType     *string          `json:"last_event_type"`
	AircraftID   *int64           `json:"aircraft_id"`
	Revision     int64            `json:"revision"`
	Final        bool             `json:"final"`
	Withdrawn    bool             `json:"withdrawn"`
}

func (r *result) id() windowID {
	id := windowID{r.Definition, r.Start.UnixMilli(), r.Registration}
	if r.Kind == "cumulating" {
		id.anchor = r.End.UnixMilli()
	}
	return id
}

// shelf is what a store that keeps the highest revision makes of the output topic.
type shelf struct {
	best   map[windowID]*result
	values map[windowID]map[int64][]byte // every revision's bytes
	finals map[windowID][]int64          // distinct final revisions
	last   map[windowID]int64            // revision of the topic's last record
	wrong  []Violation
}

func newShelf() *shelf {
	return &shelf{
		best: make(map[windowID]*result), values: make(map[windowID]map[int64][]byte),
		finals: make(map[windowID][]int64),
		last:   make(map[windowID]int64),
	}
}

// put takes the next record.
func (s *shelf) put(r *logRecord) {
	var v result
	if err := json.Unmarshal(r.value, &v); err != nil {
		s.fault("foreign", "output %d@%d: %v", r.partition, r.offset, err)
		return
	}
	id := v.id()
	if id.String() != string(r.key) {
		s.fault("foreign", "output %d@%d: key %q, the record says %q", r.partition, r.offset, r.key, id)
	}
	s.compare(id, &v, r)
	if v.Final && !slices.Contains(s.finals[id], v.Revision) {
		s.finals[id] = append(s.finals[id], v.Revision)
	}
	s.last[id] = v.Revision
	if b := s.best[id]; b == nil || v.Revision > b.Revision {
		s.best[id] = &v
	}
}

// compare holds E8: one revision, one content.
func (s *shelf) compare(id windowID, v *result, r *logRecord) {
	of := s.values[id]
	if of == nil {
		of = make(map[int64][]byte)
		s.values[id] = of
	}
	if old, ok := of[v.Revision]; !ok {
		of[v.Revision] = r.value
	} else if !bytes.Equal(old, r.value) {
		s.fault("contradiction", "%s: revision %d was %s and is %s at %d@%d", id, v.Revision, old, r.value, r.partition, r.offset)
	}
}

func (s *shelf) fault(kind, format string, args ...any) {
	s.wrong = append(s.wrong, Violation{kind, fmt.Sprintf(format, args...)})
}

// letter is a late event or a dead letter as its topic has it.
type letter struct {
	reason string
	detail string
	at     coordinate
	topic  string
	value  []byte
}

// parseLetter reads the headers (X2).
func parseLetter(r *logRecord) (letter, error) {
	l := letter{value: r.value}
	var err error
	for _, h := range r.headers {
		switch h.key {
		case "klg-reason":
			l.reason = string(h.value)
		case "klg-detail":
			l.detail = string(h.value)
		case "klg-source-topic":
			l.topic = string(h.value)
		case "klg-source-partition":
			var n int64
			n, err = strconv.ParseInt(string(h.value), 10, 32)
			l.at.partition = int32(n)
		case "klg-source-offset":
			l.at.offset, err = strconv.ParseInt(string(h.value), 10, 64)
		}
		if err != nil {
			return l, err
		}
	}
	if l.reason == "" || l.topic == "" {
		return l, errors.New("no reason or no source")
	}
	return l, nil
}

// letters are the distinct letters of a topic.
func letters(records []logRecord, topic, input string, t *Truth) (map[coordinate]letter, []Violation) {
	out := make(map[coordinate]letter)
	var wrong []Violation
	for i := range records {
		r := &records[i]
		l, err := parseLetter(r)
		switch {
		case err != nil:
			wrong = append(wrong, Violation{"foreign", fmt.Sprintf("%s %d@%d: %v", topic, r.partition, r.offset, err)})
		case l.topic != input:
			wrong = append(wrong, Violation{"foreign", fmt.Sprintf("%s %d@%d: a letter of topic %s (%s)", topic, r.partition, r.offset, l.topic, l.reason)})
		case t.all[l.at] == nil && len(l.value) > 0 || !bytes.Equal(t.all[l.at], l.value):
			wrong = append(wrong, Violation{"foreign", fmt.Sprintf("%s %d@%d: %q is not what %s holds at %s: %q", topic, r.partition, r.offset, l.value, input, l.at, t.all[l.at])})
		}
		out[l.at] = l
	}
	return out, wrong
}

// check compares an outcome with the truth.
func check(w *Workload, definitions []definition, t *Truth, s *shelf, lateLog, deadLog []logRecord, flushed int64) []Violation {
	wrong := slices.Clone(s.wrong)
	late, faults := letters(lateLog, "late", w.input(), t)
	wrong = append(wrong, faults...)
	dead, faults := letters(deadLog, "dead", w.input(), t)
	wrong = append(wrong, faults...)
	wrong = append(wrong, fates(t, late, dead)...)
	if w.Mode == Tight {
		wrong = append(wrong, checkTight(w, &definitions[0], t, s, late)...)
	} else {
		wrong = append(wrong, checkExact(w, t, s, late, flushed)...)
	}
	wrong = append(wrong, s.order()...)
	slices.SortStableFunc(wrong, func(a, b Violation) int { return strings.Compare(a.Kind+a.What, b.Kind+b.What) })
	return slices.Compact(wrong)
}

// order is that a final revision is one and the last word, and that the last record of each key is its best, whoever wrote it: a
// former owner's that arrives behind it is overtaken in turn.
func (s *shelf) order() []Violation {
	var wrong []Violation
	for id, b := range s.best {
		if f := s.finals[id]; len(f) > 1 {
			wrong = append(wrong, Violation{"unfinished", fmt.Sprintf("%s: final in revisions %v", id, f)})
		} else if len(f) == 1 && f[0] != b.Revision {
			wrong = append(wrong, Violation{"unfinished", fmt.Sprintf("%s: final in revision %d, but %d followed", id, f[0], b.Revision)})
		}
		if last := s.last[id]; last != b.Revision {
			wrong = append(wrong, Violation{"stale", fmt.Sprintf("%s: the last record has revision %d, an earlier one %d", id, last, b.Revision)})
		}
	}
	return wrong
}

// fates is that each record has one: dead exactly if it cannot be decoded, late only if it can.
func fates(t *Truth, late, dead map[coordinate]letter) []Violation {
	var wrong []Violation
	for at, reason := range t.dead {
		l, ok := dead[at]
		if !ok {
			wrong = append(wrong, Violation{"lost", fmt.Sprintf("%s: a dead letter is missing: %q", at, t.all[at])})
		} else if reason != "" && l.reason != reason {
			wrong = append(wrong, Violation{"fate", fmt.Sprintf("%s: dead as %q, want %q", at, l.reason, reason)})
		}
	}
	for at, l := range dead {
		if _, ok := t.dead[at]; !ok {
			wrong = append(wrong, Violation{"fate", fmt.Sprintf("%s: a good event is dead as %q: %q", at, l.reason, l.value)})
		}
	}
	for at, l := range late {
		if t.where[at] == nil {
			wrong = append(wrong, Violation{"fate", fmt.Sprintf("%s: late, but it is no event: %q", at, l.value)})
		}
	}
	return wrong
}

// checkExact is X3.
func checkExact(w *Workload, t *Truth, s *shelf, late map[coordinate]letter, flushed int64) []Violation {
	var wrong []Violation
	for at, l := range late {
		wrong = append(wrong, Violation{"lost", fmt.Sprintf("%s: late, though it keeps within the bound: %s: %q", at, l.detail, l.value)})
	}
	lateness := w.Lateness.Milliseconds()
	for id, want := range t.windows {
		got := s.best[id]
		if w.OnClose && want.end-1 > flushed {
			continue // not over yet, whether it was published is a matter of mode
		}
		wrong = append(wrong, compareWindow(id, want, got, want.end-1+lateness <= flushed)...)
	}
	return append(wrong, s.extra(t)...)
}

// extra are windows that no event has.
func (s *shelf) extra(t *Truth) []Violation {
	var wrong []Violation
	for id, got := range s.best {
		if t.windows[id] == nil && !got.Withdrawn {
			wrong = append(wrong, Violation{"extra", fmt.Sprintf("%s: %d events in a window that has none", id, got.Count)})
		}
	}
	return wrong
}

// compareWindow is every field of one window.
func compareWindow(id windowID, want *tally, got *result, final bool) []Violation {
	if got == nil {
		return []Violation{{"lost", fmt.Sprintf("%s: no result, want %d events", id, want.count)}}
	}
	if got.Withdrawn {
		return []Violation{{"lost", fmt.Sprintf("%s: withdrawn, want %d events", id, want.count)}}
	}
	switch {
	case got.Count < want.count:
		return []Violation{{"lost", fmt.Sprintf("%s: %d events, want %d", id, got.Count, want.count)}}
	case got.Count > want.count:
		return []Violation{{"doubled", fmt.Sprintf("%s: %d events, want %d", id, got.Count, want.count)}}
	}
	var wrong []Violation
	differ := func(field string, got, want any) {
		wrong = append(wrong, Violation{"wrong", fmt.Sprintf("%s: %s %v, want %v", id, field, got, want)})
	}
	if !maps.Equal(got.Types, want.types) {
		differ("types", got.Types, want.types)
	}
	if got.End.UnixMilli() != want.end || got.Start.UnixMilli() != want.start {
		differ("span", []time.Time{got.Start, got.End}, []time.Time{time.UnixMilli(want.start).UTC(), time.UnixMilli(want.end).UTC()})
	}
	if got.First == nil || got.First.UnixMilli() != want.first || got.Last == nil || got.Last.UnixMilli() != want.last {
		differ("first and last event", []any{got.First, got.Last}, []int64{want.first, want.last})
	}
	if got.LastType == nil || *got.LastType != want.lastType {
		differ("last type", got.LastType, want.lastType)
	}
	if (got.AircraftID != nil) != want.hasID || want.hasID && *got.AircraftID != want.id {
		differ("aircraft", got.AircraftID, want.id)
	}
	if final && !got.Final {
		wrong = append(wrong, Violation{"unfinished", fmt.Sprintf("%s: not final after the flush", id)})
	}
	if !final && got.Final {
		wrong = append(wrong, Violation{"unfinished", fmt.Sprintf("%s: final before its end", id)})
	}
	return wrong
}

// checkTight is X4: what is not late is counted where it belongs, once.
func checkTight(w *Workload, d *definition, t *Truth, s *shelf, late map[coordinate]letter) []Violation {
	var counted []event
	for i := range t.events {
		if _, ok := late[t.events[i].at]; !ok {
			counted = append(counted, t.events[i])
		}
	}
	switch d.kind {
	case "session":
		return checkSessions(w, counted, s)
	case "tumbling":
		return checkCounts(w, d, counted, counted, s)
	}
	return checkShared(w, d, counted, s)
}

// checkCounts compares each window with the events that must be in it and those that may be.
func checkCounts(w *Workload, d *definition, must, may []event, s *shelf) []Violation {
	var wrong []Violation
	least, most := tallies(must, []definition{*d}), tallies(may, []definition{*d})
	for id, want := range least {
		got := s.best[id]
		if got == nil && w.OnClose && want.end > w.end() {
			continue
		}
		if got == nil || got.Count < want.count {
			wrong = append(wrong, Violation{"lost", fmt.Sprintf("%s: %d events, at least %d are not late", id, got.count(), want.count)})
		}
	}
	for id, got := range s.best {
		if most[id] == nil || got.Count > most[id].count {
			wrong = append(wrong, Violation{"doubled", fmt.Sprintf("%s: %d events, at most %d are not late", id, got.Count, most[id].number())})
		}
	}
	return wrong
}

// end is a time after all windows that the flush closes, and before that of the flush itself.
func (w *Workload) end() int64 { return epoch.Add(24 * time.Hour).UnixMilli() }

func (r *result) count() int64 {
	if r == nil {
		return 0
	}
	return r.Count
}

func (t *tally) number() int64 {
	if t == nil {
		return 0
	}
	return t.count
}

// checkShared is for windows that overlap: an event that is not late is at least in the one that closes last.
func checkShared(w *Workload, d *definition, counted []event, s *shelf) []Violation {
	wrong := checkCounts(w, d, nil, counted, s)
	sure := make(map[windowID]*tally)
	for i := range counted {
		spans := d.spans(counted[i].time)
		last := slices.MaxFunc(spans, func(a, b span) int { return int(a.end - b.end) })
		d.add(sure, last, &counted[i])
	}
	for id, want := range sure {
		got := s.best[id]
		if got == nil && w.OnClose && want.end > w.end() {
			continue
		}
		if got.count() < want.count {
			wrong = append(wrong, Violation{"lost", fmt.Sprintf("%s: %d events, %d belong nowhere later", id, got.count(), want.count)})
		}
	}
	return wrong
}

// checkSessions compares how many events each registration's sessions hold; which sessions there are is a matter of timing.
func checkSessions(w *Workload, counted []event, s *shelf) []Violation {
	want, got := make(map[string]int64), make(map[string]int64)
	for i := range counted {
		if !w.OnClose || counted[i].time < w.end() {
			want[counted[i].registration]++
		}
	}
	for _, r := range s.best {
		if !r.Withdrawn && (!w.OnClose || r.Start.UnixMilli() < w.end()) {
			got[r.Registration] += r.Count
		}
	}
	var wrong []Violation
	for name, n := range want {
		if got[name] < n {
			wrong = append(wrong, Violation{"lost", fmt.Sprintf("%s: %d events in its sessions, %d are not late", name, got[name], n)})
		}
	}
	for name, n := range got {
		if n > want[name] {
			wrong = append(wrong, Violation{"doubled", fmt.Sprintf("%s: %d events in its sessions, %d are not late", name, n, want[name])})
		}
	}
	return wrong
}
