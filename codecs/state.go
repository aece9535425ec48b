package codecs

import (
	"encoding/binary"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Slice is what a state record says of one slice of time besides its aggregate.
type Slice struct {
	Start, End int64 // in ms, [Start, End); local if the definition has a zone
	Count      int64 // events
	Closed     bool  // fired for the last time, not acknowledged yet
}

// Withdrawn is what a state record says of a session that was merged away and whose withdrawal may not be acknowledged.
type Withdrawn struct {
	Start, End int64 // in ms, [Start, End)
	Revision   int64 // of the record that withdraws it
}

// StateWriter appends the state of the group aircraft-activity (state.proto, ActivityState) piece by piece, without
// copies in between:
//
//	w.Reset(dst)
//	w.Summary(total, &aggregate)
//	w.BeginDefinition("tumbling:1h")
//	w.Slice(codecs.Slice{…}, &aggregate)
//	w.Withdrawn(codecs.Withdrawn{…})
//	w.EndDefinition()
//	dst = w.Bytes()
type StateWriter struct {
	dst        []byte
	definition int // where the open definition's content begins
}

// Reset begins a state behind dst.
func (w *StateWriter) Reset(dst []byte) { *w = StateWriter{dst: dst} }

// Bytes is what Reset was given and the state behind it.
func (w *StateWriter) Bytes() []byte { return w.dst }

// Summary writes how many events there ever were, and what is known of them. At most once, outside of definitions.
func (w *StateWriter) Summary(total int64, a *Aggregate) {
	dst, content := openMessage(w.dst, 1)
	dst = appendVarint(dst, 1, uint64(total))
	w.dst = closeMessage(appendAggregate(dst, 2, a), content)
}

// BeginDefinition opens a definition; slices and withdrawals up to EndDefinition are of it.
func (w *StateWriter) BeginDefinition(definition string) {
	w.dst, w.definition = openMessage(w.dst, 2)
	w.dst = appendText(w.dst, 1, definition)
}

// EndDefinition closes the definition.
func (w *StateWriter) EndDefinition() { w.dst = closeMessage(w.dst, w.definition) }

// Slice writes one slice of the open definition.
func (w *StateWriter) Slice(s Slice, a *Aggregate) {
	dst, content := openMessage(w.dst, 2)
	dst = appendSigned(dst, 1, s.Start)
	dst = appendSigned(dst, 2, s.End)
	dst = appendVarint(dst, 3, uint64(s.Count))
	dst = appendAggregate(dst, 4, a)
	dst = appendVarint(dst, 5, protowire.EncodeBool(s.Closed))
	w.dst = closeMessage(dst, content)
}

// Withdrawn writes one withdrawal of the open definition.
func (w *StateWriter) Withdrawn(v Withdrawn) {
	dst, content := openMessage(w.dst, 3)
	dst = appendSigned(dst, 1, v.Start)
	dst = appendSigned(dst, 2, v.End)
	w.dst = closeMessage(appendVarint(dst, 3, uint64(v.Revision)), content)
}

// appendAggregate appends an aggregate as a message field; the empty one is not written.
func appendAggregate(dst []byte, number protowire.Number, a *Aggregate) []byte {
	if a.Empty() {
		return dst
	}
	dst, content := openMessage(dst, number)
	dst = appendSigned(dst, 1, a.First)
	dst = appendSigned(dst, 2, a.Last)
	dst = appendText(dst, 3, a.LastType)
	if a.HasAircraftID {
		dst = binary.AppendUvarint(append(dst, varintTag(4)), uint64(a.AircraftID))
	}
	for i := range a.Types {
		var inner int
		dst, inner = openMessage(dst, 5)
		dst = appendText(dst, 1, a.Types[i].Type)
		dst = closeMessage(appendVarint(dst, 2, uint64(a.Types[i].Count)), inner)
	}
	return closeMessage(dst, content)
}

// StateVisitor is told what a state holds, in the order written. Summary and Slice return where the aggregate goes,
// which is reset first; nil skips it.
type StateVisitor interface {
	// Summary is the number of all events; called at most once.
	Summary(total int64) *Aggregate
	// Definition begins a definition, whose slices and withdrawals follow; false skips them. name aliases the state.
	Definition(name []byte) bool
	// Slice is one slice of the definition.
	Slice(s Slice) *Aggregate
	// Withdrawn is one withdrawal of the definition.
	Withdrawn(w Withdrawn)
}

// ParseState reads the state of the group aircraft-activity. names makes the strings of aggregates; nil allocates them.
// Fields it does not know are skipped (C5). The error is a *FieldError; what was visited until then is void.
func ParseState(data []byte, names *Interner, v StateVisitor) error {
	p := stateParser{v: v, names: names}
	if err := p.parse(data); err != nil {
		return err
	}
	return nil
}

// stateParser is one ParseState on its way.
type stateParser struct {
	v          StateVisitor
	names      *Interner
	summarised bool
}

func (p *stateParser) parse(data []byte) *FieldError {
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok || (f.number <= 2 && f.kind != protowire.BytesType) {
			return truncated("state")
		}
		var err *FieldError
		switch f.number {
		case 1:
			err = p.summary(f.bytes)
		case 2:
			err = p.definition(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// summary reads the summary.
func (p *stateParser) summary(data []byte) *FieldError {
	if p.summarised {
		return badRecord("summary", "given once")
	}
	p.summarised = true
	var total int64
	var aggregate []byte
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok {
			return truncated("summary")
		}
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			total = int64(f.value)
		case f.number == 2 && f.kind == protowire.BytesType && aggregate == nil:
			aggregate = f.bytes
		case f.number <= 2:
			return truncated("summary")
		}
	}
	if total < 0 {
		return badRecord("summary.total", "at least 0")
	}
	return p.aggregate(p.v.Summary(total), aggregate)
}

// definition reads one definition: its name first, wherever it stands.
func (p *stateParser) definition(data []byte) *FieldError {
	name, ok := definitionName(data)
	if !ok {
		return truncated("definitions")
	}
	if len(name) == 0 || len(name) > MaxDefinitionBytes || !utf8.Valid(name) {
		return badRecord("definitions.definition", "1 to 256 bytes of UTF-8")
	}
	if !p.v.Definition(name) {
		return nil
	}
	for len(data) > 0 {
		var f wireField
		data, _ = f.read(data) // sound: definitionName went over it
		var err *FieldError
		switch f.number {
		case 2:
			err = p.slice(f.bytes)
		case 3:
			err = p.withdrawn(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// definitionName finds a definition's name and checks the fields on the way.
func definitionName(data []byte) (name []byte, ok bool) {
	for len(data) > 0 {
		var f wireField
		if data, ok = f.read(data); !ok || (f.number <= 3 && f.kind != protowire.BytesType) {
			return nil, false
		}
		if f.number == 1 {
			name = f.bytes
		}
	}
	return name, true
}

// slice reads one slice.
func (p *stateParser) slice(data []byte) *FieldError {
	var s Slice
	var aggregate []byte
	for len(data) > 0 {
		var f wireField
		var ok bool
		want := protowire.VarintType
		if data, ok = f.read(data); f.number == 4 {
			want = protowire.BytesType
		}
		if !ok || (f.number <= 5 && f.kind != want) || (f.number == 4 && aggregate != nil) {
			return truncated("slices")
		}
		if f.number == 4 {
			aggregate = f.bytes
		} else {
			s.field(&f)
		}
	}
	if s.Start >= s.End || s.Count < 0 {
		return badRecord("slices", "a span that ends after it starts, with 0 or more events")
	}
	return p.aggregate(p.v.Slice(s), aggregate)
}

// field reads one field of a slice besides its aggregate.
func (s *Slice) field(f *wireField) {
	switch f.number {
	case 1:
		s.Start = f.signed()
	case 2:
		s.End = f.signed()
	case 3:
		s.Count = int64(f.value)
	case 5:
		s.Closed = f.value != 0
	}
}

// withdrawn reads one withdrawal.
func (p *stateParser) withdrawn(data []byte) *FieldError {
	var w Withdrawn
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok || (f.number <= 3 && f.kind != protowire.VarintType) {
			return truncated("withdrawn")
		}
		switch f.number {
		case 1:
			w.Start = f.signed()
		case 2:
			w.End = f.signed()
		case 3:
			w.Revision = int64(f.value)
		}
	}
	if w.Start >= w.End || w.Revision < 0 {
		return badRecord("withdrawn", "a span that ends after it starts, with a revision of 0 or more")
	}
	p.v.Withdrawn(w)
	return nil
}

// aggregate reads an aggregate into a.
func (p *stateParser) aggregate(a *Aggregate, data []byte) *FieldError {
	if a == nil {
		return nil
	}
	a.Reset()
	if len(data) == 0 {
		return nil
	}
	for len(data) > 0 {
		var f wireField
		var ok bool
		want := protowire.VarintType
		if data, ok = f.read(data); f.number == 3 || f.number == 5 {
			want = protowire.BytesType
		}
		if !ok || (f.number <= 5 && f.kind != want) {
			return truncated("aggregate")
		}
		if err := p.aggregateField(a, &f); err != nil {
			return err
		}
	}
	if a.First > a.Last || a.Empty() || a.LastType == "" {
		return badRecord("aggregate", "of at least one event, its last not before its first")
	}
	return nil
}

// aggregateField reads one field of an aggregate.
func (p *stateParser) aggregateField(a *Aggregate, f *wireField) *FieldError {
	switch f.number {
	case 1:
		a.First = f.signed()
	case 2:
		a.Last = f.signed()
	case 3:
		var ok bool
		if a.LastType, ok = p.typeName(f.bytes); !ok {
			return badRecord("aggregate.last_type", "1 to 64 bytes of UTF-8")
		}
	case 4:
		a.AircraftID, a.HasAircraftID = int64(f.value), true
	case 5:
		return p.typeCount(a, f.bytes)
	}
	return nil
}

// typeName is b as an event type, if it can be one. What is known already needs no look.
func (p *stateParser) typeName(b []byte) (string, bool) {
	if len(b) == 0 || len(b) > MaxTypeBytes {
		return "", false
	}
	if p.names != nil {
		if s, ok := p.names.known[string(b)]; ok {
			return s, true
		}
	}
	if !utf8.Valid(b) {
		return "", false
	}
	return p.names.Intern(b), true
}

// typeCount reads one type's count.
func (p *stateParser) typeCount(a *Aggregate, data []byte) *FieldError {
	var name []byte
	var n int64
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok {
			return truncated("aggregate.types")
		}
		switch {
		case f.number == 1 && f.kind == protowire.BytesType:
			name = f.bytes
		case f.number == 2 && f.kind == protowire.VarintType:
			n = int64(f.value)
		case f.number <= 2:
			return truncated("aggregate.types")
		}
	}
	typ, ok := p.typeName(name)
	if !ok || n < 1 {
		return badRecord("aggregate.types", "a type of 1 to 64 bytes of UTF-8, counted at least once")
	}
	a.appendType(typ, n)
	return nil
}
