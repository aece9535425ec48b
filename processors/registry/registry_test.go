package registry

import (
	"fmt"
	"math"
	"testing"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// fold decodes and folds events of one registration and returns the state.
func fold(t *testing.T, values ...string) *State {
	t.Helper()
	var top topology
	var s State
	for _, v := range values {
		var e Event
		if err := top.Decode(&e, &engine.Record{Value: []byte(v)}); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		if string(top.Key(&e)) != "N1" {
			t.Fatalf("key %q", top.Key(&e))
		}
		if !top.Fold(&s, 0, &e) {
			t.Fatal("late")
		}
		// What is kept between two events is what the table holds.
		var back State
		if err := top.Parse(&back, top.Append(nil, &s), 0); err != nil {
			t.Fatal(err)
		}
		back.changed = s.changed
		s = back
	}
	return &s
}

func event(kind string, ms int, more string) string {
	return fmt.Sprintf(`{"event_type":%q,"registration_number":"n1","timestamp":%d%s}`, kind, 1_770_000_000_000+ms, more)
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		events   []string
		typ      string
		revision int64
		applied  []bool
	}{
		"created":               {[]string{event("created", 1, `,"aircraft_type":"A320","request_id":"a"`)}, "A320", 1, []bool{true}},
		"of two the first":      {[]string{event("created", 1, `,"aircraft_type":"A320","request_id":"a"`), event("created", 0, `,"aircraft_type":"B738","request_id":"b"`)}, "A320", 1, []bool{true, false}},
		"created by a stranger": {[]string{event("created", 1, ""), event("created", 2, `,"request_id":"b"`)}, "", 1, []bool{false}},
		"updated":               {[]string{event("created", 1, `,"aircraft_type":"A320"`), event("updated", 2, `,"aircraft_type":"B738","expected_revision":1,"request_id":"b"`)}, "B738", 2, []bool{true}},
		"of two updates":        {[]string{event("created", 1, ""), event("updated", 2, `,"aircraft_type":"B738","expected_revision":1,"request_id":"b"`), event("updated", 2, `,"aircraft_type":"E190","expected_revision":1,"request_id":"c"`)}, "B738", 2, []bool{true, false}},
		"update of nothing":     {[]string{event("updated", 2, `,"aircraft_type":"B738","request_id":"b"`)}, "", 0, []bool{false}},
		"stranger's update":     {[]string{event("updated", 2, `,"aircraft_type":"B738"`)}, "B738", 1, nil},
		"update without a type": {[]string{event("created", 1, `,"aircraft_type":"A320"`), event("updated", 2, "")}, "A320", 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fold(t, tt.events...)
			if s.Type != tt.typ || s.Revision != tt.revision || len(s.Decisions) != len(tt.applied) {
				t.Fatalf("%+v", s.Aircraft)
			}
			for i, ok := range tt.applied {
				if s.Decisions[i].Applied != ok {
					t.Errorf("decision %d: %+v", i, s.Decisions[i])
				}
			}
		})
	}
}

func TestDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	events := []string{event("created", 0, `,"request_id":"r0"`)}
	for i := 1; i <= 20; i++ {
		events = append(events, event("created", i, fmt.Sprintf(`,"request_id":"r%d"`, i)))
	}
	s := fold(t, events...)
	if n := len(s.Decisions); n != codecs.MaxDecisions || s.Decisions[0].Request != "r5" || s.Decisions[n-1].Request != "r20" {
		t.Errorf("%+v", s.Decisions)
	}
}

func TestOtherEventsAreSkipped(t *testing.T) {
	t.Parallel()
	var top topology
	for _, v := range []string{event("departed", 1, ""), "nonsense", `{}`, ""} {
		if err := top.Decode(new(Event), &engine.Record{Value: []byte(v)}); err != engine.ErrSkip { //nolint:errorlint // it is the contract
			t.Errorf("%q: %v", v, err)
		}
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	s := fold(t, event("created", 1, `,"aircraft_type":"A320","aircraft_id":7`))
	var top topology
	var got []string
	emit := func(key, value []byte) { got = append(got, string(key)+" "+string(value)) }
	top.Collect("N1", s, 0, emit)
	top.Collect("N1", s, 0, emit)
	top.Touch(s)
	top.Collect("N1", s, 0, emit)
	want := `N1 {"registration_number":"N1","aircraft_type":"A320","aircraft_id":7,"revision":1,"created_at":"2026-02-02T02:40:00.001Z","updated_at":"2026-02-02T02:40:00.001Z"}`
	if len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("%q", got)
	}
}

func TestJob(t *testing.T) {
	t.Parallel()
	job := New(Config{Input: "in", Late: "late", Dead: "dead"})
	if job.Group != Group || job.Output != Output || job.Input != "in" || job.Table() != "aircraft-registry-table" || job.Loop() != "aircraft-registry-loop" {
		t.Errorf("%+v", job)
	}
	if other := New(Config{Group: "g", Output: "o"}); other.Group != "g" || other.Output != "o" {
		t.Errorf("%+v", other)
	}
	top := job.New()
	var s State
	top.Advance("N1", &s, 1, nil)
	top.Settle(&s, 1)
	if !top.Idle(&s) || top.Due(&s) != math.MaxInt64 || top.Time(&Event{Event: codecs.Event{Time: 7}}) != 7 {
		t.Error("an aircraft has no windows")
	}
}

// Of two records of an aircraft the one of the higher revision is newer; what is no record is not.
func TestNewer(t *testing.T) {
	t.Parallel()
	record := func(revision int64) []byte { return appendAircraft(nil, "N1", &codecs.Aircraft{Revision: revision}) }
	var top topology
	for _, c := range []struct {
		a, b []byte
		want bool
	}{{record(5), record(4), true}, {record(4), record(5), false}, {record(4), record(4), false}, {nil, record(4), false}, {record(4), []byte("{"), false}} {
		if got := top.Newer(c.a, c.b); got != c.want {
			t.Errorf("%s is newer than %s: %v", c.a, c.b, got)
		}
	}
}
