package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"klgstream.dev/deploy/devstack"
)

type part struct{ problem error }

func (p *part) Ready() error { return p.problem }

func ask(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestOps(t *testing.T) {
	o := newOps(slog.New(slog.DiscardHandler))
	sink, api := &part{}, &part{}
	o.watch("sink", sink)
	o.watch("api", api)
	h := o.handler()
	for path, want := range map[string]string{
		"/metrics": "klgstream_build_info{version=", "/healthz": "ok", "/debug/pprof/": "goroutine", "/debug/pprof/heap?debug=1": "heap profile",
	} {
		if code, body := ask(t, h, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: status %d without %q", path, code, want)
		}
	}
	if _, body := ask(t, h, "/metrics"); !strings.Contains(body, "process_cpu_seconds_total") || !strings.Contains(body, "go_goroutines") {
		t.Error("the process's own metrics are missing")
	}
	if code, body := ask(t, h, "/readyz"); code != http.StatusOK {
		t.Errorf("ready: status %d %s", code, body)
	}
	sink.problem = errors.New("recovering 2 of 4 partitions")
	code, body := ask(t, h, "/readyz")
	var states map[string]string
	if err := json.Unmarshal([]byte(body), &states); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("not ready: status %d, error %v", code, err)
	}
	if _, body := ask(t, h, "/metrics"); !strings.Contains(body, `klgstream_ready{part="sink"} 0`) || !strings.Contains(body, `klgstream_ready{part="api"} 1`) {
		t.Errorf("metrics do not tell that the sink is not ready and the API is: %s", body)
	}
	if states["sink"] != "recovering 2 of 4 partitions" || states["api"] != "ready" {
		t.Errorf("states %v", states)
	}
	if code, _ := ask(t, h, "/healthz"); code != http.StatusOK {
		t.Errorf("what is not ready is alive all the same: status %d", code)
	}
}

// Two roles of one process have a registry each.
func TestOpsRegistriesAreApart(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if one, other := newOps(log), newOps(log); one.registry == other.registry {
		t.Error("two listeners share a registry")
	}
}

// A request under way is answered before the listener ends.
func TestServeFinishesRequests(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := listen(ctx, "http-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- serveHTTP(ctx, l, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			_, _ = io.WriteString(w, "done")
		})})
	}()
	answered := make(chan string, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-entered
	cancel()
	close(leave)
	if got := <-answered; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-served; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newOps(slog.New(slog.DiscardHandler)).serveOn(l)(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error %v, want one that names the address", err)
	}
}

func TestListenNamesTheFlag(t *testing.T) {
	l, err := listen(t.Context(), "http-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen(t.Context(), "http-addr", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "--http-addr") || !devstack.InUse(err) {
		t.Errorf("error %v, want one that names the flag", err)
	}
}
