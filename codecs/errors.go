package codecs

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reasons why a record is refused. The set is closed and the words are stable: they label metrics and stand in the
// klg-reason header of dead letters.
const (
	ReasonNullValue      = "null_value"      // the record has no value at all
	ReasonTooLarge       = "too_large"       // the record exceeds its size limit
	ReasonNotJSON        = "not_json"        // the bytes are not one JSON document
	ReasonInvalidUTF8    = "invalid_utf8"    // a string is not UTF-8
	ReasonTooDeep        = "too_deep"        // arrays and objects nest beyond MaxDepth
	ReasonWrongType      = "wrong_type"      // a JSON value of another kind than the field's
	ReasonMissing        = "missing"         // a required field is absent or null
	ReasonEmpty          = "empty"           // a required string holds nothing
	ReasonTooLong        = "too_long"        // a string exceeds its limit
	ReasonBadCharacter   = "bad_character"   // a name holds a control character
	ReasonDuplicateField = "duplicate_field" // a field occurs twice, in whichever spelling
	ReasonOutOfRange     = "out_of_range"    // a number is beyond what the field can hold
	ReasonBadTimestamp   = "bad_timestamp"   // a timestamp in none of the accepted forms, or outside years 1 to 9999
	ReasonBadRecord      = "bad_record"      // bytes of our own making (key, state, letter) that do not parse
	ReasonUnknownVersion = "unknown_version" // a state record written by a newer version
)

// Reasons lists every reason a codec gives, in a fixed order: the complete set of label values.
func Reasons() []string {
	return []string{
		ReasonNullValue, ReasonTooLarge, ReasonNotJSON, ReasonInvalidUTF8, ReasonTooDeep, ReasonWrongType,
		ReasonMissing, ReasonEmpty, ReasonTooLong, ReasonBadCharacter, ReasonDuplicateField, ReasonOutOfRange,
		ReasonBadTimestamp, ReasonBadRecord, ReasonUnknownVersion,
	}
}

// FieldError is why a record was refused: which field, what it held, and what it may hold.
type FieldError struct {
	Record string // what was being decoded: "event", "window", "window key", "state record", "letter"
	Field  string // the field in its canonical spelling; empty means the record as a whole
	Value  string // what the field held, at most 48 bytes of it
	Reason string // one of Reasons
	Limit  string // what the field may hold, completing "must be …"; may be empty
	Offset int    // where in the record, in bytes from 0; -1 when no position helps
}

// Error names field, clipped value, reason, limit and how to mend it, in one line of printable text.
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString("decode " + e.Record + ":")
	if e.Field != "" {
		b.WriteString(" " + e.Field)
	}
	if e.Value != "" {
		b.WriteString(" " + strconv.Quote(e.Value))
	}
	if e.Offset >= 0 {
		b.WriteString(" at byte " + strconv.Itoa(e.Offset))
	}
	b.WriteString(" is " + e.Reason)
	if e.Limit != "" {
		b.WriteString(": must be " + e.Limit)
	}
	b.WriteString("; " + mend(e.Reason))
	return b.String()
}

// mend says who can put the fault right, and how.
func mend(reason string) string {
	switch reason {
	case ReasonBadRecord:
		return "the bytes were not written by this program or were damaged: restore the topic or skip the record"
	case ReasonUnknownVersion:
		return "run a klgstream at least as new as the one that wrote it"
	case ReasonDuplicateField:
		return "send it once, in one spelling"
	case ReasonMissing, ReasonNullValue:
		return "the producer has to send it"
	}
	return "correct it at the producer and send the event again"
}

// maxShown bounds the part of a value that an error repeats, in bytes.
const maxShown = 48

// clip cuts a value to what an error may repeat, at a rune boundary.
func clip(value []byte) string {
	if len(value) <= maxShown {
		return string(value)
	}
	n := maxShown - len("…")
	for n > 0 && !utf8.RuneStart(value[n]) {
		n--
	}
	return string(value[:n]) + "…"
}

// atMost phrases an upper limit.
func atMost(n int, unit string) string { return "at most " + strconv.Itoa(n) + " " + unit }
