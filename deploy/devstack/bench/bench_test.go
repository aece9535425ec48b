package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"klgstream.dev/processors/window"
)

// The test binary is the program that measures run again.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "bench" {
		run := map[string]func(context.Context, io.Reader, io.Writer) error{"child": Child, "broker": Broker}[os.Args[2]]
		if err := run(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// small is a shape whose windows are many for its events.
func small() Shape {
	return Shape{Events: 6000, Keys: 40, Partitions: 3, Span: 5 * time.Hour, Disorder: 3 * time.Minute}.WithDefaults()
}

// broker is an embedded broker as it is measured on, in a process of its own.
func broker(t *testing.T) []string {
	t.Helper()
	b, err := StartBroker(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b.Addrs
}

// Every mode at once, all of it right.
func TestThroughput(t *testing.T) {
	for _, c := range []struct {
		name string
		of   Throughput
	}{
		{"every mode", Throughput{Shape: small(), Modes: modes(), Rounds: 2}},
		{"unkeyed", Throughput{Shape: func() Shape { s := small(); s.Unkeyed = true; return s }(), Modes: []string{"klgstream"}}},
		{"unkeyed, on close", Throughput{
			Shape: func() Shape { s := small(); s.Unkeyed = true; return s }(), Modes: []string{"klgstream"}, Product: Product{OnClose: true},
		}},
		{"few events of many keys", Throughput{Shape: Shape{Events: 3000, Keys: 5000, Partitions: 4}, Modes: []string{"klgstream"}, Product: Product{Windows: definitions, OnClose: true}}},
		{"skewed", Throughput{Shape: func() Shape { s := small(); s.Zipf = 1.3; return s }(), Modes: []string{"klgstream"}}},
		{"all kinds of window", Throughput{
			Shape: small(), Modes: []string{"klgstream"},
			Product: Product{Windows: []string{"tumbling:1h", "tumbling:25m+7m", "hopping:2h/30m", "cumulating:15m/1h", "session:2m"}},
		}},
		{"on close", Throughput{
			Shape: small(), Modes: []string{"klgstream"}, Product: Product{Windows: []string{"hopping:3h/20m", "session:1m"}, OnClose: true, Bound: 2 * time.Hour},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.of.Brokers = broker(t)
			r, err := c.of.Measure(t.Context(), t.Output())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			for _, m := range r.Measurements {
				verified := m.Verdict != nil && m.Verdict.Windows > 100 && m.Verdict.Records >= m.Verdict.Windows && m.Changelog > 0
				if writes := m.Mode == "klgstream" || m.Mode == "stock"; writes != verified {
					t.Errorf("%s: verdict %+v, changelog %d", m.Mode, m.Verdict, m.Changelog)
				}
				if m.Seconds <= 0 || m.CPU <= 0 || m.Events <= 0 || m.Mallocs == 0 || m.PeakRSS < 1<<20 {
					t.Errorf("%s: implausible: %+v", m.Mode, m)
				}
			}
			var table bytes.Buffer
			if err := r.Table(&table); err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%s", table.String())
			if got := strings.Count(table.String(), "\n"); got != 2+len(c.of.Modes) {
				t.Errorf("table of %d lines:\n%s", got, table.String())
			}
		})
	}
}

// A topic that lacks events, or has one too often, is found out.
func TestVerifyFindsFaults(t *testing.T) {
	truth := func() map[windowOf]int64 { return small().truth([]window.Definition{hourly(t)}) }
	latest := func() map[string]result {
		out := map[string]result{}
		for w, n := range truth() {
			out[fmt.Sprint(w)] = result{windowOf: w, count: n, revision: 2*n + 1, settled: true}
		}
		return out
	}
	if v := compare(latest(), truth()); v.Err() != nil || v.Windows < 100 {
		t.Fatalf("what is right: %+v", v)
	}
	for name, spoil := range map[string]func(all map[string]result, some string){
		"missing":         func(all map[string]result, some string) { delete(all, some) },
		"withdrawn":       func(all map[string]result, some string) { r := all[some]; r.withdrawn = true; all[some] = r },
		"one event lost":  func(all map[string]result, some string) { r := all[some]; r.count--; all[some] = r },
		"one event twice": func(all map[string]result, some string) { r := all[some]; r.count++; all[some] = r },
		"not final":       func(all map[string]result, some string) { r := all[some]; r.settled = false; all[some] = r },
		"a window without events": func(all map[string]result, _ string) {
			all["x"] = result{windowOf: windowOf{key: 999_999}, settled: true}
		},
	} {
		all := latest()
		for some := range all {
			spoil(all, some)
			break
		}
		if v := compare(all, truth()); v.Wrong != 1 || v.Err() == nil {
			t.Errorf("%s: %+v, want 1 wrong window", name, v)
		}
	}
	for _, v := range []Verdict{{Late: 1}, {Dead: 1}} {
		if v.Err() == nil {
			t.Errorf("%+v passes", v)
		}
	}
}

func hourly(t *testing.T) window.Definition {
	t.Helper()
	d, err := window.ParseDefinition(tumblingHour)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The truth, by another way: each event looks for its windows among all there could be.
func TestTruth(t *testing.T) {
	s := small()
	s.Events = 800
	for _, text := range []string{"tumbling:1h", "tumbling:35m+11m", "tumbling:1h-20m", "hopping:2h/30m", "hopping:90m/45m+1m", "cumulating:20m/2h", "cumulating:15m/1h+5m"} {
		d, err := window.ParseDefinition(text)
		if err != nil {
			t.Fatal(err)
		}
		want := map[windowOf]int64{}
		s.inner(func(_ int, e event) {
			for start := firstStart(d); start.Before(epoch.Add(6 * time.Hour)); start = start.Add(stepOf(d)) {
				for _, end := range endsOf(d, start) {
					if e.time >= start.UnixMilli() && e.time < end.UnixMilli() {
						want[windowOf{d.String(), e.key, start.UnixMilli(), end.UnixMilli()}]++
					}
				}
			}
		})
		got := s.truth([]window.Definition{d})
		if len(got) != len(want) {
			t.Errorf("%s: %d windows, want %d", text, len(got), len(want))
		}
		for w, n := range want {
			if got[w] != n {
				t.Fatalf("%s: %+v has %d events, want %d", text, w, got[w], n)
			}
		}
	}
}

// firstStart is a start before all events.
func firstStart(d window.Definition) time.Time {
	steps := epoch.Add(-24*time.Hour).UnixMilli() / stepOf(d).Milliseconds()
	return time.UnixMilli(steps * stepOf(d).Milliseconds()).Add(d.Offset)
}

// stepOf is the distance of starts.
func stepOf(d window.Definition) time.Duration {
	if d.Kind == window.Hopping {
		return d.Slide
	}
	return d.Size
}

// endsOf are the ends of the windows that begin together.
func endsOf(d window.Definition, start time.Time) (ends []time.Time) {
	if d.Kind != window.Cumulating {
		return []time.Time{start.Add(d.Size)}
	}
	for end := start.Add(d.Slide); !end.After(start.Add(d.Size)); end = end.Add(d.Slide) {
		ends = append(ends, end)
	}
	return ends
}

// Sessions: the sum of all is the number of events, none are within a gap of each other, and every key has one.
func TestTruthOfSessions(t *testing.T) {
	s := small()
	d, err := window.ParseDefinition("session:3m")
	if err != nil {
		t.Fatal(err)
	}
	sum, last := int64(0), map[int][]windowOf{}
	for w, n := range s.truth([]window.Definition{d}) {
		sum += n
		last[w.key] = append(last[w.key], w)
	}
	if sum != int64(s.Events) || len(last) != s.Keys {
		t.Errorf("%d events of %d keys in sessions, want %d of %d", sum, len(last), s.Events, s.Keys)
	}
	for _, all := range last {
		slices.SortFunc(all, func(a, b windowOf) int { return int(a.start - b.start) })
		for i := 1; i < len(all); i++ {
			if all[i].start <= all[i-1].end {
				t.Fatalf("%+v and %+v are one session", all[i-1], all[i])
			}
		}
	}
}

func TestShape(t *testing.T) {
	s := small()
	for _, unkeyed := range []bool{false, true} {
		s.Unkeyed = unkeyed
		sealed, seen := map[int32]bool{}, 0
		largest := int64(0)
		s.events(func(p int32, e event) {
			if e.key < 0 {
				if sealed[p] || e.time < epoch.Add(s.Span+horizon).UnixMilli() {
					t.Errorf("partition %d is sealed twice, or by an event at %d", p, e.time)
				}
				sealed[p] = true
				return
			}
			seen++
			if largest-e.time > s.Disorder.Milliseconds() {
				t.Fatalf("an event at %d comes %d ms behind, bound %v", e.time, largest-e.time, s.Disorder)
			}
			largest = max(largest, e.time)
			if e.key >= s.Keys || p < 0 || int(p) >= s.Partitions {
				t.Fatalf("event %+v in partition %d", e, p)
			}
		})
		if len(sealed) != s.Partitions || seen != s.Events {
			t.Errorf("unkeyed %v: %d partitions sealed, %d events; want %d and %d", unkeyed, len(sealed), seen, s.Partitions, s.Events)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, of := range map[string]Throughput{
		"mode":        {Modes: []string{"flink"}},
		"rounds":      {Rounds: -1},
		"zipf":        {Shape: Shape{Zipf: 0.5}},
		"time zone":   {Product: Product{Windows: []string{"tumbling:1d@Europe/Paris"}}},
		"bound":       {Product: Product{Bound: time.Second}},
		"at most":     {Product: Product{Windows: []string{"tumbling:300h"}}},
		"tumbling:1x": {Product: Product{Windows: []string{"tumbling:1x"}}},
		"without":     {Shape: Shape{Unkeyed: true}, Modes: []string{"stock"}},
	} {
		if err := of.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one about %q", of, err, want)
		}
	}
	if err := (Throughput{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestRatios(t *testing.T) {
	r := Result{Measurements: []Measurement{
		{Mode: "raw", Round: 0, Events: 100, Seconds: 1},
		{Mode: "klgstream", Round: 0, Events: 100, Seconds: 2},
		{Mode: "raw", Round: 1, Events: 100, Seconds: 4}, // the machine was busy with something else
		{Mode: "klgstream", Round: 1, Events: 100, Seconds: 5},
		{Mode: "raw", Round: 2, Events: 100, Seconds: 1},
		{Mode: "klgstream", Round: 2, Events: 100, Seconds: 2},
	}}
	if got := r.Ratio("klgstream", "raw", Measurement.Rate); got != 0.5 {
		t.Errorf("ratio %v, want 0.5: rounds are compared with themselves", got)
	}
	if m, ok := r.Median("klgstream"); !ok || m.Seconds != 2 {
		t.Errorf("median %+v", m)
	}
	if got := r.Ratio("klgstream", "empty", Measurement.Rate); !math.IsNaN(got) {
		t.Errorf("ratio to what was not measured: %v", got)
	}
}

func TestChildRefusesWhatItDoesNotKnow(t *testing.T) {
	for in, want := range map[string]string{"": "read task", `{"Mode":"magic"}`: `unknown mode "magic"`} {
		if err := Child(t.Context(), strings.NewReader(in), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one about %q", in, err, want)
		}
	}
}

// What a process is measured in must not be set by its surroundings.
func TestSelfIsNotSetFromOutside(t *testing.T) {
	t.Setenv("KLGSTREAM_BOUND", "1h")
	t.Setenv("REDPANDA_BROKERS", "production:9092")
	t.Setenv("UNRELATED", "stays")
	cmd, err := Self(t.Context(), "bench", "child")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(cmd.Env, "\n")
	if strings.Contains(all, "KLGSTREAM_BOUND") || strings.Contains(all, "production") || !strings.Contains(all, "UNRELATED=stays") {
		t.Errorf("environment:\n%s", all)
	}
}

// Profiles are written where asked for.
func TestProfile(t *testing.T) {
	of := Throughput{Shape: small(), Modes: []string{"klgstream"}, Profile: t.TempDir(), Brokers: broker(t)}
	if _, err := of.Measure(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(of.Profile)
	if err != nil || len(files) != 2 {
		t.Errorf("profiles %v, error %v; want 2", files, err)
	}
}

// The figures survive JSON.
func TestResultAsJSON(t *testing.T) {
	data, err := json.Marshal(Result{Environment: Here(nil), Measurements: []Measurement{{Mode: "raw", Verdict: &Verdict{Windows: 3}}}})
	var back Result
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil || back.Measurements[0].Verdict.Windows != 3 || back.Environment.Broker != "embedded" {
		t.Errorf("%s: %+v, %v", data, back, err)
	}
}
