package window

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustZone(t fataler, name string) *time.Location {
	t.Helper()
	place, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return place
}

// shifts are instants at or near which clocks were set, in zones that do so in every manner there is.
var shifts = []struct {
	zone string
	at   time.Time
}{
	{"America/New_York", time.Date(2021, 3, 14, 7, 0, 0, 0, time.UTC)},      // forward at 2:00
	{"America/New_York", time.Date(2021, 11, 7, 6, 0, 0, 0, time.UTC)},      // back at 2:00
	{"America/New_York", time.Date(2045, 3, 12, 7, 0, 0, 0, time.UTC)},      // by rule
	{"America/New_York", time.Date(2040, 12, 31, 7, 0, 0, 0, time.UTC)},     // the end of a leap year, by rule
	{"America/New_York", time.Date(2239, 11, 3, 6, 0, 0, 0, time.UTC)},      // beyond the table
	{"America/Sao_Paulo", time.Date(2017, 10, 15, 3, 0, 0, 0, time.UTC)},    // midnight does not exist
	{"America/Sao_Paulo", time.Date(2018, 2, 18, 2, 0, 0, 0, time.UTC)},     // the last hour of a day twice
	{"Australia/Lord_Howe", time.Date(2021, 4, 3, 15, 0, 0, 0, time.UTC)},   // back by half an hour
	{"Australia/Lord_Howe", time.Date(2021, 10, 2, 15, 30, 0, 0, time.UTC)}, // forward by half an hour
	{"Pacific/Apia", time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC)},        // a day is skipped
	{"Asia/Kolkata", time.Date(2021, 6, 1, 0, 0, 0, 0, time.UTC)},           // no shift at all
	{"America/Caracas", time.Date(2007, 12, 9, 7, 0, 0, 0, time.UTC)},       // back by half an hour, for good
}

// TestZone compares with a search over each quarter of an hour around clock changes.
func TestZone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shift := rapid.SampledFrom(shifts).Draw(t, "shift")
		z := newZone(mustZone(t, shift.zone))
		m := &model{d: Definition{Zone: z.place}}
		const minute = 60_000
		start := shift.at.UnixMilli() + rapid.Int64Range(-40*60, 40*60).Draw(t, "start")*minute + rapid.Int64Range(-1, 1).Draw(t, "ms")
		end := start + rapid.Int64Range(1, 180).Draw(t, "length")*minute
		want := m.instants(Span{start, end})
		if got := (Span{z.first(start), z.after(end)}); got != want {
			t.Errorf("%s: local [%d, %d) is %v, want %v", shift.zone, start, end, got, want)
		}
		if got, want := z.local(start), m.local(start); got != want {
			t.Errorf("%s: local time of %d is %d, want %d", shift.zone, start, got, want)
		}
		least := m.local(start)
		for at := start; at < start+48*60*minute; at += minute {
			least = min(least, m.local(at-at%minute+minute), m.local(at))
		}
		if got := z.least(start); got != least {
			t.Errorf("%s: least local time from %d is %d, want %d", shift.zone, start, got, least)
		}
	})
}

// TestZoneTable looks at each segment of the table and at the ends of time, where nothing may be endless.
func TestZoneTable(t *testing.T) {
	for _, name := range []string{"America/New_York", "Europe/Berlin", "Asia/Kolkata", "Etc/GMT+5", "Africa/Casablanca", "Asia/Manila"} {
		z := newZone(mustZone(t, name))
		if n := len(z.table); n > 600 {
			t.Errorf("%s has %d segments", name, n)
		}
		for i, s := range z.table {
			if i > 0 && (s.lo != z.table[i-1].hi || s.offset == z.table[i-1].offset) || s.hi <= s.lo {
				t.Errorf("%s: segment %+v after %+v", name, s, z.table[i-1])
			}
			for _, at := range []int64{max(s.lo, -1<<50), min(s.hi-1, 1<<50)} {
				if _, offset := time.UnixMilli(at).In(z.place).Zone(); int64(offset)*1000 != s.offset {
					t.Errorf("%s: offset at %d is %d s, want %d ms", name, at, offset, s.offset)
				}
			}
		}
		for _, at := range []int64{math.MinInt64, earliest, -1 << 60, tableEnd - 1, tableEnd, 1 << 60, latest} {
			if s := z.at(at); at < s.lo || at >= s.hi && s.hi != math.MaxInt64 {
				t.Errorf("%s: segment of %d is %+v", name, at, s)
			}
		}
		for _, at := range []int64{earliest, -1 << 60, 1 << 60, latest} {
			for _, got := range []int64{z.first(at), z.after(at), z.least(at)} {
				if d := got - at; d < -dayMillis || d > dayMillis {
					t.Errorf("%s: %d is %d away", name, at, d)
				}
			}
		}
	}
	if newZone(nil) != nil || newZone(time.UTC) != nil {
		t.Error("UTC is a zone")
	}
}

// TestZoneVectors are days that people know.
func TestZoneVectors(t *testing.T) {
	tests := []struct{ definition, at, start, end string }{
		{"tumbling:1d@America/New_York", "2021-03-14T12:00:00Z", "2021-03-14T05:00:00Z", "2021-03-15T04:00:00Z"},  // 23 hours
		{"tumbling:1d@America/New_York", "2021-11-07T12:00:00Z", "2021-11-07T04:00:00Z", "2021-11-08T05:00:00Z"},  // 25 hours
		{"tumbling:1d@America/Sao_Paulo", "2017-10-15T12:00:00Z", "2017-10-15T03:00:00Z", "2017-10-16T02:00:00Z"}, // begins at 1:00
		{"tumbling:1d@America/Sao_Paulo", "2017-10-14T12:00:00Z", "2017-10-14T03:00:00Z", "2017-10-15T03:00:00Z"},
		{"tumbling:1d@America/Sao_Paulo", "2018-02-17T12:00:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"}, // 23:00 twice
		{"tumbling:1h@America/Los_Angeles", "2021-11-07T08:30:00Z", "2021-11-07T08:00:00Z", "2021-11-07T10:00:00Z"},
		{"tumbling:1h@America/Los_Angeles", "2021-11-07T09:30:00Z", "2021-11-07T08:00:00Z", "2021-11-07T10:00:00Z"},
		{"tumbling:1h@America/Los_Angeles", "2021-03-14T10:30:00Z", "2021-03-14T10:00:00Z", "2021-03-14T11:00:00Z"},
		{"tumbling:4h@America/Los_Angeles", "2021-03-14T10:30:00Z", "2021-03-14T08:00:00Z", "2021-03-14T11:00:00Z"},
		{"tumbling:90m@America/Los_Angeles", "2021-03-14T09:45:00Z", "2021-03-14T09:30:00Z", "2021-03-14T10:00:00Z"},  // its end, 3:00, is where 2:00 was
		{"tumbling:150m@America/Los_Angeles", "2021-03-14T09:45:00Z", "2021-03-14T08:00:00Z", "2021-03-14T10:00:00Z"}, // its end, 2:30, does not exist
		{"tumbling:150m@America/Los_Angeles", "2021-03-14T10:00:00Z", "2021-03-14T10:00:00Z", "2021-03-14T12:00:00Z"},
		{"tumbling:1d@Asia/Kolkata", "2021-06-01T00:00:00Z", "2021-05-31T18:30:00Z", "2021-06-01T18:30:00Z"},
	}
	for _, test := range tests {
		op := newBagOperator(t, mustParse(t, test.definition), Options{})
		instant := func(text string) int64 {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			return at.UnixMilli()
		}
		var s State[bag]
		at := instant(test.at)
		// One ms before its end is passed, the window is open; at its last instant it is not.
		if op.Add(&s, instant(test.end)-2, at, &event{}) != Counted || op.Add(&s, instant(test.end)-1, at, &event{}) != Late {
			t.Errorf("%s: window of %s does not close at %s", test.definition, test.at, test.end)
		}
		op.Advance(&s, instant(test.end)-1, func(r *Result[bag]) {
			if want := (Span{instant(test.start), instant(test.end)}); r.Span != want {
				t.Errorf("%s: window of %s is [%v, %v)", test.definition, test.at, time.UnixMilli(r.Start).UTC(), time.UnixMilli(r.End).UTC())
			}
		})
		if len(s.Slices) != 1 || !s.Slices[0].Closed {
			t.Errorf("%s: window of %s is not closed: %+v", test.definition, test.at, s)
		}
	}
}

// TestZonedModel is TestModel around clock changes, in minutes.
func TestZonedModel(t *testing.T) {
	texts := []string{"tumbling:1h", "tumbling:30m", "tumbling:1d", "tumbling:150m+7m", "cumulating:1h/1d", "cumulating:30m/6h+20m", "hopping:2d/1d", "hopping:30h/1d+2h"}
	rapid.Check(t, func(t *rapid.T) {
		shift := rapid.SampledFrom(shifts).Draw(t, "shift")
		d, err := ParseDefinition(rapid.SampledFrom(texts).Draw(t, "definition") + "@" + shift.zone)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if d.Kind == Hopping && shift.zone == "Pacific/Apia" {
			t.Skip("two windows begin when the skipped day ends")
		}
		const minute = 60_000
		stream, bound := anyStream(t), rapid.Int64Range(0, 300).Draw(t, "bound")*minute
		for i, e := range stream {
			e.TS = shift.at.UnixMilli() + 11*e.TS*minute + rapid.Int64Range(0, 59_999).Draw(t, "ms")
			stream[i] = arrival{e.event, e.TS - bound - 1}
		}
		o := Options{AllowedLateness: time.Duration(rapid.Int64Range(0, 90).Draw(t, "lateness")) * time.Minute}
		runModel(t, d, o, stream, func() int { return rapid.IntRange(0, 9).Draw(t, "then") })
	})
}
