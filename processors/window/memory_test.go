package window

import (
	"sync"
	"testing"
	"unsafe"
)

// TestSlotsAreReused: a state that always has two windows open never grows, and a slot's accumulator keeps its capacity.
func TestSlotsAreReused(t *testing.T) {
	resets := 0
	fold := bagFold()
	reset := fold.Reset
	fold.Reset = func(b *bag) { resets++; reset(b) }
	op, err := New(mustParse(t, "tumbling:10ms"), Options{}, fold)
	if err != nil {
		t.Fatal(err)
	}
	var s State[bag]
	for ts := range int64(1000) {
		op.Add(&s, ts-5, ts, &event{int(ts), ts})
		op.Advance(&s, ts-5, func(r *Result[bag]) {
			if len(r.Acc.IDs) != 10 || int64(r.Acc.IDs[0]) != r.Start {
				t.Fatalf("[%d, %d) holds %v", r.Start, r.End, r.Acc.IDs)
			}
		})
		op.Settle(&s, ts-5)
	}
	if cap(s.Slices) > 2 || resets != 99 {
		t.Errorf("%d slots, %d resets", cap(s.Slices), resets)
	}
	for _, sl := range s.Slices[:cap(s.Slices)] {
		if cap(sl.Acc.IDs) < 10 {
			t.Errorf("capacity %d is lost", cap(sl.Acc.IDs))
		}
	}
}

// TestSizes: what a key costs beside its accumulators.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(State[int64]{}) - 2*unsafe.Sizeof(Slice[int64]{}); n > 112 { // beside the first slices
		t.Errorf("a state is %d bytes", n)
	}
	if n := unsafe.Sizeof(Slice[struct{ _ [0]int64 }]{}); n > 48 {
		t.Errorf("a slice is %d bytes beside its accumulator", n)
	}
}

// TestShared: goroutines may share an operator, each with a state of its own. For the race detector.
func TestShared(t *testing.T) {
	op := newBagOperator(t, mustParse(t, "hopping:2d/1d@Europe/Berlin"), Options{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			r := newRig(t, op, Options{})
			for ts := int64(0); ts < 20*dayMillis; ts += dayMillis / 3 {
				r.add(ts-dayMillis, event{int(ts / 1000), ts})
				r.advance(ts - dayMillis)
				r.collect(ts - dayMillis)
				op.Settle(&r.state, ts-dayMillis)
			}
		})
	}
	group.Wait()
}

// TestTouchFirst: a state that was just read back can be touched and collected at once.
func TestTouchFirst(t *testing.T) {
	op := newBagOperator(t, mustParse(t, "tumbling:10ms"), Options{})
	r := newRig(t, op, Options{})
	r.add(none, event{1, 5})
	r.state = reload(t, &r.state)
	op.Touch(&r.state)
	r.collect(0)
	if len(r.store) != 1 || op.Due(&r.state) != 9 {
		t.Errorf("collected %v, due %d", r.store, op.Due(&r.state))
	}
}
