package chaos

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// outcome is a small round that went well: three events, one of them bad, in one window, on the topic and in the store.
type outcome struct {
	w     Workload
	defs  []definition
	truth *Truth
	topic []map[string]any
	dead  []logRecord
	late  []logRecord
	rows  []map[string]any
	boxes map[string][]map[string]any
}

func newOutcome(t *testing.T) *outcome {
	t.Helper()
	d, err := parseDefinition("tumbling:1m")
	if err != nil {
		t.Fatal(err)
	}
	input := []logRecord{
		{offset: 0, value: []byte(`{"event_type":"created","registration_number":"N1","aircraft_id":7,"timestamp":60000}`)},
		{offset: 1, value: []byte(`{"event_type":"landed","registration_number":"N1","aircraft_id":7,"timestamp":61000}`)},
		{offset: 2, value: []byte(`{`)},
	}
	window := func() map[string]any {
		return map[string]any{
			"registration_number": "N1", "window_definition": "tumbling:1m", "window_kind": "tumbling", "window_start": "1970-01-01T00:01:00Z",
			"window_end": "1970-01-01T00:02:00Z", "event_count": 2, "event_types": map[string]int{"created": 1, "landed": 1},
			"first_event_time": "1970-01-01T00:01:00Z", "last_event_time": "1970-01-01T00:01:01Z", "last_event_type": "landed",
			"aircraft_id": 7, "revision": 5, "final": true, "withdrawn": false,
		}
	}
	return &outcome{
		defs: []definition{d}, truth: newTruth(input, []definition{d}, nil),
		topic: []map[string]any{window()}, rows: []map[string]any{window()}, dead: []logRecord{deadLetter("aircraft-events", "2", "{")},
		boxes: map[string][]map[string]any{"dead_letters": {{
			"source_topic": "aircraft-events", "source_partition": 0, "source_offset": 2, "reason": "invalid", "payload": "{",
		}}},
	}
}

func deadLetter(topic, offset, value string) logRecord {
	return logRecord{value: []byte(value), headers: []logHeader{
		{"klg-reason", []byte("invalid")}, {"klg-source-topic", []byte(topic)}, {"klg-source-partition", []byte("0")}, {"klg-source-offset", []byte(offset)},
	}}
}

// violations are what both checks say, a minute after the window.
func (o *outcome) violations(t *testing.T) string {
	t.Helper()
	s := newShelf()
	for i, v := range o.topic {
		value, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s.put(&logRecord{offset: int64(i), key: []byte("tumbling:1m|60000|N1"), value: value})
	}
	flushed := (3 * time.Minute).Milliseconds()
	wrong := check(&o.w, o.defs, o.truth, s, o.late, o.dead, flushed)
	var pages []byte
	for view, rows := range map[string][]map[string]any{"aircraft_windows": o.rows, "dead_letters": o.boxes["dead_letters"], "late_events": o.boxes["late_events"]} {
		p, err := json.Marshal(map[string]any{"view": view, "rows": rows})
		if err != nil {
			t.Fatal(err)
		}
		pages = append(append(pages, p...), '\n')
	}
	stock, err := parseStock(pages)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(append(wrong, checkStock(&o.w, o.truth, stock, s, flushed)...))
}

// Whatever may be wrong with results, letters or the store is found, and nothing is found where nothing is wrong.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(o *outcome)
		want  string
	}{
		"nothing":               {func(*outcome) {}, "[]"},
		"no result":             {func(o *outcome) { o.topic = nil }, "lost: tumbling:1m|60000|N1: no result"},
		"one too few":           {func(o *outcome) { o.topic[0]["event_count"] = 1 }, "lost: tumbling:1m|60000|N1: 1 events"},
		"one too many":          {func(o *outcome) { o.topic[0]["event_count"] = 3 }, "doubled: tumbling:1m|60000|N1: 3 events"},
		"withdrawn":             {func(o *outcome) { o.topic[0]["withdrawn"] = true }, "lost: tumbling:1m|60000|N1: withdrawn"},
		"wrong types":           {func(o *outcome) { o.topic[0]["event_types"] = map[string]int{"created": 2} }, "wrong: tumbling:1m|60000|N1: types"},
		"wrong last type":       {func(o *outcome) { o.topic[0]["last_event_type"] = "created" }, "wrong: tumbling:1m|60000|N1: last type"},
		"wrong times":           {func(o *outcome) { o.topic[0]["last_event_time"] = nil }, "wrong: tumbling:1m|60000|N1: first and last"},
		"wrong end":             {func(o *outcome) { o.topic[0]["window_end"] = "1970-01-01T00:03:00Z" }, "wrong: tumbling:1m|60000|N1: span"},
		"wrong aircraft":        {func(o *outcome) { o.topic[0]["aircraft_id"] = nil }, "wrong: tumbling:1m|60000|N1: aircraft"},
		"not final":             {func(o *outcome) { o.topic[0]["final"] = false }, "unfinished: tumbling:1m|60000|N1: not final"},
		"another window":        {func(o *outcome) { o.topic[0]["registration_number"] = "N2" }, "extra: tumbling:1m|60000|N2"},
		"key of another":        {func(o *outcome) { o.topic[0]["registration_number"] = "N2" }, "foreign: output 0@0: key"},
		"no JSON":               {func(o *outcome) { o.topic[0]["event_count"] = "two" }, "foreign: output 0@0"},
		"one revision two ways": {func(o *outcome) { o.topic = append(o.topic, change(o.topic[0], "event_count", 1)) }, "contradiction"},
		"older behind newer":    {func(o *outcome) { o.topic = append(o.topic, change(o.topic[0], "revision", 4)) }, "stale: tumbling:1m|60000|N1: the last"},
		"final and goes on":     {func(o *outcome) { o.topic = append(o.topic, change(o.topic[0], "revision", 6)) }, "unfinished: tumbling:1m|60000|N1: final in revisions"},
		"no dead letter":        {func(o *outcome) { o.dead = nil }, "lost: 0@2: a dead letter is missing"},
		"good event dead": {func(o *outcome) {
			o.dead = append(o.dead, deadLetter("aircraft-events", "1", string(o.truth.all[coordinate{0, 1}])))
		}, "fate: 0@1: a good event is dead"},
		"bad event late":    {func(o *outcome) { o.late = o.dead }, "fate: 0@2: late, but it is no event"},
		"letter of another": {func(o *outcome) { o.dead = append(o.dead, deadLetter("elsewhere", "2", "{")) }, "foreign: dead 0@0: a letter of topic elsewhere"},
		"letter changed":    {func(o *outcome) { o.dead[0].value = []byte("[") }, "foreign: dead 0@0"},
		"counted late": {func(o *outcome) {
			o.late = []logRecord{deadLetter("aircraft-events", "1", string(o.truth.all[coordinate{0, 1}]))}
		}, "lost: 0@1: late, though"},
		"store: no row":          {func(o *outcome) { o.rows = nil }, "lost: store: tumbling:1m|60000|N1: no result"},
		"store: one too many":    {func(o *outcome) { o.rows[0]["event_count"] = 3 }, "doubled: store: tumbling:1m|60000|N1: 3 events"},
		"store: another row":     {func(o *outcome) { o.rows = append(o.rows, change(o.rows[0], "registration_number", "N2")) }, "extra: store: tumbling:1m|60000|N2"},
		"store: older":           {func(o *outcome) { o.rows[0]["revision"] = 4 }, "stale: store: tumbling:1m|60000|N1: revision 4"},
		"store: no dead letter":  {func(o *outcome) { o.boxes["dead_letters"] = nil }, "lost: store: 0@2"},
		"store: another payload": {func(o *outcome) { o.boxes["dead_letters"][0]["payload"] = "[" }, "foreign: store: 0@2"},
		"store: late":            {func(o *outcome) { o.boxes["late_events"] = o.boxes["dead_letters"] }, "fate: store: 0@2: late, but it is no event"},
	} {
		o := newOutcome(t)
		c.spoil(o)
		if got := o.violations(t); !strings.Contains(got, c.want) {
			t.Errorf("%s: found %s, want %s", name, got, c.want)
		}
	}
}

// change is a copy with one field changed.
func change(v map[string]any, field string, to any) map[string]any {
	out := map[string]any{field: to}
	for k, old := range v {
		if k != field {
			out[k] = old
		}
	}
	return out
}

// The last record of a key is its best.
func TestLastWordIsTheBest(t *testing.T) {
	t.Parallel()
	for want, revisions := range map[string][]int{"": {2, 3, 5}, "again": {3, 5, 3, 5}, "stale": {3, 5, 3}} {
		o := newOutcome(t)
		s := newShelf()
		for i, r := range revisions {
			value, err := json.Marshal(change(change(o.topic[0], "revision", r), "registration_number", "N1"))
			if err != nil {
				t.Fatal(err)
			}
			s.put(&logRecord{offset: int64(i), key: []byte("tumbling:1m|60000|N1"), value: value})
		}
		if stale := strings.Contains(fmt.Sprint(s.order()), "stale"); stale != (want == "stale") {
			t.Errorf("revisions %v: %v", revisions, s.order())
		}
	}
}

// A row of the store that goes back to an older revision is found, even if it comes forward again.
func TestRowThatRecedes(t *testing.T) {
	t.Parallel()
	at := func(revision int64) *stock {
		return &stock{best: map[windowID]*result{{"tumbling:1m", 60000, "N1"}: {Revision: revision}}}
	}
	p := &play{}
	for i, want := range []int{0, 0, 1, 0} {
		if got := p.receded(at([]int64{3, 5, 4, 6}[i])); len(got) != want {
			t.Errorf("look %d: %v", i, got)
		}
	}
}

// A schedule is read as it is written, faults of every kind.
func TestScheduleIsReadAsWritten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		for _, r := range []Round{
			NewRound(seed+firstClocked, 20), NewRound(seed+firstWider, 20), NewProcessRound(seed, 20), NewClockedRound(seed+firstWider, 20), NewClusterRound(seed, 20),
		} {
			back, err := ParseSchedule(r.Schedule.String())
			if err != nil || back.String() != r.Schedule.String() {
				t.Fatalf("%v:\n%s\nis read as\n%s", err, r.Schedule, back)
			}
			for _, f := range r.Schedule {
				if words[f.Kind] == "" {
					t.Fatalf("no words for %q", f.Kind)
				}
			}
		}
	}
	for _, bad := range []string{"kill", "x kill", "0 kill slot=x", "0 kill hold=1", "0 kill why=me"} {
		if _, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

// What the first seeds drew they draw still: a round that failed once can be run again.
func TestEarlySeedsDrawNoClocks(t *testing.T) {
	t.Parallel()
	for seed := range uint64(firstClocked / 10) {
		for _, f := range NewRound(seed, 20).Schedule {
			if f.Kind == StepClock {
				t.Fatalf("seed %d: %s", seed, f)
			}
		}
	}
}

// What a campaign draws for itself has every fault: one in ten had no clocks that step, and nothing that was added later.
func TestFreshSeedsDrawEverything(t *testing.T) {
	t.Parallel()
	for i := range int64(2_000_000) {
		if seed := FreshSeed(time.Unix(0, 1_790_000_000_000_000_000+i)); seed < firstWider || seed >= 1_000_000 {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A stepped clock tells another time of day, and measures as before.
func TestSteppedClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, by := range []time.Duration{0, time.Second, 11 * time.Hour, -11*time.Hour - time.Second} {
		later := Stepped(now, by)
		if got := later.UnixNano() - now.UnixNano(); got != int64(by) {
			t.Errorf("step by %v: the wall clock moved by %v", by, time.Duration(got))
		}
		if got := later.Sub(now); got != 0 {
			t.Errorf("step by %v: %v have passed", by, got)
		}
		if back := Stepped(later, -by); back != now {
			t.Errorf("step by %v and back: %v is %v", by, now, back)
		}
	}
}
