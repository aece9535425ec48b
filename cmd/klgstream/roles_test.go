package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"klgstream.dev/deploy/devstack"
	"klgstream.dev/deploy/devstack/kafkatest"
)

// The roles as programs of their own, as in production: topics, processor, sink, API and a replay.
func TestRoles(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	exerciseRoles(t, b.Addrs()[0])
}

func TestRolesOnRealKafka(t *testing.T) {
	exerciseRoles(t, kafkatest.Start(t, kafkatest.Options{}).Addrs()[0])
}

func exerciseRoles(t *testing.T, broker string) {
	t.Helper()
	dir := t.TempDir()
	store, flights := "--store-url=sqlite:"+filepath.Join(dir, "windows.db"), filepath.Join(dir, "flights.gz")
	if err := os.WriteFile(flights, devstack.Flights(), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"--brokers=" + broker, "--log-format=json"}
	role := func(args ...string) *program { return launch(t, append(args, common...)...) }
	if code := role("topics").wait(); code != exitOK {
		t.Fatalf("topics: exit code %d", code)
	}
	processors := []*program{
		role("processor", "--ops-url=http://127.0.0.1:0", "--bound=6h", "--idle=hold"),
		role("processor", "--ops-url=http://127.0.0.1:0", "--bound=6h", "--idle=hold"),
	}
	sink := role("sink", store, "--sink-ops-addr=127.0.0.1:0")
	api := role("api", store, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0")
	web := api.logged(`"msg":"api",.*"address":"([^"]+)"`)[1]
	ops := processors[0].logged(`"msg":"processor",.*"operations":"([^"]+)"`)[1]

	replay := role("replay", flights)
	replay.await("^sent 11850 events, 11850 acknowledged")
	if code := replay.wait(); code != exitOK {
		t.Errorf("replay: exit code %d", code)
	}
	flow, err := newPipeline(Kafka{Brokers: []string{broker}, ClientID: "test"}, defaultNames(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	if err := flow.awaitThrough(t.Context(), newLogger(&locked{to: t.Output()}, Global{LogFormat: "text"})); err != nil {
		t.Fatal(err)
	}
	compareWindows(t, storedWindows(t, filepath.Join(dir, "windows.db")), expectedWindows(t, "tumbling_1h.csv.gz"))

	for path, want := range map[string]string{
		web + "/api/v1/streaming/health":                       `"status":"ok"`,
		web + "/api/v1/streaming/pipeline":                     `"name":"aircraft-events"`,
		web + "/api/v1/streaming/views/aircraft_stats?limit=1": `"total_events"`,
		ops + "/readyz":  `"processor":"ready"`,
		ops + "/metrics": "klgstream_events_total",
	} {
		eventually(t, func() bool { // a rebalance may still be under way
			status, body := fetch(t, http.MethodGet, path, "")
			return status == http.StatusOK && strings.Contains(body, want)
		})
	}
	for _, p := range append(processors, sink, api) {
		if code := p.end(); code != exitOK {
			t.Errorf("exit code %d, want %d: %s", code, exitOK, p.o.errs.String())
		}
	}
}

// Roles refuse topics that are not there, with the command that makes them.
func TestRolesRefuseMissingTopics(t *testing.T) {
	t.Parallel()
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	store := "--store-url=sqlite:" + filepath.Join(t.TempDir(), "windows.db")
	for _, args := range [][]string{
		{"processor", "--ops-url=http://127.0.0.1:0"},
		{"sink", store, "--sink-ops-addr=127.0.0.1:0"},
		{"api", store, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0"},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			p := launch(t, append(args, "--brokers="+b.Addrs()[0])...)
			if code := p.wait(); code != exitFailed || !strings.Contains(p.o.errs.String(), "klgstream topics --brokers "+b.Addrs()[0]) {
				t.Errorf("exit code %d, said %q", code, p.o.errs.String())
			}
		})
	}
}

// A broker that is away is waited for; the end of waiting is an orderly one.
func TestRolesWaitForTheBroker(t *testing.T) {
	t.Parallel()
	store := "--store-url=sqlite:" + filepath.Join(t.TempDir(), "windows.db")
	for _, args := range [][]string{
		{"processor", "--ops-url=http://127.0.0.1:0"},
		{"sink", store, "--sink-ops-addr=127.0.0.1:0"},
		{"api", store, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0"},
	} {
		p := launch(t, append(args, "--brokers=127.0.0.1:1", "--log-format=json")...)
		p.logged(`"msg":"wait for the broker"`)
		if code := p.end(); code != exitOK {
			t.Errorf("%s: exit code %d, want %d: %s", args[0], code, exitOK, p.o.errs.String())
		}
	}
}

func TestRolesRefuseAddressesInUse(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	taken, store := b.Addrs()[0], "--store-url=sqlite:"+filepath.Join(t.TempDir(), "windows.db")
	for _, args := range [][]string{{"processor", "--ops-url=http://" + taken}, {"sink", store, "--sink-ops-addr=" + taken}} {
		p := launch(t, append(args, "--brokers=127.0.0.1:1")...)
		if code := p.wait(); code != exitUnavailable || !strings.Contains(p.o.errs.String(), taken) {
			t.Errorf("%s: exit code %d, said %q", args[0], code, p.o.errs.String())
		}
	}
}

// logged returns what a pattern captures in the program's log, as soon as it is there.
func (p *program) logged(pattern string) []string {
	p.t.Helper()
	return p.errs.await(p.t, pattern)
}
