package devstack_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"klgstream.dev/deploy/devstack"
)

// These environment variables turn the test binary into a process to be killed.
const (
	childDir   = "DEVSTACK_TEST_DIR"
	childTopic = "DEVSTACK_TEST_TOPIC"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, produceForever(dir, os.Getenv(childTopic)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// produceForever writes numbers to a topic and their offsets to a group, and says each that was acknowledged.
func produceForever(dir, topic string) error {
	ctx := context.Background()
	b, err := devstack.Start(ctx, devstack.Options{DataDir: dir})
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.DefaultProduceTopic(topic), kgo.MaxVersions(kversion.V3_9_0()))
	if err != nil {
		return err
	}
	if err := createTopic(ctx, cl, topic); err != nil {
		return err
	}
	for i := int64(0); ; i++ {
		if err := cl.ProduceSync(ctx, kgo.StringRecord(strconv.FormatInt(i, 10))).FirstErr(); err != nil {
			return err
		}
		if err := commit(ctx, cl, "readers", topic, i+1); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

// A kill -9 at any moment keeps every acknowledged record and committed offset (D2), again and again in one directory.
func TestKillKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]int64{}
	for run := range 3 {
		topic := fmt.Sprintf("numbers-%d", run)
		acked[topic] = killAfter(t, dir, topic, 50+run)
		b := start(t, devstack.Options{DataDir: dir})
		for topic, last := range acked {
			cl := client(t, b, kgo.ConsumeTopics(topic))
			for i, value := range read(t, cl, int(last)+1) {
				if value != strconv.Itoa(i) {
					t.Fatalf("run %d: %s@%d is %q", run, topic, i, value)
				}
			}
			if got := committed(t, cl, "readers", topic); got < last+1 {
				t.Errorf("run %d: committed %s@%d, acknowledged %d", run, topic, got, last+1)
			}
		}
		b.Close()
	}
}

// killAfter runs the child until it has said n numbers, kills it and returns the last number it said.
func killAfter(t *testing.T, dir, topic string, n int) (last int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childTopic+"="+topic)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for said := 0; lines.Scan(); {
		if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatalf("child said %q: %v", lines.Text(), err)
		}
		if said++; said == n {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the child was to be killed, but ended by itself: %v", cmd.ProcessState)
	}
	return last
}

func TestCloseKeepsState(t *testing.T) {
	dir := t.TempDir()
	b := start(t, devstack.Options{DataDir: dir, SyncWrites: true})
	cl := client(t, b, kgo.DefaultProduceTopic("t"))
	must(t, createTopic(t.Context(), cl, "t"))
	must(t, cl.ProduceSync(t.Context(), kgo.StringRecord("a"), kgo.StringRecord("b")).FirstErr())
	// A member that never leaves: its session must not be waited for after the restart.
	member := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"), kgo.SessionTimeout(5*time.Minute), kgo.RebalanceTimeout(4*time.Minute))
	read(t, member, 2)
	b.Close()
	b.Close() // closing again does nothing

	b = start(t, devstack.Options{DataDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"))
	fetches := again.PollFetches(ctx)
	must(t, fetches.Err())
	if got := fetches.NumRecords(); got != 2 {
		t.Errorf("read %d records after a clean restart, want 2", got)
	}
}

// Two brokers on one directory would write over each other.
func TestDataDirIsLocked(t *testing.T) {
	dir := t.TempDir()
	b := start(t, devstack.Options{DataDir: dir})
	if _, err := devstack.Start(t.Context(), devstack.Options{DataDir: dir}); !errors.Is(err, devstack.ErrDataDirInUse) {
		t.Errorf("second broker: error %v, want %v", err, devstack.ErrDataDirInUse)
	}
	b.Close()
	start(t, devstack.Options{DataDir: dir})
}

func TestDataDirThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := devstack.Start(t.Context(), devstack.Options{DataDir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %q", err, file)
	}
}

// A failed start gives the directory free again.
func TestAddressInUse(t *testing.T) {
	taken, dir := start(t, devstack.Options{}), t.TempDir()
	_, err := devstack.Start(t.Context(), devstack.Options{Addr: taken.Addrs()[0], DataDir: dir})
	if !devstack.InUse(err) || !strings.Contains(err.Error(), taken.Addrs()[0]) {
		t.Errorf("error %v, want address %s in use", err, taken.Addrs()[0])
	}
	start(t, devstack.Options{DataDir: dir})
}

func TestBrokers(t *testing.T) {
	b := start(t, devstack.Options{Brokers: 3})
	seen := map[string]bool{}
	for _, addr := range b.Addrs() {
		seen[addr] = true
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("broker listens on %s, want 127.0.0.1", addr)
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d addresses %v, want 3", len(seen), b.Addrs())
	}
}

func TestContextEndsBroker(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	b, err := devstack.Start(ctx, devstack.Options{DataDir: dir})
	must(t, err)
	cancel()
	b.Close() // waits for what the context began
	start(t, devstack.Options{DataDir: dir})
}

func TestOptionsNameEveryFault(t *testing.T) {
	_, err := devstack.Start(t.Context(), devstack.Options{Addr: "localhost:70000", Brokers: -1, SyncWrites: true})
	for _, want := range []string{`"70000"`, "65535", "-1", "data directory"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if err := (devstack.Options{Addr: "nowhere"}).Validate(); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("error %v, want one that says host:port", err)
	}
}

// What the broker says arrives in the caller's log; requests it refuses are a warning of the developer's kind.
func TestLogger(t *testing.T) {
	dir := t.TempDir()
	b := start(t, devstack.Options{DataDir: dir})
	must(t, createTopic(t.Context(), client(t, b), "t"))
	b.Close()
	must(t, os.WriteFile(filepath.Join(dir, "groups.log"), []byte("torn"), 0o600))
	var out bytes.Buffer
	start(t, devstack.Options{DataDir: dir, Logger: slog.New(slog.NewJSONHandler(&out, nil))}).Close()
	var line struct{ Level, Msg, Detail string }
	must(t, json.Unmarshal(bytes.SplitN(out.Bytes(), []byte("\n"), 2)[0], &line))
	if line.Level != "WARN" || line.Msg != "embedded broker" || !strings.Contains(line.Detail, "groups.log") {
		t.Errorf("logged %+v", line)
	}
}

// Faults can be injected through the cluster.
func TestCluster(t *testing.T) {
	b := start(t, devstack.Options{})
	cl := client(t, b)
	var seen bool
	b.Cluster().ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
		seen = true
		return nil, nil, false
	})
	must(t, createTopic(t.Context(), cl, "t"))
	if !seen {
		t.Error("the control function saw no request")
	}
}

func TestFlights(t *testing.T) {
	r, err := gzip.NewReader(bytes.NewReader(devstack.Flights()))
	must(t, err)
	lines, snake := 0, 0
	for s := bufio.NewScanner(r); s.Scan(); lines++ {
		if !json.Valid(s.Bytes()) {
			t.Fatalf("line %d is not JSON: %s", lines+1, s.Bytes())
		}
		if bytes.Contains(s.Bytes(), []byte("registration_number")) {
			snake++
		}
	}
	if lines != devstack.FlightCount {
		t.Errorf("%d flights, want %d", lines, devstack.FlightCount)
	}
	if snake == 0 || snake == lines {
		t.Errorf("%d of %d lines are snake_case, want both spellings", snake, lines)
	}
}

func start(t *testing.T, o devstack.Options) *devstack.Broker {
	t.Helper()
	b, err := devstack.Start(t.Context(), o)
	must(t, err)
	t.Cleanup(b.Close)
	return b
}

func client(t *testing.T, b *devstack.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addrs()...), kgo.MaxVersions(kversion.V3_9_0()))...)
	must(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func read(t *testing.T, cl *kgo.Client, n int) []string {
	t.Helper()
	var values []string
	for len(values) < n {
		fetches := cl.PollFetches(t.Context())
		must(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func createTopic(ctx context.Context, cl *kgo.Client, topic string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, 1, 1
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	const exists = 36
	if code := resp.Topics[0].ErrorCode; code != 0 && code != exists {
		return fmt.Errorf("create topic %q: code %d", topic, code)
	}
	return nil
}

func commit(ctx context.Context, cl *kgo.Client, group, topic string, offset int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("commit %s/%s: code %d", group, topic, code)
	}
	return nil
}

func committed(t *testing.T, cl *kgo.Client, group, topic string) int64 {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = topic, []int32{0}
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(t.Context(), cl)
	must(t, err)
	return resp.Groups[0].Topics[0].Partitions[0].Offset
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
