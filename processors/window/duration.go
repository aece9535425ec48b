package window

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// units are the units of a duration's text, the largest first.
var units = [...]struct {
	name string
	size time.Duration
}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// parseDuration reads 1d, 1h30m, 500ms: whole numbers, each unit at most once, the larger before the smaller.
func parseDuration(text string) (time.Duration, error) {
	var sum time.Duration
	rest, from := text, 0
	for rest != "" {
		digits := span(rest, isDigit)
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("duration %q is not a whole number and a unit", clip(text))
		}
		rest = rest[digits:]
		letters := span(rest, isLetter)
		u := from
		for u < len(units) && units[u].name != rest[:letters] {
			u++
		}
		if u == len(units) {
			return 0, fmt.Errorf("duration %q: unit %q is none of d, h, m, s, ms, or out of order", clip(text), clip(rest[:letters]))
		}
		if n > int64((math.MaxInt64-sum)/units[u].size) {
			return 0, fmt.Errorf("duration %q is longer than 106751 days", clip(text))
		}
		sum += time.Duration(n) * units[u].size
		rest, from = rest[letters:], u+1
	}
	if text == "" {
		return 0, fmt.Errorf("duration is empty")
	}
	return sum, nil
}

func span(text string, in func(byte) bool) (n int) {
	for n < len(text) && in(text[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

// appendDuration writes d as parseDuration reads it; in days only if allowed and d is whole days.
func appendDuration(dst []byte, d time.Duration, days bool) []byte {
	if d <= 0 {
		return append(dst, '0', 's')
	}
	for _, u := range units {
		if u.size == day && (!days || d%day != 0) {
			continue
		}
		if n := d / u.size; n > 0 {
			dst = append(strconv.AppendInt(dst, int64(n), 10), u.name...)
			d -= n * u.size
		}
	}
	return dst
}
