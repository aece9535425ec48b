package codecs

import (
	"encoding/json"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// MaxAircraftTypeBytes is the longest aircraft type kept.
	MaxAircraftTypeBytes = 64
	// MaxRequestBytes is the longest request id kept.
	MaxRequestBytes = 64
	// MaxDecisions is how many of the last decided requests an aircraft's record names.
	MaxDecisions = 16
)

// Aircraft is the state of the group aircraft-registry: one aircraft as folded from its events (state.proto, AircraftState).
type Aircraft struct {
	// Type is the aircraft's type, such as "B738"; empty if unknown.
	Type string
	// AircraftID is the number its producers give it; meaningful only when HasAircraftID.
	AircraftID    int64
	HasAircraftID bool
	// Revision grows by 1 with every change, from 1; 0 is an aircraft that was never created.
	Revision int64
	// Created and Updated are event times, in ms since the epoch.
	Created, Updated int64
	// Decisions are the last requests that named themselves, oldest first; at most MaxDecisions.
	Decisions []Decision
}

// Decision is what became of one request to create or change an aircraft.
type Decision struct {
	Request  string
	Applied  bool  // false: refused
	Revision int64 // of the aircraft after the decision
}

// Append appends the record.
func (a *Aircraft) Append(dst []byte) []byte {
	dst = appendText(dst, 1, a.Type)
	if a.HasAircraftID {
		dst = protowire.AppendTag(dst, 2, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(a.AircraftID))
	}
	dst = appendVarint(dst, 3, uint64(a.Revision))
	dst = appendSigned(dst, 4, a.Created)
	dst = appendSigned(dst, 5, a.Updated)
	for _, d := range a.Decisions {
		var content int
		dst, content = openMessage(dst, 6)
		dst = appendText(dst, 1, d.Request)
		dst = appendVarint(dst, 2, protowire.EncodeBool(d.Applied))
		dst = appendVarint(dst, 3, uint64(d.Revision))
		dst = closeMessage(dst, content)
	}
	return dst
}

// Parse reads a record. Fields it does not know are skipped (C5). The error is a *FieldError; a is then undefined.
func (a *Aircraft) Parse(data []byte) error {
	*a = Aircraft{Decisions: a.Decisions[:0]}
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok || (f.number <= 6 && (f.kind == protowire.BytesType) != (f.number == 1 || f.number == 6)) {
			return truncated("aircraft")
		}
		if err := a.field(&f); err != nil {
			return err
		}
	}
	if a.Revision < 0 || len(a.Type) > MaxAircraftTypeBytes || len(a.Decisions) > MaxDecisions {
		return badRecord("aircraft", "a revision of 0 or more, a type of at most 64 bytes and at most 16 decisions")
	}
	return nil
}

func (a *Aircraft) field(f *wireField) error {
	switch f.number {
	case 1:
		a.Type = string(f.bytes)
	case 2:
		a.AircraftID, a.HasAircraftID = int64(f.value), true
	case 3:
		a.Revision = int64(f.value)
	case 4:
		a.Created = f.signed()
	case 5:
		a.Updated = f.signed()
	case 6:
		return a.decision(f.bytes)
	}
	return nil
}

func (a *Aircraft) decision(data []byte) error {
	var d Decision
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok || (f.number <= 3 && (f.kind == protowire.BytesType) != (f.number == 1)) {
			return truncated("aircraft.decisions")
		}
		switch f.number {
		case 1:
			d.Request = string(f.bytes)
		case 2:
			d.Applied = f.value != 0
		case 3:
			d.Revision = int64(f.value)
		}
	}
	if len(d.Request) == 0 || len(d.Request) > MaxRequestBytes {
		return badRecord("aircraft.decisions.request", "1 to 64 bytes")
	}
	a.Decisions = append(a.Decisions, d)
	return nil
}

// Change is what an event's payload says of the aircraft itself, next to the members that every event has.
type Change struct {
	// Type is the aircraft's type; nil says nothing of it.
	Type *string `json:"aircraft_type,omitempty"`
	// Request names the request that caused the event, so that its outcome can be told; empty if none did.
	Request string `json:"request_id,omitempty"`
	// Expected is the revision that the change is based on; 0 is any.
	Expected int64 `json:"expected_revision,omitempty"`
}

// ParseChange reads the members of an event that a registry looks at. Of those too long or of another type nothing is read.
func ParseChange(event []byte) Change {
	var raw struct {
		Type     json.RawMessage `json:"aircraft_type"`
		Request  json.RawMessage `json:"request_id"`
		Expected json.RawMessage `json:"expected_revision"`
	}
	var c Change
	if json.Unmarshal(event, &raw) != nil {
		return c
	}
	var typ, request string
	if json.Unmarshal(raw.Type, &typ) == nil && len(typ) <= MaxAircraftTypeBytes && string(raw.Type) != "null" {
		c.Type = &typ
	}
	if json.Unmarshal(raw.Request, &request) == nil && len(request) <= MaxRequestBytes {
		c.Request = request
	}
	if json.Unmarshal(raw.Expected, &c.Expected) != nil || c.Expected < 0 {
		c.Expected = 0
	}
	return c
}
