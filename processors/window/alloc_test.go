//go:build !race

package window

import "testing"

// TestNoAllocation: once a state has room, neither counting nor closing nor collecting allocates.
func TestNoAllocation(t *testing.T) {
	for _, definition := range []string{"tumbling:10ms", "hopping:40ms/10ms", "hopping:45ms/10ms", "cumulating:10ms/40ms", "session:3ms", "tumbling:1d@Europe/Berlin"} {
		for _, emit := range []Emit{OnUpdate, OnClose} {
			op, err := New(mustParse(t, definition), Options{Emit: emit, AllowedLateness: ms(3)}, countFold())
			if err != nil {
				t.Fatal(err)
			}
			var s State[int64]
			ts, f, yields := int64(0), flight{}, 0
			take := func(*Result[int64]) { yields++ }
			if n := testing.AllocsPerRun(2000, func() {
				ts += 11
				op.Add(&s, ts-15, ts, &f)
				op.Add(&s, ts-15, ts-5, &f)
				op.Add(&s, ts-15, ts-2, &f)
				op.Advance(&s, ts-10, take)
				op.Collect(&s, ts-10, take)
				op.Settle(&s, ts-10)
			}); n > 0 {
				t.Errorf("%s, emit %d: %v allocations per round", definition, emit, n)
			}
			if yields == 0 && definition != "tumbling:1d@Europe/Berlin" {
				t.Errorf("%s, emit %d: nothing was yielded", definition, emit)
			}
		}
	}
}
