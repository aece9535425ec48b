package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
	"klgstream.dev/deploy/devstack/kafkatest"
)

// builds are two programs that write different versions of state records: this one, and one that stands for the next.
var builds = sync.OnceValues(func() (paths [2]string, err error) {
	dir, err := filepath.Abs(filepath.Join("..", "..", ".bin", "upgrade"))
	if err != nil {
		return paths, err
	}
	for i, tags := range []string{"noplot", "noplot,klgstream_next"} {
		paths[i] = filepath.Join(dir, fmt.Sprintf("klgstream-%d", i+1))
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", tags, "-o", paths[i], ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return paths, fmt.Errorf("build with %s: %w\n%s", tags, err, out)
		}
	}
	return paths, nil
})

// replica is a processor in a process of its own.
type replica struct {
	cmd  *exec.Cmd
	said *locked
	ops  string
	done chan struct{}
}

// launchReplica starts one and returns when it listens.
func launchReplica(t *testing.T, path, instance string, k Kafka, more ...string) *replica {
	t.Helper()
	r := &replica{said: &locked{to: t.Output()}, done: make(chan struct{})}
	args := []string{
		"processor", "--brokers=" + strings.Join(k.Brokers, ","), "--ops-url=http://127.0.0.1:0", "--instance-id=" + instance,
		"--registry-group=none", "--idle=hold", "--bound=24h", "--max-future-skew=-1s", "--session-timeout=30s", "--log-format=json",
	}
	r.cmd = exec.Command(path, append(args, more...)...)
	r.cmd.Stderr = r.said
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.done
	})
	r.ops = r.said.await(t, `"msg":"processor",.*"operations":"([^"]+)"`)[1]
	return r
}

// ready waits until it folds its partitions.
func (r *replica) ready(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		select {
		case <-r.done:
			t.Fatal("the replica has ended")
		default:
		}
		code, _ := fetch(t, http.MethodGet, r.ops+"/readyz", "")
		return code == http.StatusOK
	})
}

// stop ends it in order.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-r.done
	if code := r.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
}

// traffic is events that come all the time, and what they must add up to.
type traffic struct {
	client *kgo.Client
	mu     sync.Mutex
	truth  map[string]int64 // acknowledged events by key of the window
	acked  int
}

// flow publishes until ctx ends: half of the events with their key, half in any partition.
func (f *traffic) flow(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return f.client.Flush(context.WithoutCancel(ctx))
		}
		for range 10 {
			w := codecs.Window{Registration: fmt.Sprintf("N%d", n%211), Definition: "tumbling:1h", Start: time.Date(2026, 2, 8, 10+n%3, 0, 0, 0, time.UTC).UnixMilli()}
			at := time.UnixMilli(w.Start).UTC().Add(time.Duration(n%3600) * time.Second)
			rec := &kgo.Record{Topic: "aircraft-events", Value: fmt.Appendf(nil, `{"event_type":"departed","registration_number":"%s","aircraft_id":1,"timestamp":"%s"}`, w.Registration, at.Format(time.RFC3339))}
			if n%2 == 0 {
				rec.Key = []byte(w.Registration)
			}
			n++
			key := string(w.AppendKey(nil))
			f.client.Produce(context.WithoutCancel(ctx), rec, func(_ *kgo.Record, err error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				if err == nil {
					f.truth[key]++
					f.acked++
				}
			})
		}
	}
}

// more waits for so many further events.
func (f *traffic) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.acked
	}
	want := count() + n
	eventually(t, func() bool { return count() >= want })
}

// results are what came out, and when.
type results struct {
	client *kgo.Client
	counts map[string]int64
	times  map[int32][]time.Time
}

// await reads until the last revision of every window is the truth.
func (r *results) await(t *testing.T, truth map[string]int64) {
	t.Helper()
	revisions := map[string]int64{}
	for !maps.Equal(r.counts, truth) {
		fetches := r.client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d windows, should be %d: %v", len(r.counts), len(truth), err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			var w codecs.Window
			if err := w.Parse(rec.Value, nil); err != nil {
				t.Fatal(err)
			}
			key := string(rec.Key)
			if w.Revision >= revisions[key] {
				revisions[key], r.counts[key] = w.Revision, w.Count
			}
			if w.Count > truth[key] {
				t.Fatalf("window %s has %d events, there are %d", key, w.Count, truth[key])
			}
			r.times[rec.Partition] = append(r.times[rec.Partition], rec.Timestamp)
		})
	}
}

// stall is the longest time between two results of one partition, among those of a time.
func (r *results) stall(from, to time.Time) (longest time.Duration, partition int32) {
	for p, times := range r.times {
		last := from
		for _, at := range times {
			if at.After(from) && at.Before(to) {
				if d := at.Sub(last); d > longest {
					longest, partition = d, p
				}
				last = at
			}
		}
		if d := to.Sub(last); d > longest {
			longest, partition = d, p
		}
	}
	return longest, partition
}

// rollingUpgrade replaces three replicas by ones that write another version of state records, one after the other and under load.
// Every event counts once, no partition moves, and an old replica among new ones refuses to start.
func rollingUpgrade(t *testing.T, k Kafka) {
	paths, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	if code := launch(t, "topics", "--brokers="+strings.Join(k.Brokers, ","), "--partitions=6", "--registry-group=none").wait(); code != exitOK {
		t.Fatalf("topics: exit code %d", code)
	}
	var replicas []*replica
	for slot := range 3 {
		replicas = append(replicas, launchReplica(t, paths[0], fmt.Sprintf("slot-%d", slot), k))
	}
	for _, r := range replicas {
		r.ready(t)
	}
	client := func(opts ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(k.Brokers...))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	load := &traffic{client: client(), truth: map[string]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- load.flow(ctx) }()
	load.more(t, 1000)
	for _, r := range replicas {
		r.ready(t) // the last one's arrival is over
	}
	before := make([]float64, len(replicas))
	for slot, r := range replicas {
		before[slot] = r.metrics(t)["klgstream_rebalances_total"]
	}

	from := time.Now()
	for slot, r := range replicas {
		r.stop(t)
		replicas[slot] = launchReplica(t, paths[1], fmt.Sprintf("slot-%d", slot), k)
		replicas[slot].ready(t)
		if last := len(replicas) - 1; slot < last {
			if now := replicas[last].metrics(t)["klgstream_rebalances_total"]; now != before[last] {
				t.Errorf("restarting slot %d moved partitions: generation %v, was %v", slot, now, before[last])
			}
		}
		load.more(t, 500)
	}
	to := time.Now()

	// One that is too old says so, and leaves everything as it is.
	replicas[0].stop(t)
	old := launchReplica(t, paths[0], "slot-0", k)
	<-old.done
	said := old.said.String()
	if code := old.cmd.ProcessState.ExitCode(); code != exitConfig || !strings.Contains(said, fmt.Sprintf(`version "%d" is unknown_version: must be at most %d`, codecs.StateVersion+1, codecs.StateVersion)) {
		t.Errorf("the old build ended with %d: %s", code, said)
	}
	replicas[0] = launchReplica(t, paths[1], "slot-0", k)
	replicas[0].ready(t)
	load.more(t, 500)

	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	all := &results{
		client: client(kgo.ConsumeTopics("aircraft-windows"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), counts: map[string]int64{}, times: map[int32][]time.Time{},
	}
	all.await(t, load.truth)
	stall, partition := all.stall(from, to)
	t.Logf("%d events in %d windows, all exact; upgrading three replicas took %v; longest stall of a partition %v (partition %d)",
		load.acked, len(load.truth), to.Sub(from).Round(time.Millisecond), stall.Round(time.Millisecond), partition)
	for _, r := range replicas {
		r.stop(t)
	}
}

func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	rollingUpgrade(t, Kafka{Brokers: b.Addrs(), ClientID: "test"})
}

// TestRollingUpgradeOnRealKafka is the same on Apache Kafka.
func TestRollingUpgradeOnRealKafka(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafkatest.Options{Properties: []string{
		"group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=1", "offsets.topic.replication.factor=1",
	}})
	rollingUpgrade(t, Kafka{Brokers: c.Addrs(), ClientID: "test"})
}
