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

// State is what is known of one registration number. One that has counted must not be copied.
type State struct {
	total   int64 // events ever counted
	summary tally // of them
	// windows are what is open, per definition of the topology.
	windows []window.State[tally]

	one [1]window.State[tally] // memory for the windows of one definition, which is the rule
}

// lay makes room for the windows of n definitions.
func (s *State) lay(n int) {
	if n == 1 {
		s.windows = s.one[:]
	} else {
		s.windows = make([]window.State[tally], n)
	}
}

// topology is the job on one partition.
type topology struct {
	decoder     codecs.Decoder
	names       names
	typ         uint16 // number of the type of the event being folded
	definitions []definition
	writer      codecs.StateWriter
	scratch     codecs.Aggregate
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
	fold := window.Fold[codecs.Event, tally]{
		Add:   func(a *tally, e *codecs.Event) { a.add(e, t.typ, &t.names) },
		Merge: func(dst, src *tally) { dst.merge(src, &t.names) },
		Reset: func(a *tally) { *a = tally{} },
	}
	for _, d := range definitions {
		op, err := window.New(d, o, fold)
		if err != nil {
			panic("activity: " + err.Error()) // New has made the same operators of the same definitions
		}
		t.definitions = append(t.definitions, definition{op, d.String(), d.Kind.String()})
	}
	t.out.names, t.out.yield = &t.names, t.out.write
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
	if s.windows == nil {
		s.lay(len(t.definitions))
	}
	t.typ = t.names.of(e.Type)
	counted := false
	for i := range t.definitions {
		if t.definitions[i].Add(&s.windows[i], watermark, e.Time, e) == window.Counted {
			counted = true
		}
	}
	if counted {
		s.total++
		s.summary.add(e, t.typ, &t.names)
	}
	return counted
}

// Warm reads what folding and collecting read of the summary and of the newest slices.
func (t *topology) Warm(s *State) int64 {
	n := s.total + s.summary.last
	for i := range s.windows {
		w := &s.windows[i]
		n += int64(w.Purged)
		if all := w.Slices; len(all) > 0 {
			newest := &all[len(all)-1]
			n += newest.Start + newest.Acc.last + newest.Count
		}
	}
	return n
}

// Owns reports whether a key of the output topic is that of a window counted here.
func (t *topology) Owns(key []byte) bool {
	name, _, ok := bytes.Cut(key, []byte{'|'})
	return ok && slices.ContainsFunc(t.definitions, func(d definition) bool { return d.name == string(name) })
}

// Newer compares the revisions of two results of a window.
func (t *topology) Newer(value, than []byte) bool {
	var a, b codecs.Window
	return a.Parse(value, nil) == nil && b.Parse(than, nil) == nil && a.Revision > b.Revision
}

// Touch marks all windows to be emitted again.
func (t *topology) Touch(s *State) {
	for i := range s.windows {
		t.definitions[i].Touch(&s.windows[i])
	}
}

// Collect emits the windows that changed.
func (t *topology) Collect(key string, s *State, watermark int64, emit engine.Emit) {
	for i := range s.windows {
		t.out.of(key, &t.definitions[i], emit)
		t.definitions[i].Collect(&s.windows[i], watermark, t.out.yield)
	}
}

// Advance emits the windows that the watermark closes.
func (t *topology) Advance(key string, s *State, watermark int64, emit engine.Emit) {
	for i := range s.windows {
		t.out.of(key, &t.definitions[i], emit)
		t.definitions[i].Advance(&s.windows[i], watermark, t.out.yield)
	}
}

// Settle forgets closed windows whose results are acknowledged.
func (t *topology) Settle(s *State, watermark int64) {
	for i := range s.windows {
		t.definitions[i].Settle(&s.windows[i], watermark)
	}
}

// Due is when the next window closes.
func (t *topology) Due(s *State) int64 {
	due := int64(math.MaxInt64)
	for i := range s.windows {
		due = min(due, t.definitions[i].Due(&s.windows[i]))
	}
	return due
}

// Idle reports whether no window is open or unsettled.
func (t *topology) Idle(s *State) bool {
	for i := range s.windows {
		if w := &s.windows[i]; len(w.Slices) > 0 || len(w.Withdrawn) > 0 {
			return false
		}
	}
	return true
}

// Append encodes the state (codecs/state.proto, ActivityState).
func (t *topology) Append(dst []byte, s *State) []byte {
	w := &t.writer
	w.Reset(dst)
	w.Summary(s.total, s.summary.aggregate(&t.scratch, &t.names))
	for i := range s.windows {
		if ws := &s.windows[i]; len(ws.Slices) > 0 || len(ws.Withdrawn) > 0 {
			w.BeginDefinition(t.definitions[i].name)
			t.appendWindows(ws)
			w.EndDefinition()
		}
	}
	return w.Bytes()
}

func (t *topology) appendWindows(s *window.State[tally]) {
	w := &t.writer
	for i := range s.Slices {
		sl := &s.Slices[i]
		w.Slice(codecs.Slice{Start: sl.Start, End: sl.End, Count: sl.Count, Closed: sl.Closed}, sl.Acc.aggregate(&t.scratch, &t.names))
	}
	for _, v := range s.Withdrawn {
		w.Withdrawn(codecs.Withdrawn{Start: v.Start, End: v.End, Revision: v.Revision})
	}
}

// Parse decodes a state.
func (t *topology) Parse(s *State, data []byte, purged int64) error {
	s.total = 0
	s.summary = tally{}
	if s.windows == nil {
		s.lay(len(t.definitions))
	}
	for i := range s.windows {
		t.definitions[i].Renew(&s.windows[i])
		s.windows[i].Purged = window.MarkAt(purged)
	}
	t.parsing = parsing{t: t, state: s}
	err := codecs.ParseState(data, &t.names.types, &t.parsing)
	t.parsing.seal()
	if err == nil {
		err = t.parsing.err
	}
	return err
}

// parsing puts the parts of an encoded state in place.
type parsing struct {
	t     *topology
	state *State
	open  *window.State[tally]
	of    *tally // whose aggregate is being read into the topology's scratch
	err   error
}

// read has an aggregate read that is a's.
func (p *parsing) read(a *tally) *codecs.Aggregate {
	p.seal()
	p.of = a
	return &p.t.scratch
}

// seal puts what was read where it belongs.
func (p *parsing) seal() {
	if p.of != nil {
		p.of.set(&p.t.scratch, &p.t.names)
		p.of = nil
	}
}

func (p *parsing) Summary(total int64) *codecs.Aggregate {
	p.state.total = total
	return p.read(&p.state.summary)
}

func (p *parsing) Definition(name []byte) bool {
	for i := range p.t.definitions {
		if p.t.definitions[i].name == string(name) {
			p.open = &p.state.windows[i]
			return true
		}
	}
	p.err = fmt.Errorf("decode state: it holds windows of %q, which is not counted here: run with the --window flags it was written with", name)
	return false
}

func (p *parsing) Slice(s codecs.Slice) *codecs.Aggregate {
	p.seal() // Restore may move those before it
	return p.read(p.open.Restore(window.Span{Start: s.Start, End: s.End}, s.Count, s.Closed))
}

func (p *parsing) Withdrawn(w codecs.Withdrawn) {
	p.open.Withdrawn = append(p.open.Withdrawn, window.Withdrawn{Span: window.Span{Start: w.Start, End: w.End}, Revision: w.Revision})
}

// output turns results into records of the output topic.
type output struct {
	names      *names
	record     codecs.Window
	emit       engine.Emit
	yield      func(*window.Result[tally])
	key, value []byte
	scratch    codecs.Aggregate
}

// of says whose results come next.
func (o *output) of(registration string, d *definition, emit engine.Emit) {
	o.record.Registration, o.record.Definition, o.record.Kind, o.emit = registration, d.name, d.kind, emit
}

func (o *output) write(r *window.Result[tally]) {
	w := &o.record
	w.Start, w.End, w.Count = r.Start, r.End, r.Count
	w.Aggregate = *r.Acc.aggregate(&o.scratch, o.names)
	w.Revision, w.Final, w.Withdrawn = r.Revision, r.Final, r.Withdrawn
	o.key, o.value = w.AppendKey(o.key[:0]), w.AppendJSON(o.value[:0])
	o.emit(o.key, o.value)
}
