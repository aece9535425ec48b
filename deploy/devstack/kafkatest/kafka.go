// Package kafkatest starts real Apache Kafka brokers for tests.
//
// They need Java, Maven and, the first time, a network. Where one of these is missing the test is skipped and says why;
// with [Require] set to 1 in the environment, as in CI, it fails instead.
package kafkatest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Require is the environment variable that makes a missing server a failure instead of a skipped test, when it is 1.
const Require = "KLGSTREAM_REQUIRE_KAFKA"

// Options is how a cluster runs. The zero value is one broker.
type Options struct {
	// Brokers is how many. Default 1. From three on topics have three copies by default, two of them in sync.
	Brokers int
	// Properties are further broker settings, name=value each.
	Properties []string
}

// Cluster is a running Apache Kafka.
type Cluster struct {
	script string
	dir    string
	addrs  []string
	env    []string
}

// Start runs a cluster until the test ends.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	script, err := installed()
	if err != nil {
		skip(t, err)
	}
	c := &Cluster{
		script: script,
		dir:    t.TempDir(),
		env:    append(os.Environ(), "EXTRA_PROPERTIES="+strings.Join(o.Properties, " ")),
	}
	t.Cleanup(func() { c.must(t, "stop", "--dir", c.dir) })
	brokers := max(o.Brokers, 1)
	out, err := c.run("start", "--dir", c.dir, "--port", strconv.Itoa(freePorts(t, brokers)), "--brokers", strconv.Itoa(brokers))
	if err != nil {
		skip(t, err)
	}
	c.addrs = strings.Split(strings.TrimSpace(out), ",")
	return c
}

// Addrs is where the brokers listen, host:port each.
func (c *Cluster) Addrs() []string { return c.addrs }

// Kill ends a broker, counted from 1, with SIGKILL.
func (c *Cluster) Kill(broker int) error { return c.to("kill", broker) }

// Revive starts a killed broker again on the data it left, and returns when it is ready.
func (c *Cluster) Revive(broker int) error { return c.to("revive", broker) }

// Pause stops a broker where it stands, with SIGSTOP: the others must do without it. Resume lets it go on.
func (c *Cluster) Pause(broker int) error { return c.to("pause", broker) }

// Resume continues a paused broker.
func (c *Cluster) Resume(broker int) error { return c.to("resume", broker) }

func (c *Cluster) to(command string, broker int) error {
	_, err := c.run(command, "--dir", c.dir, strconv.Itoa(broker))
	return err
}

// Tool runs one of Kafka's command line tools against the cluster (topics, groups, configs, offsets, or a class name)
// and returns what it printed.
func (c *Cluster) Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	return c.must(t, append([]string{"cli", name, "--bootstrap-server", strings.Join(c.addrs, ",")}, args...)...)
}

func (c *Cluster) must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run waits for the script, not for the brokers that it leaves behind: those write to their own log.
func (c *Cluster) run(args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{c.script}, args...)...) //nolint:noctx // stopping must outlive the test's context
	cmd.Env = c.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kafka.sh %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func skip(t testing.TB, why error) {
	t.Helper()
	if os.Getenv(Require) == "1" {
		t.Fatalf("a real Kafka is required (%s=1): %v", Require, why)
	}
	t.Skipf("SKIPPED, NO REAL KAFKA: %v", why)
}

// installed returns the script, or why it cannot run here.
func installed() (string, error) {
	for _, program := range []string{"bash", "java", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return findScript(dir)
}

// findScript looks upwards from a test's folder for the module that holds the script.
func findScript(dir string) (string, error) {
	for {
		script := filepath.Join(dir, "deploy", "devstack", "kafka", "kafka.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no deploy/devstack/kafka/kafka.sh above the working directory")
		}
		dir = parent
	}
}

// freePorts returns a port such that the brokers' ports and those of their controllers are free just now.
func freePorts(t testing.TB, brokers int) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if allFree(port, brokers) && allFree(port+1000, brokers) {
			return port
		}
	}
	t.Fatal("no free ports in 100 tries")
	return 0
}

func allFree(port, n int) bool {
	for p := port; p < port+n; p++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p))) //nolint:noctx // closed at once
		if err != nil {
			return false
		}
		_ = l.Close() // it was only to see whether it can be had
	}
	return true
}
