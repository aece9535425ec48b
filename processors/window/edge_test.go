package window

import (
	"math"
	"slices"
	"testing"
	"time"
)

// The last instants that can be counted are good, the next ones are not.
func TestCheckAtTheEndsOfTime(t *testing.T) {
	op := newBagOperator(t, mustParse(t, "session:10ms"), Options{})
	for _, test := range []struct {
		s    Span
		good bool
	}{
		{Span{earliest, earliest + 10}, true},
		{Span{earliest - 1, earliest + 10}, false},
		{Span{latest, latest + 10}, true},
		{Span{latest + 1, latest + 11}, false},
		{Span{latest - 5, latest + 11}, false},
		{Span{0, 10}, true},
		{Span{0, 9}, false},
		{Span{0, 0}, false},
	} {
		s := State[bag]{Slices: []Slice[bag]{{Span: test.s, Count: 1}}}
		if err := op.Check(&s); (err == nil) != test.good {
			t.Errorf("slice %v: %v", test.s, err)
		}
		gone := State[bag]{Withdrawn: []Withdrawn{{Span: test.s, Revision: 3}}}
		if err := op.Check(&gone); (err == nil) != test.good {
			t.Errorf("withdrawn %v: %v", test.s, err)
		}
	}
}

// A watermark beyond time is as good as one just beyond all that can be counted.
func TestClampKeepsRoom(t *testing.T) {
	for watermark, want := range map[int64]int64{
		math.MinInt64: earliest - 1<<45, math.MaxInt64: latest + 1<<45, earliest: earliest, latest: latest, 0: 0,
	} {
		if got := clamp(watermark); got != want {
			t.Errorf("clamp(%d) is %d, want %d", watermark, got, want)
		}
	}
}

// Where the clocks go forward, the ends of several cumulating windows are one instant: it is told once. In 2026 Berlin has no
// time between 02:00 and 03:00 on 29 March.
func TestCumulatingWindowsInAGapOfTheClocks(t *testing.T) {
	at := func(clock string) int64 {
		v, err := time.Parse(time.RFC3339, "2026-03-29T"+clock+"+01:00")
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	for _, advance := range []bool{true, false} {
		o := Options{}
		op := newBagOperator(t, mustParse(t, "cumulating:30m/1d@Europe/Berlin"), o)
		var s State[bag]
		e := event{1, at("01:10:00")}
		op.Add(&s, none, e.TS, &e)
		var ends []int64
		take := func(r *Result[bag]) { ends = append(ends, r.Span.End) }
		if advance {
			op.Advance(&s, at("02:45:00"), take)
		} else {
			op.Collect(&s, none, take)
			ends = ends[:min(3, len(ends))]
		}
		want := []int64{at("01:30:00"), at("02:00:00"), at("02:30:00")} // as instants: 03:30 in summer time is half an hour later
		if !slices.Equal(ends, want) {
			t.Errorf("advance %v: told are windows that end at %v, want %v", advance, ends, want)
		}
	}
}
