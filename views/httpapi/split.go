package httpapi

import (
	"bytes"
	"fmt"
)

// syntaxError is a body that is neither one JSON value nor an array of them.
type syntaxError struct {
	Offset int
	Reason string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// errBatchSize is a batch with more events than allowed.
type errBatchSize struct{ limit int }

func (e *errBatchSize) Error() string {
	return fmt.Sprintf("more than %d events in one batch", e.limit)
}

// split cuts a body into its events without touching their bytes: the elements if the body is an array, else the body
// itself. It checks what is between the events; what is inside one is the decoder's to judge, so an element here ends
// where brackets opened outside strings are closed again.
func split(dst [][]byte, body []byte, limit int) (events [][]byte, batch bool, err error) {
	i := space(body, 0)
	if i == len(body) {
		return dst, false, &syntaxError{i, "empty body"}
	}
	if body[i] != '[' {
		return append(dst, bytes.TrimRight(body[i:], " \t\r\n")), false, nil
	}
	if i = space(body, i+1); i < len(body) && body[i] == ']' {
		return dst, true, trailing(body, i+1)
	}
	for {
		end, err := element(body, i)
		if err != nil {
			return dst, true, err
		}
		if len(dst) == limit {
			return dst, true, &errBatchSize{limit}
		}
		dst = append(dst, body[i:end:end])
		i = space(body, end)
		switch {
		case i == len(body):
			return dst, true, &syntaxError{i, "array is not closed"}
		case body[i] == ']':
			return dst, true, trailing(body, i+1)
		case body[i] != ',':
			return dst, true, &syntaxError{i, "comma or closing bracket expected"}
		}
		i = space(body, i+1)
	}
}

func trailing(body []byte, i int) error {
	if i = space(body, i); i != len(body) {
		return &syntaxError{i, "something follows the array"}
	}
	return nil
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// element returns where the value that starts at i ends.
func element(b []byte, i int) (end int, err error) {
	if i < len(b) {
		switch b[i] {
		case '{', '[':
			return nested(b, i)
		case '"':
			return quoted(b, i)
		}
	}
	for end = i; end < len(b); end++ {
		switch b[end] {
		case ',', ']', '}', '[', '{', '"', ' ', '\n', '\t', '\r':
			return scalar(i, end)
		}
	}
	return scalar(i, end)
}

func scalar(i, end int) (int, error) {
	if i == end {
		return i, &syntaxError{i, "value expected"}
	}
	return end, nil
}

func nested(b []byte, start int) (int, error) {
	depth := 0
	for i := start; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		case '"':
			end, err := quoted(b, i)
			if err != nil {
				return i, err
			}
			i = end - 1
		}
	}
	return len(b), &syntaxError{start, "value is not closed"}
}

// quoted returns where the string that starts at i ends.
func quoted(b []byte, start int) (int, error) {
	for i := start + 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1, nil
		case '\\':
			i++ // what the backslash protects
		}
	}
	return len(b), &syntaxError{start, "string is not closed"}
}
