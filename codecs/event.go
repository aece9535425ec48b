package codecs

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxEventBytes is the largest event accepted, as JSON.
	MaxEventBytes = 1 << 20
	// MaxRegistrationBytes is the longest registration number accepted, trimmed and in upper case.
	MaxRegistrationBytes = 32
	// MaxTypeBytes is the longest event type accepted.
	MaxTypeBytes = 64
)

// Event is one decoded aircraft event. Its byte fields alias the decoded bytes or the event's own scratch: they hold
// until the next Decode into the same Event, as long as the decoded bytes are left alone. The zero value is ready.
type Event struct {
	// Registration is the registration number without surrounding Unicode white space, in upper case; 1 to 32 bytes.
	Registration []byte
	// Type is the event type as sent; 1 to 64 bytes.
	Type []byte
	// Time is the event time in ms since the epoch, from MinTime to MaxTime.
	Time int64
	// AircraftID is the aircraft's id; meaningful only when HasAircraftID.
	AircraftID int64
	// HasAircraftID tells whether the event carried an id that is not null.
	HasAircraftID bool

	timed   bool   // Time is set
	scratch []byte // what had to be unescaped or upper-cased
}

// keptScratch is the scratch an Event keeps from one Decode to the next, in bytes.
const keptScratch = 4096

// Decoder reads events. The zero value is ready; it is safe for concurrent use.
type Decoder struct {
	// Zone is where timestamps without a zone are at home. Default nil: UTC.
	Zone *time.Location
}

// field is a member of an event that we know.
type field uint8

const (
	unknown field = iota
	fieldType
	fieldAircraft
	fieldRegistration
	fieldTime
)

// String is the field's canonical spelling.
func (f field) String() string {
	return [...]string{"", "event_type", "aircraft_id", "registration_number", "timestamp"}[f]
}

// Decode reads one event. Accepted is a JSON object of at most MaxEventBytes in valid UTF-8, nested at most MaxDepth
// deep, that names each known field at most once, whichever the spelling. The error is a *FieldError; dst is then
// undefined. An accepted event costs no allocation.
func (d *Decoder) Decode(dst *Event, data []byte) error {
	if err := d.decode(dst, data); err != nil {
		return err
	}
	return nil
}

func (d *Decoder) decode(e *Event, data []byte) *FieldError {
	e.reset()
	i, err := openEvent(data)
	if err != nil {
		return err
	}
	seen := 0
	for more := data[i] != '}'; more; {
		var f field
		if i, f, err = e.name(data, i); err != nil {
			return err
		}
		if bit := 1 << f; f != unknown {
			if seen&bit != 0 {
				return duplicate("event", f.String(), data, i)
			}
			seen |= bit
		}
		if i, err = d.member(e, f, data, i); err != nil {
			return err
		}
		if i+1 < len(data) && data[i] == ',' && data[i+1] == '"' {
			i++
		} else if i, more, err = nextMember("event", data, i); err != nil {
			return err
		}
	}
	if end := skipSpace(data, i+1); end != len(data) {
		return scanError("event", data, end, badSyntax)
	}
	return e.complete()
}

// reset makes e ready for another Decode. Scratch grown by a hostile event is let go.
func (e *Event) reset() {
	scratch := e.scratch[:0]
	if cap(scratch) > keptScratch {
		scratch = nil
	}
	*e = Event{scratch: scratch}
}

// openEvent checks an event's size and goes to its first member, or to its closing brace.
func openEvent(data []byte) (int, *FieldError) {
	switch n := len(data); {
	case n == 0:
		return 0, &FieldError{Record: "event", Reason: ReasonNullValue, Limit: "a JSON object", Offset: -1}
	case n > MaxEventBytes:
		return 0, &FieldError{
			Record: "event", Value: clip(data), Reason: ReasonTooLarge,
			Limit: atMost(MaxEventBytes, "bytes"), Offset: -1,
		}
	}
	return openObject("event", data)
}

// openObject goes to the first member of the object that data consists of, or to its closing brace.
func openObject(record string, data []byte) (int, *FieldError) {
	i := skipSpace(data, 0)
	if i < len(data) && data[i] == '{' {
		if i = skipSpace(data, i+1); i < len(data) {
			return i, nil
		}
		return 0, scanError(record, data, i, badSyntax)
	}
	end, f := scanValue(data, i, 0)
	if f == sound {
		if end = skipSpace(data, end); end != len(data) {
			f = badSyntax
		}
	}
	if f != sound {
		return 0, scanError(record, data, end, f)
	}
	return 0, &FieldError{Record: record, Value: clip(data[i:]), Reason: ReasonWrongType, Limit: "a JSON object", Offset: i}
}

// nextMember goes from i, behind a value, to the next member; without one it stays at the closing brace.
func nextMember(record string, data []byte, i int) (next int, more bool, err *FieldError) {
	if i = skipSpace(data, i); i < len(data) {
		switch data[i] {
		case ',':
			return skipSpace(data, i+1), true, nil
		case '}':
			return i, false, nil
		}
	}
	return i, false, scanError(record, data, i, badSyntax)
}

// name goes from i over a member's name to its value and tells which field it is.
func (e *Event) name(data []byte, i int) (int, field, *FieldError) {
	if i >= len(data) || data[i] != '"' {
		return i, unknown, scanError("event", data, i, badSyntax)
	}
	f, end := knownName(data, i+1)
	if f == unknown {
		var kind text
		var flt fault
		if end, kind, flt = scanString(data, i+1); flt != sound {
			return i, unknown, scanError("event", data, end, flt)
		}
		if kind&escaped != 0 {
			f = e.escapedName(data[i+1 : end])
		}
	}
	if end+2 < len(data) && data[end+1] == ':' && data[end+2] > ' ' {
		return end + 2, f, nil
	}
	i, flt := scanColon(data, end+1)
	if flt != sound {
		return i, unknown, scanError("event", data, i, flt)
	}
	return i, f, nil
}

// The first eight bytes of the known names, first byte lowest.
const (
	nameEventSnake   = 0x79745f746e657665 // event_ty
	nameEventCamel   = 0x707954746e657665 // eventTyp
	nameAircraft     = 0x7466617263726961 // aircraft
	nameRegistration = 0x6172747369676572 // registra
	nameTimestamp    = 0x6d617473656d6974 // timestam
)

// knownName recognises a known name that begins at i, behind the quote, and returns the position of its closing quote.
func knownName(data []byte, i int) (field, int) {
	if len(data) < i+8 {
		return unknown, i
	}
	rest := data[i+8:]
	switch binary.LittleEndian.Uint64(data[i:]) {
	case nameEventSnake:
		if hasPrefix(rest, `pe"`) {
			return fieldType, i + 10
		}
	case nameEventCamel:
		if hasPrefix(rest, `e"`) {
			return fieldType, i + 9
		}
	case nameTimestamp:
		if hasPrefix(rest, `p"`) {
			return fieldTime, i + 9
		}
	case nameAircraft:
		if hasPrefix(rest, `_id"`) {
			return fieldAircraft, i + 11
		}
		if hasPrefix(rest, `Id"`) {
			return fieldAircraft, i + 10
		}
	case nameRegistration:
		if hasPrefix(rest, `tion_number"`) {
			return fieldRegistration, i + 19
		}
		if hasPrefix(rest, `tionNumber"`) {
			return fieldRegistration, i + 18
		}
	}
	return unknown, i
}

// escapedName recognises a known name that is written with escapes. A name longer than the longest known one can be
// when every byte of it is escaped is not looked into.
func (e *Event) escapedName(raw []byte) field {
	if len(raw) > 6*len("registration_number") {
		return unknown
	}
	kept := len(e.scratch)
	e.scratch = append(unescape(e.scratch, raw), '"')
	f, end := knownName(e.scratch, kept)
	if end != len(e.scratch)-1 {
		f = unknown
	}
	e.scratch = e.scratch[:kept]
	return f
}

// member reads the value at i into field f and returns the position behind it.
func (d *Decoder) member(e *Event, f field, data []byte, i int) (int, *FieldError) {
	if i >= len(data) {
		return i, scanError("event", data, i, badSyntax)
	}
	if f == unknown || data[i] == 'n' {
		end, flt := scanValue(data, i, 1)
		if flt != sound {
			return end, scanError("event", data, end, flt)
		}
		return end, nil
	}
	if data[i] == '"' {
		return d.quoted(e, f, data, i)
	}
	if f == fieldAircraft || f == fieldTime {
		return e.number(f, data, i)
	}
	return wrongType(f, data, i, "a string")
}

// wrongType refuses the value at i, unless it is not even a value.
func wrongType(f field, data []byte, i int, want string) (int, *FieldError) {
	end, flt := scanValue(data, i, 1)
	if flt != sound {
		return end, scanError("event", data, end, flt)
	}
	return end, refuse(f, data[i:end], ReasonWrongType, want, i)
}

// refuse words what is wrong with the value of a known field.
func refuse(f field, value []byte, reason, limit string, offset int) *FieldError {
	return &FieldError{Record: "event", Field: f.String(), Value: clip(value), Reason: reason, Limit: limit, Offset: offset}
}

// duplicate refuses a field that was there before.
func duplicate(record, name string, data []byte, i int) *FieldError {
	return &FieldError{
		Record: record, Field: name, Value: clip(data[min(i, len(data)):]), Reason: ReasonDuplicateField,
		Limit: "given once", Offset: i,
	}
}

// quoted reads the string at i into field f.
func (d *Decoder) quoted(e *Event, f field, data []byte, i int) (int, *FieldError) {
	var kind text
	end := skipPlain(data, i+1)
	if end == len(data) || data[end] != '"' {
		var flt fault
		if end, kind, flt = scanString(data, i+1); flt != sound {
			return end, scanError("event", data, end, flt)
		}
	}
	s := data[i+1 : end]
	if kind&escaped != 0 {
		kept := len(e.scratch)
		e.scratch = unescape(e.scratch, s)
		s = e.scratch[kept:]
	}
	var err *FieldError
	switch f {
	case fieldType:
		err = e.setType(s, kind, i)
	case fieldRegistration:
		err = e.setRegistration(s, kind, i)
	case fieldTime:
		var ok bool
		if e.Time, ok = parseTimestamp(s, d.Zone); !ok {
			err = refuse(f, s, ReasonBadTimestamp, timestampLimit, i)
		}
		e.timed = true
	default:
		err = e.setAircraft(s, i)
	}
	return end + 1, err
}

// setType takes over the event type.
func (e *Event) setType(s []byte, kind text, at int) *FieldError {
	if e.Type = s; len(s) > 0 && len(s) <= MaxTypeBytes && kind&escaped == 0 {
		return nil
	}
	return checkName(fieldType, s, MaxTypeBytes, at)
}

// checkName bounds a name and keeps control characters out of it: they would pass through JSON only to be refused
// by the databases behind it.
func checkName(f field, s []byte, limit, at int) *FieldError {
	switch {
	case len(s) == 0:
		return refuse(f, s, ReasonEmpty, "1 to "+strconv.Itoa(limit)+" bytes", at)
	case len(s) > limit:
		return refuse(f, s, ReasonTooLong, atMost(limit, "bytes"), at)
	}
	for _, c := range s {
		if c < ' ' {
			return refuse(f, s, ReasonBadCharacter, "free of control characters", at)
		}
	}
	return nil
}

// setRegistration takes over the registration number, normalised.
func (e *Event) setRegistration(s []byte, kind text, at int) *FieldError {
	if kind == 0 && len(s) > 0 && len(s) <= MaxRegistrationBytes && isNormal(s) {
		e.Registration = s
		return nil
	}
	kept := len(e.scratch)
	e.scratch = appendUpper(e.scratch, bytes.TrimSpace(s))
	e.Registration = e.scratch[kept:]
	return checkName(fieldRegistration, e.Registration, MaxRegistrationBytes, at)
}

// isNormal tells whether a plain string is already trimmed and in upper case.
func isNormal(s []byte) bool {
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for _, c := range s {
		if c-'a' <= 'z'-'a' {
			return false
		}
	}
	return true
}

// appendUpper appends s in upper case, rune by rune.
func appendUpper(dst, s []byte) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		dst = utf8.AppendRune(dst, unicode.ToUpper(r))
		s = s[n:]
	}
	return dst
}

// setAircraft reads an aircraft id that was sent as a string.
func (e *Event) setAircraft(s []byte, at int) *FieldError {
	n, ok := parseInt(s)
	if ok {
		e.AircraftID, e.HasAircraftID = n, true
		return nil
	}
	if digits := skipDigits(s, skipSign(s)); digits == len(s) && digits > skipSign(s) {
		return refuse(fieldAircraft, s, ReasonOutOfRange, "an integer of 64 bits", at)
	}
	return refuse(fieldAircraft, s, ReasonWrongType, "an integer, or a string holding one", at)
}

// skipSign is the length of a leading minus sign.
func skipSign(s []byte) int {
	if len(s) > 0 && s[0] == '-' {
		return 1
	}
	return 0
}

// number reads the number at i into field f.
func (e *Event) number(f field, data []byte, i int) (int, *FieldError) {
	if c := data[i]; c != '-' && c-'0' > 9 {
		want := "an integer, or a string holding one"
		if f == fieldTime {
			want = timestampLimit
		}
		return wrongType(f, data, i, want)
	}
	n, end := shortInt(data, i)
	integer, ok := true, true
	if end == 0 {
		var flt fault
		if end, integer, flt = scanNumber(data, i); flt != sound {
			return end, scanError("event", data, end, flt)
		}
		n, ok = parseInt(data[i:end])
	}
	if f == fieldAircraft {
		e.AircraftID, e.HasAircraftID = n, true
		return end, refuseNumber(f, data[i:end], integer, ok, i)
	}
	if ok {
		e.Time, ok = epochMilli(n)
	}
	if !ok {
		return end, refuse(f, data[i:end], ReasonBadTimestamp, timestampLimit, i)
	}
	e.timed = true
	return end, nil
}

// shortInt reads a positive integer of up to 18 digits with nothing odd about it and returns the position behind it;
// position 0 asks for a closer look.
func shortInt(data []byte, i int) (n int64, end int) {
	if data[i] == '0' {
		return 0, 0
	}
	for end = i; end < len(data); end++ {
		c := data[end]
		if c-'0' > 9 {
			if (c == ',' || c == '}') && end > i && end <= i+18 {
				return n, end
			}
			break
		}
		n = n*10 + int64(c-'0')
	}
	return 0, 0
}

// refuseNumber refuses an aircraft id that is not an integer or too large for one.
func refuseNumber(f field, value []byte, integer, fits bool, at int) *FieldError {
	switch {
	case !integer:
		return refuse(f, value, ReasonWrongType, "an integer, without fraction or exponent", at)
	case !fits:
		return refuse(f, value, ReasonOutOfRange, "an integer of 64 bits", at)
	}
	return nil
}

// complete checks that nothing required is missing.
func (e *Event) complete() *FieldError {
	missing := unknown
	switch {
	case len(e.Type) == 0:
		missing = fieldType
	case len(e.Registration) == 0:
		missing = fieldRegistration
	case !e.timed:
		missing = fieldTime
	default:
		return nil
	}
	return &FieldError{Record: "event", Field: missing.String(), Reason: ReasonMissing, Limit: "present and not null", Offset: -1}
}
