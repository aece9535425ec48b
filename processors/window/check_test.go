package window

import (
	"math"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	slice := func(start, end, count int64) Slice[bag] { return Slice[bag]{Span: Span{start, end}, Count: count} }
	of := func(slices ...Slice[bag]) State[bag] { return State[bag]{Slices: slices} }
	gone := func(start, end, revision int64) State[bag] {
		return State[bag]{Withdrawn: []Withdrawn{{Span: Span{start, end}, Revision: revision}}}
	}
	tests := []struct {
		definition string
		s          State[bag]
		want       string // nothing: the state is good
	}{
		{"tumbling:10ms", State[bag]{}, ""},
		{"tumbling:10ms", of(slice(0, 10, 1), slice(10, 20, 5), slice(50, 60, 1)), ""},
		{"tumbling:10ms", of(slice(0, 10, 0)), "slice [0, 10): count 0 must be at least 1"},
		{"tumbling:10ms", of(slice(5, 15, 1)), "slice [5, 15): its borders are not those of windows"},
		{"tumbling:10ms+5ms", of(slice(5, 15, 1)), ""},
		{"tumbling:10ms", of(slice(0, 11, 1)), "its borders"},
		{"tumbling:10ms", of(slice(0, 20, 1)), "its borders"},
		{"tumbling:10ms", of(slice(10, 20, 1), slice(0, 10, 1)), "slice [0, 10) is out of order"},
		{"tumbling:10ms", of(slice(0, 10, 1), slice(0, 10, 1)), "slice [0, 10) is out of order"},
		{"tumbling:10ms", of(slice(math.MinInt64, math.MinInt64+10, 1)), "start is beyond time"},
		{"tumbling:10ms", of(slice(math.MaxInt64-10, math.MaxInt64, 1)), "start is beyond time"},
		{"tumbling:10ms", of(slice(0, math.MaxInt64, 1)), "its borders"},
		{"tumbling:10ms", of(slice(0, math.MinInt64, 1)), "its borders"},
		{"tumbling:10ms", gone(0, 10, 3), "no session was [0, 10) with revision 3"},
		{"hopping:30ms/10ms", of(slice(0, 10, 1), slice(0, 20, 1), slice(0, 30, 1), slice(10, 20, 1)), ""},
		{"hopping:30ms/10ms", of(slice(0, 40, 1)), "its borders"},
		{"hopping:30ms/10ms", of(slice(0, 15, 1)), "its borders"},
		{"hopping:30ms/10ms", of(slice(0, 20, 1), slice(0, 10, 1)), "out of order"},
		{"hopping:25ms/10ms", of(slice(0, 5, 1), slice(0, 15, 1), slice(5, 10, 1), slice(5, 25, 1)), ""},
		{"hopping:25ms/10ms", of(slice(5, 15, 1)), "its borders"}, // that is its first window, which it needs not say
		{"hopping:25ms/10ms", of(slice(0, 10, 1)), "its borders"},
		{"hopping:5ms/10ms", of(slice(0, 5, 1)), ""},
		{"hopping:5ms/10ms", of(slice(5, 10, 1)), "its borders"},
		{"cumulating:5ms/20ms", of(slice(0, 5, 1), slice(0, 10, 1), slice(5, 10, 1), slice(15, 20, 1)), ""},
		{"cumulating:5ms/20ms", of(slice(15, 25, 1)), "its borders"},
		{"session:10ms", of(slice(3, 13, 1), slice(20, 47, 5)), ""},
		{"session:10ms", of(slice(3, 12, 1)), "slice [3, 12): a session is at least 10ms long"},
		{"session:10ms", of(slice(3, math.MinInt64+5, 1)), "a session is at least"},
		{"session:10ms", of(slice(3, math.MaxInt64, 1)), "a session is at least"},
		{"session:10ms", gone(0, 10, 3), ""},
		{"session:10ms", gone(0, 10, 4), "no session was [0, 10) with revision 4"},
		{"session:10ms", gone(0, 10, 1), "no session was"},
		{"session:10ms", gone(0, 9, 3), "no session was"},
		{"session:10ms", gone(math.MinInt64, 9, 3), "no session was"},
		{"session:10ms", gone(math.MaxInt64-20, math.MaxInt64, 3), "no session was"},
	}
	for _, test := range tests {
		op := newBagOperator(t, mustParse(t, test.definition), Options{})
		err := op.Check(&test.s)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s %+v: %v", test.definition, test.s, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), `check state of "`+test.definition)):
			t.Errorf("%s %+v: %v, want %q", test.definition, test.s, err, test.want)
		}
	}
}
