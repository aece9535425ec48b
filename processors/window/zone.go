package window

import (
	"math"
	"sort"
	"time"
)

// zone converts between instants and the local times of one time zone, both in ms, a local time as if it were UTC.
//
// A window of local time begins at the first instant whose local time has reached its start, and ends after the last instant whose local
// time is before its end. So an end that the clocks jump over in spring is the instant of the jump, and an end that they show
// twice in autumn is the second: the window stays open for both.
type zone struct {
	place *time.Location
	table []segment // without gaps, ascending
}

// segment is a stretch of instants [lo, hi) with one distance from UTC.
type segment struct{ lo, hi, offset int64 }

const (
	dayMillis = int64(day / time.Millisecond)
	// tableEnd is the instant up to which segments are kept ready: the year 2200. Later ones are looked up.
	tableEnd = 7_258_118_400_000
)

// newZone prepares a zone; nil for UTC, which needs none.
func newZone(place *time.Location) *zone {
	if place == nil || place == time.UTC {
		return nil
	}
	z := &zone{place: place}
	for at := int64(math.MinInt64 / 2); at < tableEnd; {
		s := z.lookup(at)
		at = s.hi
		if n := len(z.table); n > 0 && z.table[n-1].offset == s.offset {
			z.table[n-1].hi = s.hi
			continue
		}
		z.table = append(z.table, s)
	}
	return z
}

// lookup asks the time package for the segment of an instant, or as much of it as the package knows.
func (z *zone) lookup(instant int64) segment {
	t := time.UnixMilli(instant).In(z.place)
	_, seconds := t.Zone()
	s := segment{lo: math.MinInt64, hi: math.MaxInt64, offset: int64(seconds) * 1000}
	from, to := t.ZoneBounds()
	if !from.IsZero() {
		s.lo = from.UnixMilli()
	}
	if !to.IsZero() {
		s.hi = to.UnixMilli()
	}
	if s.hi <= instant { // where a zone follows a rule, the package takes all years to end after 365 days
		s.hi = instant + dayMillis/24
	}
	return s
}

// at is the segment of an instant.
func (z *zone) at(instant int64) segment {
	i := sort.Search(len(z.table), func(i int) bool { return instant < z.table[i].hi })
	if i == len(z.table) {
		return z.lookup(instant)
	}
	return z.table[i]
}

// local is the local time of an instant.
func (z *zone) local(instant int64) int64 { return instant + z.at(instant).offset }

// first is the first instant whose local time is start or later. No zone is a day or more from UTC, so the search begins there.
func (z *zone) first(start int64) int64 {
	for s := z.at(start - dayMillis); ; s = z.at(s.hi) {
		if t := max(s.lo, start-s.offset); t < s.hi {
			return t
		}
	}
}

// after is the instant after the last one whose local time is before end.
func (z *zone) after(end int64) int64 {
	for s := z.at(end + dayMillis); ; s = z.at(s.lo - 1) {
		if t := min(s.hi, end-s.offset); t > s.lo {
			return t
		}
	}
}

// least is the least local time that an instant, or any instant after it, has.
func (z *zone) least(instant int64) int64 {
	s := z.at(instant)
	l := instant + s.offset
	for s.hi < instant+2*dayMillis {
		s = z.at(s.hi)
		l = min(l, s.lo+s.offset)
	}
	return l
}
