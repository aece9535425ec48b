package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ServeBroker runs an embedded broker on a data directory until ctx ends, and writes its address on a line when it listens.
// The port is 0 for a free one.
func ServeBroker(ctx context.Context, port int, dir string, out io.Writer) error {
	e := &embedded{wire: &wire{}, dir: dir, ports: []int{port}}
	if err := e.launch(); err != nil {
		return err
	}
	defer e.close()
	if _, err := fmt.Fprintln(out, e.ports[0]); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// BrokerProcess is one embedded broker in a process of its own.
type BrokerProcess struct {
	command func(port int) *exec.Cmd

	mu   sync.Mutex
	port int
	cmd  *exec.Cmd // nil while dead
}

// StartBroker starts one. command makes the process that calls ServeBroker with the port; it is not started.
func StartBroker(command func(port int) *exec.Cmd) (*BrokerProcess, error) {
	b := &BrokerProcess{command: command}
	return b, b.Revive(1)
}

// Addrs is where it listens.
func (b *BrokerProcess) Addrs() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))}
}

// Revive starts the process if it is dead, and returns when it listens.
func (b *BrokerProcess) Revive(int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		return nil
	}
	cmd := b.command(b.port)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start broker at port %d: it ended: %w", b.port, errors.Join(err, cmd.Wait()))
	}
	b.cmd = cmd
	b.port, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// Kill ends the process with SIGKILL.
func (b *BrokerProcess) Kill(int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd == nil {
		return nil
	}
	if err := b.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill broker: %w", err)
	}
	_ = b.cmd.Wait() // killed, as it says
	b.cmd = nil
	return nil
}

// Pause stops the process, Resume lets it go on.
func (b *BrokerProcess) Pause(int) error { return b.signal(syscall.SIGSTOP) }

// Resume continues it.
func (b *BrokerProcess) Resume(int) error { return b.signal(syscall.SIGCONT) }

func (b *BrokerProcess) signal(s os.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd == nil {
		return nil
	}
	return b.cmd.Process.Signal(s)
}
