package window

import "testing"

// TestRestored: each method is good as the first one called on a state that was read back.
func TestRestored(t *testing.T) {
	op := newBagOperator(t, mustParse(t, "tumbling:10ms"), Options{})
	closed := func() *State[bag] {
		return &State[bag]{Slices: []Slice[bag]{{Span: Span{0, 10}, Acc: bag{[]int{1}}, Count: 1, Closed: true}}}
	}
	yields := func(call func(yield func(*Result[bag]))) (n int) {
		call(func(r *Result[bag]) {
			if n++; !r.Final {
				t.Errorf("%+v is not final", r)
			}
		})
		return n
	}
	if v := op.Add(closed(), -100, 5, &event{}); v != Late {
		t.Errorf("Add: %v, though the slice is closed", v)
	}
	if due := op.Due(closed()); due != 9 {
		t.Errorf("Due: %d", due)
	}
	if n := yields(func(yield func(*Result[bag])) { op.Advance(closed(), 8, yield) }); n != 0 {
		t.Errorf("Advance before its time yields %d", n)
	}
	if n := yields(func(yield func(*Result[bag])) { op.Advance(closed(), 9, yield) }); n != 1 {
		t.Errorf("Advance yields %d", n)
	}
	if n := yields(func(yield func(*Result[bag])) { op.Collect(closed(), -100, yield) }); n != 0 {
		t.Errorf("Collect yields %d", n)
	}
	if n := yields(func(yield func(*Result[bag])) {
		s := closed()
		op.Touch(s)
		op.Collect(s, -100, yield)
	}); n != 1 {
		t.Errorf("Collect after Touch yields %d", n)
	}
	for watermark, empty := range map[int64]bool{8: false, 9: true} {
		if got := op.Settle(closed(), watermark); got != empty {
			t.Errorf("Settle(%d) is %v", watermark, got)
		}
	}
}

// TestMark: marks order as watermarks do, and the zero mark is before all.
func TestMark(t *testing.T) {
	last := Mark(0)
	if last.Watermark() != none || MarkAt(none) != last {
		t.Errorf("the zero mark is %d", last.Watermark())
	}
	for _, watermark := range []int64{none + 1, -5, -1, 0, 1, 5, Never - 1, Never} {
		m := MarkAt(watermark)
		if m <= last || m.Watermark() != watermark {
			t.Errorf("mark of %d is %d, after %d", watermark, m, last)
		}
		last = m
	}
}
