// Package codecs holds the words of the system: what an aircraft event, a window result, a group-table record and a
// dead or late letter are, and their bytes. Units, spellings and time zones change here, once, and nowhere else.
//
//	event.go      Event and Decoder: JSON in both spellings, one pass, no allocation
//	scan.go       the JSON grammar: strings, numbers, nesting, byte positions of faults
//	timestamp.go  civil time and epoch milliseconds, both ways
//	payload.go    the members of an event that are not ours
//	aggregate.go  Aggregate and Interner: what is known of a set of events besides their number
//	window.go     Window: one result on the output topic, its key and its JSON
//	envelope.go   Envelope: the record of a group table (state.proto, GroupTableRecord)
//	state.go      StateWriter and ParseState: what the aircraft-activity group keeps (state.proto, ActivityState)
//	registry.go   Aircraft: what the aircraft-registry group keeps (state.proto, AircraftState)
//	letter.go     Letter: an event on the late or dead-letter topic
//	errors.go     FieldError and the closed set of reasons
//
// The rules every codec here keeps, cited by number in code and tests:
//
//	C1  A decoder never panics and never allocates more than a small multiple of its input.
//	C2  What is accepted is what the standard accepts: an event is a document encoding/json calls valid and that is
//	    valid UTF-8, an object, within the limits, naming no known field twice.
//	C3  What is written is read back to the same values, and equal values are written as equal bytes.
//	C4  A result does not depend on the order in which events arrived.
//	C5  A reader skips what it does not know (a newer writer), and refuses what it knows but cannot trust.
package codecs
