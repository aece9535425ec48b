package codecs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func event(at int64, typ string, id int64) *Event {
	return &Event{Registration: []byte("N1"), Type: []byte(typ), Time: at, AircraftID: max(id, 0), HasAircraftID: id >= 0}
}

// aggregateOf adds events one by one.
func aggregateOf(events []*Event) (a Aggregate) {
	var names Interner
	for _, e := range events {
		a.Add(e, &names)
	}
	return a
}

// modelOf says what an aggregate is, from its definition.
func modelOf(events []*Event) (a Aggregate) {
	if len(events) == 0 {
		return a
	}
	counts := map[string]int64{}
	for _, e := range events {
		counts[string(e.Type)]++
	}
	var names []string
	for name := range counts {
		if name != OtherType {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names[min(len(names), MaxTypes):] {
		counts[OtherType] += counts[name]
		delete(counts, name)
	}
	for name, n := range counts {
		a.Types = append(a.Types, TypeCount{name, n})
	}
	slices.SortFunc(a.Types, compareTypes)
	last := slices.MaxFunc(events, func(a, b *Event) int { return int(a.Time - b.Time) })
	first := slices.MinFunc(events, func(a, b *Event) int { return int(a.Time - b.Time) })
	a.First, a.Last = first.Time, last.Time
	for _, e := range events {
		if e.Time == a.Last {
			a.tie(string(e.Type), e.AircraftID, e.HasAircraftID)
		}
	}
	return a
}

// someEvents draws events with many ties, mostly of few types, now and then of more than fit.
func someEvents(t *rapid.T, label string) []*Event {
	types := rapid.SampledFrom([]int{0, 3, 10, 120}).Draw(t, label+" types")
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *Event {
		n := rapid.IntRange(0, types).Draw(t, "type")
		typ := fmt.Sprintf("%c-%d", "az"[n%2], n) // on both sides of "other"
		if n == 0 {
			typ = OtherType
		}
		return event(rapid.Int64Range(-5, 5).Draw(t, "time"), typ, rapid.Int64Range(-2, 3).Draw(t, "id"))
	}), types*3/4, 2*types).Draw(t, label)
}

// C4: an aggregate is what its definition says, in whatever order the events came and however they were put together.
func TestAggregateIsAMonoid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x, y, z := someEvents(t, "x"), someEvents(t, "y"), someEvents(t, "z")
		all := slices.Concat(x, y, z)
		want := modelOf(all)
		same := func(how string, got Aggregate) {
			if fmt.Sprint(want) != fmt.Sprint(got) || cap(got.Types) > 4*MaxTypes {
				t.Fatalf("%s\nwant %v\n got %v", how, want, got)
			}
		}
		same("in order", aggregateOf(all))
		same("in another order", aggregateOf(rapid.Permutation(all).Draw(t, "permutation")))
		left := aggregateOf(x)
		for _, part := range [][]*Event{y, z} {
			b := aggregateOf(part)
			left.Merge(&b)
		}
		same("(x+y)+z", left)
		right, b := aggregateOf(z), aggregateOf(y)
		b.Merge(&right)
		a := aggregateOf(x)
		b.Merge(&a)
		same("(y+z)+x", b)
		b.Merge(&Aggregate{})
		same("with nothing", b)
		var empty Aggregate
		empty.Merge(&b)
		same("into nothing", empty)
	})
}

// What was merged must not be tied to where it came from: slices are folded on while windows are put together.
func TestMergeKeepsNothingOfItsSource(t *testing.T) {
	t.Parallel()
	a, b := aggregateOf([]*Event{event(1, "a", 1)}), Aggregate{}
	b.Merge(&a)
	a.Add(event(2, "a", 1), nil)
	if b.Types[0].Count != 1 {
		t.Error("the merged aggregate changed with its source")
	}
}

func TestResetKeepsCapacity(t *testing.T) {
	a := aggregateOf([]*Event{event(1, "a", 1), event(1, "b", 1)})
	first, second := event(5, "b", -1), event(5, "a", -1)
	var names Interner
	names.Intern(first.Type)
	names.Intern(second.Type)
	if n := testing.AllocsPerRun(100, func() {
		a.Reset()
		if !a.Empty() {
			t.Error("not empty")
		}
		a.Add(first, &names)
		a.Add(second, &names)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if want := (Aggregate{First: 5, Last: 5, LastType: "b", Types: []TypeCount{{"a", 1}, {"b", 1}}}); fmt.Sprint(want) != fmt.Sprint(a) {
		t.Errorf("want %v, got %v", want, a)
	}
}

func TestInterner(t *testing.T) {
	t.Parallel()
	var in Interner
	a, b := in.Intern([]byte("landed")), in.Intern([]byte("landed"))
	if a != "landed" || unsafe.StringData(a) != unsafe.StringData(b) {
		t.Error("equal bytes gave two strings")
	}
	for i := range 2 * maxInterned {
		if s := fmt.Sprint(i); in.Intern([]byte(s)) != s {
			t.Fatal(s)
		}
	}
	if len(in.known) != maxInterned {
		t.Errorf("%d strings are kept", len(in.known))
	}
	var none *Interner
	if none.Intern([]byte("x")) != "x" {
		t.Error("nil does not make strings")
	}
}

// With "other" in any place among the types, it is the greatest of the named ones that makes room.
func TestOverflowTakesTheGreatest(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"a", "z"} {
		var events []*Event
		for i := range MaxTypes + 5 {
			events = append(events, event(0, fmt.Sprintf("%s%03d", prefix, (i*37)%(MaxTypes+5)), 1), event(0, OtherType, 1))
		}
		equal(t, modelOf(events), aggregateOf(events))
	}
}

// A flood of made-up types costs a bounded aggregate (C1).
func TestTypesAreBounded(t *testing.T) {
	t.Parallel()
	var a Aggregate
	var names Interner
	r := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		a.Add(event(r.Int64N(1000), strings.Repeat("x", r.IntN(8)+1)+fmt.Sprint(r.IntN(1000)), 1), &names)
	}
	total := int64(0)
	for _, tc := range a.Types {
		total += tc.Count
	}
	if len(a.Types) != MaxTypes+1 || total != 50_000 {
		t.Errorf("%d types with %d events", len(a.Types), total)
	}
}
