package activity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"klgstream.dev/codecs"
)

// A tally says what a codecs.Aggregate of the same events says, however many types there are, whether it was merged from parts,
// stored and read back, and also when there are no numbers left for names.
func TestTallyIsAnAggregate(t *testing.T) {
	t.Parallel()
	for _, types := range []int{1, 3, few, few + 1, 2 * codecs.MaxTypes} {
		for _, unknown := range []bool{false, true} {
			for seed := range uint64(30) {
				t.Run(fmt.Sprintf("types=%d/unknown=%v/seed=%d", types, unknown, seed), func(t *testing.T) {
					t.Parallel()
					var s names
					if unknown { // as if a flood of types had come before
						for i := range maxNames - 2 {
							s.of(fmt.Appendf(nil, "x%d", i))
						}
					}
					checkTally(t, rand.New(rand.NewPCG(seed, uint64(types))), types, &s)
				})
			}
		}
	}
}

func checkTally(t *testing.T, r *rand.Rand, types int, s *names) {
	parts := make([]tally, 3)
	truth := make([]codecs.Aggregate, 3)
	for range r.IntN(200) {
		e := codecs.Event{
			Type: fmt.Appendf(nil, "t%d", r.IntN(types)), Time: 1_770_000_000_000 + int64(r.IntN(20)), // many at one time
			AircraftID: r.Int64N(4), HasAircraftID: r.IntN(3) > 0,
		}
		i := r.IntN(len(parts))
		parts[i].add(&e, s.of(e.Type), s)
		truth[i].Add(&e, nil)
		if r.IntN(20) == 0 { // stored and read back
			var scratch codecs.Aggregate
			again := tally{first: 1, counts: [few]uint32{7}, n: 1}
			again.set(parts[i].aggregate(&scratch, s), s)
			parts[i] = again
		}
	}
	for i := range parts {
		sameTally(t, &parts[i], &truth[i], s)
	}
	for _, i := range r.Perm(2) {
		parts[2].merge(&parts[i], s)
		truth[2].Merge(&truth[i])
		sameTally(t, &parts[2], &truth[2], s)
	}
}

func sameTally(t *testing.T, got *tally, want *codecs.Aggregate, s *names) {
	t.Helper()
	var scratch codecs.Aggregate
	has := *got.aggregate(&scratch, s)
	if got.empty() != want.Empty() {
		t.Fatalf("empty is %v, of %+v", got.empty(), want)
	}
	if want.Empty() {
		return
	}
	if !reflect.DeepEqual(has, *want) {
		t.Fatalf("tally says\n%+v, events say\n%+v", has, *want)
	}
}

// A count that a tally has no room for is as right as any.
func TestTallyOfManyEvents(t *testing.T) {
	t.Parallel()
	var s names
	full := codecs.Aggregate{First: 1, Last: 2, LastType: "a", Types: []codecs.TypeCount{{Type: "a", Count: math.MaxUint32 - 1}, {Type: "b", Count: 1}}}
	of := func() (a tally) { a.set(&full, &s); return a }
	added, merged, both := of(), of(), of()
	e := codecs.Event{Type: []byte("a"), Time: 3}
	for range 2 {
		added.add(&e, s.of(e.Type), &s)
		var one tally
		one.add(&e, s.of(e.Type), &s)
		merged.merge(&one, &s)
	}
	twice := of()
	both.merge(&twice, &s)
	var read tally
	var stored codecs.Aggregate
	read.set(both.aggregate(&stored, &s), &s)
	for name, c := range map[string]struct {
		tally *tally
		a, b  int64
	}{
		"added":  {&added, math.MaxUint32 + 1, 1},
		"merged": {&merged, math.MaxUint32 + 1, 1},
		"both":   {&both, 2*math.MaxUint32 - 2, 2},
		"read":   {&read, 2*math.MaxUint32 - 2, 2},
	} {
		var scratch codecs.Aggregate
		want := []codecs.TypeCount{{Type: "a", Count: c.a}, {Type: "b", Count: c.b}}
		if got := c.tally.aggregate(&scratch, &s).Types; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A tally is small as long as it can be: of six types, each counted as often as there is room for, also when it was merged or stored.
func TestTallyStaysSmall(t *testing.T) {
	t.Parallel()
	var s names
	full := codecs.Aggregate{First: 1, Last: 2, LastType: "a"}
	for i := range few {
		full.Types = append(full.Types, codecs.TypeCount{Type: string(rune('a' + i)), Count: math.MaxUint32})
	}
	one := codecs.Aggregate{First: 1, Last: 2, LastType: "a", Types: []codecs.TypeCount{{Type: "a", Count: 1}}}
	less := full
	less.Types = append([]codecs.TypeCount{{Type: "a", Count: math.MaxUint32 - 1}}, full.Types[1:]...)
	of := func(a *codecs.Aggregate) (out tally) { out.set(a, &s); return out }
	read, merged, single := of(&full), of(&less), of(&one)
	merged.merge(&single, &s)
	for name, a := range map[string]*tally{"read": &read, "merged": &merged} {
		if a.many != nil {
			t.Errorf("%s: it is not small", name)
		}
		sameTally(t, a, &full, &s)
	}
	if merged.merge(&single, &s); merged.many == nil {
		t.Error("a count beyond 32 bits has room")
	}
	seventh := codecs.Aggregate{First: 1, Last: 2, LastType: "g", Types: []codecs.TypeCount{{Type: "g", Count: 1}}}
	other := of(&seventh)
	if read.merge(&other, &s); read.many == nil {
		t.Error("a seventh type has room")
	}
}
