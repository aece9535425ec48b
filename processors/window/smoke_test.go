package window

import "testing"

func TestSmoke(t *testing.T) {
	for _, text := range []string{"tumbling:10ms", "hopping:20ms/10ms", "hopping:25ms/10ms", "cumulating:5ms/20ms", "session:10ms"} {
		d, err := ParseDefinition(text)
		if err != nil {
			t.Fatal(err)
		}
		if d.String() != text {
			t.Fatal(d.String())
		}
		op, err := New(d, Options{}, Fold[int, int]{func(a, e *int) { *a += *e }, func(a, b *int) { *a += *b }, func(a *int) { *a = 0 }})
		if err != nil {
			t.Fatal(err)
		}
		var s State[int]
		one := 1
		for _, ts := range []int64{3, 5, 21, 8, 13} {
			t.Log(text, ts, op.Add(&s, ts-5, ts, &one))
			op.Advance(&s, ts-5, func(r *Result[int]) { t.Log("advance", *r, *r.Acc) })
			op.Collect(&s, ts-5, func(r *Result[int]) { t.Log("collect", *r, *r.Acc) })
		}
		op.Advance(&s, 100, func(r *Result[int]) { t.Log("advance", *r, *r.Acc) })
		t.Log(op.Settle(&s, 100), op.Due(&s) == Never)
	}
}
