package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"klgstream.dev/deploy/devstack/bench"
)

// peerNames are the engines that deploy/bench/peer.sh runs, and this program: as it is in production, with results on update, and with
// one result per window, as Flink's jobs give.
var peerNames = []string{"flink", "flink-sql", "kafka-streams", "klgstream", "klgstream-on-close"}

// benchPeersCmd compares this program with others that do the same job.
type benchPeersCmd struct {
	BenchTarget `group:"command"`
	BenchShape  `group:"events"`
	Peers       []string `default:"flink,flink-sql,kafka-streams,klgstream,klgstream-on-close" placeholder:"NAME" help:"Who takes part. Default ${default}." group:"command"`
	Runner      string   `default:"deploy/bench/peer.sh" placeholder:"FILE" help:"Script that runs the others. Default ${default}." group:"command"`
	Threads     int      `default:"0" placeholder:"N" help:"Threads each of the others processes with. Default: the number of CPUs." group:"command"`
	Rounds      int      `default:"1" placeholder:"N" help:"How often, in turn; medians are shown. Default ${default}." group:"command"`
}

func (c *benchPeersCmd) check() error {
	faults := []error{c.BenchTarget.check(), c.BenchShape.check(), atLeast("rounds", c.Rounds, 1), atLeast("threads", c.Threads, 0)}
	for _, name := range c.Peers {
		faults = append(faults, oneOf("peers", name, peerNames...))
	}
	return errors.Join(faults...)
}

// Run compares, prints a table, and fails if a window was wrong.
func (c *benchPeersCmd) Run(ctx context.Context, a *app) error {
	p := bench.Peers{Shape: c.shape(), Brokers: c.brokers(a), Rounds: c.Rounds}
	if len(p.Brokers) == 0 {
		return errors.New("--brokers: the others need a real Kafka, \"make bench-peers\" starts one")
	}
	for _, name := range peerNames {
		if slices.Contains(c.Peers, name) {
			p.Peers = append(p.Peers, c.peer(name))
		}
	}
	result, err := p.Measure(ctx, a.stderr)
	if err != nil {
		return err
	}
	return errors.Join(result.Table(a.stdout), c.save(result), result.Err())
}

// peer is an engine by its name.
func (c *benchPeersCmd) peer(name string) bench.Peer {
	switch name {
	case "klgstream":
		return bench.Peer{Name: name, Command: thisPeer, Prepare: prepareThis, Ours: true}
	case "klgstream-on-close":
		return bench.Peer{Name: name, Command: onClose, Prepare: prepareThis, Ours: true}
	}
	threads := c.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	return bench.Peer{Name: name, Command: func(ctx context.Context, a bench.Assignment) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, "bash", c.Runner, name, strings.Join(a.Brokers, ","), a.Input, a.Output, a.Group, strconv.Itoa(threads), strconv.FormatInt(a.Bound.Milliseconds(), 10)), nil
	}}
}

// prepareThis makes this program's topics.
func prepareThis(ctx context.Context, a bench.Assignment, partitions int) error {
	return makeBenchTopics(ctx, a.Brokers, benchNames(a.Input, a.Output, a.Group), partitions)
}

// thisPeer is this program's processor as it runs in production.
func thisPeer(ctx context.Context, a bench.Assignment) (*exec.Cmd, error) {
	return processorPeer(ctx, a)
}

// onClose is the same with one result per window.
func onClose(ctx context.Context, a bench.Assignment) (*exec.Cmd, error) {
	return processorPeer(ctx, a, "--emit=close")
}

func processorPeer(ctx context.Context, a bench.Assignment, more ...string) (*exec.Cmd, error) {
	names := benchNames(a.Input, a.Output, a.Group)
	args := append([]string{"processor", "--brokers=" + strings.Join(a.Brokers, ","), "--ops-url=http://127.0.0.1:0", "--idle=hold", "--max-future-skew=-1s", fmt.Sprintf("--bound=%v", a.Bound), "--log-level=warn"}, names.flags()...)
	return bench.Self(ctx, append(args, more...)...)
}
