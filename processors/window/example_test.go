package window_test

import (
	"fmt"
	"time"

	"klgstream.dev/processors/window"
)

// Departures are counted per ten minutes, by one key; events may be a minute late.
func Example() {
	definition, err := window.ParseDefinition("tumbling:10m")
	if err != nil {
		fmt.Println(err)
		return
	}
	count := window.Fold[time.Time, int]{
		Add:   func(n *int, _ *time.Time) { *n++ },
		Merge: func(dst, src *int) { *dst += *src },
		Reset: func(n *int) { *n = 0 },
	}
	operator, err := window.New(definition, window.Options{Emit: window.OnClose}, count)
	if err != nil {
		fmt.Println(err)
		return
	}
	var state window.State[int]
	marks := window.NewWatermarks(time.Minute)
	show := func(r *window.Result[int]) {
		fmt.Println(time.UnixMilli(r.Start).UTC().Format("15:04"), *r.Acc, "final:", r.Final)
	}
	for _, clock := range []string{"10:01", "10:09", "10:08", "10:12", "10:05", "10:31"} {
		at, _ := time.Parse("15:04", clock)
		if verdict := operator.Add(&state, marks.Current(), at.UnixMilli(), &at); verdict != window.Counted {
			fmt.Println(clock, verdict)
		}
		marks.Observe(0, at.UnixMilli())
		operator.Advance(&state, marks.Current(), show)
	}
	// Output:
	// 10:00 3 final: true
	// 10:05 late
	// 10:10 1 final: true
}
