package codecs

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func lateLetter() Letter {
	return Letter{
		Reason: "late", Detail: "too late", Topic: "aircraft-events", Partition: 3, Offset: 1842,
		EventTime: 1357035430984, Registration: "N14228", Key: []byte("N14228"), Value: []byte(`{}`),
	}
}

func TestLetterRoundTrip(t *testing.T) {
	t.Parallel()
	dead := Letter{Reason: "x", Topic: "t", Offset: math.MaxInt64, Partition: math.MaxInt32, EventTime: NoTime, Value: []byte("\xff")}
	for _, l := range []Letter{lateLetter(), dead} {
		if l.Registration != "" {
			l.Registration = strings.Repeat("N", MaxRegistrationBytes)
		}
		// Headers of others are left alone.
		got, err := ParseLetter(l.Key, l.Value, append(l.Headers(), Header{"traceparent", []byte("\xff")}, Header{"traceparent", nil}))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, l, got)
		if (l.Key == nil) != (got.Key == nil) {
			t.Error("no key and an empty key are not the same")
		}
	}
}

// Every reason a codec gives can travel as one.
func TestReasonsFitLetters(t *testing.T) {
	t.Parallel()
	for _, r := range Reasons() {
		l := lateLetter()
		l.Reason = r
		if _, err := ParseLetter(nil, nil, l.Headers()); err != nil {
			t.Error(err)
		}
	}
}

func TestLetterCutsDetail(t *testing.T) {
	t.Parallel()
	for _, detail := range []string{strings.Repeat("x", MaxDetailBytes), strings.Repeat("€", MaxDetailBytes), strings.Repeat("\xffa", 5000)} {
		l := lateLetter()
		l.Detail = detail
		got, err := ParseLetter(nil, nil, l.Headers())
		if err != nil {
			t.Fatal(err)
		}
		cut := strings.TrimSuffix(got.Detail, "…")
		if len(got.Detail) > MaxDetailBytes || len(got.Detail) < MaxDetailBytes-3 || !utf8.ValidString(got.Detail) ||
			!strings.HasPrefix(strings.ToValidUTF8(detail, "\uFFFD"), cut) {
			t.Errorf("%d bytes: %.20q…", len(got.Detail), got.Detail)
		}
	}
}

func TestLetterRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ header, value, reason string }{
		{HeaderReason, "", ReasonBadRecord},
		{HeaderReason, "not a word", ReasonBadRecord},
		{HeaderReason, "Late", ReasonBadRecord},
		{HeaderReason, strings.Repeat("x", 65), ReasonBadRecord},
		{HeaderReason, "-", ReasonMissing},
		{HeaderTopic, "", ReasonBadRecord},
		{HeaderTopic, strings.Repeat("x", 250), ReasonBadRecord},
		{HeaderTopic, "\xff", ReasonBadRecord},
		{HeaderTopic, "-", ReasonMissing},
		{HeaderPartition, "", ReasonBadRecord},
		{HeaderPartition, "-1", ReasonBadRecord},
		{HeaderPartition, "2147483648", ReasonBadRecord},
		{HeaderPartition, "03", ReasonBadRecord},
		{HeaderPartition, "-", ReasonMissing},
		{HeaderOffset, "x", ReasonBadRecord},
		{HeaderOffset, "1e3", ReasonBadRecord},
		{HeaderOffset, "9223372036854775808", ReasonBadRecord},
		{HeaderOffset, "-", ReasonMissing},
		{HeaderDetail, "\xff", ReasonBadRecord},
		{HeaderDetail, strings.Repeat("x", MaxDetailBytes+1), ReasonBadRecord},
		{HeaderEventTime, "1357035430984", ReasonBadRecord},
		{HeaderEventTime, "2013-01-01T10:17:10Z", ReasonBadRecord},
		{HeaderEventTime, string(AppendTime(nil, NoTime)), ReasonBadRecord},
		{HeaderRegistration, "", ReasonBadRecord},
		{HeaderRegistration, strings.Repeat("N", 33), ReasonBadRecord},
		{HeaderRegistration, "\xff", ReasonBadRecord},
	} {
		l := lateLetter()
		headers := l.Headers()
		i := slices.IndexFunc(headers, func(h Header) bool { return h.Key == tt.header })
		if headers[i].Value = []byte(tt.value); tt.value == "-" {
			headers = slices.Delete(headers, i, i+1)
		}
		_, err := ParseLetter(nil, nil, headers)
		if got := reasonOf(t, err); got != tt.reason {
			t.Errorf("%s %.20q: %v, want %s", tt.header, tt.value, err, tt.reason)
		}
	}
	l := lateLetter()
	for _, h := range l.Headers() {
		if _, err := ParseLetter(nil, nil, append(l.Headers(), h)); reasonOf(t, err) != ReasonDuplicateField {
			t.Errorf("%s twice: %v", h.Key, err)
		}
	}
}

func FuzzLetter(f *testing.F) {
	f.Add("late", "detail", "aircraft-events", "3", "1842", "2013-01-01T10:17:10.984Z", "N14228", uint8(0x7f), int64(5))
	f.Add("", "\xff", "", "-1", "x", "", "\xff", uint8(0xff), int64(math.MinInt64))
	f.Add("late", strings.Repeat("€", 999), "t", "0", "0", "", "", uint8(0x1f), int64(math.MaxInt64))
	names := []string{HeaderReason, HeaderDetail, HeaderTopic, HeaderPartition, HeaderOffset, HeaderEventTime, HeaderRegistration}
	f.Fuzz(func(t *testing.T, reason, detail, topic, partition, offset, at, registration string, present uint8, ms int64) {
		values := []string{reason, detail, topic, partition, offset, at, registration}
		var headers []Header
		for i, name := range names {
			if present&(1<<i) != 0 {
				headers = append(headers, Header{name, []byte(values[i])})
			}
		}
		if present&0x80 != 0 {
			headers = append(headers, Header{HeaderDetail, []byte(reason)})
		}
		l, err := ParseLetter([]byte(topic), nil, headers)
		if reasonOf(t, err) == "" {
			again, err := ParseLetter(l.Key, l.Value, l.Headers())
			if err != nil {
				t.Fatal(err)
			}
			equal(t, l, again)
		}
		// Whatever a processor says of an event can be sent and read.
		l = Letter{Reason: ReasonNotJSON, Detail: detail, Topic: "t", Offset: ms, EventTime: ms, Value: []byte(at)}
		got, err := ParseLetter(nil, l.Value, l.Headers())
		if err != nil || got.Offset != ms || got.EventTime != ms || got.Reason != l.Reason {
			t.Errorf("%+v: %v", got, err)
		}
	})
}
