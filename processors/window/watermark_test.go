package window

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// none is the watermark before there is one.
const none = math.MinInt64

func TestWatermarks(t *testing.T) {
	type step struct {
		do   string
		call func(*Watermarks)
		want int64
		idle bool
	}
	observe := func(source int32, ts, want int64) step {
		return step{fmt.Sprintf("observe(%d, %d)", source, ts), func(w *Watermarks) { w.Observe(source, ts) }, want, false}
	}
	announce := func(source int32, watermark, want int64) step {
		return step{fmt.Sprintf("announce(%d, %d)", source, watermark), func(w *Watermarks) { w.Announce(source, watermark, false) }, want, false}
	}
	rest := func(source int32, want int64, idle bool) step {
		return step{fmt.Sprintf("rest(%d)", source), func(w *Watermarks) { w.Rest(source) }, want, idle}
	}
	expect := func(source int32, want int64) step {
		return step{fmt.Sprintf("expect(%d)", source), func(w *Watermarks) { w.Expect(source) }, want, false}
	}
	lift := func(watermark, want int64, idle bool) step {
		return step{fmt.Sprintf("lift(%d)", watermark), func(w *Watermarks) { w.Lift(watermark) }, want, idle}
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"one source: the largest time less the bound less 1 ms, never back", []step{
			observe(0, 100, 89), observe(0, 95, 89), observe(0, 101, 90), observe(0, 101, 90),
		}},
		{"the least of all sources", []step{
			expect(0, none), expect(1, none), observe(0, 100, none), observe(1, 50, 39), observe(1, 200, 89), observe(0, 150, 139), expect(1, 139),
		}},
		{"a source that has not spoken holds the watermark until it is declared idle", []step{
			expect(0, none), expect(1, none), observe(0, 100, none), rest(1, 89, false), observe(0, 101, 90),
		}},
		{"a new source does not take the watermark back but holds it", []step{
			observe(0, 100, 89), observe(1, 20, 89), observe(0, 200, 89), observe(1, 150, 139),
		}},
		{"an idle source holds nothing, and joins only once it has caught up", []step{
			observe(0, 100, 89), observe(1, 100, 89), rest(1, 89, false), observe(0, 200, 189),
			observe(1, 150, 189), observe(0, 300, 289), observe(1, 299, 289), observe(1, 300, 289), observe(0, 400, 289), observe(1, 350, 339),
		}},
		{"rest of the one that holds", []step{
			observe(0, 100, 89), observe(1, 200, 89), rest(0, 189, false),
		}},
		{"when all rest the greatest watermark is out", []step{
			observe(0, 100, 89), observe(1, 200, 89), rest(1, 89, false), rest(0, 189, true), observe(0, 150, 189), observe(0, 210, 199),
		}},
		{"a source that was ahead when it rested joins at once", []step{
			observe(0, 100, 89), observe(1, 200, 89), rest(1, 89, false), observe(1, 1, 89), observe(0, 300, 189), rest(0, 189, false), observe(1, 250, 239),
		}},
		{"the only source that is not idle joins with what it had", []step{
			observe(0, 100, 89), observe(1, 200, 89), rest(1, 89, false), rest(0, 189, true),
			{"restore behind", func(w *Watermarks) { w.Restore(89, Source{0, Joining, 39}, Source{1, Idle, 189}) }, 89, false},
			observe(1, 5, 189),
		}},
		{"an owner tells of its source", []step{
			expect(0, none), announce(0, 10, 10), announce(1, 20, 10), announce(0, 5, 10), announce(0, 30, 20),
			{"announce(1, 50, idle)", func(w *Watermarks) { w.Announce(1, 50, true) }, 30, false},
			{"announce(0, 40, idle)", func(w *Watermarks) { w.Announce(0, 40, true) }, 50, true},
			announce(0, 45, 50), announce(0, 55, 55),
		}},
		{"the clock lifts only what is idle", []step{
			lift(5, 5, true), observe(0, 100, 89), lift(1000, 89, false), rest(0, 89, true), lift(50, 89, true), lift(1000, 1000, true),
			observe(0, 900, 1000), observe(0, 1100, 1089),
		}},
		{"times near the ends do not wrap", []step{
			observe(0, math.MinInt64, none), observe(0, math.MinInt64+10, none), observe(0, math.MinInt64+12, math.MinInt64+1),
			observe(0, math.MaxInt64, math.MaxInt64-11),
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := NewWatermarks(ms(10))
			if w.Current() != none || !w.Idle() {
				t.Fatalf("new: %d, idle %v", w.Current(), w.Idle())
			}
			for _, s := range test.steps {
				s.call(w)
				if w.Current() != s.want || w.Idle() != s.idle {
					t.Fatalf("after %s: watermark %d, idle %v; want %d, %v", s.do, w.Current(), w.Idle(), s.want, s.idle)
				}
			}
		})
	}
	if w := NewWatermarks(-time.Hour); true {
		if w.Observe(0, 10); w.Current() != 9 {
			t.Errorf("a negative bound counts: watermark %d", w.Current())
		}
	}
}

// valve is Apache Flink's StatusWatermarkValve as its rules read, looking at everything at each step.
type valve struct {
	out  int64
	own  map[int32]int64
	idle map[int32]bool
	wait map[int32]bool // active, but behind the output since it was idle
}

func (v *valve) settle() {
	all, least, greatest := true, int64(math.MaxInt64), int64(none)
	aligned := false
	for id, own := range v.own {
		greatest = max(greatest, own)
		if v.idle[id] {
			continue
		}
		all = false
		if !v.wait[id] {
			aligned, least = true, min(least, own)
		}
	}
	switch {
	case all:
		v.out = max(v.out, greatest)
	case aligned:
		v.out = max(v.out, least)
	}
}

func (v *valve) take(id int32, own int64) {
	old, known := v.own[id]
	if !known {
		old = none
	}
	v.own[id] = max(old, own)
	if v.idle[id] {
		v.idle[id], v.wait[id] = false, true
	}
	if v.own[id] >= v.out {
		v.wait[id] = false
	}
	v.settle()
}

func (v *valve) rest(id int32) {
	if _, known := v.own[id]; !known {
		v.own[id] = none
	}
	v.idle[id], v.wait[id] = true, false
	v.settle()
}

// TestWatermarksModel compares with the valve, and lets the tracker live on in a copy at any time.
func TestWatermarksModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := NewWatermarks(ms(3))
		v := &valve{out: none, own: map[int32]int64{}, idle: map[int32]bool{}, wait: map[int32]bool{}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := w.Current()
			id := rapid.Int32Range(0, 4).Draw(t, "source")
			at := rapid.Int64Range(0, 60).Draw(t, "at")
			switch rapid.IntRange(0, 6).Draw(t, "do") {
			case 0, 1, 2:
				w.Observe(id, at)
				v.take(id, at-4)
			case 3:
				w.Announce(id, at, false)
				v.take(id, at)
			case 4:
				w.Announce(id, at, true)
				v.own[id] = max(v.own[id], at) // at is not negative
				v.rest(id)
			case 5:
				w.Rest(id)
				v.rest(id)
			case 6:
				w = copyOf(t, w)
			}
			if w.Current() != v.out || w.Current() < before {
				t.Fatalf("watermark %d after %d, want %d: %+v %+v", w.Current(), before, v.out, w, v)
			}
		}
	})
}

// copyOf is a tracker restored from all that another tells, in any order.
func copyOf(t *rapid.T, w *Watermarks) *Watermarks {
	var sources []Source
	w.Snapshot(func(s Source) { sources = append(sources, s) })
	if !slices.IsSortedFunc(sources, func(a, b Source) int { return int(a.ID - b.ID) }) {
		t.Fatalf("sources out of order: %v", sources)
	}
	out := NewWatermarks(ms(3))
	out.Observe(7, 1000)
	if len(sources) > 0 {
		sources = append(rapid.Permutation(sources).Draw(t, "order"), sources...) // a source that is told twice counts once
	}
	out.Restore(w.Current(), sources...)
	if out.Idle() != w.Idle() || len(out.sources) != len(w.sources) {
		t.Fatalf("restored %+v from %+v", out, w)
	}
	return out
}
