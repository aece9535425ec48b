package codecs

import (
	"fmt"
	"strings"
	"testing"
)

func sampleAircraft() Aircraft {
	return Aircraft{
		Type: "B738", AircraftID: -7, HasAircraftID: true, Revision: 3, Created: 1_357_034_400_000, Updated: -1,
		Decisions: []Decision{{"a", true, 1}, {"b", false, 1}, {"c", true, 3}},
	}
}

func TestAircraftSurvivesItsRecord(t *testing.T) {
	t.Parallel()
	for _, a := range []Aircraft{{}, sampleAircraft(), {Revision: 1, Created: 5, Updated: 5}} {
		var back Aircraft
		if err := back.Parse(a.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(back) != fmt.Sprint(a) {
			t.Errorf("%v came back as %v", a, back)
		}
	}
}

func TestAircraftRefusals(t *testing.T) {
	t.Parallel()
	long := sampleAircraft()
	long.Type = strings.Repeat("x", MaxAircraftTypeBytes+1)
	many := Aircraft{}
	for range MaxDecisions + 1 {
		many.Decisions = append(many.Decisions, Decision{Request: "r"})
	}
	nameless := Aircraft{Decisions: []Decision{{Applied: true}}}
	whole := sampleAircraft()
	for name, data := range map[string][]byte{
		"truncated": whole.Append(nil)[:9], "type": long.Append(nil), "decisions": many.Append(nil), "request": nameless.Append(nil),
		"kind": {0x08, 1}, "decision kind": {0x32, 2, 0x08, 1},
	} {
		if err := new(Aircraft).Parse(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseChange(t *testing.T) {
	t.Parallel()
	str := func(s string) *string { return &s }
	for event, want := range map[string]Change{
		`{"event_type":"created","aircraft_type":"B738","request_id":"r1"}`:    {Type: str("B738"), Request: "r1"},
		`{"aircraft_type":"","expected_revision":4}`:                           {Type: str(""), Expected: 4},
		`{"aircraft_type":null}`:                                               {},
		`{"aircraft_type":7,"request_id":{},"expected_revision":"x"}`:          {},
		`{"expected_revision":-1}`:                                             {},
		`{"aircraft_type":"` + strings.Repeat("x", 65) + `","request_id":"r"}`: {Request: "r"},
		`{"request_id":"` + strings.Repeat("x", 65) + `"}`:                     {},
		`nonsense`: {},
	} {
		got := ParseChange([]byte(event))
		text := func(c Change) string {
			typ := "-"
			if c.Type != nil {
				typ = *c.Type
			}
			return fmt.Sprint(typ, c.Request, c.Expected)
		}
		if text(got) != text(want) {
			t.Errorf("%s: %s, want %s", event, text(got), text(want))
		}
	}
}

func FuzzAircraft(f *testing.F) {
	a := sampleAircraft()
	f.Add(a.Append(nil))
	f.Add([]byte{})
	f.Add([]byte{0x32, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b Aircraft
		if a.Parse(data) != nil {
			return
		}
		if err := b.Parse(a.Append(nil)); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%v came back as %v: %v", a, b, err)
		}
	})
}
