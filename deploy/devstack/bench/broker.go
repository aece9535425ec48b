package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"klgstream.dev/deploy/devstack"
)

// ours begin the names of environment variables that set this program; a measurement must not be set from outside.
var ours = []string{"KLGSTREAM_", "REDPANDA_", "RISINGWAVE_", "FLINK_"}

// Self is this program with other arguments, as a process of its own whose settings are its arguments alone.
func Self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(ours, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
	return cmd, nil
}

// Broker runs an embedded broker in this process: it writes its addresses as one line to out and ends when in does, and so
// with the process that started it.
func Broker(ctx context.Context, in io.Reader, out io.Writer) error {
	b, err := devstack.Start(ctx, devstack.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := fmt.Fprintln(out, strings.Join(b.Addrs(), ",")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// BrokerProcess is an embedded broker in a process of its own, so that its CPU time and memory are not the measured ones.
type BrokerProcess struct {
	Addrs []string
	stdin io.Closer
	cmd   *exec.Cmd
}

// StartBroker starts this program's own `bench broker`.
func StartBroker(ctx context.Context) (*BrokerProcess, error) {
	cmd, err := Self(ctx, "bench", "broker")
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b := &BrokerProcess{stdin: stdin, cmd: cmd}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start broker: it said %q: %w", line, err), b.Close())
	}
	b.Addrs = strings.Split(strings.TrimSpace(line), ",")
	return b, nil
}

// Close ends the broker and waits until it is gone.
func (b *BrokerProcess) Close() error {
	return errors.Join(b.stdin.Close(), b.cmd.Wait())
}
