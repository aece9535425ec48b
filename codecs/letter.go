package codecs

import (
	"bytes"
	"math"
	"strings"
	"unicode/utf8"
)

// MaxDetailBytes is the longest detail a letter carries; Headers cuts what is longer.
const MaxDetailBytes = 1024

// Names of the headers of a letter. All values are text.
const (
	HeaderReason       = "klg-reason"           // why: one of Reasons, "late", or another word of a-z, 0-9 and _
	HeaderDetail       = "klg-detail"           // the same for a person
	HeaderTopic        = "klg-source-topic"     // where the event was first read
	HeaderPartition    = "klg-source-partition" // decimal
	HeaderOffset       = "klg-source-offset"    // decimal
	HeaderEventTime    = "klg-event-time"       // RFC 3339 in UTC with ms and Z; absent if not known
	HeaderRegistration = "klg-registration"     // normalised; absent if not known
)

const (
	maxReasonBytes = 64
	maxTopicBytes  = 249 // what Kafka allows
)

// Header is a record's header.
type Header struct {
	Key   string
	Value []byte
}

// Letter is an event on the late or the dead-letter topic. The record's key and value are the event's own, byte for
// byte; the rest travels in headers.
type Letter struct {
	// Reason is why, for a machine: a short word of a-z, 0-9 and _.
	Reason string
	// Detail is why, for a person; may be empty.
	Detail string
	// Topic, Partition and Offset are where the event was first read.
	Topic     string
	Partition int32
	Offset    int64
	// EventTime is the event's time in ms since the epoch; NoTime if not known.
	EventTime int64
	// Registration is the event's registration number, normalised; empty if not known.
	Registration string
	// Key and Value are the original bytes; nil is no key, no value.
	Key, Value []byte
}

// Headers is the letter's headers, in a fixed order. What is not UTF-8 in Detail becomes U+FFFD.
func (l *Letter) Headers() []Header {
	h := append(make([]Header, 0, 7),
		Header{HeaderReason, []byte(l.Reason)},
		Header{HeaderDetail, cutDetail(l.Detail)},
		Header{HeaderTopic, []byte(l.Topic)},
		Header{HeaderPartition, appendInt(nil, int64(l.Partition))},
		Header{HeaderOffset, appendInt(nil, l.Offset)},
	)
	if l.EventTime != NoTime {
		h = append(h, Header{HeaderEventTime, AppendTime(nil, l.EventTime)})
	}
	if l.Registration != "" {
		h = append(h, Header{HeaderRegistration, []byte(l.Registration)})
	}
	return h
}

// cutDetail makes a detail fit its header.
func cutDetail(detail string) []byte {
	b := []byte(strings.ToValidUTF8(detail, "\uFFFD"))
	if len(b) <= MaxDetailBytes {
		return b
	}
	n := MaxDetailBytes - len("…")
	for !utf8.RuneStart(b[n]) {
		n--
	}
	return append(b[:n], "…"...)
}

// ParseLetter reads a record of the late or the dead-letter topic. Key and Value alias the arguments. Headers it does
// not know are left alone; each it knows must be there at most once. The error is a *FieldError.
func ParseLetter(key, value []byte, headers []Header) (Letter, error) {
	l := Letter{EventTime: NoTime, Key: key, Value: value}
	seen := 0
	for _, h := range headers {
		bit, err := l.header(h)
		if err == nil && seen&bit != 0 {
			err = letterError(h, ReasonDuplicateField, "given once")
		}
		if err != nil {
			return Letter{}, err
		}
		seen |= bit
	}
	for i, name := range []string{HeaderReason, HeaderTopic, HeaderPartition, HeaderOffset} {
		if seen&(1<<i) == 0 {
			return Letter{}, letterError(Header{Key: name}, ReasonMissing, "present")
		}
	}
	return l, nil
}

// letterError words what is wrong with a header.
func letterError(h Header, reason, limit string) *FieldError {
	return &FieldError{Record: "letter", Field: h.Key, Value: clip(h.Value), Reason: reason, Limit: limit, Offset: -1}
}

// header reads one header and returns its bit; a header we do not know has none.
func (l *Letter) header(h Header) (bit int, err *FieldError) {
	ok, limit := true, ""
	switch h.Key {
	case HeaderReason:
		bit, l.Reason = 1, string(h.Value)
		ok, limit = isReason(h.Value), "1 to 64 of a-z, 0-9 and _"
	case HeaderTopic:
		bit, l.Topic = 2, string(h.Value)
		ok, limit = len(h.Value) > 0 && len(h.Value) <= maxTopicBytes && utf8.Valid(h.Value), "a topic's name"
	case HeaderPartition:
		var n int64
		n, ok = parseCanonical(h.Value)
		ok = ok && n >= 0 && n <= math.MaxInt32
		bit, l.Partition, limit = 4, int32(n), "0 to 2147483647"
	case HeaderOffset:
		l.Offset, ok = parseCanonical(h.Value)
		bit, limit = 8, "an integer of 64 bits"
	case HeaderDetail:
		bit, l.Detail = 16, string(h.Value)
		ok, limit = len(h.Value) <= MaxDetailBytes && utf8.Valid(h.Value), "at most 1024 bytes of UTF-8"
	case HeaderEventTime:
		l.EventTime, ok = ParseTime(h.Value)
		ok = ok && l.EventTime != NoTime
		bit, limit = 32, "RFC 3339 in UTC with three decimals and Z"
	case HeaderRegistration:
		bit, l.Registration = 64, string(h.Value)
		ok = len(h.Value) > 0 && len(h.Value) <= MaxRegistrationBytes && utf8.Valid(h.Value)
		limit = "1 to 32 bytes of UTF-8"
	}
	if !ok {
		return bit, letterError(h, ReasonBadRecord, limit)
	}
	return bit, nil
}

// isReason tells whether b has the form of a reason.
func isReason(b []byte) bool {
	return len(b) > 0 && len(b) <= maxReasonBytes && len(bytes.Trim(b, "abcdefghijklmnopqrstuvwxyz0123456789_")) == 0
}

// parseCanonical reads a decimal integer written the one way appendInt writes it.
func parseCanonical(b []byte) (int64, bool) {
	n, ok := parseInt(b)
	var again [20]byte
	return n, ok && string(appendInt(again[:0], n)) == string(b)
}
