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
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// states are what /readyz of a role says of each part.
func states(t *testing.T, ops string) (code int, parts map[string]string) {
	t.Helper()
	code, body := fetch(t, http.MethodGet, ops+"/readyz", "")
	if err := json.Unmarshal([]byte(body), &parts); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return code, parts
}

// lacks waits until /readyz answers with a status and says so of a part.
func lacks(t *testing.T, ops string, code int, part, what string) {
	t.Helper()
	eventually(t, func() bool {
		got, parts := states(t, ops)
		return got == code && strings.Contains(parts[part], what)
	})
}

// operations is where a role that was launched with --log-format=json listens.
func (p *program) operations() string {
	p.t.Helper()
	return p.errs.await(p.t, `"operations":"([^"]+)"`)[1]
}

// A role that waits for something at its start is alive, and says what it waits for.
func TestReadyzOfARoleThatWaits(t *testing.T) {
	t.Parallel()
	_, k := broker(t)
	bare, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Close)
	file, away := "--store-url=sqlite:"+filepath.Join(t.TempDir(), "windows.db"), "--store-url=postgresql://u:secret@127.0.0.1:1/x"
	for _, c := range []struct {
		broker     string
		args       []string
		part, what string
	}{
		{"127.0.0.1:1", []string{"processor", "--ops-url=http://127.0.0.1:0"}, "topics", "127.0.0.1:1"},
		{"127.0.0.1:1", []string{"sink", file, "--sink-ops-addr=127.0.0.1:0"}, "topics", "127.0.0.1:1"},
		{"127.0.0.1:1", []string{"api", file, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0"}, "topics", "127.0.0.1:1"},
		{bare.Addrs()[0], []string{"processor", "--ops-url=http://127.0.0.1:0"}, "topics", "aircraft-events: does not exist"},
		{k.Brokers[0], []string{"sink", away, "--sink-ops-addr=127.0.0.1:0"}, "sink", "127.0.0.1:1"},
		{k.Brokers[0], []string{"api", away, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0"}, "store", "127.0.0.1:1"},
		{k.Brokers[0], []string{"api", away, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0"}, "requests", "not answered yet"},
	} {
		p := launch(t, append(c.args, "--brokers="+c.broker, "--log-format=json")...)
		ops := p.operations()
		lacks(t, ops, http.StatusServiceUnavailable, c.part, c.what)
		if code, _ := fetch(t, http.MethodGet, ops+"/healthz", ""); code != http.StatusOK {
			t.Errorf("%q is not alive: status %d", c.args, code)
		}
		if _, parts := states(t, ops); strings.Contains(parts[c.part], "secret") {
			t.Errorf("%q tells the password: %v", c.args, parts)
		}
		if code := p.end(); code != exitOK {
			t.Errorf("%q ended with %d", c.args, code)
		}
	}
}

// A processor that the group has no partition for is ready, and says that there is nothing for it.
func TestReadyzOfASpareProcessor(t *testing.T) {
	t.Parallel()
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	k := Kafka{Brokers: b.Addrs(), ClientID: "test"}
	on(t, k, exitOK, "topics", "--partitions=1", "--registry-group=none")
	members := []string{launch(t, processorOf(k)...).operations(), launch(t, processorOf(k)...).operations()}
	eventually(t, func() bool {
		idle := 0
		for _, ops := range members {
			if code, parts := states(t, ops); code == http.StatusOK && strings.Contains(parts["processor"], "ready, without partitions") {
				idle++
			}
		}
		return idle == 1
	})
}

// A processor whose broker acknowledges nothing says that it is stuck, and when it is not any more.
func TestReadyzOfAStuckProcessor(t *testing.T) {
	t.Parallel()
	b, k := broker(t)
	var ahead atomic.Int64
	clock := newOutside()
	clock.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ops := launchIn(t, clock, processorOf(k)...).operations()
	lacks(t, ops, http.StatusOK, "processor", "ready")
	held, holds := make(chan struct{}), make(chan struct{})
	b.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if r.(*kmsg.ProduceRequest).TimeoutMillis == putTimeout {
			b.Cluster().KeepControl()
			return nil, nil, false
		}
		close(holds) // of the processor's own writes the first
		b.Cluster().SleepControl(func() { <-held })
		return nil, nil, false
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ProduceRequestTimeout(putTimeout*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "aircraft-events", Value: []byte("nonsense")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	<-holds // a checkpoint waits for the broker
	ahead.Store(int64(12 * time.Second))
	if code, parts := states(t, ops); code != http.StatusServiceUnavailable || !strings.Contains(parts["processor"], "stuck: no checkpoint") {
		t.Errorf("status %d, %v", code, parts)
	}
	close(held)
	lacks(t, ops, http.StatusOK, "processor", "ready")
}

// putTimeout is what tells the test's own writes from the processor's, in milliseconds.
const putTimeout = 12_345

func processorOf(k Kafka) []string {
	return []string{"processor", "--brokers=" + k.Brokers[0], "--ops-url=http://127.0.0.1:0", "--registry-group=none", "--session-timeout=3s", "--log-format=json"}
}
