package codecs

import (
	"slices"
	"strings"
)

const (
	// MaxTypes is how many distinct event types an Aggregate counts by name.
	MaxTypes = 64
	// OtherType is the name under which an Aggregate counts all further types, and events of just this type.
	OtherType = "other"
	// fewTypes is for how many types there is room from the start.
	fewTypes = 5
	// maxInterned bounds the strings an Interner keeps; with MaxTypeBytes each this is 256 KiB of text.
	maxInterned = 4096
)

// TypeCount is how many events of one type there were.
type TypeCount struct {
	Type  string
	Count int64
}

// Aggregate is what is known of a set of events besides their number. It is a commutative monoid: the zero value is the
// empty set, Merge is associative and commutative, and so the result does not depend on the order of arrival (C4).
type Aggregate struct {
	// First and Last are the least and the greatest event time, in ms since the epoch.
	First, Last int64
	// LastType is the type of the event at Last; of several the greatest.
	LastType string
	// AircraftID is the aircraft id of the event at Last; of several the greatest. Meaningful only when HasAircraftID.
	AircraftID int64
	// HasAircraftID tells whether any event at Last had an id.
	HasAircraftID bool
	// Types counts events per type, ascending by type: at most the MaxTypes least types there were, and OtherType
	// for all the rest. Empty only if the set is.
	Types []TypeCount
}

// Reset makes a the empty set and keeps its capacity.
func (a *Aggregate) Reset() { *a = Aggregate{Types: a.Types[:0]} }

// Empty tells whether a is of no event.
func (a *Aggregate) Empty() bool { return len(a.Types) == 0 }

// Add adds one event. types makes the strings; nil allocates them.
func (a *Aggregate) Add(e *Event, types *Interner) {
	first := len(a.Types) == 0
	name := a.countType(e.Type, types)
	if first || e.Time < a.First {
		a.First = e.Time
	}
	if first || e.Time > a.Last {
		a.Last, a.LastType, a.AircraftID, a.HasAircraftID = e.Time, name, e.AircraftID, e.HasAircraftID
	} else if e.Time == a.Last {
		a.tie(name, e.AircraftID, e.HasAircraftID)
	}
}

// tie settles what another event at the very time of the last one changes.
func (a *Aggregate) tie(name string, id int64, has bool) {
	a.LastType = max(a.LastType, name)
	if has && (!a.HasAircraftID || id > a.AircraftID) {
		a.AircraftID, a.HasAircraftID = id, true
	}
}

// countType counts one event of a type and returns the type's name. Few types are the rule: the scan is linear.
func (a *Aggregate) countType(typ []byte, types *Interner) string {
	for i := range a.Types {
		if t := &a.Types[i]; t.Type == string(typ) {
			t.Count++
			return t.Type
		}
	}
	name := types.Intern(typ)
	a.addType(name, 1)
	return name
}

// Merge adds all events of b.
func (a *Aggregate) Merge(b *Aggregate) {
	switch {
	case len(b.Types) == 0:
		return
	case len(a.Types) == 0:
		types := append(a.Types[:0], b.Types...)
		*a = *b
		a.Types = types
		return
	}
	a.First = min(a.First, b.First)
	if b.Last > a.Last {
		a.Last, a.LastType, a.AircraftID, a.HasAircraftID = b.Last, b.LastType, b.AircraftID, b.HasAircraftID
	} else if b.Last == a.Last {
		a.tie(b.LastType, b.AircraftID, b.HasAircraftID)
	}
	a.mergeTypes(b.Types)
}

// mergeTypes adds the counts of types, which are ascending as ours are: equal ones at equal places are the rule.
func (a *Aggregate) mergeTypes(types []TypeCount) {
	for i := range types {
		if t := &types[i]; i < len(a.Types) && a.Types[i].Type == t.Type {
			a.Types[i].Count += t.Count
		} else {
			a.addType(t.Type, t.Count)
		}
	}
}

// addType adds n events of a type. Keeping the least names, not the earliest, makes the choice independent of order:
// whatever is among the least of the whole set is so in every part of it, and is therefore counted from its first event.
func (a *Aggregate) addType(name string, n int64) {
	i, found := a.find(name)
	switch {
	case found:
		a.Types[i].Count += n
	case name == OtherType || a.named() < MaxTypes:
		if a.Types == nil {
			a.Types = make([]TypeCount, 0, fewTypes)
		}
		a.Types = slices.Insert(a.Types, i, TypeCount{Type: name, Count: n})
	default:
		a.overflow(name, n)
	}
}

// appendType counts a type that, as written by this program, is greater than all before it.
func (a *Aggregate) appendType(name string, n int64) {
	if k := len(a.Types); k < MaxTypes && (k == 0 || a.Types[k-1].Type < name) {
		a.Types = append(a.Types, TypeCount{Type: name, Count: n})
		return
	}
	a.addType(name, n)
}

// overflow counts a type for which there is no room: it or the greatest one counted becomes "other".
func (a *Aggregate) overflow(name string, n int64) {
	greatest := len(a.Types) - 1
	if a.Types[greatest].Type == OtherType {
		greatest--
	}
	if out := a.Types[greatest]; name < out.Type {
		a.Types = slices.Delete(a.Types, greatest, greatest+1)
		a.addType(name, n)
		n = out.Count
	}
	a.addType(OtherType, n)
}

// find is the place of a type in Types.
func (a *Aggregate) find(name string) (int, bool) {
	return slices.BinarySearchFunc(a.Types, name, func(t TypeCount, name string) int { return strings.Compare(t.Type, name) })
}

// named is how many types are counted under their own name.
func (a *Aggregate) named() int {
	n := len(a.Types)
	if n < MaxTypes {
		return n
	}
	if _, found := a.find(OtherType); found {
		n--
	}
	return n
}

// Interner makes one string of equal byte strings. It keeps at most 4,096 and makes further ones anew each time. The
// zero value is ready; nil keeps nothing. It is not safe for concurrent use.
type Interner struct{ known map[string]string }

// Intern is b as a string; without an allocation if it was seen before.
func (in *Interner) Intern(b []byte) string {
	if in == nil {
		return string(b)
	}
	if s, ok := in.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if in.known == nil {
		in.known = make(map[string]string)
	}
	if len(in.known) < maxInterned {
		in.known[s] = s
	}
	return s
}
