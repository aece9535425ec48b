package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"klgstream.dev/codecs"
)

// outside is an environment for one run of the program.
type outside struct {
	environment

	out, errs bytes.Buffer
}

func newOutside(vars ...string) *outside {
	o := &outside{}
	o.environment = environment{stdin: strings.NewReader(""), stdout: &o.out, stderr: &o.errs, now: time.Now}
	o.lookup = func(name string) (string, bool) {
		for _, v := range vars {
			if key, value, _ := strings.Cut(v, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
	return o
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// effective runs `klgstream config` and returns each setting's value with its source.
func effective(t *testing.T, o *outside, args ...string) map[string]string {
	t.Helper()
	if code := run(t.Context(), append([]string{"config"}, args...), o.environment); code != exitOK {
		t.Fatalf("exit code %d: %s", code, o.errs.String())
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(o.out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for i, content := 0, doc.Content[0].Content; i < len(content); i += 2 {
		value, _ := plain(content[i+1])
		got[content[i].Value] = strings.TrimSpace(value + " " + content[i+1].LineComment)
	}
	return got
}

func TestPrecedence(t *testing.T) {
	file := write(t, "k.yaml", "bound: 1m\ncommit_interval: 200ms\nidle-timeout: 3s\nwindow: [\"session:30m\", \"tumbling:1d@America/New_York\"]\nhot-standby: true\n")
	o := newOutside("KLGSTREAM_COMMIT_INTERVAL=300ms", "KLGSTREAM_IDLE_TIMEOUT=4s", "REDPANDA_BROKERS=a:1,b:2", "REDPANDA_CLIENT_ID=me", "KLGSTREAM_CONFIG="+file)
	got := effective(t, o, "--idle-timeout", "5s", "--no-rekey")
	for name, want := range map[string]string{
		"bound":           "1m # " + file + ":1",
		"commit-interval": "300ms # environment KLGSTREAM_COMMIT_INTERVAL",
		"idle-timeout":    "5s # flag",
		"window":          "session:30m,tumbling:1d@America/New_York # " + file + ":4",
		"hot-standby":     "true # " + file + ":5",
		"rekey":           "false # flag",
		"brokers":         "a:1,b:2 # environment REDPANDA_BROKERS",
		"client-id":       "me # environment REDPANDA_CLIENT_ID",
		"max-future-skew": "24h # default",
	} {
		if got[name] != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
}

// The names and defaults of the existing system.
func TestDefaults(t *testing.T) {
	got := effective(t, newOutside())
	for name, want := range map[string]string{
		"brokers":   "localhost:19092",
		"client-id": "klg-backend",
		"store-url": "postgresql://root:********@localhost:4566/dev",
		"ops-url":   "http://localhost:8081",
		"window":    "tumbling:1h",
	} {
		if got[name] != want+" # default" {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	got = effective(t, newOutside("RISINGWAVE_URL=postgresql://me:secret@db/x?sslpassword=hidden", "FLINK_REST_URL=http://0.0.0.0:9000"))
	if want := "postgresql://me:********@db/x?******** # environment RISINGWAVE_URL"; got["store-url"] != want {
		t.Errorf("store-url: %s, want %s", got["store-url"], want)
	}
	if want := "http://0.0.0.0:9000 # environment FLINK_REST_URL"; got["ops-url"] != want {
		t.Errorf("ops-url: %s, want %s", got["ops-url"], want)
	}
}

// What `klgstream config` prints is a file that --config takes.
func TestConfigRoundTrip(t *testing.T) {
	first := newOutside()
	effective(t, first, "--bound", "90s", "--store-url", "sqlite:x.db", "--window", "hopping:24h/1h")
	got := effective(t, newOutside(), "--config", write(t, "k.yaml", first.out.String()))
	for name, want := range map[string]string{"bound": "1m30s", "store-url": "sqlite:x.db", "window": "hopping:24h/1h"} {
		if value, source, _ := strings.Cut(got[name], " # "); value != want || !strings.Contains(source, "k.yaml:") {
			t.Errorf("%s: %s, want %s from the file", name, got[name], want)
		}
	}
}

// Every fault is told at once: its value, its limit, and where it came from.
func TestFaultsTogether(t *testing.T) {
	file := write(t, "k.yaml", "bound: ten\nnonsense: 1\ncommit-interval: 20s\nbound: 5m\nwindow:\n  a: b\n")
	o := newOutside("KLGSTREAM_MAX_DIRTY=0", "KLGSTREAM_HOT_STANDBY=perhaps", "RISINGWAVE_URL=mysql://u:secret@h/d", "FLINK_REST_URL=ftp://h")
	code := run(t.Context(), []string{
		"config", "--config", file, "--brokers", "x,y:70000", "--partitions=many", "--replication-factor=99999", "--loop-retention=1h", "--log-level=loud",
		"--key=tail", "--speed=-1", "--zone=Nowhere", "--emit=never", "--api-key=a:b", "--api-key=a:dance:12", "--rate-limit=-1", "--trace-url=collector", "--trusted-proxy=10.0.0.0/33", "--views-dir=/no/such/place", "--max-keys=-1", "--state-ttl=-1h", "--late-topic=aircraft-events",
		"--sink-group=aircraft-activity", "--client-id=a b", "--http-addr=8080", "--window=weekly:3", "--window=session:30m", "--window=session:30m",
	}, o.environment)
	if code != exitConfig || o.out.Len() > 0 {
		t.Errorf("exit code %d, want %d; printed %q", code, exitConfig, o.out.String())
	}
	text := o.errs.String()
	for _, want := range []string{
		`--bound: "ten" is not a duration`, "(from " + file + ":1)",
		file + `:2: "nonsense" is not a setting`,
		file + `:4: "bound" is set already, in ` + file + ":1",
		file + `:5: "window" must be a value or a list`,
		"--commit-interval: 20s must be below half of --session-timeout, 5s (from " + file + ":3)",
		"--max-dirty: 0 must be at least 1 (from environment KLGSTREAM_MAX_DIRTY)",
		`--hot-standby: "perhaps" is not true or false (from environment KLGSTREAM_HOT_STANDBY)`,
		`--store-url: "mysql://u:xxxxx@h/d" must be postgresql://`,
		`--ops-url: "ftp://h" must be http://host:port (from environment FLINK_REST_URL)`,
		`--brokers: "x" must be host:port`, `"70000"`, "65535",
		`--partitions: "many" is not a whole number`,
		`--replication-factor: "99999" is not a whole number of at most 32767`,
		"--loop-retention: 1h0m0s must be at least 168h0m0s",
		`--log-level: "loud" must be debug, info, warn or error`,
		`--key: "tail" must be registration or none`,
		`--speed: "-1" must be a number above 0`,
		`--zone: "Nowhere"`, `--emit: "never" must be update or close`,
		`--api-key: "a"… must be NAME:SCOPE:SHA256`, "--max-keys: -1 must be at least 0", "--state-ttl: -1h0m0s must be at least 1s", `--api-key: key "a": scope "dance"`, "--rate-limit: -1 must be at least 0", `--trace-url: "collector" must be`, `--trusted-proxy: "10.0.0.0/33" must be an address or a network`, "--views-dir: stat /no/such/place: no such file or directory",
		`--late-topic: topic "aircraft-events" is --input-topic already`,
		`--sink-group: "aircraft-activity" must differ`,
		`--client-id: "a b"`, `--http-addr: "8080" must be host:port`,
		"weekly:3", `--window: "session:30m" is given twice`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no fault says %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("the faults show a password")
	}
	if strings.Contains(text, "--partitions: 0") {
		t.Error("a value that could not be read is told of twice")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestOneFault(t *testing.T) {
	o := newOutside()
	if code := run(t.Context(), []string{"config", "--bound=-1s"}, o.environment); code != exitConfig {
		t.Errorf("exit code %d, want %d", code, exitConfig)
	}
	if got, want := o.errs.String(), "klgstream: a fault in the configuration\n  --bound: -1s must be at least 0s\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// What no role could work with is a fault of the settings before anything starts, and a key that is pasted alone is not repeated.
func TestFaultsBeforeTheStart(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--max-keys=-1":     "--max-keys: -1 must be at least 0",
		"--state-ttl=20ms":  "--state-ttl: 20ms must be at least 1s",
		"--rate-limit=NaN":  `--rate-limit: "NaN" is not a number`,
		"--api-key=pa55w0r": "--api-key: … must be NAME:SCOPE:SHA256",
	} {
		o := newOutside()
		if code := run(t.Context(), []string{"config", arg}, o.environment); code != exitConfig {
			t.Errorf("%s: exit code %d, want %d", arg, code, exitConfig)
		}
		if text := o.errs.String(); !strings.Contains(text, want) || strings.Contains(text, "pa55w0r") {
			t.Errorf("%s: said %q, want %q", arg, text, want)
		}
	}
}

func TestConfigFileFaults(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no mapping": {"- a\n", "must hold settings"},
		"no yaml":    {"a: [\n", "yaml"},
		"itself":     {"config: other.yaml\n", `"config" is not a setting`},
	} {
		o := newOutside()
		if code := run(t.Context(), []string{"config", "--config", write(t, "k.yaml", c.text)}, o.environment); code != exitConfig || !strings.Contains(o.errs.String(), c.want) {
			t.Errorf("%s: exit code %d, said %q, want %q", name, code, o.errs.String(), c.want)
		}
	}
	o := newOutside()
	if code := run(t.Context(), []string{"config", "--config", "/does/not/exist"}, o.environment); code != exitConfig || !strings.Contains(o.errs.String(), "no such file") {
		t.Errorf("exit code %d, said %q", code, o.errs.String())
	}
	for _, text := range []string{"", "# nothing\n", "bound:\n"} {
		if got := effective(t, newOutside(), "--config", write(t, "k.yaml", text)); got["bound"] != "5m # default" {
			t.Errorf("file %q: bound %s, want the default", text, got["bound"])
		}
	}
}

func TestMask(t *testing.T) {
	for _, c := range []struct {
		value  any
		secret string
		want   any
	}{
		{"x", "", "x"},
		{"x", "all", masked},
		{"", "all", ""},
		{3, "all", 3},
		{"sqlite:a.db", "url", "sqlite:a.db"},
		{"postgresql://u@h/d", "url", "postgresql://u@h/d"},
		{"postgresql://u:p@h/d?password=q", "url", "postgresql://u:********@h/d?********"},
		{"postgresql://u:p%zz@h", "url", masked},
	} {
		if got := mask(c.value, c.secret); got != c.want {
			t.Errorf("mask %v (%s): %v, want %v", c.value, c.secret, got, c.want)
		}
	}
}

// Every subcommand explains itself: each of its flags has help and names its variable.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}} {
		o := newOutside()
		if code := run(t.Context(), args, o.environment); code != exitOK || !strings.Contains(o.out.String(), "klgstream dev") {
			t.Errorf("%q: exit code %d, printed %q", args, code, o.out.String())
		}
	}
	for _, name := range []string{"dev", "processor", "sink", "api", "topics", "replay", "config"} {
		o := newOutside()
		if code := run(t.Context(), []string{name, "--help"}, o.environment); code != exitOK {
			t.Errorf("%s: exit code %d", name, code)
		}
		if help := o.out.String(); !strings.Contains(help, "$KLGSTREAM_LOG_LEVEL") || o.errs.Len() > 0 {
			t.Errorf("%s: help %q, errors %q", name, help, o.errs.String())
		}
	}
}

// A command line behind "config" is checked and shown, and nothing of it runs.
func TestConfigOfACommandLine(t *testing.T) {
	got := effective(t, newOutside(), "processor", "--bound=1h", "--brokers=nowhere:1")
	if got["bound"] != "1h # flag" || got["brokers"] != "nowhere:1 # flag" || got["ops-url"] == "" || got["store-url"] != "" {
		t.Errorf("settings %v, want those of the processor", got)
	}
	if got := effective(t, newOutside(), "replay", "/does/not/exist", "--speed=60"); got["speed"] != "60 # flag" {
		t.Errorf("settings %v, want those of the replay", got)
	}
	for _, args := range [][]string{{"processor", "--store-url=sqlite:x"}, {"processor", "stray"}, {"nothing"}, {"sink", "--store-url=x"}} {
		if code := run(t.Context(), append([]string{"config"}, args...), newOutside().environment); code != exitUsage && code != exitConfig {
			t.Errorf("config %q: exit code %d, want %d or %d", args, code, exitUsage, exitConfig)
		}
	}
}

func TestUnknownFlagAndCommand(t *testing.T) {
	for line, help := range map[string]string{
		"config --bond=3s": "klgstream config --help", "confg": "klgstream --help", "config --bound": "klgstream config --help",
		"dlq show": "klgstream dlq show --help", "config dlq lst": "klgstream dlq --help",
	} {
		o := newOutside()
		if code := run(t.Context(), strings.Fields(line), o.environment); code != exitUsage || !strings.Contains(o.errs.String(), `"`+help+`"`) {
			t.Errorf("%q: exit code %d, said %q, want a word of %q", line, code, o.errs.String(), help)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		o := newOutside()
		if code := run(t.Context(), args, o.environment); code != exitOK || !strings.HasPrefix(o.out.String(), "klgstream dev") {
			t.Errorf("%q: exit code %d, printed %q", args, code, o.out.String())
		}
	}
	defer func(a, b, c string) { release, revised, revisedAt = a, b, c }(release, revised, revisedAt)
	release, revised, revisedAt = "v1.2.3", "0123456789abcdef", "2026-01-02T03:04:05Z"
	o := newOutside()
	run(t.Context(), []string{"version"}, o.environment)
	want := fmt.Sprintf("klgstream v1.2.3 (commit 0123456789ab of 2026-01-02T03:04:05Z) %s %s/%s, state records of version %d\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, codecs.StateVersion)
	if o.out.String() != want {
		t.Errorf("printed %q, want %q", o.out.String(), want)
	}
	o = newOutside()
	run(t.Context(), []string{"version", "--json"}, o.environment)
	var b build
	if err := json.Unmarshal(o.out.Bytes(), &b); err != nil || b.Version != "v1.2.3" || b.Commit != revised || b.Records != int(codecs.StateVersion) {
		t.Errorf("printed %s: %+v, %v", o.out.String(), b, err)
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	newLogger(&out, Global{LogLevel: "warn", LogFormat: "auto"}).Warn("hello", "n", 1)
	newLogger(&out, Global{LogLevel: "warn", LogFormat: "text"}).Info("quiet")
	newLogger(&out, Global{LogLevel: "debug", LogFormat: "text"}).Debug("there", "n", 2)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"msg":"hello"`) || !strings.HasSuffix(lines[1], "DBG there n=2") {
		t.Errorf("logged %q", lines)
	}
}

func TestStoreFile(t *testing.T) {
	for url, want := range map[string]string{"sqlite:a.db": "a.db", "sqlite:///tmp/a.db": "/tmp/a.db", "sqlite:/tmp/a.db": "/tmp/a.db", "postgresql://h/d": ""} {
		if got := (&Store{StoreURL: url}).file(); got != want {
			t.Errorf("%s: file %q, want %q", url, got, want)
		}
	}
	for _, bad := range []string{"sqlite:", "postgresql://", "%zz", "file.db"} {
		if (&Store{StoreURL: bad}).check() == nil {
			t.Errorf("%q is taken as a store", bad)
		}
	}
}

func TestOpsAddr(t *testing.T) {
	for url, want := range map[string]string{"http://localhost:8081": "localhost:8081", "http://h": "h:80", "http://[::1]:7/": "[::1]:7"} {
		if got := (&ProcessorOps{OpsURL: url}).addr(); got != want {
			t.Errorf("%s: listens on %q, want %q", url, got, want)
		}
	}
}

func TestFlatten(t *testing.T) {
	if got := flatten(nil); got != nil {
		t.Errorf("no fault gives %v", got)
	}
	k := Kafka{Brokers: []string{"a", "b"}, ClientID: "c"}
	if got := flatten(checkAll(&k, &k)); len(got) != 4 || slices.Contains(got, nil) {
		t.Errorf("4 nested faults give %v", got)
	}
}

// A role does not offer what has no effect there: the API counts nothing, so when a window is complete is not for it to say. In a file or
// in the environment, which all roles may share, such a setting is no fault.
func TestAPIOffersNoCounting(t *testing.T) {
	file := write(t, "k.yaml", "emit: close\nwindow: [session:30m]\n")
	got := effective(t, newOutside("KLGSTREAM_BOUND=1h"), "api", "--config", file)
	for name := range got {
		if slices.Contains([]string{"emit", "bound", "idle", "idle-timeout", "max-future-skew", "rekey", "commit-interval", "state-ttl"}, name) {
			t.Errorf("the api has a setting %q", name)
		}
	}
	if want := "session:30m # " + file + ":2"; got["window"] != want {
		t.Errorf("window is %q, want %q", got["window"], want)
	}
	o := newOutside()
	if code := run(t.Context(), []string{"api", "--bound=1h"}, o.environment); code != exitUsage || !strings.Contains(o.errs.String(), "--bound") {
		t.Errorf("api --bound ends with %d and says %q", code, o.errs.String())
	}
}
