package window

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestFloorVectors are starts as Apache Flink's TimeWindow computes them.
func TestFloorVectors(t *testing.T) {
	for _, v := range []struct{ ts, offset, size, want int64 }{
		{-1, 0, 10, -10}, {-10, 0, 10, -10}, {0, 0, 10, 0}, {7, 3, 10, 3}, {2, 3, 10, -7}, {3, 3, 10, 3}, {9, 0, 10, 0}, {-11, 0, 10, -20},
	} {
		if got := floor(v.ts, v.offset, v.size); got != v.want {
			t.Errorf("floor(%d, %d, %d) = %d, want %d", v.ts, v.offset, v.size, got, v.want)
		}
	}
}

// windowsOf are the windows that one event is in, in order of end.
func windowsOf(t *testing.T, definition string, ts int64) (out []Span) {
	t.Helper()
	op := newBagOperator(t, mustParse(t, definition), Options{Emit: OnClose})
	var s State[bag]
	op.Add(&s, none, ts, &event{})
	op.Advance(&s, Never-1, func(r *Result[bag]) { out = append(out, r.Span) })
	return out
}

// TestOffsetVectors are those of Flink's SQL manual: ten minutes at 2021-06-30 00:00:04.
func TestOffsetVectors(t *testing.T) {
	at := time.Date(2021, 6, 30, 0, 0, 4, 0, time.UTC)
	clock := func(hour, minute int) int64 { return time.Date(2021, 6, 30, hour, minute, 0, 0, time.UTC).UnixMilli() }
	for offset, want := range map[string]Span{
		"-16m": {clock(0, -6), clock(0, 4)}, "-6m": {clock(0, -6), clock(0, 4)}, "+4m": {clock(0, -6), clock(0, 4)},
		"-4m": {clock(0, -4), clock(0, 6)}, "+6m": {clock(0, -4), clock(0, 6)}, "+16m": {clock(0, -4), clock(0, 6)},
		"": {clock(0, 0), clock(0, 10)}, "+0m": {clock(0, 0), clock(0, 10)},
	} {
		if got := windowsOf(t, "tumbling:10m"+offset, at.UnixMilli()); !slices.Equal(got, []Span{want}) {
			t.Errorf("offset %s: %v, want %v", offset, got, want)
		}
	}
}

func TestAssignVectors(t *testing.T) {
	for _, v := range []struct {
		definition string
		ts         int64
		want       []Span
	}{
		{"hopping:10ms/5ms", -1, []Span{{-10, 0}, {-5, 5}}},
		{"hopping:10ms/5ms", 0, []Span{{-5, 5}, {0, 10}}},
		{"hopping:10ms/5ms+2ms", 1, []Span{{-8, 2}, {-3, 7}}},
		{"hopping:5ms/10ms", 4, []Span{{0, 5}}},
		{"hopping:5ms/10ms", 5, nil},
		{"hopping:5ms/10ms", -1, nil},
		{"hopping:7ms/3ms", 6, []Span{{0, 7}, {3, 10}, {6, 13}}},
		{"hopping:7ms/3ms", 7, []Span{{3, 10}, {6, 13}}},
		{"hopping:10ms/10ms", 19, []Span{{10, 20}}},
		{"cumulating:5ms/20ms", 0, []Span{{0, 5}, {0, 10}, {0, 15}, {0, 20}}},
		{"cumulating:5ms/20ms", 12, []Span{{0, 15}, {0, 20}}},
		{"cumulating:5ms/20ms", -1, []Span{{-20, 0}}},
		{"cumulating:5ms/20ms+3ms", 2, []Span{{-17, 3}}},
		{"cumulating:20ms/20ms", 7, []Span{{0, 20}}},
		{"session:10ms", 7, []Span{{7, 17}}},
		{"tumbling:10ms", latest, []Span{{floor(latest, 0, 10), floor(latest, 0, 10) + 10}}},
		{"tumbling:10ms", earliest, []Span{{floor(earliest, 0, 10), floor(earliest, 0, 10) + 10}}},
		{"tumbling:10ms", latest + 1, nil},
		{"tumbling:10ms", earliest - 1, nil},
		{"session:10ms", math.MaxInt64, nil},
		{"session:10ms", math.MinInt64, nil},
	} {
		if got := windowsOf(t, v.definition, v.ts); !slices.Equal(got, v.want) {
			t.Errorf("%s: %d is in %v, want %v", v.definition, v.ts, got, v.want)
		}
	}
}

// TestEdgeOfLateness: the watermark that closes a window is end − 1 + lateness, to the millisecond, in each kind.
func TestEdgeOfLateness(t *testing.T) {
	for _, definition := range []string{"tumbling:10ms", "hopping:10ms/10ms", "cumulating:10ms/10ms", "session:10ms"} {
		for _, lateness := range []int64{0, 7} {
			for _, emit := range []Emit{OnUpdate, OnClose} {
				op := newBagOperator(t, mustParse(t, definition), Options{AllowedLateness: ms(lateness), Emit: emit})
				var s State[bag]
				if v := op.Add(&s, 8+lateness, 0, &event{}); v != Counted {
					t.Errorf("%s: %v at watermark %d", definition, v, 8+lateness)
				}
				if v := op.Add(&s, 9+lateness, 0, &event{}); v != Late {
					t.Errorf("%s: %v at watermark %d", definition, v, 9+lateness)
				}
				want := 9 + lateness
				if emit == OnClose {
					want = 9
				}
				if due := op.Due(&s); due != want {
					t.Errorf("%s: due %d, want %d", definition, due, want)
				}
				var finals []bool
				for at := range int64(30) {
					op.Advance(&s, at, func(r *Result[bag]) {
						if finals = append(finals, r.Final); at != 9 && at != 9+lateness {
							t.Errorf("%s: yields at %d", definition, at)
						}
					})
				}
				if n := len(finals); n == 0 || !finals[n-1] || n > 1 && (finals[0] || lateness == 0 || emit == OnUpdate) {
					t.Errorf("%s, lateness %d, emit %d: finals %v", definition, lateness, emit, finals)
				}
			}
		}
	}
}

// TestKafkaStreams: with grace as the bound and no lateness, tumbling and hopping windows are those of Kafka Streams, and so
// is what they drop, for times that have no window before zero.
func TestKafkaStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 20).Draw(t, "size")
		advance := rapid.Int64Range(1, size).Draw(t, "advance")
		grace := rapid.Int64Range(0, 20).Draw(t, "grace")
		d := Definition{Kind: Hopping, Size: ms(size), Slide: ms(advance)}
		if advance == size && rapid.Bool().Draw(t, "tumbling") {
			d = Definition{Size: ms(size)}
		}
		op, err := New(d, Options{Emit: OnClose}, countFold())
		if err != nil {
			t.Fatalf("%v", err)
		}
		var s State[int64]
		marks := NewWatermarks(ms(grace))
		got, want := map[int64]int64{}, map[int64]int64{}
		take := func(r *Result[int64]) { got[r.Start] = *r.Acc }
		streamTime := int64(-1)
		for range rapid.IntRange(1, 50).Draw(t, "records") {
			ts := size - advance + rapid.Int64Range(0, 60).Draw(t, "ts")
			streamTime = max(streamTime, ts)
			taken := false
			for start := max(0, ts-size+advance) / advance * advance; start <= ts; start += advance {
				if start+size > streamTime-grace {
					want[start]++
					taken = true
				}
			}
			if verdict := op.Add(&s, marks.Current(), ts, &flight{}); (verdict == Counted) != taken {
				t.Fatalf("%d at stream time %d is %v", ts, streamTime, verdict)
			}
			marks.Observe(0, ts)
			op.Advance(&s, marks.Current(), take)
		}
		op.Advance(&s, latest, take)
		for start := range got {
			if got[start] != want[start] {
				t.Fatalf("%s: window %d counts %d, want %d", d, start, got[start], want[start])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: windows %v, want %v", d, got, want)
		}
	})
}

// TestOrderDoesNotMatter: as long as no event is later than the bound, the order of arrival changes nothing.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, o := anyDefinition(t), anyOptions(t)
		op, err := New(d, o, bagFold())
		if err != nil {
			t.Fatalf("%v", err)
		}
		const bound = 15
		var events []event
		at := int64(-100)
		for id := range rapid.IntRange(1, 30).Draw(t, "events") {
			at += rapid.Int64Range(0, 9).Draw(t, "step")
			events = append(events, event{id, at})
		}
		run := func(events []event) map[Span]row {
			r, marks := newRig(t, op, o), NewWatermarks(ms(bound))
			for _, e := range events {
				if v := r.add(marks.Current(), e); v == Late {
					t.Fatalf("%s: %+v is late within the bound", d, e)
				}
				marks.Observe(0, e.TS)
				r.advance(marks.Current())
				r.collect(marks.Current())
			}
			r.advance(latest)
			r.collect(latest)
			return r.visible()
		}
		inOrder := run(events)
		delay := map[int]int64{}
		for _, e := range events {
			delay[e.ID] = e.TS + rapid.Int64Range(0, bound).Draw(t, "delay")
		}
		shuffled := slices.Clone(events)
		slices.SortStableFunc(shuffled, func(a, b event) int { return int(delay[a.ID] - delay[b.ID]) })
		got := run(shuffled)
		for id, want := range inOrder {
			if got[id] != want {
				t.Fatalf("%s: %+v in order, %+v shuffled as %v", d, want, got[id], shuffled)
			}
		}
		if len(got) != len(inOrder) {
			t.Fatalf("%s: %d windows in order, %d shuffled", d, len(inOrder), len(got))
		}
	})
}
