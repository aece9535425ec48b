package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"klgstream.dev/deploy/devstack"
)

// ServeBroker runs an embedded broker on a data directory until ctx ends, and writes its address on a line when it listens.
func ServeBroker(ctx context.Context, addr, dir string, out io.Writer) error {
	b, err := devstack.Start(ctx, devstack.Options{Addr: addr, DataDir: dir})
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := fmt.Fprintln(out, b.Addrs()[0]); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// BrokerProcess is one embedded broker in a process of its own.
type BrokerProcess struct {
	command func(addr string) *exec.Cmd
	addr    string
	cmd     *exec.Cmd
}

// StartBroker starts one. command makes the process that calls ServeBroker with the address; it is not started.
func StartBroker(command func(addr string) *exec.Cmd) (*BrokerProcess, error) {
	b := &BrokerProcess{command: command, addr: "127.0.0.1:0"}
	return b, b.Revive(1)
}

// Addrs is where it listens.
func (b *BrokerProcess) Addrs() []string { return []string{b.addr} }

// Revive starts the process at its address and returns when it listens.
func (b *BrokerProcess) Revive(int) error {
	b.cmd = b.command(b.addr)
	b.cmd.Stderr = os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start broker at %s: it ended: %w", b.addr, err)
	}
	b.addr = strings.TrimSpace(line)
	return nil
}

// Kill ends the process with SIGKILL.
func (b *BrokerProcess) Kill(int) error {
	if err := b.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill broker: %w", err)
	}
	_ = b.cmd.Wait() // killed, as it says
	return nil
}

// Pause and Resume stop and continue it.
func (b *BrokerProcess) Pause(int) error { return b.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume continues it.
func (b *BrokerProcess) Resume(int) error { return b.cmd.Process.Signal(syscall.SIGCONT) }
