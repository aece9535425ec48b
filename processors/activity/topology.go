package activity

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

// State is what is known of one registration number.
type State struct {
	// Total is the number of events ever counted, Summary what is known of them.
	Total   int64
	Summary codecs.Aggregate
	// Windows are what is open, per definition of the topology. A state with any must not be copied.
	Windows []window.State[codecs.Aggregate]

	one [1]window.State[codecs.Aggregate] // memory for the windows of one definition, which is the rule
}

// lay makes room for the windows of n definitions.
func (s *State) lay(n int) {
	if n == 1 {
		s.Windows = s.one[:]
	} else {
		s.Windows = make([]window.State[codecs.Aggregate], n)
	}
}

// topology is the job on one partition.
type topology struct {
	decoder     codecs.Decoder
	types       codecs.Interner
	definitions []definition
	writer      codecs.StateWriter
	parsing     parsing
	out         output
}

// definition is one window definition with what its records say of it.
type definition struct {
	*operator
	name, kind string
}

var _ engine.Topology[codecs.Event, State] = (*topology)(nil)

func newTopology(definitions []window.Definition, o window.Options, decoder codecs.Decoder) *topology {
	t := &topology{decoder: decoder}
	fold := window.Fold[codecs.Event, codecs.Aggregate]{
		Add:   func(a *codecs.Aggregate, e *codecs.Event) { a.Add(e, &t.types) },
		Merge: func(dst, src *codecs.Aggregate) { dst.Merge(src) },
		Reset: func(a *codecs.Aggregate) { a.Reset() },
	}
	for _, d := range definitions {
		op, err := window.New(d, o, fold)
		if err != nil {
			panic("activity: " + err.Error()) // New has made the same operators of the same definitions
		}
		t.definitions = append(t.definitions, definition{op, d.String(), d.Kind.String()})
	}
	t.out.yield = t.out.write
	return t
}

// Decode reads an aircraft event.
func (t *topology) Decode(dst *codecs.Event, r *engine.Record) error {
	return t.decoder.Decode(dst, r.Value)
}

// Key is the registration number.
func (t *topology) Key(e *codecs.Event) []byte { return e.Registration }

// Time is the event's time.
func (t *topology) Time(e *codecs.Event) int64 { return e.Time }

// Fold counts an event in every definition's windows; it is late if none took it.
func (t *topology) Fold(s *State, watermark int64, e *codecs.Event) bool {
	if s.Windows == nil {
		s.lay(len(t.definitions))
	}
	counted := false
	for i := range t.definitions {
		if t.definitions[i].Add(&s.Windows[i], watermark, e.Time, e) == window.Counted {
			counted = true
		}
	}
	if counted {
		s.Total++
		s.Summary.Add(e, &t.types)
	}
	return counted
}

// Warm reads the counts per type of the summary and of the newest slices.
func (t *topology) Warm(s *State) int64 {
	n := s.Total
	if len(s.Summary.Types) > 0 {
		n += s.Summary.Types[0].Count
	}
	for i := range s.Windows {
		if all := s.Windows[i].Slices; len(all) > 0 {
			if acc := &all[len(all)-1].Acc; len(acc.Types) > 0 {
				n += acc.Types[0].Count
			}
		}
	}
	return n
}

// Owns reports whether a key of the output topic is that of a window counted here.
func (t *topology) Owns(key []byte) bool {
	name, _, ok := bytes.Cut(key, []byte{'|'})
	return ok && slices.ContainsFunc(t.definitions, func(d definition) bool { return d.name == string(name) })
}

// Touch marks all windows to be emitted again.
func (t *topology) Touch(s *State) {
	for i := range s.Windows {
		t.definitions[i].Touch(&s.Windows[i])
	}
}

// Collect emits the windows that changed.
func (t *topology) Collect(key string, s *State, watermark int64, emit engine.Emit) {
	for i := range s.Windows {
		t.out.of(key, &t.definitions[i], emit)
		t.definitions[i].Collect(&s.Windows[i], watermark, t.out.yield)
	}
}

// Advance emits the windows that the watermark closes.
func (t *topology) Advance(key string, s *State, watermark int64, emit engine.Emit) {
	for i := range s.Windows {
		t.out.of(key, &t.definitions[i], emit)
		t.definitions[i].Advance(&s.Windows[i], watermark, t.out.yield)
	}
}

// Settle forgets closed windows whose results are acknowledged.
func (t *topology) Settle(s *State, watermark int64) {
	for i := range s.Windows {
		t.definitions[i].Settle(&s.Windows[i], watermark)
	}
}

// Due is when the next window closes.
func (t *topology) Due(s *State) int64 {
	due := int64(math.MaxInt64)
	for i := range s.Windows {
		due = min(due, t.definitions[i].Due(&s.Windows[i]))
	}
	return due
}

// Idle reports whether no window is open or unsettled.
func (t *topology) Idle(s *State) bool {
	for i := range s.Windows {
		if w := &s.Windows[i]; len(w.Slices) > 0 || len(w.Withdrawn) > 0 {
			return false
		}
	}
	return true
}

// Append encodes the state (codecs/state.proto, ActivityState).
func (t *topology) Append(dst []byte, s *State) []byte {
	w := &t.writer
	w.Reset(dst)
	w.Summary(s.Total, &s.Summary)
	for i := range s.Windows {
		if ws := &s.Windows[i]; len(ws.Slices) > 0 || len(ws.Withdrawn) > 0 {
			w.BeginDefinition(t.definitions[i].name)
			appendWindows(w, ws)
			w.EndDefinition()
		}
	}
	return w.Bytes()
}

func appendWindows(w *codecs.StateWriter, s *window.State[codecs.Aggregate]) {
	for i := range s.Slices {
		sl := &s.Slices[i]
		w.Slice(codecs.Slice{Start: sl.Start, End: sl.End, Count: sl.Count, Closed: sl.Closed}, &sl.Acc)
	}
	for _, v := range s.Withdrawn {
		w.Withdrawn(codecs.Withdrawn{Start: v.Start, End: v.End, Revision: v.Revision})
	}
}

// Parse decodes a state.
func (t *topology) Parse(s *State, data []byte, purged int64) error {
	s.Total = 0
	s.Summary.Reset()
	if s.Windows == nil {
		s.lay(len(t.definitions))
	}
	for i := range s.Windows {
		t.definitions[i].Renew(&s.Windows[i])
		s.Windows[i].Purged = window.MarkAt(purged)
	}
	t.parsing = parsing{t: t, state: s}
	err := codecs.ParseState(data, &t.types, &t.parsing)
	if err == nil {
		err = t.parsing.err
	}
	return err
}

// parsing puts the parts of an encoded state in place.
type parsing struct {
	t     *topology
	state *State
	open  *window.State[codecs.Aggregate]
	err   error
}

func (p *parsing) Summary(total int64) *codecs.Aggregate {
	p.state.Total = total
	return &p.state.Summary
}

func (p *parsing) Definition(name []byte) bool {
	for i := range p.t.definitions {
		if p.t.definitions[i].name == string(name) {
			p.open = &p.state.Windows[i]
			return true
		}
	}
	p.err = fmt.Errorf("decode state: it holds windows of %q, which is not counted here: run with the --window flags it was written with", name)
	return false
}

func (p *parsing) Slice(s codecs.Slice) *codecs.Aggregate {
	return p.open.Restore(window.Span{Start: s.Start, End: s.End}, s.Count, s.Closed)
}

func (p *parsing) Withdrawn(w codecs.Withdrawn) {
	p.open.Withdrawn = append(p.open.Withdrawn, window.Withdrawn{Span: window.Span{Start: w.Start, End: w.End}, Revision: w.Revision})
}

// output turns results into records of the output topic.
type output struct {
	record     codecs.Window
	emit       engine.Emit
	yield      func(*window.Result[codecs.Aggregate])
	key, value []byte
}

// of says whose results come next.
func (o *output) of(registration string, d *definition, emit engine.Emit) {
	o.record.Registration, o.record.Definition, o.record.Kind, o.emit = registration, d.name, d.kind, emit
}

func (o *output) write(r *window.Result[codecs.Aggregate]) {
	w := &o.record
	w.Start, w.End, w.Count, w.Aggregate = r.Start, r.End, r.Count, *r.Acc
	w.Revision, w.Final, w.Withdrawn = r.Revision, r.Final, r.Withdrawn
	o.key, o.value = w.AppendKey(o.key[:0]), w.AppendJSON(o.value[:0])
	o.emit(o.key, o.value)
}
