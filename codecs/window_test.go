package codecs

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// shadow is a window record as somebody else would declare it, read by encoding/json alone.
type shadow struct {
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

// window is what the shadow says.
func (s *shadow) window() Window {
	w := Window{
		Registration: s.Registration, Definition: s.Definition, Kind: s.Kind, Start: s.Start.UnixMilli(), End: s.End.UnixMilli(),
		Count: s.Count, Revision: s.Revision, Final: s.Final, Withdrawn: s.Withdrawn,
	}
	for name, n := range s.Types {
		w.addType(name, n)
	}
	if s.First != nil && s.Last != nil && s.LastType != nil {
		w.First, w.Last, w.LastType = s.First.UnixMilli(), s.Last.UnixMilli(), *s.LastType
	}
	if s.AircraftID != nil {
		w.AircraftID, w.HasAircraftID = *s.AircraftID, true
	}
	return w
}

// checkWindow holds a document to the rules: if it is accepted, encoding/json reads the same from it, and it is written
// and read back unchanged.
func checkWindow(t *testing.T, data []byte) (Window, error) {
	t.Helper()
	var w Window
	err := w.UnmarshalJSON(data)
	if reasonOf(t, err) != "" {
		return w, err
	}
	if !json.Valid(data) || !utf8.Valid(data) {
		t.Fatalf("accepted: %q", data)
	}
	if w.Start >= MinTime && w.End <= MaxTime && w.First >= MinTime && w.Last <= MaxTime { // what time.Time can parse
		var s shadow
		if err := json.Unmarshal(data, &s); err != nil && !strings.Contains(err.Error(), "case") {
			t.Fatalf("%v: %s", err, data)
		}
		if !foldedTwice(data) {
			equal(t, s.window(), w)
		}
	}
	again, text := Window{}, w.AppendJSON(nil)
	if err := again.Parse(text, new(Interner)); err != nil {
		t.Fatalf("cannot read %s: %v", text, err)
	}
	equal(t, w, again)
	return w, nil
}

// foldedTwice tells whether a document has two members that encoding/json takes for one, as it ignores case.
func foldedTwice(data []byte) bool {
	seen := map[string]bool{}
	for _, m := range membersOf(data) {
		name := strings.ToLower(strings.ToUpper(m.name))
		if seen[name] {
			return true
		}
		seen[name] = true
		for _, f := range windowFields {
			if strings.EqualFold(m.name, f) && m.name != f {
				return true
			}
		}
	}
	return false
}

func TestWindowRoundTrip(t *testing.T) {
	t.Parallel()
	for line := range strings.SplitSeq(string(fixture(t, "window.jsonl")), "\n") {
		if _, err := checkWindow(t, []byte(line)); err != nil {
			t.Error(err)
		}
	}
	// Reordered, spaced, escaped and with members of a newer writer (C5).
	odd := strings.Replace(string(fixture(t, "window.jsonl")), "{", `{ "newer" : {"a":[1,2]}, `, 1)
	odd, _, _ = strings.Cut(strings.Replace(odd, `"departed":2,"landed":1`, "\"\\u006canded\" :\t1 , \"departed\":\n2", 1), "\n{")
	w, err := checkWindow(t, []byte(odd))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, goldenWindow(), w)
}

func TestWindowRefuses(t *testing.T) {
	t.Parallel()
	golden, _, _ := strings.Cut(string(fixture(t, "window.jsonl")), "\n")
	tooMany := make([]string, MaxTypes+1)
	for i := range tooMany {
		tooMany[i] = fmt.Sprintf(`"t%02d":1`, i)
	}
	for _, tt := range []struct{ name, old, new, field, reason string }{
		{"no document", golden, "", "", ReasonNotJSON},
		{"null", golden, "null", "", ReasonWrongType},
		{"trailing text", golden, golden + "}", "", ReasonNotJSON},
		{"truncated", golden, golden[:len(golden)-1], "", ReasonNotJSON},
		{"truncated in the types", golden, golden[:strings.Index(golden, `"event_types":{`)+15], "", ReasonNotJSON},
		{"too large", golden, golden + strings.Repeat(" ", MaxWindowBytes), "", ReasonTooLarge},
		{"too deep", `"final"`, `"x":` + strings.Repeat("[", 1000) + `,"final"`, "", ReasonTooDeep},
		{"a name that is none", `"final"`, `final`, "", ReasonNotJSON},
		{"a name in bad UTF-8", `"final"`, "\"\xff\"", "", ReasonInvalidUTF8},
		{"no colon", `"final":`, `"final"`, "", ReasonNotJSON},
		{"missing", `"final":true,`, ``, "final", ReasonMissing},
		{"twice", `"final":true`, `"final":true,"final":true`, "final", ReasonDuplicateField},
		{"null where none may be", `"final":true`, `"final":null`, "final", ReasonWrongType},
		{"number for a bool", `"final":true`, `"final":1`, "final", ReasonWrongType},
		{"no value for a bool", `"final":true`, `"final":`, "", ReasonNotJSON},
		{"empty registration", `"N14228"`, `""`, "registration_number", ReasonEmpty},
		{"long registration", `"N14228"`, `"` + strings.Repeat("N", 33) + `"`, "registration_number", ReasonTooLong},
		{"number for a registration", `"N14228"`, `14228`, "registration_number", ReasonWrongType},
		{"no value for a registration", `"N14228"`, `,`, "", ReasonNotJSON},
		{"bad UTF-8 in a registration", `"N14228"`, "\"\xff\"", "", ReasonInvalidUTF8},
		{"long definition", `"tumbling:1h"`, `"` + strings.Repeat("x", 257) + `"`, "window_definition", ReasonTooLong},
		{"bar in a definition", `"tumbling:1h"`, `"a|b"`, "window_definition", ReasonOutOfRange},
		{"time without ms", `10:00:00.000Z`, `10:00:00Z`, "window_start", ReasonBadTimestamp},
		{"time as a number", `"2013-01-01T10:00:00.000Z"`, `1357034400000`, "window_start", ReasonWrongType},
		{"time in bad UTF-8", `"2013-01-01T10:00:00.000Z"`, "\"\xff\"", "", ReasonInvalidUTF8},
		{"end before start", `"2013-01-01T11:00:00.000Z"`, `"2013-01-01T09:00:00.000Z"`, "window_end", ReasonOutOfRange},
		{"empty window", `"2013-01-01T11:00:00.000Z"`, `"2013-01-01T10:00:00.000Z"`, "window_end", ReasonOutOfRange},
		{"last before first", `"2013-01-01T10:59:59.999Z"`, `"2013-01-01T10:17:10.983Z"`, "last_event_time", ReasonOutOfRange},
		{"fractional count", `"event_count":4`, `"event_count":4.0`, "event_count", ReasonWrongType},
		{"quoted count", `"event_count":4`, `"event_count":"4"`, "event_count", ReasonWrongType},
		{"negative count", `"event_count":4`, `"event_count":-1`, "event_count", ReasonOutOfRange},
		{"count beyond 64 bits", `"event_count":4`, `"event_count":9223372036854775808`, "event_count", ReasonOutOfRange},
		{"no value for a count", `"event_count":4`, `"event_count":`, "", ReasonNotJSON},
		{"types as an array", `{"cancelled":1,"departed":2,"landed":1}`, `[]`, "event_types", ReasonWrongType},
		{"type counted 0 times", `"cancelled":1`, `"cancelled":0`, "event_types", ReasonOutOfRange},
		{"type counted twice", `"cancelled":1`, `"landed":1`, "event_types", ReasonDuplicateField},
		{"first type counted twice", `"departed":2`, `"cancelled":2`, "event_types", ReasonDuplicateField},
		{"type without a name", `"cancelled":1`, `"":1`, "event_types", ReasonTooLong},
		{"type with a long name", `"cancelled":1`, `"` + strings.Repeat("x", 65) + `":1`, "event_types", ReasonTooLong},
		{"65 types", `"cancelled":1,"departed":2,"landed":1`, strings.Join(tooMany, ","), "event_types", ReasonTooLong},
		{"66 types", `"cancelled":1,"departed":2,"landed":1`, `"other":1,"zz":1,` + strings.Join(tooMany[1:], ","), "event_types", ReasonTooLong},
		{"no types", `{"cancelled":1,"departed":2,"landed":1}`, `{}`, "event_types", ReasonOutOfRange},
		{"times of no events", `"first_event_time":"2013-01-01T10:17:10.984Z"`, `"first_event_time":null`, "event_types", ReasonOutOfRange},
		{"last time of no events", `"last_event_time":"2013-01-01T10:59:59.999Z"`, `"last_event_time":null`, "event_types", ReasonOutOfRange},
		{"last type of no events", `"last_event_type":"landed"`, `"last_event_type":null`, "event_types", ReasonOutOfRange},
		{"fractional id", `"aircraft_id":178`, `"aircraft_id":1e2`, "aircraft_id", ReasonWrongType},
		{"negative revision", `"revision":9`, `"revision":-9`, "revision", ReasonOutOfRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := strings.Replace(golden, tt.old, tt.new, 1)
			if data == golden {
				t.Fatal("nothing was replaced")
			}
			_, err := checkWindow(t, []byte(data))
			if got := reasonOf(t, err); got != tt.reason {
				t.Fatalf("reason %q, want %q: %v", got, tt.reason, err)
			}
			if f := err.(*FieldError); f.Field != tt.field { //nolint:errorlint // Parse gives a bare *FieldError
				t.Errorf("field %q, want %q", f.Field, tt.field)
			}
		})
	}
}

// A window without events has no aircraft either.
func TestEmptyWindowWithID(t *testing.T) {
	t.Parallel()
	_, empty, _ := strings.Cut(string(fixture(t, "window.jsonl")), "\n")
	for _, change := range []string{`"aircraft_id":1`, `"first_event_time":"2013-01-01T10:17:10.984Z"`, `"last_event_type":"landed"`} {
		name, _, _ := strings.Cut(change, ":")
		if _, err := checkWindow(t, []byte(strings.Replace(empty, name+":null", change, 1))); reasonOf(t, err) != ReasonOutOfRange {
			t.Errorf("%s: %v", change, err)
		}
	}
	if _, err := checkWindow(t, []byte(empty)); err != nil {
		t.Error(err)
	}
}

// A part of a record is no record, and no cut is misread.
func TestWindowPrefixes(t *testing.T) {
	t.Parallel()
	golden, _, _ := strings.Cut(string(fixture(t, "window.jsonl")), "\n")
	for n := range golden {
		if _, err := checkWindow(t, []byte(golden[:n])); err == nil {
			t.Errorf("%d bytes pass for the whole", n)
		}
	}
}

// The order of members means nothing.
func TestWindowInReverse(t *testing.T) {
	t.Parallel()
	w := goldenWindow()
	w.Revision = 0
	members := membersOf(w.AppendJSON(nil))
	slices.Reverse(members)
	reversed := []byte("{")
	for i, m := range members {
		if i > 0 {
			reversed = append(reversed, ',')
		}
		reversed = append(append(appendString(reversed, m.name), ':'), m.value...)
	}
	got, err := checkWindow(t, append(reversed, '}'))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, w, got)
}

// Exactly 64 types and "other" are accepted: as many as an Aggregate makes.
func TestWindowWithAllTypes(t *testing.T) {
	t.Parallel()
	w := goldenWindow()
	for i := range 200 {
		w.Add(event(w.First, fmt.Sprintf("x%03d", i), 1), nil)
	}
	if _, err := checkWindow(t, w.AppendJSON(nil)); err != nil || len(w.Types) != MaxTypes+1 {
		t.Errorf("%d types: %v", len(w.Types), err)
	}
}

func TestWindowThroughEncodingJSON(t *testing.T) {
	t.Parallel()
	var all []Window
	lines := strings.ReplaceAll(string(fixture(t, "window.jsonl")), "\n", ",")
	if err := json.Unmarshal([]byte("["+lines+"]"), &all); err != nil || len(all) != 2 {
		t.Fatal(err, len(all))
	}
	equal(t, goldenWindow(), all[0])
}

func TestWindowAppendDoesNotAllocate(t *testing.T) {
	w := goldenWindow()
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = w.AppendKey(w.AppendJSON(buf[:0])) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// With an interner and room for the types, only the registration is made anew.
func TestWindowParseReusesMemory(t *testing.T) {
	w, names := Window{}, new(Interner)
	g := goldenWindow()
	data := g.AppendJSON(nil)
	if n := testing.AllocsPerRun(100, func() {
		if err := w.Parse(data, names); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzWindowJSON(f *testing.F) {
	for line := range strings.SplitSeq(string(fixture(f, "window.jsonl")), "\n") {
		f.Add([]byte(line), "N14228", "tumbling:1h", int64(0), int64(1), int64(2), "departed\nlanded", uint8(3))
	}
	for _, tt := range badEvents {
		if len(tt.data) < 1<<16 {
			f.Add([]byte(tt.data), "ñ\"\\\n", "session:30m\xff", int64(math.MinInt64), int64(math.MaxInt64), int64(-1), "a\n\u2028\nother\x00", uint8(255))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, registration, definition string, start, end, n int64, types string, flags uint8) {
		_, _ = checkWindow(t, data)
		w := Window{
			Registration: registration, Definition: definition, Kind: definition, Start: start, End: end, Count: n, Revision: end,
			Final: flags&1 != 0, Withdrawn: flags&2 != 0,
		}
		for i, typ := range strings.Split(types, "\n") {
			if flags&4 == 0 {
				e := event(start>>(i%64), typ, n)
				w.Add(e, nil)
			}
		}
		checkWritten(t, &w)
	})
}

// checkWritten holds what AppendJSON makes of any values to the rules: always JSON, and read back as it was if its
// values are such as the program can have.
func checkWritten(t *testing.T, w *Window) {
	t.Helper()
	text := w.AppendJSON(nil)
	if !json.Valid(text) || !utf8.Valid(text) {
		t.Fatalf("written %q", text)
	}
	sane := w.Start < w.End && w.Count >= 0 && w.Revision >= 0 && saneName(w.Registration, MaxRegistrationBytes) &&
		saneName(w.Definition, MaxTypeBytes) && !strings.Contains(w.Definition, "|")
	readable := utf8.ValidString(w.Registration + w.Definition + w.LastType) // else it was mended, and may be read
	for _, tc := range w.Types {
		sane = sane && saneName(tc.Type, MaxTypeBytes)
		readable = readable && utf8.ValidString(tc.Type)
	}
	got, err := checkWindow(t, text)
	if sane != (err == nil) && readable {
		t.Fatalf("sane %v: %v\n%s", sane, err, text)
	}
	if err == nil && sane {
		equal(t, *w, got)
	}
}

func saneName(s string, limit int) bool { return s != "" && len(s) <= limit && utf8.ValidString(s) }

// windowKeys are keys and whether they are sound.
var windowKeys = map[string]bool{
	"tumbling:1h|0|N1": true, "a|0|N": true, "tumbling:1d@America/New_York|-1|RA-12345": true, "session:30m|9223372036854775807|a|b|c": true,
	"": false, "|": false, "||": false, "|0|N1": false, "a|0|": false, "a||N1": false, "a|0": false, "a|+1|N1": false,
	"a|01|N1": false, "a|-0|N1": false, "a|1.0|N1": false, "a|9223372036854775808|N1": false, "a|-|N1": false,
	"a|0|123456789012345678901234567890123": false, "a|0|\xff": false, "\xff|0|N1": false,
	strings.Repeat("a", MaxDefinitionBytes+1) + "|0|N1": false,
}

func TestWindowKeys(t *testing.T) {
	t.Parallel()
	for key, sound := range windowKeys {
		if checkKey(t, []byte(key)) != sound {
			t.Errorf("%q is sound: %v", key, !sound)
		}
	}
	w := goldenWindow()
	d, start, r, err := ParseWindowKey(w.AppendKey(nil))
	if err != nil || d != w.Definition || start != w.Start || r != w.Registration {
		t.Error(d, start, r, err)
	}
}

// checkKey tells whether a key is accepted; then it must be written back as it was.
func checkKey(t *testing.T, key []byte) bool {
	t.Helper()
	d, start, r, err := ParseWindowKey(key)
	if reasonOf(t, err) != "" {
		return false
	}
	w := Window{Definition: d, Start: start, Registration: r}
	if again := w.AppendKey(nil); string(again) != string(key) {
		t.Errorf("%q written as %q", key, again)
	}
	return true
}

func FuzzWindowKey(f *testing.F) {
	for key := range windowKeys {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) { checkKey(t, key) })
}
