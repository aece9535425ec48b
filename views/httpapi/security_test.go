package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"klgstream.dev/codecs"
)

func keyed(c *Config) {
	c.Keys = []Key{
		{Name: "reader", SHA256: Hash("read me"), Scopes: []Scope{ScopeRead}},
		{Name: "writer", SHA256: strings.ToUpper(Hash("write me")), Scopes: []Scope{ScopeWrite}},
		{Name: "admin", SHA256: Hash("all of it"), Scopes: []Scope{ScopeAdmin}},
	}
}

// TestKeys: every way in without the right key is shut, on every route of the API.
func TestKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed)
	for _, c := range []struct {
		name, header string
		read, write  int
	}{
		{"no key", "", 401, 401},
		{"unknown key", "Bearer nope", 401, 401},
		{"empty key", "Bearer ", 401, 401},
		{"only the scheme", "Bearer", 401, 401},
		{"other scheme", "Basic cmVhZCBtZQ==", 401, 401},
		{"the hash is not the key", "Bearer " + Hash("all of it"), 401, 401},
		{"beginning of a key", "Bearer read m", 401, 401},
		{"two keys", "Bearer read me, Bearer all of it", 401, 401},
		{"reader", "Bearer read me", 200, 403},
		{"writer", "bearer write me", 403, 202},
		{"admin", "Bearer all of it", 200, 202},
	} {
		var headers []string
		if c.header != "" {
			headers = []string{"Authorization", c.header}
		}
		for path, status := range map[string]int{viewsURL: c.read, viewsURL + "/aircraft_stats": c.read, pipelineURL: c.read, "/api/v1/streaming/health": c.read} {
			if got := r.do("GET", path, "", headers...); got.Code != status {
				t.Errorf("%s: GET %s is answered %d, want %d", c.name, path, got.Code, status)
			} else if (status == 401) != strings.HasPrefix(got.Header().Get("WWW-Authenticate"), "Bearer") && status != 403 {
				t.Errorf("%s: GET %s challenges with %q", c.name, path, got.Header().Get("WWW-Authenticate"))
			}
		}
		if got := r.do("POST", eventsURL, camel, headers...); got.Code != c.write {
			t.Errorf("%s: POST is answered %d, want %d", c.name, got.Code, c.write)
		}
	}
	for _, open := range []string{"/", "/docs", "/openapi.json", "/page/app.js", "/page/about.json"} {
		if got := r.do("GET", open, ""); got.Code != http.StatusOK {
			t.Errorf("GET %s is answered %d", open, got.Code)
		}
	}
	for _, around := range []string{"//api/v1/streaming/views", "/x/../api/v1/streaming/views", "/API/v1/streaming/views", "/%61pi/v1/streaming/views", "/api/v1/streaming/updates"} {
		if got := r.do("GET", around, ""); got.Code == http.StatusOK {
			t.Errorf("GET %s without a key is answered %d", around, got.Code)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Keys:   []Key{{Name: "a", SHA256: "plain secret", Scopes: []Scope{"god"}}, {SHA256: Hash("x")}},
		Limits: Limits{Streams: -1, Rate: -2, BodiesInFlight: 1},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"store is missing", "publisher is missing", "clock is missing", `key "a": sha256`, `scope "god"`, `key 1: name ""`, `key "": needs a scope`, "streams is -1", "rate is -2", "bodies in flight 1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %q in: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "plain secret") {
		t.Errorf("the error shows a key: %v", err)
	}
}

// TestNothingSecretIsLogged: neither keys nor bodies nor headers get into the log, whatever goes wrong.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newRig(t, keyed, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.store.failWith(fmt.Errorf("store away"))
	r.do("GET", viewsURL, "", "Authorization", "Bearer all of it")
	r.do("GET", viewsURL, "", "Authorization", "Bearer sesame")
	r.do("POST", eventsURL, `{"event_type":"sesame"}`, "Authorization", "Bearer write me", "Idempotency-Key", "sesame")
	if !strings.Contains(out.String(), "store away") {
		t.Error("the failure is not logged")
	}
	for _, secret := range []string{"all of it", "sesame", "write me", Hash("all of it")} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, out.String())
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host        string
		open, named int
	}{
		{"localhost:8080", 200, 421},
		{"127.0.0.1:8080", 200, 421},
		{"[::1]:8080", 200, 421},
		{"api", 200, 421},
		{"klg.localhost", 200, 421},
		{"flights.example.com", 421, 200},
		{"FLIGHTS.example.com:443", 421, 200},
		{"evil.example.com", 421, 421},
		{"127.0.0.1.evil.example.com", 421, 421},
	} {
		open, named, keys := newRig(t), newRig(t, func(cfg *Config) { cfg.Hosts = []string{"flights.example.com"} }), newRig(t, keyed)
		if got := open.do("GET", viewsURL, "", "Host", c.host).Code; got != c.open {
			t.Errorf("%s on an open server is answered %d, want %d", c.host, got, c.open)
		}
		if got := named.do("GET", viewsURL, "", "Host", c.host).Code; got != c.named {
			t.Errorf("%s on a named server is answered %d, want %d", c.host, got, c.named)
		}
		if got := keys.do("GET", viewsURL, "", "Host", c.host, "Authorization", "Bearer read me").Code; got != 200 {
			t.Errorf("%s with a key is answered %d", c.host, got)
		}
	}
}

func TestOtherOrigins(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{nil, 201},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 201},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Origin", "https://evil.example.com"}, 403},
		{[]string{"Origin", "null"}, 403},
	} {
		delete(registry.known, "N1")
		if got := r.do("POST", aircraftPath, `{"registration_number":"N1"}`, c.headers...); got.Code != c.status {
			t.Errorf("%v is answered %d, want %d", c.headers, got.Code, c.status)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, target := range []string{"/", "/docs", "/openapi.json", viewsURL, "/nothing", pipelineURL} {
		h := r.do("GET", target, "").Header()
		csp := h.Get("Content-Security-Policy")
		if !contains(csp, "default-src 'none'", "script-src 'self'", "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Errorf("%s: policy is %q", target, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers are %v", target, h)
		}
	}
}

// TestPagesAreSelfContained is H6 as far as files can show it: no address of elsewhere, no inline script, style or handler.
func TestPagesAreSelfContained(t *testing.T) {
	t.Parallel()
	entries, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := pageFiles.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "http://www.w3.org/", "") // names of XML namespaces, never fetched
		for _, bad := range []string{"http://", "https://", "style=\"", "<style", "onclick=", "onload=", "javascript:", "innerHTML", "eval(", "<script>"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", e.Name(), bad)
			}
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed, func(c *Config) { c.Limits.Rate, c.Limits.Burst = 2, 3 })
	reader := []string{"Authorization", "Bearer read me"}
	for range 3 {
		want(t, r.do("GET", viewsURL, "", reader...), http.StatusOK)
	}
	w := r.do("GET", viewsURL, "", reader...)
	want(t, w, http.StatusTooManyRequests)
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("retry after %q", w.Header().Get("Retry-After"))
	}
	want(t, r.do("GET", viewsURL, "", "Authorization", "Bearer all of it"), http.StatusOK) // another client
	r.clock.move(500 * time.Millisecond)
	want(t, r.do("GET", viewsURL, "", reader...), http.StatusOK)
	want(t, r.do("GET", viewsURL, "", reader...), http.StatusTooManyRequests)
}

func TestRateLimitRemembersABoundedNumberOfClients(t *testing.T) {
	t.Parallel()
	c := newClock()
	throttle := newThrottle(&Limits{Rate: 1, Burst: 1}, c.now)
	for i := range 3 * maxBuckets {
		throttle.allow(&exchange{request: &http.Request{RemoteAddr: fmt.Sprintf("client%d:1", i)}})
		if len(throttle.buckets) > maxBuckets {
			t.Fatalf("%d clients are remembered", len(throttle.buckets))
		}
		c.move(time.Millisecond)
	}
}

func TestRequestsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, func(c *Config) { c.Limits.Requests = 2 })
		r.publisher.gate = func(_ context.Context, _ []Event) error { <-release; return nil }
		for range 2 {
			go r.do("POST", eventsURL, snake)
		}
		synctest.Wait()
		want(t, r.do("GET", viewsURL, ""), http.StatusServiceUnavailable)
		close(release)
		synctest.Wait()
		want(t, r.do("GET", viewsURL, ""), http.StatusOK)
	})
}

// TestBytesAtOnceAreBounded: bodies that do not fit into the memory set aside for them are refused before they are read.
func TestBytesAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, func(c *Config) { c.Limits.BodyBytes, c.Limits.BodiesInFlight = 400, 400 })
		r.publisher.gate = func(_ context.Context, _ []Event) error { <-release; return nil }
		for range 2 {
			go r.do("POST", eventsURL, snake)
		}
		synctest.Wait()
		want(t, r.do("POST", eventsURL, snake), http.StatusServiceUnavailable)
		close(release)
		synctest.Wait()
		want(t, r.do("POST", eventsURL, snake), http.StatusAccepted)
	})
}

// TestPanicIsContained: a panic in a handler or in what it calls is answered and logged, and leaves nothing held.
func TestPanicIsContained(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newRig(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&out, nil))
		c.Live = panicky{}
		c.Checks = []Check{{Name: "panicky", Probe: func(context.Context) error { panic("probe boom") }}}
	})
	for range 3 {
		want(t, r.do("GET", "/api/v1/streaming/live/N1", ""), http.StatusInternalServerError)
	}
	if !contains(out.String(), "live boom", "stack=") {
		t.Errorf("log is %q", out.String())
	}
	if w := r.do("GET", "/api/v1/streaming/health", ""); w.Code != http.StatusServiceUnavailable || !contains(w.Body.String(), "probe boom") {
		t.Errorf("health is %d %s", w.Code, w.Body)
	}
	r.publisher.gate = func(context.Context, []Event) error { panic("boom") }
	for range 3 {
		want(t, r.do("POST", eventsURL, snake), http.StatusServiceUnavailable)
	}
	r.publisher.gate = nil
	for range 3 {
		want(t, r.do("POST", eventsURL, snake), http.StatusAccepted)
	}
	if n := r.api.flying.Load(); n != 0 {
		t.Errorf("%d requests in flight at the end", n)
	}
}

type panicky struct{}

func (panicky) Windows(context.Context, string) ([]codecs.Window, error) { panic("live boom") }
func (panicky) AsOf() time.Time                                          { return time.Time{} }

func TestAccept(t *testing.T) {
	t.Parallel()
	for header, form := range map[string]string{
		"": formJSON, "*/*": formJSON, "text/csv": formCSV, "TEXT/CSV ; q=0.5 , application/json;q=0.4": formCSV, "text/*": formCSV,
		"application/x-ndjson": formNDJSON, "application/json;q=0, text/csv;q=0.1": formCSV, "image/png": "", "text/csv;q=x": "", ";": "", ",,": "", "application/json; charset=utf-8": formJSON,
		"application/json;q=0, */*": formNDJSON, "text/csv;q=0, text/*;q=0.5": "", "*/*;q=0.1, text/csv;q=0.5": formCSV, "*/*, application/json;q=0.2": formNDJSON,
		"application/jsonl, text/csv": formNDJSON, "text/csv, application/*": formCSV, "application/*;q=0.9, text/csv;q=0.8": formJSON,
	} {
		if got := accepted(header); got != form {
			t.Errorf("%q: %q, want %q", header, got, form)
		}
	}
	r := newRig(t)
	for _, hostile := range []string{"a;", "application/json;", ";;;,", "*/*;q", "\x7f", "a;q,", "application/json;q,"} {
		for _, target := range []string{pipelineURL, viewsURL, "/api/v1/streaming/health", aircraftPath} {
			if got := r.do("GET", target, "", "Accept", hostile); got.Code == http.StatusInternalServerError {
				t.Errorf("Accept %q on %s is answered %d", hostile, target, got.Code)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	r := newRig(t, func(c *Config) { c.Registerer = reg })
	want(t, r.do("POST", eventsURL, "["+snake+","+camel+"]"), http.StatusAccepted)
	want(t, r.do("GET", viewsURL+"/aircraft_stats", ""), http.StatusOK)
	want(t, r.do("GET", "/made/up/path", ""), http.StatusNotFound)
	r.do("WHATEVER", viewsURL, "")
	if faults, err := testutil.GatherAndLint(reg); err != nil || len(faults) > 0 {
		t.Errorf("lint: %v %v", faults, err)
	}
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP klgstream_http_requests_total HTTP requests answered, by route, method and status code.
# TYPE klgstream_http_requests_total counter
klgstream_http_requests_total{code="200",method="GET",route="/api/v1/streaming/views/{view_name}"} 1
klgstream_http_requests_total{code="202",method="POST",route="/api/v1/streaming/events"} 1
klgstream_http_requests_total{code="404",method="GET",route="none"} 1
klgstream_http_requests_total{code="405",method="other",route="none"} 1
# HELP klgstream_http_events_total Events posted, by outcome: accepted, refused (faulty), failed (not acknowledged), repeated (known idempotency key).
# TYPE klgstream_http_events_total counter
klgstream_http_events_total{outcome="accepted"} 2
klgstream_http_events_total{outcome="failed"} 0
klgstream_http_events_total{outcome="refused"} 0
klgstream_http_events_total{outcome="repeated"} 0
`), "klgstream_http_requests_total", "klgstream_http_events_total")
	if err != nil {
		t.Error(err)
	}
}
