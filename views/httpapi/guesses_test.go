package httpapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// from asks for the list of views with a key, from an address.
func (r *rig) from(address, key string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), "GET", "http://localhost:8080"+viewsURL, nil)
	req.RemoteAddr = address
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	return w
}

// guess sends wrong keys until one is answered 429, and returns how many were looked at.
func (r *rig) guess(address string) int {
	r.t.Helper()
	for n := range 1000 {
		switch got := r.from(address, "guess "+strconv.Itoa(n)); got.Code {
		case 401:
		case 429:
			return n
		default:
			r.t.Fatalf("guess %d is answered %d", n, got.Code)
		}
	}
	return 1000
}

// TestGuessing: who tries one key after the other is soon answered 429 with when to come again, a lucky guess too; nobody else
// notices.
func TestGuessing(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, keyed, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if n := r.guess("192.0.2.1:4000"); n != guessBurst {
		t.Fatalf("%d guesses were looked at, want %d", n, guessBurst)
	}
	lucky := r.from("192.0.2.1:4001", "read me") // another port is no other client
	want(t, lucky, 429)
	if got := lucky.Header().Get("Retry-After"); got != "6" {
		t.Errorf("Retry-After is %q", got)
	}
	for range 2 * guessBurst {
		want(t, r.from("192.0.2.2:4000", "read me"), 200)
	}
	want(t, r.from("192.0.2.2:4000", "guess 0"), 401)
	want(t, r.from("192.0.2.2:4000", "read me"), 200)
	r.clock.move(guessEvery)
	want(t, r.from("192.0.2.1:4000", "another guess"), 401)
	want(t, r.from("192.0.2.1:4000", "read me"), 429)
	r.clock.move(guessEvery)
	want(t, r.from("192.0.2.1:4000", "read me"), 200)
	if got := strings.Count(log.String(), "tries API keys"); got != 1 || !strings.Contains(log.String(), "192.0.2.1") {
		t.Errorf("the log tells %d times: %s", got, &log)
	}
}

// TestOutdatedKey: a client that goes on and on with one wrong key guesses nothing, and shuts out nobody behind its address.
func TestOutdatedKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed)
	for range 10 * guessBurst {
		want(t, r.from("192.0.2.1:4000", "last year's key"), 401)
	}
	want(t, r.from("192.0.2.1:4000", "read me"), 200)
}

// TestGuessersAreBounded: no number of addresses makes the process hold more than it should, and one network of IPv6 is one client.
func TestGuessersAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed)
	for i := range 2 * maxGuessers {
		want(t, r.from(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), "guess"), 401)
	}
	if n := len(r.api.guesses.known); n > maxGuessers {
		t.Errorf("%d addresses are held", n)
	}
	for i := range guessBurst {
		want(t, r.from(fmt.Sprintf("[2001:db8::%x]:1", i), "guess "+strconv.Itoa(i)), 401)
	}
	want(t, r.from("[2001:db8::ffff]:1", "guess"), 429)
	want(t, r.from("[2001:db8:0:1::1]:1", "guess"), 401)
}

// TestTrustedProxy: behind a proxy that is named clients are told apart by what it says of them; nobody else is believed.
func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed, func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	for n := range guessBurst {
		want(t, r.from("10.0.0.7:1", "guess "+strconv.Itoa(n), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d, 192.0.2.1", 50+n)), 401)
	}
	want(t, r.from("10.0.0.7:1", "read me", "X-Forwarded-For", "192.0.2.9, 192.0.2.1"), 429)
	want(t, r.from("10.0.0.7:1", "read me", "X-Forwarded-For", "192.0.2.9", "X-Forwarded-For", "192.0.2.1, 10.1.1.1"), 429)
	want(t, r.from("10.0.0.7:1", "read me", "X-Forwarded-For", "192.0.2.2"), 200)
	want(t, r.from("10.0.0.7:1", "read me", "X-Forwarded-For", "192.0.2.1, nonsense"), 200)
	want(t, r.from("10.0.0.7:1", "read me"), 200)
	for n := range guessBurst {
		want(t, r.from("192.0.2.5:1", "guess "+strconv.Itoa(n), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", 50+n)), 401)
	}
	want(t, r.from("192.0.2.5:1", "read me", "X-Forwarded-For", "192.0.2.77"), 429)
}

// TestGuessesComeBack: the pause between guesses does not grow into the past, and a long silence gives no more than at first.
func TestGuessesComeBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed)
	r.guess("192.0.2.1:1")
	r.clock.move(24 * time.Hour)
	n := 0
	for ; n < 1000 && r.from("192.0.2.1:1", "later guess "+strconv.Itoa(n)).Code == 401; n++ {
	}
	if n != guessBurst {
		t.Errorf("after a day %d guesses were looked at, want %d", n, guessBurst)
	}
}
