package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Assignment is one run of a peer: count events per registration in tumbling hours of event time.
type Assignment struct {
	Brokers []string
	Input   string
	Group   string        // consumer group; offsets are committed under it once what they caused is durable
	Output  string        // where results go
	Bound   time.Duration // how far events are out of order
}

// Peer is a program that can be given an [Assignment].
type Peer struct {
	Name string
	// Command is the program. It runs until it gets SIGTERM. It may print "first event" when it has its first event; what
	// comes before is then not counted as part of its work.
	Command func(ctx context.Context, a Assignment) (*exec.Cmd, error)
	// Prepare makes the output topic and what else it needs. Default: the output topic alone.
	Prepare func(ctx context.Context, a Assignment, partitions int) error
	// Ours says that its results are records as codecs.Window writes them; else they are as the Java peers write them.
	Ours bool
}

// Peers says what to compare. The zero value of a field is its documented default.
type Peers struct {
	Shape

	Brokers []string // required: those of a real Kafka, as the peers do not run on the embedded one
	Peers   []Peer
	Rounds  int // how often each runs, in turn; default 1
}

// PeerResult is one run of one peer.
type PeerResult struct {
	Name        string  `json:"name"`
	Round       int     `json:"round"`
	Events      int64   `json:"events"`
	FirstResult float64 `json:"first_result_seconds"` // from start to the first result, on a topic of few events
	Start       float64 `json:"start_seconds"`        // from start to the first event, where it tells
	Seconds     float64 `json:"seconds"`              // from then until all is durable and committed
	CPU         float64 `json:"cpu_seconds"`          // of the whole life of its process
	PeakRSS     int64   `json:"peak_rss_bytes"`
	Verdict     Verdict `json:"verdict"`
}

// Rate is durable events per second.
func (r PeerResult) Rate() float64 { return float64(r.Events) / r.Seconds }

// CPUPerMillion is CPU seconds per million events.
func (r PeerResult) CPUPerMillion() float64 { return r.CPU / float64(r.Events) * 1e6 }

// PeersResult is a comparison.
type PeersResult struct {
	Environment Environment  `json:"environment"`
	Shape       Shape        `json:"shape"`
	Runs        []PeerResult `json:"runs"`
}

// Measure runs each peer on the same topic, one at a time.
func (p Peers) Measure(ctx context.Context, progress io.Writer) (PeersResult, error) {
	p.Shape = p.Shape.WithDefaults()
	set(&p.Rounds, 1)
	r := PeersResult{Environment: Here(p.Brokers), Shape: p.Shape}
	if err := p.Validate(); err != nil || len(p.Brokers) == 0 || p.Unkeyed {
		return r, errors.Join(fmt.Errorf("compare peers: brokers %v and keyed events are needed", p.Brokers), err)
	}
	run := runName()
	few := p.Shape
	few.Events, few.Keys = min(1000, p.Events), min(100, p.Keys)
	input, short := "peers-"+run, "peers-short-"+run
	if err := errors.Join(fillNew(ctx, p.Brokers, input, p.Shape, progress), fillNew(ctx, p.Brokers, short, few, progress)); err != nil {
		return r, err
	}
	for round := range p.Rounds {
		for _, peer := range p.Peers {
			a := Assignment{Brokers: p.Brokers, Input: short, Group: fmt.Sprintf("peer-%s-short-%s-%d", peer.Name, run, round), Bound: p.Disorder}
			first, err := p.run(ctx, peer, a, few)
			if err != nil {
				return r, err
			}
			a.Input, a.Group = input, fmt.Sprintf("peer-%s-%s-%d", peer.Name, run, round)
			got, err := p.run(ctx, peer, a, p.Shape)
			if err != nil {
				return r, err
			}
			got.Round, got.FirstResult = round, first.FirstResult
			_, _ = fmt.Fprintf(progress, "%s: %.0f events/s, %.2f CPU s per million\n", peer.Name, got.Rate(), got.CPUPerMillion())
			r.Runs = append(r.Runs, got)
		}
	}
	return r, DeleteTopics(ctx, p.Brokers, input, short)
}

// run gives one peer one assignment and verifies what it made of it.
func (p Peers) run(ctx context.Context, peer Peer, a Assignment, s Shape) (PeerResult, error) {
	a.Output = a.Group + "-out"
	prepare := peer.Prepare
	if prepare == nil {
		prepare = func(ctx context.Context, a Assignment, partitions int) error {
			return CreateTopics(ctx, a.Brokers, partitions, a.Output)
		}
	}
	if err := prepare(ctx, a, s.Partitions); err != nil {
		return PeerResult{}, err
	}
	r, err := peer.run(ctx, a)
	if err != nil {
		return r, fmt.Errorf("run %s: %w", peer.Name, err)
	}
	definitions, err := parseWindows([]string{tumblingHour}, 0)
	if err != nil {
		return r, err
	}
	parse := byWindow(hourRecord)
	if peer.Ours {
		parse = countRecord
	}
	if r.Verdict, err = verify(ctx, a.Brokers, a.Output, s, definitions, parse); err != nil {
		return r, err
	}
	return r, deleteGroup(ctx, a.Brokers, a.Group)
}

// run starts the program, waits until the group has committed the end of the input, and ends it.
func (peer Peer) run(ctx context.Context, a Assignment) (PeerResult, error) {
	r := PeerResult{Name: peer.Name}
	n, err := records(ctx, a.Brokers, a.Input)
	if err != nil {
		return r, err
	}
	r.Events = int64(n)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd, err := peer.Command(ctx, a)
	if err != nil {
		return r, err
	}
	out, errs := &firstEvent{}, &tail{}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 30*time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	took, err := r.await(ctx, a, began, ended)
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, errs.text())
	}
	stop()
	<-ended //nolint:errcheck // how a process ends that was told to is no matter
	if at := out.seen(); !at.IsZero() {
		r.Start = at.Sub(began).Seconds()
	}
	r.Seconds = took.Seconds() - r.Start
	r.resources(cmd.ProcessState)
	return r, nil
}

// await returns how long it took from the start until all was committed, and notes when the first result was there.
func (r *PeerResult) await(ctx context.Context, a Assignment, began time.Time, ended <-chan error) (time.Duration, error) {
	done, first := make(chan error, 1), make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- AwaitCommitted(watching, a.Brokers, a.Group, a.Input) }()
	quiet := make(chan silence, 1)
	go func() { first <- awaitRecord(watching, a.Brokers, a.Output) }()
	var took time.Duration
	for {
		select {
		case err := <-ended:
			return 0, errors.Join(errors.New("it ended by itself"), err)
		case err := <-first:
			if err != nil {
				return 0, err
			}
			r.FirstResult = time.Since(began).Seconds()
		case err := <-done:
			if err != nil {
				return 0, err
			}
			took = time.Since(began)
			go func() { quiet <- awaitSilence(watching, a.Brokers, a.Output) }()
		case s := <-quiet:
			return max(took, s.since.Sub(began)), s.err
		}
	}
}

// silence is since when a topic has not grown; zero if it has not since it is looked at.
type silence struct {
	since time.Time
	err   error
}

// lull is how long no result came when none comes any more.
const lull = 2 * time.Second

// awaitSilence waits until a topic has not grown for a while. An engine may commit an event before the watermark that
// follows from it has closed windows.
func awaitSilence(ctx context.Context, brokers []string, topic string) silence {
	tick := time.NewTicker(5 * committedPoll)
	defer tick.Stop()
	last, s, from := -1, silence{}, time.Now()
	for {
		n, err := records(ctx, brokers, topic)
		if err != nil {
			return silence{err: err}
		}
		if last >= 0 && n != last {
			s.since, from = time.Now(), time.Now()
		}
		if last = n; time.Since(from) >= lull {
			return s
		}
		select {
		case <-ctx.Done():
			return silence{err: ctx.Err()}
		case <-tick.C:
		}
	}
}

func (r *PeerResult) resources(state *os.ProcessState) {
	r.CPU = (state.UserTime() + state.SystemTime()).Seconds()
	if u, ok := state.SysUsage().(*syscall.Rusage); ok {
		r.PeakRSS = u.Maxrss << 10
	}
}

// AwaitCommitted returns when a group has committed all that is in a topic now.
func AwaitCommitted(ctx context.Context, brokers []string, group, topic string) error {
	ends, err := endOffsets(ctx, brokers, topic)
	if err != nil {
		return err
	}
	client, err := sarama.NewClient(brokers, saramaConfig())
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	defer admin.Close()
	tick := time.NewTicker(committedPoll)
	defer tick.Stop()
	for !committed(admin, group, topic, ends) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			_ = client.RefreshCoordinator(group)
		}
	}
	return nil
}

// awaitRecord returns when a topic has its first record.
func awaitRecord(ctx context.Context, brokers []string, topic string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(1), kgo.FetchMaxBytes(1))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		if fetches.NumRecords() > 0 {
			return nil
		}
	}
}

// deleteGroup deletes what a peer has made under its group's name.
func deleteGroup(ctx context.Context, brokers []string, group string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	return DeleteTopics(ctx, brokers, slices.DeleteFunc(listed.Names(), func(n string) bool { return !strings.HasPrefix(n, group) })...)
}

// firstEvent notes when the line "first event" is written.
type firstEvent struct {
	mu sync.Mutex
	at time.Time
}

// Write implements io.Writer.
func (f *firstEvent) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() && bytes.Contains(p, []byte("first event")) {
		f.at = time.Now()
	}
	return len(p), nil
}

func (f *firstEvent) seen() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const keep = 16 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-keep):]
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}

// names are the peers in the order they ran in.
func (r PeersResult) names() []string {
	var out []string
	for _, run := range r.Runs {
		if !slices.Contains(out, run.Name) {
			out = append(out, run.Name)
		}
	}
	return out
}

// Median is the middle run of a peer by its duration.
func (r PeersResult) Median(name string) PeerResult {
	var all []PeerResult
	for _, run := range r.Runs {
		if run.Name == name {
			all = append(all, run)
		}
	}
	slices.SortFunc(all, func(a, b PeerResult) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return all[len(all)/2]
}

// Table writes the medians.
func (r PeersResult) Table(w io.Writer) error {
	s := r.Shape
	_, _ = fmt.Fprintf(w, "%d events, %d keys, %d partitions, %v of event time, tumbling 1 h count; broker %s; %d CPUs\n", s.Events, s.Keys, s.Partitions, s.Span, r.Environment.Broker, r.Environment.CPUs)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "engine\tevents/s\tCPU s/M\tpeak RSS MB\tstart → first result s\tresults\twindows right")
	for _, name := range r.names() {
		m := r.Median(name)
		_, _ = fmt.Fprintf(tw, "%s\t%.0f\t%.2f\t%d\t%.2f\t%d\t%d of %d\n", name, m.Rate(), m.CPUPerMillion(), m.PeakRSS>>20, m.FirstResult, m.Verdict.Records, m.Verdict.Windows-m.Verdict.Wrong, m.Verdict.Windows)
	}
	return tw.Flush()
}

// Err is nil if every window of every run was right.
func (r PeersResult) Err() error {
	var faults []error
	for _, run := range r.Runs {
		if err := run.Verdict.Err(); err != nil {
			faults = append(faults, fmt.Errorf("%s, round %d: %w", run.Name, run.Round+1, err))
		}
	}
	return errors.Join(faults...)
}
