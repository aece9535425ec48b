package activity

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Windows: []string{"weekly:3", "tumbling:1h", "tumbling:60m", "hopping:1h/0s"}, AllowedLateness: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"weekly:3"`, `"tumbling:60m" is given twice`, "hopping:1h/0s", "allowed lateness"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := OpenWindows(Config{Windows: []string{"weekly:3"}}); err == nil {
		t.Error("a reader of weekly:3")
	}
}

// The order of flags means nothing: a restart with them in another order goes on with the same state.
func TestDefinitionsAreOrdered(t *testing.T) {
	t.Parallel()
	a, err1 := New(Config{Windows: []string{"tumbling:1h", "session:30m"}})
	b, err2 := New(Config{Windows: []string{"session:30m", "tumbling:60m"}})
	if err1 != nil || err2 != nil || a.Definition != b.Definition {
		t.Errorf("%q %v, %q %v", a.Definition, err1, b.Definition, err2)
	}
	c, _ := New(Config{Windows: []string{"tumbling:1h", "session:30m"}, AllowedLateness: time.Minute})
	if c.Definition == a.Definition {
		t.Error("another lateness has the same definition")
	}
}

// results folds a stream and returns the last word on each window; between any two events the state may go through its bytes.
func results(t *rapid.T, top *topology, events []codecs.Event, through func(i int) bool) map[string]string {
	out := make(map[string]string)
	revisions := make(map[string]int64)
	emit := func(key, value []byte) {
		var w codecs.Window
		if err := w.UnmarshalJSON(value); err != nil {
			t.Fatal(err)
		}
		if w.Revision < revisions[string(key)] {
			t.Fatalf("revision of %s went from %d to %d", key, revisions[string(key)], w.Revision)
		}
		revisions[string(key)] = w.Revision
		out[string(key)] = string(value)
	}
	var s State
	watermark, purged := int64(math.MinInt64), int64(math.MinInt64)
	for i := range events {
		top.Fold(&s, max(watermark, purged), &events[i])
		watermark = max(watermark, events[i].Time-5000)
		if top.Due(&s) <= watermark {
			top.Advance("N1", &s, watermark, emit)
			purged = watermark
		}
		top.Collect("N1", &s, watermark, emit)
		if through(i) {
			data := top.Append(nil, &s)
			var back State
			if err := top.Parse(&back, data, purged); err != nil {
				t.Fatal(err)
			}
			if again := string(top.Append(nil, &back)); again != string(data) {
				t.Fatalf("%x became %x", data, again)
			}
			top.Settle(&back, watermark)
			s = back
		} else {
			top.Settle(&s, watermark)
		}
	}
	top.Advance("N1", &s, math.MaxInt64-1, emit)
	return out
}

// What is counted does not depend on whether the state was kept decoded or went through the table in between.
func TestStateThroughItsBytes(t *testing.T) {
	t.Parallel()
	var definitions []window.Definition
	for _, text := range []string{"tumbling:10s", "hopping:20s/5s", "cumulating:5s/20s", "session:3s", "tumbling:1d@America/New_York"} {
		d, err := window.ParseDefinition(text)
		if err != nil {
			t.Fatal(err)
		}
		definitions = append(definitions, d)
	}
	rapid.Check(t, func(t *rapid.T) {
		o := window.Options{AllowedLateness: rapid.SampledFrom([]time.Duration{0, 2 * time.Second}).Draw(t, "lateness")}
		var events []codecs.Event
		for i := range rapid.IntRange(1, 40).Draw(t, "events") {
			events = append(events, codecs.Event{
				Registration: []byte("N1"), Type: fmt.Appendf(nil, "t%d", i%3),
				Time:       1_770_000_000_000 + int64(i)*1500 - rapid.Int64Range(0, 20_000).Draw(t, "back"),
				AircraftID: int64(i), HasAircraftID: i%2 == 0,
			})
		}
		bits := rapid.Uint64().Draw(t, "through")
		plain := results(t, newTopology(definitions, o, codecs.Decoder{}), events, func(int) bool { return false })
		stored := results(t, newTopology(definitions, o, codecs.Decoder{}), events, func(i int) bool { return bits>>(i%64)&1 == 1 })
		for k, v := range plain {
			if stored[k] != v {
				t.Fatalf("%s: %s, through the table %s", k, v, stored[k])
			}
		}
	})
}

func TestParseRefusesOtherDefinitions(t *testing.T) {
	t.Parallel()
	one, _ := window.ParseDefinition("tumbling:1h")
	other, _ := window.ParseDefinition("tumbling:2h")
	from := newTopology([]window.Definition{one}, window.Options{}, codecs.Decoder{})
	var s State
	from.Fold(&s, math.MinInt64, &codecs.Event{Registration: []byte("N1"), Type: []byte("t"), Time: 1})
	to := newTopology([]window.Definition{other}, window.Options{}, codecs.Decoder{})
	if err := to.Parse(new(State), from.Append(nil, &s), math.MinInt64); err == nil || !strings.Contains(err.Error(), `"tumbling:1h"`) {
		t.Errorf("got %v", err)
	}
	if err := to.Parse(new(State), []byte{0xff}, math.MinInt64); err == nil {
		t.Error("bytes that are no state were taken")
	}
}

// The summary counts every event once, whatever the definitions.
func TestSummary(t *testing.T) {
	t.Parallel()
	job, err := New(Config{Windows: []string{"hopping:1h/10m", "session:1m"}})
	if err != nil {
		t.Fatal(err)
	}
	top := job.New()
	var s State
	for i := range 5 {
		var e codecs.Event
		v := fmt.Appendf(nil, `{"event_type":"t%d","registration_number":"n1","timestamp":%d}`, i, 1_770_000_000_000+i)
		if err := top.Decode(&e, &engine.Record{Value: v}); err != nil {
			t.Fatal(err)
		}
		if string(top.Key(&e)) != "N1" || top.Time(&e) != int64(1_770_000_000_000+i) || !top.Fold(&s, math.MinInt64, &e) {
			t.Fatal("not counted")
		}
	}
	var all codecs.Aggregate
	if s.summary.aggregate(&all, &top.(*topology).names); s.total != 5 || all.LastType != "t4" || all.First != 1_770_000_000_000 {
		t.Errorf("%d %+v", s.total, all)
	}
	if top.Idle(&s) {
		t.Error("idle with open windows")
	}
}

// What is open is what the table says, put together as the operator would.
func TestOpenWindows(t *testing.T) {
	t.Parallel()
	c := Config{Windows: []string{"hopping:30m/10m", "tumbling:1h"}, Emit: window.OnClose}
	job, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	top := job.New()
	var s State
	for _, ms := range []int64{0, 1, 11 * 60_000} {
		top.Fold(&s, math.MinInt64, &codecs.Event{Registration: []byte("N1"), Type: []byte("t"), Time: 1_770_000_000_000 + ms})
	}
	env := codecs.Envelope{Purged: math.MinInt64, Due: top.Due(&s), State: top.Append(nil, &s)}
	open, err := OpenWindows(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := open("N1", env.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, w := range got {
		counts[w.Kind] += w.Count
	}
	if len(got) != 5 || counts["tumbling"] != 3 || counts["hopping"] != 9 {
		t.Errorf("%d windows, counts %v", len(got), counts)
	}
	if _, err := open("N1", []byte{0xff}); err == nil {
		t.Error("bytes that are no record were read")
	}
	env.State = []byte{0xff}
	if _, err := open("N1", env.Append(nil)); err == nil {
		t.Error("bytes that are no state were read")
	}
}

// Of two results of a window the one of the higher revision is newer; what is no result is not.
func TestNewer(t *testing.T) {
	t.Parallel()
	job, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	result := func(revision int64) []byte {
		w := codecs.Window{Registration: "N1", Definition: "tumbling:1h", Kind: "tumbling", End: 3_600_000, Count: revision / 2, Revision: revision, Final: revision%2 == 1}
		for range w.Count {
			w.Add(&codecs.Event{Type: []byte("created"), Time: 1}, nil)
		}
		return w.AppendJSON(nil)
	}
	owner := job.New().(engine.Owner)
	for _, c := range []struct {
		a, b []byte
		want bool
	}{{result(5), result(4), true}, {result(4), result(5), false}, {result(4), result(4), false}, {nil, result(4), false}, {result(4), []byte("{"), false}} {
		if got := owner.Newer(c.a, c.b); got != c.want {
			t.Errorf("%s is newer than %s: %v", c.a, c.b, got)
		}
	}
}

// Whose results are whose is told by the name of the definition before the first bar of their keys, the whole of it.
func TestOwns(t *testing.T) {
	t.Parallel()
	job, err := New(Config{Windows: []string{"tumbling:1h", "session:30m"}})
	if err != nil {
		t.Fatal(err)
	}
	owner := job.New().(engine.Owner)
	for key, want := range map[string]bool{
		"tumbling:1h|0|N1": true, "session:30m|0|N1": true, "tumbling:2h|0|N1": false, "tumbling:1|0|N1": false, "0|tumbling:1h|N1": false,
		"tumbling:1h": false, "": false,
	} {
		if got := owner.Owns([]byte(key)); got != want {
			t.Errorf("%q is owned: %v", key, got)
		}
	}
}

// A key of which nothing is left but a withdrawal that may not be acknowledged is not idle, and keeps it.
func TestWithdrawalIsKept(t *testing.T) {
	t.Parallel()
	session, err := window.ParseDefinition("session:1m")
	if err != nil {
		t.Fatal(err)
	}
	top := newTopology([]window.Definition{session}, window.Options{}, codecs.Decoder{})
	var s, back State
	s.lay(1)
	if !top.Idle(&s) {
		t.Error("a key without windows is not idle")
	}
	if data := top.Append(nil, &s); strings.Contains(string(data), session.String()) {
		t.Errorf("%q tells of windows that there are not", data)
	}
	s.windows[0].Withdrawn = []window.Withdrawn{{Span: window.Span{Start: 5, End: 60_005}, Revision: 3}}
	if top.Idle(&s) {
		t.Error("a key with a withdrawal is idle")
	}
	if err := top.Parse(&back, top.Append(nil, &s), math.MinInt64); err != nil {
		t.Fatal(err)
	}
	if got := back.windows[0].Withdrawn; len(got) != 1 || got[0].Span != s.windows[0].Withdrawn[0].Span || got[0].Revision != 3 {
		t.Errorf("it came back as %+v", got)
	}
}

// What is not named has the name of the documentation, what is named has its own.
func TestNamesOfAJob(t *testing.T) {
	t.Parallel()
	plain, err1 := New(Config{})
	named, err2 := New(Config{Group: "g", Input: "i", Output: "o", Late: "l", Dead: "d"})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if got := [...]string{plain.Group, plain.Input, plain.Output, plain.Late, plain.Dead}; got != [...]string{Group, Input, Output, Late, Dead} {
		t.Errorf("without names: %q", got)
	}
	if got := [...]string{named.Group, named.Input, named.Output, named.Late, named.Dead}; got != [...]string{"g", "i", "o", "l", "d"} {
		t.Errorf("with names: %q", got)
	}
}
