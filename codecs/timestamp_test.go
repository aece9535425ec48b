package codecs

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// timestamps are values of the timestamp field, as JSON, and what they mean in UTC; "" is refused.
var timestamps = []struct{ in, want string }{
	{`"2026-02-08T14:18:31.123Z"`, "2026-02-08T14:18:31.123Z"},
	{`"2026-02-08T17:18:31.123456"`, "2026-02-08T17:18:31.123Z"},
	{`"2026-02-08T14:18:31Z"`, "2026-02-08T14:18:31.000Z"},
	{`"2026-02-08t14:18:31z"`, "2026-02-08T14:18:31.000Z"},
	{`"2026-02-08 14:18:31"`, "2026-02-08T14:18:31.000Z"},
	{`"2026-02-08T14:18:31.1Z"`, "2026-02-08T14:18:31.100Z"},
	{`"2026-02-08T14:18:31.999999999999Z"`, "2026-02-08T14:18:31.999Z"},
	{`"2026-02-08T14:18:31.123+03:00"`, "2026-02-08T11:18:31.123Z"},
	{`"2026-02-08T14:18:31-23:59"`, "2026-02-09T14:17:31.000Z"},
	{`"2026-02-08T14:18:31-00:00"`, "2026-02-08T14:18:31.000Z"},
	{`"2026-02-08T14:18:31\u002b00:00"`, "2026-02-08T14:18:31.000Z"},
	{`"2024-02-29T00:00:00Z"`, "2024-02-29T00:00:00.000Z"},
	{`"2000-02-29T00:00:00Z"`, "2000-02-29T00:00:00.000Z"},
	{`"0001-01-01T00:00:00Z"`, "0001-01-01T00:00:00.000Z"},
	{`"9999-12-31T23:59:59.9999Z"`, "9999-12-31T23:59:59.999Z"},
	{`"1969-12-31T23:59:59.9999Z"`, "1969-12-31T23:59:59.999Z"},
	{`0`, "1970-01-01T00:00:00.000Z"},
	{`-1`, "1969-12-31T23:59:59.000Z"},
	{`1770560311`, "2026-02-08T14:18:31.000Z"},
	{`1770560311123`, "2026-02-08T14:18:31.123Z"},
	{`1770560311123456`, "2026-02-08T14:18:31.123Z"},
	{`1770560311123456789`, "2026-02-08T14:18:31.123Z"},
	{`99999999999`, "5138-11-16T09:46:39.000Z"},
	{`100000000000`, "1973-03-03T09:46:40.000Z"},
	{`99999999999999`, "5138-11-16T09:46:39.999Z"},
	{`100000000000000`, "1973-03-03T09:46:40.000Z"},
	{`99999999999999999`, "5138-11-16T09:46:39.999Z"},
	{`100000000000000000`, "1973-03-03T09:46:40.000Z"},
	{`9223372036854775807`, "2262-04-11T23:47:16.854Z"},
	{`-9223372036854775808`, "1677-09-21T00:12:43.145Z"},
	{`-100000000000001`, "1966-10-31T14:13:19.999Z"}, // rounded down, not towards 0
	{`-100000000000`, "1966-10-31T14:13:20.000Z"},
	{`-100000000000000`, "1966-10-31T14:13:20.000Z"},
	{`-100000000000000000`, "1966-10-31T14:13:20.000Z"},
	{`-62135596800`, "0001-01-01T00:00:00.000Z"},

	{`-62135596801`, ""},
	{`-62135596800001`, ""},
	{`"2026-02-30T00:00:00Z"`, ""},
	{`"2025-02-29T00:00:00Z"`, ""},
	{`"1900-02-29T00:00:00Z"`, ""},
	{`"2026-04-31T00:00:00Z"`, ""},
	{`"2026-00-01T00:00:00Z"`, ""},
	{`"2026-13-01T00:00:00Z"`, ""},
	{`"2026-01-00T00:00:00Z"`, ""},
	{`"2026-01-01T24:00:00Z"`, ""},
	{`"2026-01-01T00:60:00Z"`, ""},
	{`"2026-06-30T23:59:60Z"`, ""}, // a leap second; epochs have none
	{`"2026-01-01T00:00:00."`, ""},
	{`"2026-01-01T00:00:00.Z"`, ""},
	{`"2026-01-01T00:00:00,5Z"`, ""},
	{`"2026-01-01T00:00:00+24:00"`, ""},
	{`"2026-01-01T00:00:00+00:60"`, ""},
	{`"2026-01-01T00:00:00+0100"`, ""},
	{`"2026-01-01T00:00:00+01"`, ""},
	{`"2026-01-01T00:00:00*01:00"`, ""},
	{`"2026-01-01T00:00:00+0a:00"`, ""},
	{`"2026-01-01T00:00:00 Z"`, ""},
	{`"2026-01-01T00:00:00ZZ"`, ""},
	{`"2026-01-01T00:00Z"`, ""},
	{`"2026-01-01"`, ""},
	{`"2026-01-01X00:00:00Z"`, ""},
	{`"2026/01/01T00:00:00Z"`, ""},
	{`"2026-01-01T00.00.00Z"`, ""},
	{`"2026-01-01T00:00:0aZ"`, ""},
	{`"20:6-01-01T00:00:00Z"`, ""},
	{`"2026-01-01T0/:00:00Z"`, ""},
	{`"ü026-01-01T00:00:00Z"`, ""},
	{`"1770560311"`, ""},
	{`"now"`, ""},
}

func TestTimestamps(t *testing.T) {
	t.Parallel()
	for _, tt := range timestamps {
		var e Event
		err := new(Decoder).Decode(&e, []byte(doc("timestamp="+tt.in)))
		if tt.want == "" {
			if reasonOf(t, err) != ReasonBadTimestamp {
				t.Errorf("%s: %v", tt.in, err)
			}
			continue
		}
		if got := string(AppendTime(nil, e.Time)); err != nil || got != tt.want {
			t.Errorf("%s is %s, want %s: %v", tt.in, got, tt.want, err)
		}
	}
}

// Each byte of a timestamp is looked at: any other in its place is refused, or is read as package time reads it.
func TestTimestampByteByByte(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"2026-02-08T14:18:31.123Z", "2026-02-08 14:18:31.123456", "1999-12-31t23:59:59+05:30"} {
		for i := range form {
			for c := range 128 {
				s := []byte(form)
				s[i] = byte(c)
				want, wantOK := oracleTime(string(s), time.UTC)
				if got, ok := parseTimestamp(s, nil); ok != wantOK || (ok && got != want) {
					t.Errorf("%q is %d %v, want %d %v", s, got, ok, want, wantOK)
				}
			}
		}
	}
}

func TestZoneOfTimestamps(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Skip("no time zones here")
	}
	d := Decoder{Zone: zone}
	for in, want := range map[string]string{
		`"2026-02-08T09:18:31.123"`:  "2026-02-08T14:18:31.123Z",
		`"2026-07-08T10:18:31.123"`:  "2026-07-08T14:18:31.123Z",
		`"2026-02-08T14:18:31.123Z"`: "2026-02-08T14:18:31.123Z",
		`1770560311123`:              "2026-02-08T14:18:31.123Z",
	} {
		var e Event
		if err := d.Decode(&e, []byte(doc("timestamp="+in))); err != nil || string(AppendTime(nil, e.Time)) != want {
			t.Errorf("%s is %s, want %s: %v", in, AppendTime(nil, e.Time), want, err)
		}
	}
}

// Every day of a full cycle of the calendar, and days far away, as package time has them.
func TestCalendar(t *testing.T) {
	t.Parallel()
	day := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 146097 + 400 {
		checkDay(t, day)
		day = day.AddDate(0, 0, 1)
	}
	for _, year := range []int{-200_000_000, -401, -400, -399, -1, 0, 9999, 10000, 12345, 200_000_000} {
		for month := range 12 {
			checkDay(t, time.Date(year, time.Month(month+1), 28+month%2, 0, 0, 0, 0, time.UTC))
		}
	}
}

func checkDay(t *testing.T, day time.Time) {
	t.Helper()
	days := daysSinceEpoch(int64(day.Year()), int64(day.Month()), int64(day.Day()))
	if want := floorDiv(day.Unix(), 86400); days != want {
		t.Fatalf("%s is day %d, want %d", day, days, want)
	}
	if y, m, d := date(days); int(y) != day.Year() || int(m) != int(day.Month()) || int(d) != day.Day() {
		t.Fatalf("day %d is %d-%d-%d, want %s", days, y, m, d, day)
	}
	if y := day.Year(); y >= 0 && y <= 9999 {
		if last := day.AddDate(0, 1, -day.Day()).Day(); daysIn(y, int(day.Month())) != last {
			t.Fatalf("%d-%d has %d days", y, day.Month(), daysIn(y, int(day.Month())))
		}
	}
}

// Any 64 bits of ms are written and read back; within four digits of year as package time writes them.
func TestTimeRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	check := func(ms int64) {
		s := AppendTime(nil, ms)
		if got, ok := ParseTime(s); !ok || got != ms {
			t.Fatalf("%d written as %s, read as %d %v", ms, s, got, ok)
		}
		if at := time.UnixMilli(ms).UTC(); ms >= MinTime && ms <= MaxTime && string(s) != at.Format("2006-01-02T15:04:05.000Z") {
			t.Fatalf("%d written as %s, not %s", ms, s, at)
		}
	}
	for _, ms := range []int64{math.MinInt64, math.MaxInt64, 0, -1, 1, MinTime, MaxTime, MinTime - 1, MaxTime + 1} {
		check(ms)
	}
	for range 100_000 {
		check(int64(r.Uint64()) >> r.IntN(64))
	}
}

func TestParseTimeIsStrict(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "2026-02-08T14:18:31Z", "2026-02-08T14:18:31.12Z", "2026-02-08T14:18:31.1234Z", "2026-02-08T14:18:31.123",
		"2026-02-08 14:18:31.123Z", "2026-02-08T14:18:31.123z", "2026-02-30T14:18:31.123Z", "02026-02-08T14:18:31.123Z",
		"+2026-02-08T14:18:31.123Z", "-0000-02-08T14:18:31.123Z", "2026-02-08T24:00:00.000Z", "x026-02-08T14:18:31.123Z",
		"2026-02-08T14:18:31.12xZ", "2026-02-08T14:18:31+00:00", "99999999999-02-08T14:18:31.123Z", "2026-0a-08T14:18:31.123Z",
		"123-02-08T14:18:31.1230Z",
	} {
		if ms, ok := ParseTime([]byte(s)); ok {
			t.Errorf("%q is %d", s, ms)
		}
	}
}

func FuzzTime(f *testing.F) {
	for _, tt := range timestamps {
		var s string
		if json.Unmarshal([]byte(tt.in), &s) == nil {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, wantOK := oracleTime(s, time.UTC)
		if got, ok := parseTimestamp([]byte(s), nil); ok != wantOK || (ok && got != want) {
			t.Errorf("%q is %d %v, want %d %v", s, got, ok, want, wantOK)
		}
		if ms, ok := ParseTime([]byte(s)); ok && string(AppendTime(nil, ms)) != s {
			t.Errorf("%q is read as %s", s, AppendTime(nil, ms))
		}
	})
}
