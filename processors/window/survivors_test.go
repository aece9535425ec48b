package window

import (
	"math"
	"strings"
	"testing"
	"time"
)

// An event that lies between the session last updated and the next one joins them, however it is found: also when it touches both
// just so.
func TestEventBetweenSessionsJoinsThem(t *testing.T) {
	t.Parallel()
	for ts, joined := range map[int64]bool{4: false, 5: true, 8: true, 11: true} {
		op := newBagOperator(t, mustParse(t, "session:10ms"), Options{})
		var s State[bag]
		for id, at := range []int64{0, 15, 1, ts} { // the third makes the first session the one last updated
			if v := op.Add(&s, none, at, &event{id, at}); v != Counted {
				t.Fatalf("event at %d is %v", at, v)
			}
		}
		want := 2
		if joined {
			want = 1
		}
		if len(s.Slices) != want {
			t.Errorf("an event at %d: sessions %v, want %d", ts, s.Slices, want)
		}
	}
}

// What the watermark closes is Advance's: Collect leaves it alone even if it comes first.
func TestCollectLeavesClosingToAdvance(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"tumbling:10ms", "hopping:10ms/5ms", "session:5ms"} {
		op := newBagOperator(t, mustParse(t, text), Options{})
		var s State[bag]
		op.Add(&s, none, 5, &event{1, 5})
		told := 0
		op.Collect(&s, 9, func(r *Result[bag]) {
			if told++; r.End <= 10 {
				t.Errorf("%s: [%d, %d) is told at watermark 9", text, r.Start, r.End)
			}
		})
		finals := 0
		op.Advance(&s, 9, func(r *Result[bag]) { finals++ })
		if finals != 1 {
			t.Errorf("%s: %d windows are final, want 1", text, finals)
		}
	}
}

// Watermarks from the ends of time close everything or nothing of what can be counted.
func TestWatermarksFromTheEndsOfTime(t *testing.T) {
	t.Parallel()
	if c := clamp(math.MinInt64); c >= earliest-1<<44 {
		t.Errorf("no watermark is brought to %d, within a window's length of what can be counted from %d", c, int64(earliest))
	}
	if c := clamp(math.MaxInt64); c <= latest+1<<44 {
		t.Errorf("the last watermark is brought to %d, within a window's length of what can be counted up to %d", c, int64(latest))
	}
	for _, ts := range []int64{earliest, latest} {
		op := newBagOperator(t, mustParse(t, "hopping:3d/1d"), Options{})
		var s State[bag]
		if v := op.Add(&s, none, ts, &event{1, ts}); v != Counted {
			t.Errorf("an event at %d without a watermark is %v", ts, v)
		}
		if err := op.Check(&s); err != nil {
			t.Error(err)
		}
		n := 0
		op.Advance(&s, Never-1, func(r *Result[bag]) { n++ })
		if n != 3 {
			t.Errorf("the last watermark closes %d windows of %d, want 3", n, ts)
		}
	}
}

// A slice beyond time is damage, as are a session outside of it.
func TestCheckOfTheEndsOfTime(t *testing.T) {
	t.Parallel()
	const size = 3 * dayMillis
	grid := newBagOperator(t, mustParse(t, "hopping:3d/1d"), Options{})
	least := floor(earliest-2*dayMillis-size, 0, dayMillis)
	for start, ok := range map[int64]bool{
		floor(earliest, 0, dayMillis): true, floor(latest, 0, dayMillis): true,
		floor(earliest, 0, dayMillis) - 4*dayMillis: true, // a day for a zone, and a window
		least - dayMillis: false, floor(latest, 0, dayMillis) + 3*dayMillis: false,
	} {
		s := State[bag]{Slices: []Slice[bag]{{Span: Span{start, start + dayMillis}, Count: 1}}}
		if err := grid.Check(&s); (err == nil) != ok {
			t.Errorf("a slice at %d: %v", start, err)
		}
	}
	session := newBagOperator(t, mustParse(t, "session:10ms"), Options{})
	for span, ok := range map[Span]bool{
		{earliest, earliest + 10}: true, {earliest - 1, earliest + 10}: false, {latest, latest + 10}: true, {latest, latest + 11}: false,
		{latest + 1, latest + 11}: false, {0, 10}: true, {0, 9}: false, {10, 0}: false,
	} {
		s := State[bag]{Slices: []Slice[bag]{{Span: span, Count: 1}}}
		if err := session.Check(&s); (err == nil) != ok {
			t.Errorf("a session [%d, %d): %v", span.Start, span.End, err)
		}
	}
}

// A state made new for another key keeps memory for a few slices, not that of the busiest key there ever was.
func TestRenewKeepsMemoryForAFewSlices(t *testing.T) {
	t.Parallel()
	op := newBagOperator(t, mustParse(t, "tumbling:10ms"), Options{})
	for n, kept := range map[int]int{mostRenewed: mostRenewed, mostRenewed + 1: 0} {
		s := State[bag]{Slices: make([]Slice[bag], n)}
		if op.Renew(&s); len(s.Slices) != 0 || cap(s.Slices) != kept {
			t.Errorf("of %d slices %d are there and memory for %d is kept, want %d", n, len(s.Slices), cap(s.Slices), kept)
		}
	}
}

// A message shows an outsider's text up to 64 bytes whole.
func TestClip(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("x", 64)
	if got := clip(whole); got != whole {
		t.Errorf("64 bytes become %q", got)
	}
	if got := clip(whole + "y"); got != whole+"…" {
		t.Errorf("65 bytes become %q", got)
	}
}

// A kind that there is not has a name all the same, and is refused.
func TestKindThatIsNone(t *testing.T) {
	t.Parallel()
	kind := Session + 1
	if got := kind.String(); got != "kind(4)" {
		t.Errorf("named %q", got)
	}
	if err := (Definition{Kind: kind, Size: time.Second, Slide: time.Second}).Validate(); err == nil || !strings.Contains(err.Error(), "kind 4 is unknown") {
		t.Errorf("validated with %v", err)
	}
}

// A unit is made of small letters, the first and the last of them too; what is not is told as it stands.
func TestUnitsThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"1a": `unit "a"`, "1z": `unit "z"`, "1az": `unit "az"`, "1{": `unit ""`, "1`": `unit ""`} {
		if _, err := parseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// An event at the very start of an open session is in it, whichever session was updated last, though a session of its own would be late (W8).
func TestLateEventAtTheStartOfAnOpenSession(t *testing.T) {
	t.Parallel()
	op := newBagOperator(t, mustParse(t, "session:10ms"), Options{})
	for ts, want := range map[int64]Verdict{-1: Late, 0: Counted, 1: Counted} {
		var s State[bag]
		for id, at := range []int64{0, 8, 100} { // the last one updated is the second session
			op.Add(&s, none, at, &event{id, at})
		}
		if got := op.Add(&s, 12, ts, &event{9, ts}); got != want {
			t.Errorf("an event at %d, beside a session from 0 to 18 at watermark 12, is %v, want %v", ts, got, want)
		}
	}
}

// A withdrawal is settled when what closes with it is, and not a moment later: nothing of the state is left.
func TestWithdrawalIsSettledWithItsSession(t *testing.T) {
	t.Parallel()
	op := newBagOperator(t, mustParse(t, "session:10ms"), Options{})
	for settled, empty := range map[int64]bool{22: false, 23: true} {
		var s State[bag]
		for id, at := range []int64{0, 14} {
			op.Add(&s, none, at, &event{id, at})
		}
		op.Collect(&s, none, func(*Result[bag]) {})
		op.Add(&s, none, 7, &event{2, 7}) // joins the two: the second, from 14 to 24, is withdrawn
		withdrawn := 0
		op.Advance(&s, 23, func(r *Result[bag]) {
			if r.Withdrawn {
				withdrawn++
			}
		})
		if got := op.Settle(&s, settled); got != empty || withdrawn != 1 {
			t.Errorf("settled to %d: empty %v, %d withdrawals were told", settled, got, withdrawn)
		}
	}
}

// A size is not left out where an offset is.
func TestOffsetWithoutASize(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"tumbling:+5m", "tumbling:-5m", "hopping:+5m", "session:-5m"} {
		if d, err := ParseDefinition(text); err == nil || strings.Contains(err.Error(), `"+`) {
			t.Errorf("%s is %v, %v", text, d, err)
		}
	}
}
