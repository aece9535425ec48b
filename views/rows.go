package views

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"klgstream.dev/codecs"
)

// LetterRow is a late event or a dead letter as the tables late_events and dead_letters keep it. A nil pointer is a null.
type LetterRow struct {
	Topic         string
	Partition     int32
	Offset        int64
	Reason        string
	Detail        string
	EventTime     *int64 // ms since the epoch
	Registration  *string
	Key           *string // bytes that are not text replaced by U+FFFD
	Payload       *string // nil when the record is not text
	PayloadBase64 *string // nil when it is
}

// Row is the letter as its table keeps it. Whatever bytes the record has, the row holds only text that every database
// takes: UTF-8 without NUL.
func Row(l *codecs.Letter) LetterRow {
	r := LetterRow{
		Topic: CleanText(l.Topic), Partition: l.Partition, Offset: l.Offset,
		Reason: CleanText(l.Reason), Detail: CleanText(l.Detail),
	}
	if l.EventTime != math.MinInt64 {
		r.EventTime = &l.EventTime
	}
	if l.Registration != "" {
		registration := CleanText(l.Registration)
		r.Registration = &registration
	}
	if l.Key != nil {
		key := CleanText(string(l.Key))
		r.Key = &key
	}
	payload := string(l.Value)
	if isText(payload) {
		r.Payload = &payload
		return r
	}
	encoded := base64.StdEncoding.EncodeToString(l.Value)
	r.PayloadBase64 = &encoded
	return r
}

func isText(s string) bool {
	for i := range len(s) {
		if s[i] == 0 || s[i] >= utf8.RuneSelf {
			return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
		}
	}
	return true
}

// CleanText is s if every database takes it as text; what is not UTF-8, and NUL, becomes U+FFFD.
func CleanText(s string) string {
	if isText(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// AppendEventTypes writes a window's counts per event type as the JSON object of the column event_types. What is not
// UTF-8, and NUL, becomes U+FFFD in it.
func AppendEventTypes(dst []byte, types []codecs.TypeCount) []byte {
	dst = append(dst, '{')
	for i, t := range types {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, t.Type)
		dst = append(dst, ':')
		dst = strconv.AppendInt(dst, t.Count, 10)
	}
	return append(dst, '}')
}

// appendString writes a JSON string.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == 0:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		case r < ' ' || r == 0x7f:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[r>>4&15], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// Time is a moment of a row, UTC.
func Time(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
