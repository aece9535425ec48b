// Package registry is the aircraft-registry job: it makes each aircraft from its created and updated events. What wins
// when two want the same is decided by the order of the log.
package registry

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// Names of the job's group and topics.
const (
	Group  = "aircraft-registry"
	Output = "aircraft-registry"
)

// Config names what is read and written. The zero value of a field is its documented default.
type Config struct {
	// Group and Output replace the constants of that name.
	Group, Output string
	// Input, Late and Dead are the topics of the events and of those that cannot be used. Required.
	Input, Late, Dead string
	// Zone is where timestamps without a zone are at home. Default UTC.
	Zone *time.Location
}

// Event is a created or updated event.
type Event struct {
	codecs.Event
	says    codecs.Change
	creates bool
}

// State is an aircraft and whether its last change was emitted.
type State struct {
	codecs.Aircraft
	changed bool
}

// New is the job.
func New(c Config) engine.Job[Event, State] {
	return engine.Job[Event, State]{
		Group: or(c.Group, Group), Input: c.Input, Output: or(c.Output, Output), Late: c.Late, Dead: c.Dead, Definition: "aircraft registry",
		New: func() engine.Topology[Event, State] { return &topology{decoder: codecs.Decoder{Zone: c.Zone}} },
	}
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// topology is the job on one partition.
type topology struct {
	decoder codecs.Decoder
	value   []byte
}

var _ interface {
	engine.Shadow
	engine.Owner
} = (*topology)(nil)

var (
	created = []byte("created")
	updated = []byte("updated")
)

// Decode reads created and updated events and passes over all others. Those that cannot be decoded are passed over too: the job
// that counts events keeps them as dead letters.
func (t *topology) Decode(dst *Event, r *engine.Record) error {
	if t.decoder.Decode(&dst.Event, r.Value) != nil {
		return engine.ErrSkip
	}
	dst.creates = bytes.Equal(dst.Type, created)
	if !dst.creates && !bytes.Equal(dst.Type, updated) {
		return engine.ErrSkip
	}
	dst.says = codecs.ParseChange(r.Value)
	return nil
}

// Shadow: what cannot be used here, as events from the future, the job that counts events keeps as well.
func (t *topology) Shadow() {}

// Key is the registration number.
func (t *topology) Key(e *Event) []byte { return e.Registration }

// Time is the event's time.
func (t *topology) Time(e *Event) int64 { return e.Time }

// Fold decides an event. A created event makes the aircraft, or is refused if it exists. An updated event changes it if it is
// based on the aircraft's revision, or on none; one without a request makes an aircraft that was never created. It is never late.
func (t *topology) Fold(s *State, _ int64, e *Event) bool {
	exists := s.Revision > 0
	ok := !exists
	if !e.creates {
		ok = exists && (e.says.Expected == 0 || e.says.Expected == s.Revision) || !exists && e.says.Request == ""
	}
	if ok {
		s.change(e)
	}
	if e.says.Request != "" {
		s.decide(codecs.Decision{Request: e.says.Request, Applied: ok, Revision: s.Revision})
	}
	return true
}

// change applies an event.
func (s *State) change(e *Event) {
	if s.Revision == 0 {
		s.Created = e.Time
	}
	s.Revision++
	s.Updated = e.Time
	if e.says.Type != nil {
		s.Type = *e.says.Type
	}
	if e.HasAircraftID {
		s.AircraftID, s.HasAircraftID = e.AircraftID, true
	}
	s.changed = true
}

// decide remembers what became of a request; the oldest is forgotten when there are too many.
func (s *State) decide(d codecs.Decision) {
	if len(s.Decisions) == codecs.MaxDecisions {
		s.Decisions = append(s.Decisions[:0], s.Decisions[1:]...)
	}
	s.Decisions = append(s.Decisions, d)
}

// Touch marks the aircraft to be emitted again.
func (t *topology) Touch(s *State) { s.changed = s.Revision > 0 }

// Collect emits the aircraft if it changed.
func (t *topology) Collect(key string, s *State, _ int64, emit engine.Emit) {
	if !s.changed {
		return
	}
	s.changed = false
	t.value = appendAircraft(t.value[:0], key, &s.Aircraft)
	emit([]byte(key), t.value)
}

// Owns is true: nobody else writes to the registry's output.
func (t *topology) Owns([]byte) bool { return true }

// Newer compares the revisions of two records of an aircraft.
func (t *topology) Newer(value, than []byte) bool {
	var a, b record
	return json.Unmarshal(value, &a) == nil && json.Unmarshal(than, &b) == nil && a.Revision > b.Revision
}

// Advance, Settle and Due: an aircraft has no windows.
func (t *topology) Advance(string, *State, int64, engine.Emit) {}

// Settle has nothing to forget.
func (t *topology) Settle(*State, int64) {}

// Due is never.
func (t *topology) Due(*State) int64 { return math.MaxInt64 }

// Idle is always true: aircraft are kept encoded until their next event.
func (t *topology) Idle(*State) bool { return true }

// Append encodes the aircraft (codecs/state.proto, AircraftState).
func (t *topology) Append(dst []byte, s *State) []byte { return s.Append(dst) }

// Parse decodes it.
func (t *topology) Parse(s *State, data []byte, _ int64) error {
	s.changed = false
	return s.Parse(data)
}
