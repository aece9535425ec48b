package codecs

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest in a document, its own object counting as 1.
const MaxDepth = 100

// fault is what the grammar found wrong.
type fault uint8

const (
	sound fault = iota
	badSyntax
	badUTF8
	tooDeep
)

// text tells how a string is written, as bits.
type text uint8

const (
	escaped text = 1 << iota // holds at least one backslash
	wide                     // holds at least one byte beyond ASCII
)

// skipSpace returns the first position from i on that is not JSON white space.
func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

const (
	lanes = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipPlain returns the first position from i on that needs a look: a quote, a backslash, a control character, a byte
// beyond ASCII, or the end. Eight bytes at a time: in each lane the subtraction borrows into the high bit exactly when
// the lane is the byte sought; a borrow can only mislead lanes above one that was truly found, and the lowest counts.
func skipPlain(data []byte, i int) int {
	for i+8 <= len(data) {
		w := binary.LittleEndian.Uint64(data[i:])
		found := (w | (w - lanes*' ') | ((w ^ lanes*'"') - lanes) | ((w ^ lanes*'\\') - lanes)) & highs
		if found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
		i += 8
	}
	for i < len(data) {
		if c := data[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
		i++
	}
	return i
}

// scanString goes from i, just behind an opening quote, to the closing quote and returns its position.
func scanString(data []byte, i int) (int, text, fault) {
	var seen text
	for {
		i = skipPlain(data, i)
		if i == len(data) {
			return i, seen, badSyntax
		}
		if data[i] == '"' {
			return i, seen, sound
		}
		n, kind, f := scanOdd(data[i:])
		if f != sound {
			return i, seen, f
		}
		i += n
		seen |= kind
	}
}

// scanOdd measures what is neither plain nor a quote at the beginning of s: one escape or one rune beyond ASCII.
func scanOdd(s []byte) (int, text, fault) {
	switch c := s[0]; {
	case c == '\\':
		if n := escapeLen(s); n > 0 {
			return n, escaped, sound
		}
		return 0, 0, badSyntax
	case c < ' ':
		return 0, 0, badSyntax
	}
	r, n := utf8.DecodeRune(s)
	if r == utf8.RuneError && n == 1 {
		return 0, 0, badUTF8
	}
	return n, wide, sound
}

// escapeLen is the length of the escape s begins with; 0 means it is none.
func escapeLen(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(s) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 is the code unit of the \uXXXX that s begins with; -1 means it is none.
func hex4(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape appends the meaning of a scanned string. A surrogate without its other half becomes U+FFFD, as in
// encoding/json.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		var n int
		dst, n = unescapeOne(dst, s[i:])
		i += n
	}
	return dst
}

// unescapeOne appends the meaning of the escape s begins with and returns its length.
func unescapeOne(dst, s []byte) ([]byte, int) {
	switch c := s[1]; c {
	case 'u':
		return unescapeUnit(dst, s)
	case 'b':
		return append(dst, '\b'), 2
	case 'f':
		return append(dst, '\f'), 2
	case 'n':
		return append(dst, '\n'), 2
	case 'r':
		return append(dst, '\r'), 2
	case 't':
		return append(dst, '\t'), 2
	default:
		return append(dst, c), 2
	}
}

// unescapeUnit appends the rune of one \uXXXX, or of two that form a surrogate pair.
func unescapeUnit(dst, s []byte) ([]byte, int) {
	r := hex4(s)
	if !utf16.IsSurrogate(r) {
		return utf8.AppendRune(dst, r), 6
	}
	if pair := utf16.DecodeRune(r, hex4(s[6:])); pair != utf8.RuneError {
		return utf8.AppendRune(dst, pair), 12
	}
	return utf8.AppendRune(dst, utf8.RuneError), 6
}

// scanNumber goes from i over one number and tells whether it is written as an integer.
func scanNumber(data []byte, i int) (end int, integer bool, f fault) {
	if i < len(data) && data[i] == '-' {
		i++
	}
	first := i
	if i = skipDigits(data, i); i == first || (data[first] == '0' && i > first+1) {
		return first, false, badSyntax
	}
	integer = true
	if i < len(data) && data[i] == '.' {
		integer = false
		if first, i = i+1, skipDigits(data, i+1); i == first {
			return i, false, badSyntax
		}
	}
	if i < len(data) && data[i]|0x20 == 'e' {
		integer = false
		first = i + 1
		if first < len(data) && (data[first] == '+' || data[first] == '-') {
			first++
		}
		if i = skipDigits(data, first); i == first {
			return i, false, badSyntax
		}
	}
	return i, integer, sound
}

// skipDigits returns the first position from i on that is not a decimal digit.
func skipDigits(data []byte, i int) int {
	for i < len(data) && data[i]-'0' <= 9 {
		i++
	}
	return i
}

// scanValue goes from i over one value of any kind. depth is how many arrays and objects it is in.
func scanValue(data []byte, i, depth int) (int, fault) {
	if i >= len(data) {
		return i, badSyntax
	}
	switch data[i] {
	case '"':
		end, _, f := scanString(data, i+1)
		if f != sound {
			return end, f
		}
		return end + 1, sound
	case '{':
		return scanGroup(data, i, depth+1, '}')
	case '[':
		return scanGroup(data, i, depth+1, ']')
	case 't':
		return scanWord(data, i, "true")
	case 'f':
		return scanWord(data, i, "false")
	case 'n':
		return scanWord(data, i, "null")
	}
	end, _, f := scanNumber(data, i)
	return end, f
}

// scanWord goes over one of the three literal names.
func scanWord(data []byte, i int, word string) (int, fault) {
	if !hasPrefix(data[i:], word) {
		return i, badSyntax
	}
	return i + len(word), sound
}

// hasPrefix tells whether s begins with prefix.
func hasPrefix(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix
}

// scanGroup goes from i, at an opening bracket, over an array or an object that is the depth-th around itself.
func scanGroup(data []byte, i, depth int, closing byte) (int, fault) {
	if depth > MaxDepth {
		return i, tooDeep
	}
	if i = skipSpace(data, i+1); i < len(data) && data[i] == closing {
		return i + 1, sound
	}
	for {
		var f fault
		if closing == '}' {
			if i, f = scanKey(data, i); f != sound {
				return i, f
			}
		}
		if i, f = scanValue(data, i, depth); f != sound {
			return i, f
		}
		i = skipSpace(data, i)
		if i < len(data) && data[i] == closing {
			return i + 1, sound
		}
		if i == len(data) || data[i] != ',' {
			return i, badSyntax
		}
		i = skipSpace(data, i+1)
	}
}

// scanKey goes from i over a member's name and its colon to the value.
func scanKey(data []byte, i int) (int, fault) {
	if i == len(data) || data[i] != '"' {
		return i, badSyntax
	}
	i, _, f := scanString(data, i+1)
	if f != sound {
		return i, f
	}
	return scanColon(data, i+1)
}

// scanColon goes from i, behind a name, over the colon to the value.
func scanColon(data []byte, i int) (int, fault) {
	if i = skipSpace(data, i); i == len(data) || data[i] != ':' {
		return i, badSyntax
	}
	return skipSpace(data, i+1), sound
}

// scanError words a fault of the grammar found at position i of a record.
func scanError(record string, data []byte, i int, f fault) *FieldError {
	e := &FieldError{Record: record, Value: clip(data[min(i, len(data)):]), Offset: i}
	switch f {
	case badUTF8:
		e.Reason, e.Limit = ReasonInvalidUTF8, "UTF-8 text"
	case tooDeep:
		e.Reason, e.Limit = ReasonTooDeep, "nested "+atMost(MaxDepth, "levels deep")
	default:
		e.Reason, e.Limit = ReasonNotJSON, "one JSON object"
	}
	return e
}
