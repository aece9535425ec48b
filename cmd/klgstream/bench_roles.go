package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"klgstream.dev/deploy/devstack/bench"
)

// roleProcess is one role of this program in a process of its own, as in production.
type roleProcess struct {
	name  string
	ops   string // base URL of its operations listener
	began time.Time
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{} // closed when the process is gone
	err   error         // how it ended
}

// startRole starts a role. opsFlag is the flag of its operations listener.
func startRole(ctx context.Context, name, opsFlag string, args ...string) (*roleProcess, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	r := &roleProcess{name: name, ops: "http://" + addr, ended: make(chan struct{})}
	if opsFlag == "ops-url" {
		addr = r.ops
	}
	if r.cmd, err = bench.Self(ctx, append([]string{name, "--" + opsFlag + "=" + addr, "--log-level=warn", "--log-format=json"}, args...)...); err != nil {
		return nil, err
	}
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	r.began = time.Now()
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	return r, nil
}

// freeAddr is an address of this machine that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := listen(ctx, "ops-url", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// readyPoll is how often a role is asked whether it is ready: what a start may seem too long, at most.
const readyPoll = 2 * time.Millisecond

// ready waits until the role can do its work and returns how long that took from its start.
func (r *roleProcess) ready(ctx context.Context) (time.Duration, error) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		if code, _, err := fetchOps(ctx, r.ops+"/readyz"); err == nil && code == http.StatusOK {
			return time.Since(r.began), nil
		}
		select {
		case <-tick.C:
		case <-r.ended:
			return 0, fmt.Errorf("%s ended: %w\n%s", r.name, r.err, r.log.String())
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// stop ends the role in order and waits for it.
func (r *roleProcess) stop() error {
	select {
	case <-r.ended:
	default:
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop %s: %w", r.name, err)
		}
		<-r.ended
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w\n%s", r.name, r.err, r.log.String())
	}
	return nil
}

// resident is a size of the role's process in bytes: VmRSS: now, VmHWM: the largest so far.
func (r *roleProcess) resident(field string) int64 {
	n, _ := bench.Resident(strconv.Itoa(r.cmd.Process.Pid), field)
	return n
}

// metric is the sum of a metric's series as the role tells it now; collected says to collect garbage first.
func (r *roleProcess) metric(ctx context.Context, name string, collected bool) (float64, error) {
	if collected {
		if _, _, err := fetchOps(ctx, r.ops+"/debug/pprof/heap?gc=1"); err != nil {
			return 0, err
		}
	}
	_, body, err := fetchOps(ctx, r.ops+"/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if base, _, _ := strings.Cut(series, "{"); base != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s of %s: %w", name, r.name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("%s has no metric %s", r.name, name)
	}
	return sum, nil
}

func fetchOps(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// rig is a set of topics with the roles that work on them.
type rig struct {
	brokers    []string
	names      Names
	partitions int
	roles      []*roleProcess
}

// newRig makes topics for one measurement.
func newRig(ctx context.Context, brokers []string, what string, partitions int) (*rig, error) {
	name := "bench-" + what + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	r := &rig{brokers: brokers, partitions: partitions, names: benchNames(name+"-in", name+"-out", name)}
	return r, makeBenchTopics(ctx, brokers, r.names, partitions)
}

// benchNames are the topics and groups of one measurement. Without a registry: what is measured is the counting.
func benchNames(input, output, group string) Names {
	return Names{Input: input, Output: output, Late: group + "-late", Dead: group + "-dlq", Group: group, SinkGroup: group + "-sink", Registry: noRegistry}
}

// makeBenchTopics makes those topics of the plan that are not there. They keep everything.
func makeBenchTopics(ctx context.Context, brokers []string, n Names, partitions int) error {
	c := topicsCmd{Kafka: Kafka{Brokers: brokers, ClientID: "klgstream-bench"}, Names: n, TopicPlan: TopicPlan{
		Partitions: int32(partitions), ReplicationFactor: 1, InputRetention: -1, OutputRetention: -1, LetterRetention: -1, LoopRetention: -1,
	}}
	return c.Run(ctx, &app{environment: environment{stdout: io.Discard}})
}

// flags are the names as arguments.
func (n *Names) flags() []string {
	return []string{
		"--input-topic=" + n.Input, "--output-topic=" + n.Output, "--late-topic=" + n.Late, "--dlq-topic=" + n.Dead, "--group=" + n.Group,
		"--sink-group=" + n.SinkGroup, "--registry-group=" + n.Registry,
	}
}

func (r *rig) topics() []string {
	n := &r.names
	return []string{n.Input, n.Output, n.Late, n.Dead, n.table(), n.loop()}
}

// start starts a role on the rig's topics.
func (r *rig) start(ctx context.Context, name, opsFlag string, args ...string) (*roleProcess, error) {
	common := append([]string{"--brokers=" + strings.Join(r.brokers, ",")}, r.names.flags()...)
	p, err := startRole(ctx, name, opsFlag, append(common, args...)...)
	if err == nil {
		r.roles = append(r.roles, p)
	}
	return p, err
}

// processor starts a processor that holds its windows open until events close them.
func (r *rig) processor(ctx context.Context, args ...string) (*roleProcess, error) {
	return r.start(ctx, "processor", "ops-url", append([]string{"--idle=hold", "--max-future-skew=-1s"}, args...)...)
}

// close ends all roles, the last started first, and deletes the topics.
func (r *rig) close(ctx context.Context) error {
	var faults []error
	for _, p := range slices.Backward(r.roles) {
		faults = append(faults, p.stop())
	}
	return errors.Join(append(faults, bench.DeleteTopics(context.WithoutCancel(ctx), r.brokers, r.topics()...))...)
}

// onRig calls do with a rig and closes it afterwards.
func onRig(ctx context.Context, brokers []string, what string, partitions int, do func(*rig) error) error {
	r, err := newRig(ctx, brokers, what, partitions)
	if err != nil {
		return err
	}
	return errors.Join(do(r), r.close(ctx))
}
