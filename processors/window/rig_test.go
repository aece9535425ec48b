package window

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

// event is what the tests fold: a time, and an identity by which to find it again.
type event struct {
	ID int
	TS int64
}

// bag is an accumulator that forgets nothing.
type bag struct{ IDs []int }

func bagFold() Fold[event, bag] {
	return Fold[event, bag]{
		Add:   func(b *bag, e *event) { b.IDs = append(b.IDs, e.ID) },
		Merge: func(dst, src *bag) { dst.IDs = append(dst.IDs, src.IDs...) },
		Reset: func(b *bag) { b.IDs = b.IDs[:0] },
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func mustParse(t testing.TB, text string) Definition {
	t.Helper()
	d, err := ParseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newBagOperator(t testing.TB, d Definition, o Options) *Operator[event, bag] {
	t.Helper()
	op, err := New(d, o, bagFold())
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// row is what a store knows of a window.
type row struct {
	Span             Span
	IDs              string
	Count, Revision  int64
	Final, Withdrawn bool
}

// rig runs one key through an operator and stores what it yields as a sink does, checking each result by itself and against
// the one before.
type rig struct {
	t         fataler
	op        *Operator[event, bag]
	options   Options
	state     State[bag]
	store     map[Span]row // by identity
	watermark int64
	fired     int64 // of the last Advance that had something to do
	yields    int
	strict    bool // all that is yielded arrives
	finals    map[Span]int
}

func newRig(t fataler, op *Operator[event, bag], o Options) *rig {
	return &rig{t: t, op: op, options: o, store: map[Span]row{}, finals: map[Span]int{}, watermark: none, fired: none}
}

// identity is what tells a window from others: a session is known by its start alone.
func (r *rig) identity(s Span) Span {
	if r.op.definition.Kind == Session {
		s.End = s.Start
	}
	return s
}

func sorted(ids []int) string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return fmt.Sprint(ids)
}

func (r *rig) take(res *Result[bag]) {
	r.t.Helper()
	r.yields++
	got := row{res.Span, sorted(res.Acc.IDs), res.Count, res.Revision, res.Final, res.Withdrawn}
	last := int64(0)
	if res.Final || res.Withdrawn {
		last = 1
	}
	if res.Revision != 2*res.Count+last {
		r.t.Fatalf("W5: %+v has the wrong revision", got)
	}
	if !res.Withdrawn && int(res.Count) != len(res.Acc.IDs) || res.Count < 1 || res.Withdrawn && len(res.Acc.IDs) > 0 {
		r.t.Fatalf("%+v counts wrong", got)
	}
	if res.Final && res.Withdrawn {
		r.t.Fatalf("%+v is final and withdrawn", got)
	}
	id := r.identity(res.Span)
	switch old, ok := r.store[id]; {
	case ok && old.Revision > got.Revision:
		r.t.Fatalf("W5: revision goes down: %+v after %+v", got, old)
	case ok && old.Revision == got.Revision && old != got:
		r.t.Fatalf("W5: same revision, other contents: %+v after %+v", got, old)
	case ok && (old.Final || old.Withdrawn) && old != got:
		r.t.Fatalf("W3: %+v after the last word %+v", got, old)
	}
	if _, ok := r.store[id]; res.Withdrawn && r.strict && !ok {
		r.t.Fatalf("%+v is withdrawn, but was never published", got)
	}
	if res.Final {
		r.finals[id]++
		if at := max(r.watermark, r.state.Purged.Watermark()); res.End-1+r.options.AllowedLateness.Milliseconds() > at {
			r.t.Fatalf("W3: %+v is final at watermark %d", got, at)
		}
	}
	r.store[id] = got
}

func (r *rig) add(watermark int64, e event) Verdict {
	r.watermark = max(r.watermark, watermark)
	return r.op.Add(&r.state, watermark, e.TS, &e)
}

func (r *rig) advance(watermark int64) {
	r.t.Helper()
	r.watermark = max(r.watermark, watermark)
	due, before := r.op.Due(&r.state), r.yields
	if due <= watermark {
		r.fired = watermark
	}
	r.op.Advance(&r.state, watermark, r.take)
	if due > watermark && r.yields != before {
		r.t.Fatalf("Advance(%d) yields before Due %d", watermark, due)
	}
	if due := r.op.Due(&r.state); due <= watermark && due != Never {
		r.t.Fatalf("due %d remains after Advance(%d)", due, watermark)
	}
}

func (r *rig) collect(watermark int64) {
	r.t.Helper()
	r.op.Collect(&r.state, watermark, r.take)
}

// restart stores the state and reads it back: only exported fields live on.
func (r *rig) restart(committed int64) {
	r.t.Helper()
	r.state = reload(r.t, &r.state)
	if err := r.op.Check(&r.state); err != nil {
		r.t.Fatalf("%v: %+v", err, r.state)
	}
	r.op.Settle(&r.state, committed)
}

func reload(t fataler, s *State[bag]) (out State[bag]) {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("store state: %v", err)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("load state: %v", err)
	}
	return out
}

// visible are the rows that a reader sees.
func (r *rig) visible() map[Span]row {
	out := map[Span]row{}
	for id, row := range r.store {
		if !row.Withdrawn {
			out[id] = row
		}
	}
	return out
}
