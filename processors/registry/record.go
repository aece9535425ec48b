package registry

import (
	"encoding/json"

	"klgstream.dev/codecs"
)

// record is an aircraft on the output topic. Its key is the registration number, so the topic may be compacted.
type record struct {
	Registration string `json:"registration_number"`
	Type         string `json:"aircraft_type"`
	AircraftID   *int64 `json:"aircraft_id"`
	Revision     int64  `json:"revision"`
	Created      string `json:"created_at"`
	Updated      string `json:"updated_at"`
}

// appendAircraft appends an aircraft as JSON; times are RFC 3339 in UTC with ms.
func appendAircraft(dst []byte, registration string, a *codecs.Aircraft) []byte {
	r := record{
		Registration: registration, Type: a.Type, Revision: a.Revision,
		Created: string(codecs.AppendTime(nil, a.Created)), Updated: string(codecs.AppendTime(nil, a.Updated)),
	}
	if a.HasAircraftID {
		r.AircraftID = &a.AircraftID
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic("registry: encode aircraft: " + err.Error()) // strings and numbers always encode
	}
	return append(dst, b...)
}
