package httpapi

import (
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 10 * time.Second: "10s", 20 * time.Minute: "20m", 90 * time.Minute: "1h30m", 10 * time.Hour: "10h", 0: "0s", 61 * time.Second: "1m1s", 500 * time.Millisecond: "500ms",
	} {
		if got := plain(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

func TestBusyWaitsAtLeastASecond(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{0: "1", 300 * time.Millisecond: "1", 2600 * time.Millisecond: "3"} {
		w := httptest.NewRecorder()
		if _ = busy(w, http.StatusTooManyRequests, wait, ""); w.Header().Get("Retry-After") != want {
			t.Errorf("after %v: %q, want %q", wait, w.Header().Get("Retry-After"), want)
		}
	}
}

func TestAnswerThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	writeJSON(w, formJSON, http.StatusOK, math.Inf(1))
	if body := want(t, w, http.StatusInternalServerError); body["status"] != 500.0 {
		t.Errorf("answer is %v", body)
	}
}
