package activity

import (
	"math"
	"slices"

	"klgstream.dev/codecs"
)

const (
	// few is how many types a tally counts without further memory.
	few = 6
	// maxNames bounds the names that a topology numbers; with codecs.MaxTypeBytes each this is 256 KiB of text.
	maxNames = 4096
)

// tally is a codecs.Aggregate in a form of which there can be hundreds of thousands: in one piece, and without pointers for the garbage
// collector to follow, as long as it holds few types. It means the same in either form: whatever does not fit is in many.
type tally struct {
	first, last int64 // ms
	aircraft    int64 // id of the event at last, if hasAircraft
	counts      [few]uint32
	types       [few]uint16 // numbers of names, ascending by name
	lastType    uint16
	n           uint8 // of types; 0: of no event, or all is in many
	hasAircraft bool
	many        *codecs.Aggregate
}

// names numbers the types that were met, for all tallies of a topology. The zero value is ready.
type names struct {
	all    []string
	number map[string]uint16
	types  codecs.Interner // of those that have no number
	recent [64]uint16      // numbers lately found, by what slot says of the name
}

// unnumbered is the number of a name for which there is none left.
const unnumbered = math.MaxUint16

// slot is where the number of a name, which is not empty, is found again.
func slot(name []byte) int {
	n := len(name)
	return int(uint8(n)*31+name[0]*7+name[n-1]) % 64
}

// of is a name's number.
func (s *names) of(name []byte) uint16 {
	recent := &s.recent[slot(name)]
	if i := *recent; int(i) < len(s.all) && s.all[i] == string(name) {
		return i
	}
	i, ok := s.number[string(name)]
	if !ok {
		i = s.ofText(s.types.Intern(name))
	}
	*recent = i
	return i
}

// ofText is of for a name that may be kept.
func (s *names) ofText(name string) uint16 {
	if i, ok := s.number[name]; ok {
		return i
	}
	if len(s.all) == maxNames {
		return unnumbered
	}
	if s.number == nil {
		s.number = make(map[string]uint16)
	}
	i := uint16(len(s.all))
	s.all, s.number[name] = append(s.all, name), i
	return i
}

// add adds one event, of whose type the number is typ.
func (a *tally) add(e *codecs.Event, typ uint16, s *names) {
	if a.many != nil {
		a.many.Add(e, &s.types)
		return
	}
	i, ok := a.place(typ, s)
	if !ok || a.counts[i] == math.MaxUint32 {
		a.spread(s).Add(e, &s.types)
		return
	}
	if a.counts[i]++; e.Time < a.first {
		a.first = e.Time
	}
	switch {
	case e.Time > a.last:
		a.last, a.lastType, a.aircraft, a.hasAircraft = e.Time, typ, e.AircraftID, e.HasAircraftID
	case e.Time == a.last:
		a.tie(typ, e.AircraftID, e.HasAircraftID, s)
	}
}

// place is where a type is counted; false if there is no room for it. In an empty tally it sets first and last so that any time is
// before and behind.
func (a *tally) place(typ uint16, s *names) (int, bool) {
	for i := range int(a.n) {
		if a.types[i] == typ {
			return i, true
		}
	}
	if typ == unnumbered || a.n == few {
		return 0, false
	}
	if a.n == 0 {
		a.first, a.last = math.MaxInt64, math.MinInt64
	}
	return a.insert(typ, s), true
}

// insert makes room for a type.
func (a *tally) insert(number uint16, s *names) int {
	i := 0
	for i < int(a.n) && s.all[a.types[i]] < s.all[number] {
		i++
	}
	copy(a.types[i+1:], a.types[i:a.n])
	copy(a.counts[i+1:], a.counts[i:a.n])
	a.types[i], a.counts[i] = number, 0
	a.n++
	return i
}

// tie is what another event at the very time of the last one changes (codecs.Aggregate).
func (a *tally) tie(typ uint16, id int64, has bool, s *names) {
	if s.all[typ] > s.all[a.lastType] {
		a.lastType = typ
	}
	if has && (!a.hasAircraft || id > a.aircraft) {
		a.aircraft, a.hasAircraft = id, true
	}
}

// merge adds all events of b.
func (a *tally) merge(b *tally, s *names) {
	switch {
	case b.empty():
		return
	case a.empty() && b.many == nil:
		*a = *b
		return
	case a.many != nil || b.many != nil || !a.fits(b):
		var of codecs.Aggregate
		a.spread(s).Merge(b.aggregate(&of, s))
		return
	}
	for i := range int(b.n) {
		j := slices.Index(a.types[:a.n], b.types[i])
		if j < 0 {
			j = a.insert(b.types[i], s)
		}
		a.counts[j] += b.counts[i]
	}
	a.first = min(a.first, b.first)
	switch {
	case b.last > a.last:
		a.last, a.lastType, a.aircraft, a.hasAircraft = b.last, b.lastType, b.aircraft, b.hasAircraft
	case b.last == a.last:
		a.tie(b.lastType, b.aircraft, b.hasAircraft, s)
	}
}

// fits reports whether there is room for what b counts.
func (a *tally) fits(b *tally) bool {
	n := int(a.n)
	for i := range int(b.n) {
		switch j := slices.Index(a.types[:a.n], b.types[i]); {
		case j < 0:
			n++
		case uint64(a.counts[j])+uint64(b.counts[i]) > math.MaxUint32:
			return false
		}
	}
	return n <= few
}

func (a *tally) empty() bool { return a.n == 0 && a.many == nil }

// spread gives up the small form.
func (a *tally) spread(s *names) *codecs.Aggregate {
	if a.many == nil {
		many := new(codecs.Aggregate)
		a.aggregate(many, s)
		*a = tally{many: many}
	}
	return a.many
}

// aggregate is what is tallied. It is dst, of which the memory is used, or the tally's own: it is not to be changed.
func (a *tally) aggregate(dst *codecs.Aggregate, s *names) *codecs.Aggregate {
	if a.many != nil {
		return a.many
	}
	dst.Reset()
	if a.n == 0 {
		return dst
	}
	dst.First, dst.Last, dst.LastType = a.first, a.last, s.all[a.lastType]
	dst.AircraftID, dst.HasAircraftID = a.aircraft, a.hasAircraft
	for i := range int(a.n) {
		dst.Types = append(dst.Types, codecs.TypeCount{Type: s.all[a.types[i]], Count: int64(a.counts[i])})
	}
	return dst
}

// set makes the tally what an aggregate says, of which it keeps nothing.
func (a *tally) set(from *codecs.Aggregate, s *names) {
	*a = tally{}
	if from.Empty() {
		return
	}
	last := s.ofText(from.LastType)
	if last == unnumbered || !a.setTypes(from.Types, s) {
		many := new(codecs.Aggregate)
		many.Merge(from)
		*a = tally{many: many}
		return
	}
	a.first, a.last, a.lastType, a.aircraft, a.hasAircraft = from.First, from.Last, last, from.AircraftID, from.HasAircraftID
}

// setTypes takes over counts; false if there is no room for them.
func (a *tally) setTypes(types []codecs.TypeCount, s *names) bool {
	if len(types) > few {
		return false
	}
	for i := range types {
		number := s.ofText(types[i].Type)
		if number == unnumbered || types[i].Count > math.MaxUint32 {
			return false
		}
		a.types[i], a.counts[i] = number, uint32(types[i].Count)
	}
	a.n = uint8(len(types))
	return true
}
