package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/processors/engine"
)

// The bound that SCALING.md states for a processor with --max-keys: so much for the program with its buffers, and so much for each
// aircraft that it may keep.
const (
	floodBase   = 512 << 20
	floodPerKey = 4 << 10
)

// A flood of registrations that nobody has seen, the longest there may be, each with a type of its own, comes over a processor of its own
// process: with --max-keys it needs no more memory than is stated, with GOMEMLIMIT at nine tenths of it as the manifests have it, and what it
// does not count it keeps as dead letters.
func TestFloodStaysWithinItsMemory(t *testing.T) {
	const events, maxKeys, partitions = 400_000, 1000, 4
	const bound = floodBase + floodPerKey*maxKeys*partitions
	b := embeddedProcess(t)
	w := NewWorkload(1, 1)
	w.Partitions, w.Brokers, w.Bound, w.RekeyOff, w.MaxDirty, w.Commit, w.Static, w.Standby, w.OnClose = partitions, 1, time.Hour, false, 0, 50*time.Millisecond, false, false, false
	w.Windows = []string{"tumbling:1h"}
	connect := connecting(b.Addrs())
	if err := createTopics(t.Context(), connect, &w, 1); err != nil {
		t.Fatal(err)
	}
	flood(t, connect, w.input(), events, partitions)
	m := Member{Brokers: b.Addrs(), ClientID: clientPrefix + "flood", Workload: w}
	cmd := exec.Command(program(t), append(m.Arguments(), fmt.Sprintf("--max-keys=%d", maxKeys))...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", bound/10*9))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it may have ended
	r, err := newReader(connect)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := await(ctx, 50*time.Millisecond, func() (bool, error) {
		_, all, err := r.progress(ctx, &w)
		return err == nil && all, nil // the group is not there at first
	}); err != nil {
		t.Fatal(err)
	}
	peak := peakMemory(t, cmd.Process.Pid)
	dead, err := r.ends(ctx, w.dead())
	if err != nil {
		t.Fatal(err)
	}
	letters := int64(0)
	for _, end := range dead {
		letters += end
	}
	t.Logf("%d registrations, %d of them dead letters: %d MiB at most, the bound is %d MiB", events, letters, peak>>20, bound>>20)
	if peak > bound || letters != events-maxKeys*partitions {
		t.Errorf("%d MiB of memory, the bound is %d MiB; %d dead letters, want %d", peak>>20, bound>>20, letters, events-maxKeys*partitions)
	}
}

// flood publishes one event of each of so many registrations, where they are at home.
func flood(t *testing.T, connect connector, topic string, events int, partitions int32) {
	t.Helper()
	cl, err := connect("publisher", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic), kgo.MaxBufferedRecords(10_000))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	failed := make(chan error, 1)
	for i := range events {
		name := fmt.Sprintf("FLOOD-%026d", i)
		value := fmt.Sprintf(`{"event_type":"%064d","aircraft_id":%d,"registration_number":%q,"timestamp":%d,"remarks":"%0200d"}`, i, i, name, epoch.UnixMilli()+int64(i%1000), i)
		cl.Produce(t.Context(), &kgo.Record{Partition: engine.PartitionOf([]byte(name), partitions), Key: []byte(name), Value: []byte(value)}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Fatalf("publish the flood: %v", err)
	default:
	}
}

// peakMemory is the most that a process has had resident.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("how much memory a process has had is not to be seen here: %v", err)
	}
	kib := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if kib == nil {
		t.Fatalf("no peak of memory in %s", status)
	}
	n, err := strconv.Atoi(string(kib[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
