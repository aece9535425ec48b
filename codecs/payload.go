package codecs

import "unicode/utf8"

// AppendJSON appends the event in its canonical form: snake_case names, the time in UTC with ms and Z, the aircraft id
// or null. The members of payload, a JSON object such as Payload returns, follow; those that would name a known field
// again are left out, and a payload that is not a sound object adds nothing. Nil is no payload.
func (e *Event) AppendJSON(dst, payload []byte) []byte {
	dst = appendString(append(dst, `{"event_type":`...), e.Type)
	dst = appendID(append(dst, `,"aircraft_id":`...), e.AircraftID, e.HasAircraftID)
	dst = appendString(append(dst, `,"registration_number":`...), e.Registration)
	dst = AppendTime(append(dst, `,"timestamp":"`...), e.Time)
	dst = append(dst, '"')
	if len(payload) > 0 {
		if with, err := appendMembers(dst, payload); err == nil {
			dst = with
		}
	}
	return append(dst, '}')
}

// Payload is what an event holds besides the known fields, as one JSON object; nil if there is nothing. Members keep
// their order and their bytes. It refuses what is not a sound object but does not look into the known fields.
func Payload(data []byte) ([]byte, error) {
	members, err := appendMembers(nil, data)
	if err != nil {
		return nil, err
	}
	if len(members) == 0 {
		return nil, nil
	}
	members[0] = '{'
	return append(members, '}'), nil
}

// appendMembers appends the members of an object that are not known fields, each behind a comma. Without an object it
// returns an error and what it had appended so far is void.
func appendMembers(dst, data []byte) ([]byte, *FieldError) {
	i, err := openEvent(data)
	if err != nil {
		return dst, err
	}
	var names Event
	for more := data[i] != '}'; more; {
		var f field
		start := i
		if i, f, err = names.name(data, i); err != nil {
			return dst, err
		}
		end, flt := scanValue(data, i, 1)
		if flt != sound {
			return dst, scanError("event", data, end, flt)
		}
		if f == unknown {
			dst = append(append(dst, ','), data[start:end]...)
		}
		if i, more, err = nextMember("event", data, end); err != nil {
			return dst, err
		}
	}
	if end := skipSpace(data, i+1); end != len(data) {
		return dst, scanError("event", data, end, badSyntax)
	}
	return dst, nil
}

// appendID appends an aircraft id or null.
func appendID(dst []byte, id int64, has bool) []byte {
	if !has {
		return append(dst, "null"...)
	}
	return appendInt(dst, id)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		var n int
		dst, n = appendOdd(dst, s[i:])
		i += n
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// appendOdd appends the rune s begins with, which is not plain ASCII, and returns its length.
func appendOdd[S string | []byte](dst []byte, s S) ([]byte, int) {
	switch c := s[0]; {
	case c == '"' || c == '\\':
		return append(dst, '\\', c), 1
	case c < ' ':
		return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15]), 1
	}
	var head [utf8.UTFMax]byte
	r, n := utf8.DecodeRune(head[:copy(head[:], s)])
	return utf8.AppendRune(dst, r), n
}
