package window

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyDefinition draws a definition over a few dozen ms.
func anyDefinition(t *rapid.T) Definition {
	size := rapid.Int64Range(1, 24).Draw(t, "size")
	d := Definition{
		Kind: rapid.SampledFrom([]Kind{Tumbling, Hopping, Hopping, Cumulating, Session, Session}).Draw(t, "kind"),
		Size: ms(size), Offset: ms(rapid.Int64Range(-30, 30).Draw(t, "offset")),
	}
	switch d.Kind {
	case Hopping:
		d.Slide = ms(rapid.Int64Range(1, 30).Draw(t, "slide"))
	case Cumulating:
		d.Slide = ms(rapid.Int64Range(1, 6).Draw(t, "step"))
		d.Size = d.Slide * ms(rapid.Int64Range(1, 8).Draw(t, "steps")) / ms(1)
	case Session:
		d = Definition{Kind: Session, Gap: ms(size)}
	case Tumbling:
	}
	return d
}

func anyOptions(t *rapid.T) Options {
	return Options{
		AllowedLateness: ms(rapid.SampledFrom([]int64{0, 0, 1, 5, 20}).Draw(t, "lateness")),
		Emit:            rapid.SampledFrom([]Emit{OnUpdate, OnClose}).Draw(t, "emit"),
	}
}

// arrival is an event and the watermark after it.
type arrival struct {
	event
	after int64
}

// anyStream draws events around zero, in order but for a jitter, and watermarks a bound behind them.
func anyStream(t *rapid.T) []arrival {
	n, bound := rapid.IntRange(1, 40).Draw(t, "events"), rapid.Int64Range(0, 25).Draw(t, "bound")
	stream := make([]arrival, n)
	at := rapid.Int64Range(-60, 20).Draw(t, "start")
	for i := range stream {
		at += rapid.Int64Range(0, 9).Draw(t, "step")
		ts := at - rapid.Int64Range(0, 40).Draw(t, "behind")*rapid.Int64Range(0, 1).Draw(t, "disorder")
		stream[i] = arrival{event{ID: i, TS: ts}, ts - bound - 1}
	}
	return stream
}

// compareRows fails unless the store shows what the model says. On close, a session that fired and then grew shows as it fired until it
// fires again.
func compareRows(t fataler, what string, r *rig, m *model, watermark int64) {
	t.Helper()
	got := r.visible()
	for _, w := range m.windows {
		id := r.identity(w.span)
		if old, ok := got[id]; ok && r.options.Emit == OnClose && m.d.Kind == Session && w.span.End-1 > watermark {
			if old.Final || old.Count >= int64(len(w.ids)) || old.Span.End >= w.span.End {
				t.Fatalf("%s: %+v fired, but %+v is open", what, old, w)
			}
			delete(got, id)
		}
	}
	if diff := cmp.Diff(m.rows(watermark, r.options, m.d.Kind), got); diff != "" {
		t.Fatalf("%s (−model +operator):\n%s", what, diff)
	}
}

// TestModel feeds random streams to all kinds of window while the caller does what callers do at any time: ticks, checkpoints, replays
// of what is known, restarts. Whatever it does (W6), each event gets the model's verdict, and the store shows the model's windows.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, o := anyDefinition(t), anyOptions(t)
		runModel(t, d, o, anyStream(t), func() int { return rapid.IntRange(0, 9).Draw(t, "then") })
	})
}

// runModel compares the operator with the model over a stream; after each event, `then` draws what the caller does, of 10 things.
func runModel(t fataler, d Definition, o Options, stream []arrival, then func() int) {
	op, err := New(d, o, bagFold())
	if err != nil {
		t.Fatalf("%v", err)
	}
	r, m := newRig(t, op, o), newModel(d, o)
	r.strict = true
	watermark, settled, repeats := int64(none), int64(none), false
	for _, e := range stream {
		want, got := m.add(watermark, e.event), r.add(watermark, e.event)
		if got != want {
			t.Fatalf("%s: event %+v at watermark %d is %v, want %v\n%+v", d, e, watermark, got, want, m.byEnd())
		}
		if due := op.Due(&r.state); !repeats && len(r.state.Withdrawn) == 0 && due != m.due(r.fired, o) {
			t.Fatalf("%s: due %d, want %d, fired %d\n%+v", d, due, m.due(r.fired, o), r.fired, m.byEnd())
		}
		watermark = max(watermark, e.after)
		switch act := then(); act {
		case 0, 1:
			r.advance(watermark)
		case 2:
			r.collect(watermark)
		case 3, 4:
			r.advance(watermark)
			r.collect(watermark)
			compareRows(t, d.String(), r, m, watermark)
		case 5:
			r.advance(watermark)
			r.collect(watermark)
			settled = watermark
			op.Settle(&r.state, settled)
		case 6:
			op.Touch(&r.state)
			repeats = true
		case 7:
			r.restart(settled)
			op.Touch(&r.state)
			repeats = true
		case 8:
			r.collect(watermark)
			r.restart(settled)
			repeats = true
		}
	}
	end := max(watermark, latest+1<<45)
	r.advance(end)
	r.collect(end)
	compareRows(t, "at the end", r, m, end)
	if due := op.Due(&r.state); due != Never {
		t.Fatalf("due %d at the end", due)
	}
	if !op.Settle(&r.state, end) || len(r.state.Slices)+len(r.state.Withdrawn) > 0 {
		t.Fatalf("state is not empty at the end: %+v", r.state)
	}
	for id, n := range r.finals {
		if n > 1 && !repeats {
			t.Fatalf("%v was final %d times without a reason", id, n)
		}
	}
}
