package main

import (
	"net/http"
	"strings"
	"testing"

	"klgstream.dev/deploy/devstack"
)

// What watched a Flink cluster finds the processor under the same address and field names.
func TestFlinksSeat(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	brokers := "--brokers=" + b.Addrs()[0]
	if code := launch(t, "topics", brokers).wait(); code != exitOK {
		t.Fatalf("topics: exit code %d", code)
	}
	p := launch(t, "processor", brokers, "--ops-url=http://127.0.0.1:0", "--log-format=json")
	ops := p.logged(`"msg":"processor",.*"operations":"([^"]+)"`)[1]
	for path, want := range map[string][]string{
		"/overview":      {`"jobs-running":2`, `"taskmanagers":1`, `"flink-version":"klgstream-`},
		"/jobs/overview": {`"name":"aircraft-activity"`, `"name":"aircraft-registry"`, `"state":"RUNNING"`},
		"/taskmanagers":  {`"slotsNumber"`},
		"/healthz":       {"ok"},
		"/readyz":        {`"processor":"ready"`, `"registry":"ready"`},
	} {
		eventually(t, func() bool {
			status, body := fetch(t, http.MethodGet, ops+path, "")
			for _, w := range want {
				if !strings.Contains(body, w) {
					return false
				}
			}
			return status == http.StatusOK
		})
	}
	if code := p.end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
