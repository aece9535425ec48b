package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// maxFaults is how many faults one answer lists; the rest is counted.
const maxFaults = 100

// problem is an answer of RFC 9457: application/problem+json.
func problem(status int, detail string, faults ...*huma.ErrorDetail) *huma.ErrorModel {
	p := &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail, Errors: faults}
	if more := len(faults) - maxFaults; more > 0 {
		p.Errors = append(faults[:maxFaults:maxFaults], &huma.ErrorDetail{Message: "and " + strconv.Itoa(more) + " more faults"})
	}
	return p
}

// fault is one thing wrong with a request and where.
func fault(location, message string, value any) *huma.ErrorDetail {
	return &huma.ErrorDetail{Location: location, Message: message, Value: value}
}

// maxEcho is how many bytes of a faulty value are given back.
const maxEcho = 200

// brief shortens the values in huma's own problems, which may be the whole body.
func brief(_ huma.Context, _ string, answer any) (any, error) {
	p, ok := answer.(*huma.ErrorModel)
	if !ok {
		return answer, nil
	}
	for _, e := range p.Errors {
		switch v := e.Value.(type) {
		case nil, bool, float64, int64:
		case string:
			e.Value = clip(v, maxEcho)
		default:
			if raw, err := json.Marshal(v); err == nil && len(raw) > maxEcho {
				e.Value = clip(string(raw), maxEcho)
			}
		}
	}
	return p, nil
}

// busy is a problem that goes away by itself.
func busy(w http.ResponseWriter, status int, after time.Duration, detail string) *huma.ErrorModel {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(after.Round(time.Second)/time.Second))))
	return problem(status, detail)
}

// writeProblem answers with a problem. A client that is gone is nobody's fault.
func writeProblem(w http.ResponseWriter, p *huma.ErrorModel) {
	writeJSON(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, contentType string, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		// Only a value taken from a request can be unfit for JSON: answer without it.
		raw = []byte(`{"title":"Internal Server Error","status":500,"detail":"answer cannot be encoded"}`)
		contentType, status = "application/problem+json", http.StatusInternalServerError
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(raw)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n'))
}

// unavailable is a huma error for what this process was not given.
func unavailable(what string) error {
	return huma.ErrorWithHeaders(problem(http.StatusServiceUnavailable, what), http.Header{"Retry-After": {"5"}})
}

// plain writes a duration without zero parts: 1h, not 1h0m0s.
func plain(d time.Duration) string {
	s := d.String()
	if cut, ok := strings.CutSuffix(s, "m0s"); ok {
		s = cut + "m"
	}
	if cut, ok := strings.CutSuffix(s, "h0m"); ok {
		s = cut + "h"
	}
	return s
}
