package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"klgstream.dev/deploy/devstack"
)

// python is an interpreter with confluent_kafka and protobuf; without one the test is skipped, loudly.
func python(t *testing.T) string {
	t.Helper()
	missing := "python3 with confluent_kafka and google.protobuf"
	if _, err := exec.LookPath("protoc"); err != nil {
		missing = "protoc"
	} else {
		for _, name := range []string{"/usr/bin/python3", "python3"} {
			if exec.CommandContext(t.Context(), name, "-c", "import confluent_kafka, google.protobuf").Run() == nil {
				return name
			}
		}
	}
	const mend = "apt-get install python3-confluent-kafka python3-protobuf protobuf-compiler"
	if os.Getenv("KLGSTREAM_REQUIRE_PYTHON") == "1" {
		t.Fatalf("there is no %s: %s", missing, mend)
	}
	t.Skipf("NO OTHER CLIENT HERE, so this is not tested: no %s (%s, or KLGSTREAM_REQUIRE_PYTHON=1 to fail)", missing, mend)
	return ""
}

// Events of a client in another language, keyed by registration, are folded where they are, without the loop; and its
// protobuf classes, made from state.proto, read the group table.
func TestPythonInterop(t *testing.T) {
	interpreter := python(t)
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "protoc", "-I", "../../codecs", "--python_out="+dir, "state.proto").CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, out)
	}
	script, err := filepath.Abs("testdata/interop.py")
	if err != nil {
		t.Fatal(err)
	}
	client := func(stdin string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), interpreter, append([]string{script}, args...)...)
		c.Env = append(os.Environ(), "PYTHONPATH="+dir)
		var stderr bytes.Buffer
		c.Stdin, c.Stderr = strings.NewReader(stdin), &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
	brokers := "--brokers=" + b.Addrs()[0]
	if code := launch(t, "topics", brokers).wait(); code != exitOK {
		t.Fatalf("topics: exit code %d", code)
	}
	var events strings.Builder
	for i := range 200 {
		fmt.Fprintf(&events, `{"event_type":"departed","registration_number":"N%d","aircraft_id":%d,"timestamp":"2013-01-01T10:%02d:00Z"}`+"\n", i%20, i%20, i%60)
	}
	client(events.String(), "publish", b.Addrs()[0], "aircraft-events")
	p := launch(t, "processor", brokers, "--ops-url=http://127.0.0.1:0", "--idle=hold", "--log-format=json")
	ops := p.logged(`"msg":"processor",.*"operations":"([^"]+)"`)[1]

	var record struct {
		Version int
		Sources []struct{ Offset string }
		State   struct {
			Summary struct {
				Total     string
				Aggregate struct {
					LastType string `json:"last_type"`
				}
			}
			Definitions []struct {
				Definition string
				Slices     []struct{ Start, End, Count string }
			}
		}
	}
	if err := json.Unmarshal([]byte(client("", "state", b.Addrs()[0], "aircraft-activity-table", "N7")), &record); err != nil {
		t.Fatal(err)
	}
	s := record.State
	if record.Version != 1 || len(record.Sources) != 1 || s.Summary.Total != "10" || s.Summary.Aggregate.LastType != "departed" ||
		len(s.Definitions) != 1 || s.Definitions[0].Definition != "tumbling:1h" || s.Definitions[0].Slices[0].Count != "10" {
		t.Errorf("Python reads %+v", record)
	}
	eventually(t, func() bool {
		_, body := fetch(t, http.MethodGet, ops+"/metrics", "")
		counted, rekeyed := 0, 0
		for line := range strings.Lines(body) {
			var n float64
			if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, `klgstream_events_total{group="aircraft-activity"`) {
				if _, err := fmt.Sscan(line[i:], &n); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(line, `outcome="counted"`) {
					counted += int(n)
				} else if strings.Contains(line, `outcome="rekeyed"`) {
					rekeyed += int(n)
				}
			}
		}
		if rekeyed > 0 {
			t.Fatalf("%d events of a client that keys as Kafka does went through the loop", rekeyed)
		}
		return counted == 200
	})
	if code := p.end(); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.o.errs.String())
	}
}
