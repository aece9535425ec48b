package codecs

import (
	"encoding/binary"
	"math"
	"time"
)

const (
	msPerSecond = 1000
	msPerMinute = 60 * msPerSecond
	msPerHour   = 60 * msPerMinute
	msPerDay    = 24 * msPerHour

	// MinTime is the least event time, in ms since the epoch: 0001-01-01T00:00:00.000Z.
	MinTime int64 = -62135596800000
	// MaxTime is the greatest event time, in ms since the epoch: 9999-12-31T23:59:59.999Z.
	MaxTime int64 = 253402300799999

	// NoTime stands where a time is not known.
	NoTime int64 = math.MinInt64

	timestampLimit = `RFC 3339 such as "2026-02-08T14:18:31.123Z", with or without zone, or an integer epoch, in years 1 to 9999`
)

// clock is the reading of a clock on a wall: no zone.
type clock struct {
	year, month, day     int
	hour, minute, second int
	ms                   int
}

// unixMilli is the time at which a clock in UTC reads c.
func (c *clock) unixMilli() int64 {
	return daysSinceEpoch(int64(c.year), int64(c.month), int64(c.day))*msPerDay + int64(c.hour)*msPerHour +
		int64(c.minute)*msPerMinute + int64(c.second)*msPerSecond + int64(c.ms)
}

// in is the time at which a clock in zone reads c. Where a change of the zone's offset makes the reading ambiguous or
// skips it, time.Date decides.
func (c *clock) in(zone *time.Location) int64 {
	return time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, c.ms*int(time.Millisecond), zone).UnixMilli()
}

// valid tells whether the reading exists. There are no leap seconds.
func (c *clock) valid() bool {
	return c.year >= 1 && c.month-1 < 12 && c.month >= 1 && c.day >= 1 && c.day <= daysIn(c.year, c.month) &&
		c.hour < 24 && c.minute < 60 && c.second < 60
}

// daysIn is the number of days of a month.
func daysIn(year, month int) int {
	if month == 2 {
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 30 + (month+month>>3)&1
}

// daysSinceEpoch numbers the days of the proleptic Gregorian calendar, 1970-01-01 being 0. Years are counted from
// March, so that the leap day is their last.
func daysSinceEpoch(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	ofEra := year - era*400
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + (153*(month-3)+2)/5 + day - 1 - 719468
}

// date is the inverse of daysSinceEpoch.
func date(days int64) (year, month, day int64) {
	days += 719468
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	ofEra := days - era*146097
	year = (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*year + year/4 - year/100)
	shifted := (5*ofYear + 2) / 153
	day = ofYear - (153*shifted+2)/5 + 1
	year += era * 400
	if shifted < 10 {
		return year, shifted + 3, day
	}
	return year + 1, shifted - 9, day
}

// Eight bytes of a date are checked at once. XOR with the template leaves 0 to 9 in a digit's lane and 0 in a
// separator's; adding the slack then sets the high bit of every lane that holds more.
const (
	dateTemplate = 0x2d30302d30303030 // "0000-00-", first byte lowest
	dateSlack    = 0x7f76767f76767676
	timeTemplate = 0x30303a3030003030 // "00?00:00", the T or blank not checked
	timeSlack    = 0x76767f7676007676
)

// parseTimestamp reads RFC 3339 with a zone or without one, 'T' or a blank between date and time, in ms; digits
// beyond ms are cut off. zone is where times without a zone are at home, nil being UTC.
func parseTimestamp(b []byte, zone *time.Location) (int64, bool) {
	var c clock
	if len(b) < 19 || !c.parse(b) {
		return 0, false
	}
	rest, ok := c.fraction(b[19:])
	if !ok || !c.valid() {
		return 0, false
	}
	var ms int64
	switch {
	case len(rest) == 1 && rest[0]|0x20 == 'z':
		ms = c.unixMilli()
	case len(rest) > 0:
		offset, ok := parseOffset(rest)
		if !ok {
			return 0, false
		}
		ms = c.unixMilli() - offset
	case zone != nil:
		ms = c.in(zone)
	default:
		ms = c.unixMilli()
	}
	return ms, ms >= MinTime && ms <= MaxTime
}

// parse reads the 19 bytes from year to second; it checks their form, not their ranges.
func (c *clock) parse(b []byte) bool {
	ymd := binary.LittleEndian.Uint64(b) ^ dateTemplate
	hm := binary.LittleEndian.Uint64(b[8:]) ^ timeTemplate
	sep := b[10]
	s10, s1 := b[17]-'0', b[18]-'0'
	hm &^= 0xff << 16
	if (ymd|hm|(ymd+dateSlack)|(hm+timeSlack))&highs != 0 || b[16] != ':' || s10 > 9 || s1 > 9 {
		return false
	}
	c.year = lane(ymd, 0)*1000 + lane(ymd, 1)*100 + lane(ymd, 2)*10 + lane(ymd, 3)
	c.month = lane(ymd, 5)*10 + lane(ymd, 6)
	c.day = lane(hm, 0)*10 + lane(hm, 1)
	c.hour = lane(hm, 3)*10 + lane(hm, 4)
	c.minute = lane(hm, 6)*10 + lane(hm, 7)
	c.second = int(s10)*10 + int(s1)
	return sep|0x20 == 't' || sep == ' '
}

// lane is the i-th byte of w, counted from the lowest.
func lane(w uint64, i int) int { return int(w >> (8 * i) & 0xff) }

// fraction reads a fraction of a second, if b begins with one, and returns what is behind it.
func (c *clock) fraction(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '.' {
		return b, true
	}
	end := skipDigits(b, 1)
	if end == 1 {
		return nil, false
	}
	weight := 100
	for _, d := range b[1:min(end, 4)] {
		c.ms += int(d-'0') * weight
		weight /= 10
	}
	return b[end:], true
}

// parseOffset reads a zone offset of the form +hh:mm, in ms.
func parseOffset(b []byte) (int64, bool) {
	if len(b) != 6 || (b[0] != '+' && b[0] != '-') || b[3] != ':' {
		return 0, false
	}
	h10, h1, m10, m1 := b[1]-'0', b[2]-'0', b[4]-'0', b[5]-'0'
	if h10 > 9 || h1 > 9 || m10 > 9 || m1 > 9 || h10*10+h1 > 23 || m10 > 5 {
		return 0, false
	}
	ms := int64(h10*10+h1)*msPerHour + int64(m10*10+m1)*msPerMinute
	if b[0] == '-' {
		ms = -ms
	}
	return ms, true
}

// epochMilli reads an epoch whose unit is told by its magnitude: below 1e11 seconds, below 1e14 ms, below 1e17 µs,
// else ns. Finer units are rounded down.
func epochMilli(n int64) (int64, bool) {
	var ms int64
	switch {
	case n > -1e11 && n < 1e11:
		ms = n * msPerSecond
	case n > -1e14 && n < 1e14:
		ms = n
	case n > -1e17 && n < 1e17:
		ms = floorDiv(n, 1e3)
	default:
		ms = floorDiv(n, 1e6)
	}
	return ms, ms >= MinTime && ms <= MaxTime
}

// floorDiv divides towards minus infinity; d is positive.
func floorDiv(n, d int64) int64 {
	q := n / d
	if n%d < 0 {
		q--
	}
	return q
}

// AppendTime appends a time given in ms since the epoch as RFC 3339 in UTC with three decimals: 2026-02-08T14:18:31.123Z.
// A year beyond 9999 takes as many digits as it needs, one before 0 a sign.
func AppendTime(dst []byte, ms int64) []byte {
	days := floorDiv(ms, msPerDay)
	ofDay := ms - days*msPerDay
	year, month, day := date(days)
	if year < 0 {
		dst, year = append(dst, '-'), -year
	}
	dst = appendYear(dst, year)
	dst = append2(append(dst, '-'), month)
	dst = append2(append(dst, '-'), day)
	dst = append2(append(dst, 'T'), ofDay/msPerHour)
	dst = append2(append(dst, ':'), ofDay/msPerMinute%60)
	dst = append2(append(dst, ':'), ofDay/msPerSecond%60)
	sub := ofDay % msPerSecond
	return append(dst, '.', byte('0'+sub/100), byte('0'+sub/10%10), byte('0'+sub%10), 'Z')
}

// append2 appends a number below 100 as two digits.
func append2(dst []byte, n int64) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendYear appends a year with four digits or more.
func appendYear(dst []byte, year int64) []byte {
	if year >= 10000 {
		return appendInt(dst, year)
	}
	return append2(append2(dst, year/100), year%100)
}

// ParseTime reads exactly what AppendTime writes.
func ParseTime(b []byte) (ms int64, ok bool) {
	if len(b) < 24 || len(b) > 31 {
		return 0, false
	}
	tail := len(b) - 20 // the "-MM-DDTHH:MM:SS.mmmZ"
	year, ok := parseInt(b[:tail])
	if !ok {
		return 0, false
	}
	var c clock
	var four [24]byte
	copy(four[:], "0000")
	copy(four[4:], b[tail:])
	if !c.parse(four[:]) {
		return 0, false
	}
	if rest, ok := c.fraction(four[19:]); !ok || len(rest) != 1 {
		return 0, false
	}
	c.year = int(year)
	ms = c.unixMilli()
	if tail == 4 && four[10] == 'T' && four[23] == 'Z' && c.valid() {
		return ms, true
	}
	var again [32]byte
	return ms, string(AppendTime(again[:0], ms)) == string(b)
}

// parseInt reads a decimal integer with an optional minus sign; ok is false when it is none or exceeds 64 bits.
func parseInt(b []byte) (n int64, ok bool) {
	digits := b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) == 0 || skipDigits(digits, 0) != len(digits) {
		return 0, false
	}
	var u uint64
	for _, c := range digits {
		if u > math.MaxUint64/10-1 {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	if len(digits) != len(b) {
		return -int64(u), u <= -math.MinInt64
	}
	return int64(u), u <= math.MaxInt64
}
