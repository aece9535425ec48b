package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/deploy/devstack"
	"klgstream.dev/views/sqlite"
)

// childArgs is the environment variable that makes the test binary be klgstream: a process of its own, to be killed.
const childArgs = "KLGSTREAM_TEST_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(childArgs); args != "" {
		os.Exit(run(context.Background(), strings.Split(args, "\n"), process()))
	}
	os.Exit(m.Run())
}

// program is klgstream running in this process until the test ends.
type program struct {
	t     *testing.T
	lines chan string
	stop  context.CancelFunc
	ended chan int
	o     *outside
	errs  *locked
}

func launch(t *testing.T, args ...string) *program {
	t.Helper()
	return launchIn(t, newOutside(), args...)
}

// launchIn is launch in an environment of the test's own.
func launchIn(t *testing.T, outside *outside, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	p := &program{t: t, lines: make(chan string, 1000), stop: cancel, ended: make(chan int, 1), o: outside}
	p.errs = &locked{to: &p.o.errs}
	p.o.stdout = in
	p.o.stderr = p.errs
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	go func() {
		code := run(ctx, args, p.o.environment)
		_ = in.Close()
		p.ended <- code
	}()
	t.Cleanup(func() { p.end() })
	return p
}

// locked lets several goroutines write, and others wait for what they write.
type locked struct {
	mu   sync.Mutex
	to   io.Writer
	text []byte
	more chan struct{} // closed by the next write, if anyone waits
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.to.Write(p)
}

// String is what was written.
func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// await returns what a pattern captures in all that was written, as soon as it is there.
func (l *locked) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		l.mu.Lock()
		found := re.FindStringSubmatch(string(l.text))
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-more:
		case <-t.Context().Done():
			t.Fatalf("nothing like %s was written", pattern)
		}
	}
}

// await returns what a pattern captures of the first line that matches it.
func (p *program) await(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for line := range p.lines {
		if m := re.FindStringSubmatch(line); m != nil {
			return m
		}
	}
	p.t.Fatalf("the program ended with %d before it printed %s\n%s", <-p.ended, pattern, p.o.errs.String())
	return nil
}

// published fails unless the program's account of a replay begins as it should.
func (p *program) published(want string) {
	p.t.Helper()
	if got := p.await("^published .*")[0]; !strings.HasPrefix(got, want) {
		p.t.Fatalf("%s\nwant %s\n%s", got, want, p.errs.String())
	}
}

// end stops the program and returns its exit code. Ending it again returns the same.
func (p *program) end() int {
	p.stop()
	return p.wait()
}

// wait returns the exit code once the program has ended by itself.
func (p *program) wait() int {
	for range p.lines { // until it has closed its output
	}
	code := <-p.ended
	p.ended <- code
	return code
}

// freePorts are the flags that make dev take any ports.
var freePorts = []string{"--http-addr=127.0.0.1:0", "--ops-url=http://127.0.0.1:0", "--broker-addr=127.0.0.1:0", "--log-format=text"}

// storedWindows are the windows in a store, as registration,start,end,count.
func storedWindows(t *testing.T, file string) []string {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: file})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var rows []string
	if err := eachRow(t.Context(), store, "aircraft_windows", func(cells map[string]any) {
		start, ok := cells["window_start"].(time.Time)
		end, fine := cells["window_end"].(time.Time)
		if !ok || !fine {
			t.Fatalf("window %v has no start or end", cells)
		}
		rows = append(rows, fmt.Sprintf("%s,%d,%d,%d", cells["registration_number"], start.UnixMilli(), end.UnixMilli(), cells["event_count"]))
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows)
	return rows
}

// expectedWindows are the rows of a file of ground truth.
func expectedWindows(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "processors", "window", "testdata", "expected-w1", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for s := bufio.NewScanner(z); s.Scan(); {
		if row := s.Text(); !strings.HasPrefix(row, "registration,") {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	return rows
}

func compareWindows(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d windows, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("window %d is %s, want %s", i, got[i], want[i])
		}
	}
}

// The whole flow: unkeyed flights in, and in SQLite, row by row, what Flink counts.
func TestDevCountsEveryFlight(t *testing.T) {
	dir := t.TempDir()
	args := append([]string{"dev", "--data-dir", dir, "--idle-timeout=1h"}, freePorts...) // however slow the machine is, no partition is idle
	p := launch(t, args...)
	p.published("published 11850 = counted 11850 + late 0 + dead 0, in ")
	compareWindows(t, storedWindows(t, filepath.Join(dir, "windows.db")), expectedWindows(t, "tumbling_1h.csv.gz"))
	if code := p.end(); code != exitOK {
		t.Errorf("exit code %d, want %d", code, exitOK)
	}

	// Started again it finds everything, publishes nothing, and the results are the same.
	p = launch(t, args...)
	p.await("11850 are published already")
	p.published("published 11850 = counted 11850 + late 0 + dead 0, in ")
	compareWindows(t, storedWindows(t, filepath.Join(dir, "windows.db")), expectedWindows(t, "tumbling_1h.csv.gz"))
}

// With a bound that is too small events are late, but none is unaccounted for. In one partition, for then what is late follows from the order
// of the file alone.
func TestDevAccountsForLateAndDead(t *testing.T) {
	accountsFor(t)
}

// An event that is late for one definition's windows and counted in another's is counted.
func TestDevAccountsForSeveralWindows(t *testing.T) {
	accountsFor(t, "--window=tumbling:1h", "--window=session:3h")
}

// aircraft_stats has no rows of these, yet every event is accounted for; one between two windows is late.
func TestDevAccountsForOverlapsAndGaps(t *testing.T) {
	file := write(t, "mine.jsonl", event("N1", "2026-01-01T00:30:00Z")+event("N1", "2026-01-01T01:30:00Z")+event("N2", "2026-01-01T02:30:00Z"))
	for definition, want := range map[string]string{
		"hopping:2h/1h":    "published 3 = counted 3 + late 0 + dead 0, in 5 windows",
		"hopping:1h/2h":    "published 3 = counted 2 + late 1 + dead 0, in 2 windows",
		"cumulating:1h/1d": "published 3 = counted 3 + late 0 + dead 0, in 46 windows",
	} {
		t.Run(definition, func(t *testing.T) {
			launch(t, append([]string{"dev", "--file", file, "--window=" + definition}, freePorts...)...).published(want)
		})
	}
}

func accountsFor(t *testing.T, more ...string) {
	t.Helper()
	p := launch(t, append(append([]string{"dev", "--bound=5m", "--partitions=1"}, more...), freePorts...)...)
	var published, counted, late, dead int
	if _, err := fmt.Sscanf(p.await("^published .*")[0], "published %d = counted %d + late %d + dead %d,", &published, &counted, &late, &dead); err != nil {
		t.Fatal(err)
	}
	if published != devstack.FlightCount || counted+late+dead != published || late == 0 || dead != 0 {
		t.Errorf("published %d, counted %d, late %d, dead %d", published, counted, late, dead)
	}
}

// A file of one's own, keyed, with a line nobody can read.
func TestDevReplaysAFile(t *testing.T) {
	file := write(t, "mine.jsonl", event("N1", "2026-01-01T00:00:00Z")+"not json\n"+event("N1", "2026-01-01T00:30:00Z")+event("N2", "2026-01-01T00:30:00Z"))
	p := launch(t, append([]string{"dev", "--file", file, "--key=registration", "--window=tumbling:1h", "--window=session:10m"}, freePorts...)...)
	p.await("^replaying mine.jsonl$")
	p.published("published 4 = counted 3 + late 0 + dead 1, in 5 windows")
}

// The page, the API and the operations listener answer; what is posted is counted; a broker's client can look.
func TestDevServes(t *testing.T) {
	mine := t.TempDir()
	if err := os.WriteFile(filepath.Join(mine, "fleet.sql"), []byte("-- The fleet.\n-- columns:\n--   name text: the registration\n-- key: name\nSELECT registration_number AS name FROM aircraft_stats"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, append([]string{"dev", "--file=none", "--bound=0s", "--views-dir=" + mine}, freePorts...)...)
	web, ops, brokers := p.await(`open +(http://\S+)`)[1], p.await(`operations +(http://[^/ ]+)`)[1], p.await(`broker +(\S+)`)[1]
	status, body := fetch(t, http.MethodPost, web+"/api/v1/streaming/events", event("N77", time.Now().UTC().Format(time.RFC3339)))
	if status != http.StatusAccepted {
		t.Fatalf("posting: status %d %s", status, body)
	}
	eventually(t, func() bool {
		_, body := fetch(t, http.MethodGet, web+"/api/v1/streaming/views/aircraft_stats?registration_number=N77", "")
		return strings.Contains(body, `"total_events":1`)
	})
	for path, want := range map[string]string{web + "/": "<html", web + "/api/v1/streaming/views/fleet": `"N77"`, web + "/api/v1/streaming/health": `"status":"ok"`, ops + "/readyz": `"processor":"ready"`, ops + "/metrics": "klgstream_events_total"} {
		eventually(t, func() bool { // the group tables may not be read yet
			status, body := fetch(t, http.MethodGet, path, "")
			return status == http.StatusOK && strings.Contains(body, want)
		})
	}
	got := consume(t, Kafka{Brokers: strings.Split(brokers, ",")}, "aircraft-windows", 1)
	if !strings.Contains(string(got[0].Value), "N77") {
		t.Errorf("result %s", got[0].Value)
	}
	if code := p.end(); code != exitOK {
		t.Errorf("exit code %d, want %d: %s", code, exitOK, p.o.errs.String())
	}
	if text := p.o.errs.String(); strings.Contains(text, "session begins") {
		t.Errorf("a person is shown what only operators want: %s", text)
	}
}

// Ports that are taken are told of and others used, unless somebody asked for just these.
func TestDevPortsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	a := &app{environment: newOutside().environment, settings: []setting{{name: "http-addr", source: "default"}, {name: "ops-url", source: "flag"}}}
	d := &dev{app: a, devCmd: &devCmd{}}
	other, err := d.listen(t.Context(), "http-addr", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if other.Addr().String() == taken {
		t.Error("listens on what is taken")
	}
	if _, err := d.listen(t.Context(), "ops-url", taken); !devstack.InUse(err) {
		t.Errorf("error %v, want that the address is in use", err)
	}
	for _, flag := range []string{"--http-addr=" + taken, "--ops-url=http://" + taken, "--broker-addr=" + taken} {
		p := launch(t, append([]string{"dev", flag}, slices.DeleteFunc(slices.Clone(freePorts), func(f string) bool {
			return strings.HasPrefix(f, strings.Split(flag, "=")[0])
		})...)...)
		if code := p.wait(); code != exitUnavailable || !strings.Contains(p.o.errs.String(), taken) {
			t.Errorf("%s: exit code %d, said %q", flag, code, p.o.errs.String())
		}
	}
}

// Killed again and again in the middle of the replay, and started again: each line is published once, and the result is
// the same to the last row.
func TestDevSurvivesKills(t *testing.T) {
	dir := t.TempDir()
	args := append([]string{"dev", "--data-dir", dir, "--idle-timeout=1h"}, freePorts...)
	for _, at := range []int64{1500, 5000, 9000} {
		killDev(t, at, append(args, "--rate=4000")...)
	}
	p := launch(t, args...)
	p.await(" are published already")
	p.published("published 11850 = counted 11850 + late 0 + dead 0, in ")
	compareWindows(t, storedWindows(t, filepath.Join(dir, "windows.db")), expectedWindows(t, "tumbling_1h.csv.gz"))
}

// killDev runs klgstream in a process of its own and kills it once so many events of its replay are acknowledged.
func killDev(t *testing.T, at int64, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childArgs+"="+strings.Join(args, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var web string
	for open := regexp.MustCompile(`open +(http://\S+)`); web == "" && lines.Scan(); {
		if m := open.FindStringSubmatch(lines.Text()); m != nil {
			web = m[1]
		}
	}
	eventually(t, func() bool {
		_, body := fetch(t, http.MethodGet, web+"/api/v1/streaming/pipeline", "")
		var picture struct {
			Replay struct {
				Sent int64 `json:"sent"`
				Done bool  `json:"done"`
			} `json:"replay"`
		}
		if json.Unmarshal([]byte(body), &picture) != nil {
			return false
		}
		if picture.Replay.Done {
			t.Fatalf("the replay was through before the kill at %d", at)
		}
		return picture.Replay.Sent >= at
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("a killed process ended well")
	}
}

func TestTotalsSayWhatIsMissing(t *testing.T) {
	if got, want := (totals{4, 1, 1, 1, 9}).String(), "published 4 ≠ counted 1 + late 1 + dead 1, in 9 windows: EVENTS ARE UNACCOUNTED FOR"; got != want {
		t.Errorf("totals %q, want %q", got, want)
	}
}

// Only records of this source are its lines.
func TestPublishedLines(t *testing.T) {
	_, k := broker(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.DefaultProduceTopic("aircraft-events"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, value := range []string{"a:1", "a:7", "b:3", "a:x", "ab:4", ""} {
		r := kgo.StringRecord(value)
		r.Headers = []kgo.RecordHeader{{Key: "other", Value: []byte("a:9")}, {Key: lineHeader, Value: []byte(value)}}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := publishedLines(t.Context(), k, "aircraft-events", "a")
	if err != nil || len(lines) != 2 || !lines[1] || !lines[7] {
		t.Errorf("lines %v, error %v; want 1 and 7", lines, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := publishedLines(ctx, k, "aircraft-events", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	if _, err := publishedLines(t.Context(), Kafka{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}, "t", "a"); err == nil {
		t.Error("read back from no broker")
	}
}

func fetch(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// eventually waits until the condition holds; the test's own deadline ends it.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("gave up waiting")
		}
	}
}
