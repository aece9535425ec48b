package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// clockFile is the environment variable that names the file of a program's clock.
const clockFile = "KLGSTREAM_CHAOS_CLOCK"

// program builds klgstream as it is, but for the time: where main hands it the clock, another one is laid over the source, which the
// harness can step. No other build has it.
func program(t *testing.T) string {
	t.Helper()
	dir, over := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "klgstream")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay="+overlay(t, over), "-o", path, "klgstream.dev/cmd/klgstream")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build klgstream: %v\n%s", err, out)
	}
	return path
}

// overlay is the file that lays the clock over the program's source.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("..", "..", "..", "cmd", "klgstream"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(source, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	clock, err := filepath.Abs(filepath.Join("testdata", "clock.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	const right, wrong = "now: time.Now}", "now: wrongClock}"
	if bytes.Count(text, []byte(right)) != 1 {
		t.Fatalf("%s does not hand the clock over as %q, once", source, right)
	}
	changed := filepath.Join(dir, "main.go")
	plan, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(source, "main.go"): changed, filepath.Join(source, "clock_chaos.go"): clock,
	}})
	file := filepath.Join(dir, "overlay.json")
	if err := errors.Join(err, os.WriteFile(changed, bytes.Replace(text, []byte(right), []byte(wrong), 1), 0o600), os.WriteFile(file, plan, 0o600)); err != nil {
		t.Fatal(err)
	}
	return file
}

// A program tells the time of its clock file, and steps when that does: what doctor finds of it.
func TestProgramsClockSteps(t *testing.T) {
	path, b, dir := program(t), embeddedProcess(t), t.TempDir()
	file := filepath.Join(dir, "clock")
	for _, by := range []time.Duration{-6 * time.Hour, 0, 3 * time.Hour} {
		if err := os.WriteFile(file, strconv.AppendInt(nil, int64(by), 10), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), path, "doctor", "--brokers="+b.Addrs()[0], "--store-url=sqlite:"+filepath.Join(dir, "store.db"))
		cmd.Env = append(os.Environ(), clockFile+"="+file)
		out, _ := cmd.CombinedOutput() // it finds more that is wrong: there are no topics
		says := regexp.MustCompile(`differs from the broker's by (\S+)`).FindSubmatch(out)
		if says == nil {
			t.Fatalf("doctor says nothing of the clock: %s", out)
		}
		if skew, err := time.ParseDuration(string(says[1])); err != nil || (skew-by.Abs()).Abs() > time.Hour {
			t.Errorf("stepped by %v doctor says %s", by, says[0])
		}
	}
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

// programs are the processes of a stage on brokers.
func programs(t *testing.T, b Broker) *Programs {
	t.Helper()
	path := program(t)
	p := &Programs{
		Brokers:   b,
		Processor: func(m Member) *exec.Cmd { return exec.Command(path, m.Arguments()...) },
		Clock:     func(cmd *exec.Cmd, file string) { cmd.Env = append(os.Environ(), clockFile+"="+file) },
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
	return p
}

// processes runs a campaign of real processes.
func processes(t *testing.T, b Broker, draw func(uint64, int) Round, faults, perRound int) {
	t.Helper()
	seed := setting("KLGSTREAM_CHAOS_SEED", FreshSeed(time.Now()))
	// One on processes for every ten within this one: they cost more.
	faults = int(setting("KLGSTREAM_CHAOS_PROCESS_FAULTS", max(uint64(faults), setting("KLGSTREAM_CHAOS_FAULTS", 0)/10)))
	t.Logf("KLGSTREAM_CHAOS_SEED=%d KLGSTREAM_CHAOS_PROCESS_FAULTS=%d", seed, faults)
	p := programs(t, b)
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
	processes(t, embeddedProcess(t), NewClockedRound, 6, 8)
}

// TestProcessesOnRealKafka strikes them on Apache Kafka.
func TestProcessesOnRealKafka(t *testing.T) {
	processes(t, kafkatest.Start(t, kafkatest.Options{Properties: impatient}), NewClockedRound, 6, 8)
}

// TestProcessesOnThreeRealKafkas strikes them on a cluster of three, whose partitions have three copies: brokers are killed and
// paused one at a time, and led by another meanwhile.
func TestProcessesOnThreeRealKafkas(t *testing.T) {
	processes(t, kafkatest.Start(t, kafkatest.Options{Brokers: 3, Properties: impatient}), NewClusterRound, 3, 8)
}

// impatient brokers notice soon that a member or one of them is gone.
var impatient = []string{
	"group.min.session.timeout.ms=500", "broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500", "offsets.topic.num.partitions=1",
}

// TestGaps measures how long results are away while replicas come and go: every event is waited for. What is a matter of
// the machine is only told; a rebalance or a restart that hangs fails.
func TestGaps(t *testing.T) {
	b := &Bench{Log: logger(t), Now: time.Now}
	session := time.Duration(setting("KLGSTREAM_CHAOS_SESSION_MS", 1500)) * time.Millisecond
	quiet := time.Duration(setting("KLGSTREAM_CHAOS_QUIET_MS", 500)) * time.Millisecond
	list, err := b.MeasureGaps(t.Context(), programs(t, embeddedProcess(t)), session, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("session %v\n%s", session, Gaps(list))
}
