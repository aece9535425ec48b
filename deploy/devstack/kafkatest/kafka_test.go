package kafkatest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What was acknowledged is there after a kill of the broker; tools and settings reach it.
func TestRealKafka(t *testing.T) {
	c := Start(t, Options{Properties: []string{"broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500", "message.max.bytes=2097152"}})
	if len(c.Addrs()) != 1 {
		t.Fatalf("addresses %v, want one", c.Addrs())
	}
	c.Tool(t, "topics", "--create", "--topic", "t", "--partitions", "2")
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("kept")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, strike := range []func(int) error{c.Kill, c.Revive, c.Pause, c.Resume} {
		if err := strike(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Revive(1); err == nil {
		t.Error("revived a broker that runs")
	}
	if got := c.Tool(t, "topics", "--list"); strings.TrimSpace(got) != "t" {
		t.Errorf("topics after the kill: %q, want t", got)
	}
	var values []string
	for len(values) == 0 {
		cl.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	if values[0] != "kept" {
		t.Errorf("read %q", values)
	}
	out := c.Tool(t, "configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1")
	if !strings.Contains(out, "message.max.bytes=2097152") {
		t.Errorf("the broker does not have the property asked for:\n%s", out)
	}
}

// Without the server a test is skipped, and fails where the server is required.
func TestMissingServer(t *testing.T) {
	for _, c := range []struct{ require, want string }{{"", "skipped"}, {"1", "failed"}} {
		t.Setenv(Require, c.require)
		f := &fake{TB: t}
		func() {
			defer func() { _ = recover() }()
			skip(f, errors.New("no java"))
		}()
		if f.did != c.want || !strings.Contains(f.said, "no java") {
			t.Errorf("%s=%q: %s saying %q, want %s", Require, c.require, f.did, f.said, c.want)
		}
	}
}

func TestFindScript(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	script, err := findScript(wd)
	if err != nil || filepath.Base(script) != "kafka.sh" {
		t.Errorf("script %q, error %v", script, err)
	}
	if _, err := findScript(t.TempDir()); err == nil {
		t.Error("found a script where there is none")
	}
}

func TestFreePorts(t *testing.T) {
	port := freePorts(t, 3)
	if !allFree(port, 3) || !allFree(port+1000, 3) {
		t.Errorf("port %d is not free", port)
	}
}

// fake is a test that only remembers what was done to it.
type fake struct {
	testing.TB
	did, said string
}

func (f *fake) Skipf(format string, args ...any)  { f.end("skipped", format, args) }
func (f *fake) Fatalf(format string, args ...any) { f.end("failed", format, args) }
func (f *fake) end(did, _ string, args []any) {
	f.did = did
	for _, a := range args {
		if err, ok := a.(error); ok {
			f.said = err.Error()
		}
	}
	panic(did)
}
