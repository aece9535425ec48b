package risingwave_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/sink"
)

// The environment variables that make this test binary a sink from a broker into a database.
const (
	sinkURL    = "KLGSTREAM_TEST_SINK_URL"
	sinkBroker = "KLGSTREAM_TEST_SINK_BROKER"
)

// beSink runs a sink until standard input ends, which it does with the test.
func beSink(url, broker string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	store, err := risingwave.Open(ctx, risingwave.Config{URL: url})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer store.Close()
	client := sarama.NewConfig()
	client.Version = sarama.V2_8_0_0
	client.Consumer.Group.Session.Timeout, client.Consumer.Group.Heartbeat.Interval = time.Second, 100*time.Millisecond
	s, err := sink.New(sink.Config{
		Brokers: []string{broker}, Sarama: client, Store: store, Now: time.Now, BatchRows: 37, WriteTimeout: time.Second,
		RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond, CommitInterval: 5 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// sinkProcess is a sink in a process of its own.
type sinkProcess struct {
	cmd  *exec.Cmd
	hold io.Closer // its standard input
}

func startSink(t *testing.T, url, broker string) *sinkProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self)
	cmd.Env = append(os.Environ(), sinkURL+"="+url, sinkBroker+"="+broker)
	cmd.Stderr = t.Output()
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &sinkProcess{cmd, hold}
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *sinkProcess) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // "signal: killed"
}

// stop ends the process in order.
func (p *sinkProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the sink ended with %v", err)
	}
}

// TestSinkProcessOutlivesEverything has a sink in a process of its own, and breaks in the middle of a statement: the sink
// (kill -9), PostgreSQL (immediate stop), the network with an error, and the network with nothing but silence. Records come
// all the while. In the end the database holds the truth.
func TestSinkProcessOutlivesEverything(t *testing.T) {
	server := postgres(t)
	url := server.database(t)
	w, b := lay(t, server), newTopics(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	process := startSink(t, w.through(url), b.addrs[0])
	t.Cleanup(func() { _ = process.hold.Close() }) // it ends with its input, if nothing else ended it
	faults := []struct {
		name   string
		strike func() fate
	}{
		{"kill -9 of the sink", func() fate {
			process.kill(t)
			process = startSink(t, w.through(url), b.addrs[0])
			return cut
		}},
		{"immediate stop of PostgreSQL", func() fate {
			server.kill()
			if err := server.run(); err != nil {
				t.Error(err)
			}
			return cut
		}},
		{"network cut", func() fate { return cut }},
		{"network silent", func() fate { return silent }},
	}
	next := int64(hours)
	for range 3 {
		for _, i := range random.Perm(len(faults)) {
			w.arm(1 + random.IntN(10_000)) // less than the windows below are, each written once
			b.publishWindows(t, next, next+3, 2)
			next += 3
			select {
			case verdict := <-w.struck:
				t.Log(faults[i].name)
				verdict <- faults[i].strike()
			case <-ctx.Done():
				t.Fatalf("%s: the sink sends nothing any more", faults[i].name)
			}
		}
	}
	b.awaitTruth(ctx, t, open(t, risingwave.Config{URL: url}))
	compareTotals(t, connect(t, url), "after all faults")
	process.stop(t)
}

// awaitTruth waits until the store holds the truth.
func (b *topics) awaitTruth(ctx context.Context, t *testing.T, store views.Store) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		difference := b.difference(t.Context(), store)
		if len(difference) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no truth in time: %v", difference[:min(10, len(difference))])
		}
	}
}

// fullDisk is a file system of its own with a PostgreSQL on it, small enough to fill.
func fullDisk(t *testing.T) (disk string, s *server) {
	t.Helper()
	postgres(t) // or there is none at all
	disk = t.TempDir()
	if err := os.Chmod(filepath.Dir(disk), 0o755); err != nil { // the server's user has to come in
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=128m,mode=0755"); err != nil {
		t.Skipf("NO RIGHT TO MOUNT A SMALL FILE SYSTEM, so a full disk is not tested: %v (run as root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := startIn(disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return disk, s
}

// fill writes a file until the disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			if !strings.Contains(err.Error(), "no space left on device") {
				t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
}

// TestSinkOutlivesAFullDisk has the database's disk full while there is something to write, until somebody makes room.
func TestSinkOutlivesAFullDisk(t *testing.T) {
	disk, server := fullDisk(t)
	store := open(t, risingwave.Config{URL: server.url("postgres")})
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, ballast := newTopics(t), filepath.Join(disk, "ballast")
	fill(t, ballast)
	refused := 0
	b.load(t,
		func() views.Store { return open(t, risingwave.Config{URL: server.url("postgres")}) },
		func(err error) bool {
			if err == nil || refused < 0 {
				return false
			}
			if !views.Retryable(err) {
				t.Errorf("a row is given up because of the disk: %v", err)
			}
			if strings.Contains(err.Error(), "53100") {
				refused++
			}
			if refused == 20 {
				refused = -1
				if err := os.Remove(ballast); err != nil {
					t.Error(err)
				}
			}
			return false
		})
	if refused >= 0 {
		t.Errorf("the full disk was met %d times only", refused)
	}
	compareTotals(t, connect(t, server.url("postgres")), "after the full disk")
}
