package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"klgstream.dev/deploy/devstack/kafkatest"
)

// brokerDir is the environment variable that makes this test binary an embedded broker on that directory.
const brokerDir = "KLGSTREAM_CHAOS_BROKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerDir); dir != "" {
		port, err := strconv.Atoi(os.Args[1])
		if err == nil {
			err = ServeBroker(context.Background(), port, dir, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// program builds klgstream.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "klgstream")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "klgstream.dev/cmd/klgstream")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build klgstream: %v\n%s", err, out)
	}
	return path
}

// embeddedProcess is an embedded broker in a process of its own.
func embeddedProcess(t *testing.T) *BrokerProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, err := StartBroker(func(port int) *exec.Cmd {
		cmd := exec.Command(self, strconv.Itoa(port))
		cmd.Env = append(os.Environ(), brokerDir+"="+dir)
		return cmd
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Kill(1) })
	return b
}

// apache is a real Kafka. A paused broker is a killed one here.
type apache struct {
	t *testing.T
	*kafkatest.Cluster
}

func (a apache) Kill(n int) error   { a.Cluster.Kill(a.t, n); return nil }
func (a apache) Revive(n int) error { a.Cluster.Revive(a.t, n); return nil }
func (a apache) Pause(n int) error  { return a.Kill(n) }
func (a apache) Resume(n int) error { return a.Revive(n) }

// processes runs a campaign of real processes.
func processes(t *testing.T, b Broker, draw func(uint64, int) Round, faults, perRound int) {
	t.Helper()
	path := program(t)
	seed := setting("KLGSTREAM_CHAOS_SEED", uint64(time.Now().UnixNano()%1_000_000))
	faults = int(setting("KLGSTREAM_CHAOS_PROCESS_FAULTS", uint64(faults)))
	t.Logf("KLGSTREAM_CHAOS_SEED=%d KLGSTREAM_CHAOS_PROCESS_FAULTS=%d", seed, faults)
	p := &Programs{
		Brokers:   b,
		Processor: func(m Member) *exec.Cmd { return exec.Command(path, m.Arguments()...) },
		Sink:      func(m Member, file string) *exec.Cmd { return exec.Command(path, m.SinkArguments(file)...) },
		Rows:      func(file string) *exec.Cmd { return exec.Command(path, "bench", "chaos-store", "--file="+file) },
	}
	if log := os.Getenv("KLGSTREAM_CHAOS_LOG"); log != "" {
		f, err := os.Create(log + ".processes")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { err = errors.Join(err, f.Close()) })
		p.Output = f
	}
	bench := &Bench{Log: logger(t), Now: time.Now, Patience: 3 * time.Minute, Stage: func(_ context.Context, w Workload) (Stage, error) { return p.NewStage(w) }}
	s, err := Campaign{
		Seed: seed, Faults: faults, PerRound: perRound, Draw: draw, Out: t.Output(), GoOn: setting("KLGSTREAM_CHAOS_GO_ON", 0) == 1,
	}.Run(t.Context(), bench)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", Table(s.Reports))
	if s.Failed != nil {
		t.Fatal(s.Describe())
	}
}

// TestProcesses strikes real processes on an embedded broker that is a process of its own.
func TestProcesses(t *testing.T) {
	processes(t, embeddedProcess(t), NewProcessRound, 6, 6)
}

// TestProcessesOnRealKafka strikes them on Apache Kafka.
func TestProcessesOnRealKafka(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{Properties: []string{
		"group.min.session.timeout.ms=500", "group.initial.rebalance.delay.ms=0", "broker.session.timeout.ms=2000",
		"broker.heartbeat.interval.ms=500", "offsets.topic.num.partitions=1", "offsets.topic.replication.factor=1",
	}})
	processes(t, apache{t, c}, NewProcessRound, 6, 6)
}
