package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		events     []string
		batch      bool
		fault      string
	}{
		{name: "one object keeps its bytes", body: " {\"a\" : 1 }\n", events: []string{`{"a" : 1 }`}},
		{name: "one object need not be valid here", body: `{"a":`, events: []string{`{"a":`}},
		{name: "array", body: `[ {"a":1} ,{"b":[2,{}]}]`, events: []string{`{"a":1}`, `{"b":[2,{}]}`}, batch: true},
		{name: "empty array", body: "[ ]\n", batch: true},
		{name: "brackets in strings", body: `[{"a":"]}\"]"},{}]`, events: []string{`{"a":"]}\"]"}`, `{}`}, batch: true},
		{name: "scalars are elements", body: `[1,"x",null,[2]]`, events: []string{`1`, `"x"`, `null`, `[2]`}, batch: true},
		{name: "backslash at the end of a string", body: `[{"a":"\\"},{}]`, events: []string{`{"a":"\\"}`, `{}`}, batch: true},
		{name: "nothing", body: " \n", fault: "empty body at byte 2"},
		{name: "open array", body: `[{}`, batch: true, fault: "array is not closed at byte 3"},
		{name: "open element", body: `[{"a":[1}`, batch: true, fault: "value is not closed at byte 1"},
		{name: "open string", body: `["abc]`, batch: true, fault: "string is not closed at byte 1"},
		{name: "trailing comma", body: `[{},]`, batch: true, fault: "value expected at byte 4"},
		{name: "leading comma", body: `[,{}]`, batch: true, fault: "value expected at byte 1"},
		{name: "no comma", body: `[{}{}]`, batch: true, fault: "comma or closing bracket expected at byte 3"},
		{name: "two values", body: `[{}] {}`, batch: true, fault: "something follows the array at byte 5"},
		{name: "too many", body: `[1,2,3,4]`, batch: true, fault: "more than 3 events in one batch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			limit := 3
			if c.fault == "" {
				limit = 100
			}
			events, batch, err := split(nil, []byte(c.body), limit)
			if (err == nil) != (c.fault == "") || err != nil && err.Error() != c.fault {
				t.Fatalf("error is %v, want %q", err, c.fault)
			}
			if batch != c.batch {
				t.Errorf("batch is %v", batch)
			}
			if c.fault == "" && !slices.EqualFunc(events, c.events, func(a []byte, b string) bool { return string(a) == b }) {
				t.Errorf("events are %q, want %q", events, c.events)
			}
		})
	}
}

// FuzzSplit compares with encoding/json: whatever it calls a valid array is cut into the same elements, and nothing else
// is cut into elements that are all valid.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{``, `{}`, `[]`, `[{}]`, `[{"a":"\"]"},1,"x",[[]]]`, `[1,]`, `[{]}]`, `["\\"]`, "[\t1 ,\r\n2]x", `[1 2]`, `{"a":1} {}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, batch, err := split(nil, body, 1<<20)
		if batch != strings.HasPrefix(strings.TrimLeft(string(body), " \t\r\n"), "[") {
			t.Fatalf("batch is %v for %q", batch, body)
		}
		var elements []json.RawMessage
		valid := batch && json.Unmarshal(body, &elements) == nil
		sound := batch && err == nil
		for _, e := range events {
			sound = sound && json.Valid(e)
		}
		if valid != sound {
			t.Fatalf("%q: encoding/json says %v, split with valid elements %v (%v)", body, valid, sound, err)
		}
		if valid && !slices.EqualFunc(events, elements, func(a []byte, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("%q: cut into %q, want %q", body, events, elements)
		}
		if _, known := errors.AsType[*syntaxError](err); err != nil && !known {
			t.Fatalf("unexpected kind of error: %v", err)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	body := []byte("[" + strings.Repeat(camel+",", 499) + camel + "]")
	var parts [][]byte
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		parts, _, _ = split(parts[:0], body, 500)
	}
	if len(parts) != 500 {
		b.Fatal(len(parts))
	}
}
