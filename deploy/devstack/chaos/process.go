package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Broker is brokers in processes of their own.
type Broker interface {
	// Addrs is where they listen.
	Addrs() []string
	// Kill ends broker n, counted from 1, with SIGKILL; Revive starts it again on what it left.
	Kill(n int) error
	Revive(n int) error
	// Pause and Resume stop and continue its process.
	Pause(n int) error
	Resume(n int) error
}

// Programs is a stage of real processes.
type Programs struct {
	// Brokers are there already and stay.
	Brokers Broker
	// Processor is the command of a replica, not started.
	Processor func(m Member) *exec.Cmd
	// Sink is the command of a sink that loads a round's results into a SQLite file, not started; Rows the one that prints
	// the pages of that file's views as JSON. Default: no sinks.
	Sink func(m Member, file string) *exec.Cmd
	Rows func(file string) *exec.Cmd
	// Clock makes a replica's command tell a time that is wrong by as many nanoseconds as a file says, whenever it changes. Default: no
	// clock can be stepped.
	Clock func(cmd *exec.Cmd, file string)
	// Output takes what the replicas print. Default none.
	Output io.Writer
}

// Arguments are those of `klgstream processor` for a member.
func (m Member) Arguments() []string {
	w := &m.Workload
	args := []string{
		"processor", "--brokers=" + strings.Join(m.Brokers, ","), "--client-id=" + m.ClientID, "--log-format=json",
		"--ops-url=http://127.0.0.1:0", "--registry-group=none",
		"--input-topic=" + w.input(), "--output-topic=" + w.output(), "--late-topic=" + w.late(), "--dlq-topic=" + w.dead(), "--group=" + w.group(),
		"--allowed-lateness=" + w.Lateness.String(), "--bound=" + w.Bound.String(), "--idle=hold", "--idle-timeout=1h", "--max-future-skew=-1s",
		"--commit-interval=" + w.Commit.String(), "--session-timeout=" + w.session().String(),
	}
	for _, d := range w.Windows {
		args = append(args, "--window="+d)
	}
	for flag, set := range map[string]bool{
		"--emit=close": w.OnClose, "--hot-standby": w.Standby, "--no-rekey": w.RekeyOff, "--instance-id=" + m.Instance: m.Instance != "",
		fmt.Sprintf("--max-dirty=%d", w.MaxDirty): w.MaxDirty > 0,
	} {
		if set {
			args = append(args, flag)
		}
	}
	return args
}

// SinkArguments are those of `klgstream sink` for a member that loads a file.
func (m Member) SinkArguments(file string) []string {
	w := &m.Workload
	return []string{
		"sink", "--brokers=" + strings.Join(m.Brokers, ","), "--client-id=" + m.ClientID, "--log-format=json", "--sink-ops-addr=127.0.0.1:0",
		"--registry-group=none", "--input-topic=" + w.input(), "--output-topic=" + w.output(), "--late-topic=" + w.late(),
		"--dlq-topic=" + w.dead(), "--group=" + w.group(), "--sink-group=" + w.sinks(), "--store-url=sqlite:" + file,
	}
}

// NewProcessRound draws a round of faults that strike processes, on one broker.
func NewProcessRound(seed uint64, faults int) Round { return newProcessRound(seed, faults, 1) }

// NewClockedRound is a draw of the same in which clocks step too, for programs that have a Clock.
func NewClockedRound(seed uint64, faults int) Round {
	r := NewProcessRound(seed, faults)
	if seed < firstWider {
		return r
	}
	wider := rand.New(rand.NewPCG(seed, 6))
	for i := range r.Schedule {
		switch f := &r.Schedule[i]; wider.IntN(8) {
		case 0, 1:
			*f = stepClock(wider, f.Step, wider.IntN(r.Workload.Replicas))
		case 2:
			*f = Fault{Step: f.Step, Kind: Retain, Slot: -1}
		}
	}
	return r
}

// NewClusterRound is a draw of the same on three brokers, of which one at a time is struck.
func NewClusterRound(seed uint64, faults int) Round { return newProcessRound(seed, faults, 3) }

func newProcessRound(seed uint64, faults, brokers int) Round {
	w := NewWorkload(seed, max(4, faults))
	w.Mode = Mode(seed % 2) // wide and ordered: every window can be checked
	w.reshape()
	w.IdleClock, w.DataDir, w.Frame, w.Batch, w.Brokers = false, false, 0, 0, brokers
	w.Sinks, w.Killable = 1+int(seed/2%2), true
	w.Replicas, w.Session, w.Suffix = max(2, w.Replicas), 1500*time.Millisecond, fmt.Sprintf("-%d", seed)
	r := rand.New(rand.NewPCG(seed, 4))
	var schedule Schedule
	for range faults {
		f := drawProcess(r, &w)
		f.Step = r.IntN(w.Steps)
		schedule = append(schedule, f)
	}
	slices.SortStableFunc(schedule, func(a, b Fault) int { return a.Step - b.Step })
	return Round{w, schedule}
}

func drawProcess(r *rand.Rand, w *Workload) Fault {
	slot := r.IntN(w.Replicas)
	ms := func(from, to int) time.Duration { return time.Duration(from+r.IntN(to-from)) * time.Millisecond }
	broker := 1 + int32(r.IntN(w.Brokers))
	sink := r.IntN(w.Sinks)
	if w.Brokers > 1 && r.IntN(3) == 0 { // there the brokers are what matters
		return Fault{Kind: pick(r, KillBroker, KillBroker, PauseBroker), Node: broker, Hold: ms(500, 5000)}
	}
	switch n := r.IntN(100); {
	case n < 28:
		return Fault{Kind: Kill, Slot: slot}
	case n < 38:
		return Fault{Kind: Stop, Slot: slot}
	case n < 52:
		return Fault{Kind: Pause, Slot: slot, Hold: ms(300, 4000)}
	case n < 60:
		return Fault{Kind: KillBroker, Node: broker, Hold: ms(100, 1500)}
	case n < 66:
		return Fault{Kind: PauseBroker, Node: broker, Hold: ms(100, 2500)}
	case n < 78:
		return Fault{Kind: KillSink, Slot: sink}
	case n < 83:
		return Fault{Kind: StopSink, Slot: sink}
	case n < 88:
		return Fault{Kind: PauseSink, Slot: sink, Hold: ms(300, 12_000)}
	case n < 94:
		return Fault{Kind: FullDisk, Slot: sink, Hold: ms(300, 3000)}
	}
	return Fault{Kind: RestartAll}
}

// theatre is the stage of processes.
type theatre struct {
	programs *Programs
	crew     *troupe
	sinks    *troupe
	dir      string // of the files of the stage
	file     string // the sinks' store, "" without
	pending  later
	repairs  later // of brokers

	mu   sync.Mutex
	lost error // a broker or a disk that could not be brought back
}

// NewStage makes the stage of a round.
func (p *Programs) NewStage(w Workload) (Stage, error) {
	dir, err := os.MkdirTemp("", "klg-chaos-stage-")
	if err != nil {
		return nil, err
	}
	t := &theatre{programs: p, dir: dir}
	t.crew = newTroupe(w.Replicas, p.Output, func(slot, nth int) (string, *exec.Cmd) {
		m := Member{Brokers: p.Brokers.Addrs(), ClientID: fmt.Sprintf("%s%d.%d", clientPrefix, slot, nth), Workload: w}
		if w.Static {
			m.Instance = fmt.Sprintf("slot-%d", slot)
		}
		cmd := p.Processor(m)
		if p.Clock != nil {
			p.Clock(cmd, t.clock(slot))
		}
		return m.ClientID, cmd
	})
	if p.Sink == nil {
		w.Sinks = 0
	} else {
		t.file = filepath.Join(dir, "store.db")
	}
	t.sinks = newTroupe(w.Sinks, p.Output, func(slot, nth int) (string, *exec.Cmd) {
		m := Member{Brokers: p.Brokers.Addrs(), ClientID: fmt.Sprintf("sink-%d.%d", slot, nth), Workload: w}
		return m.ClientID, p.Sink(m, t.file)
	})
	return t, nil
}

func (t *theatre) Addrs() []string { return t.programs.Brokers.Addrs() }

func (t *theatre) Start() error { return errors.Join(t.crew.fill(), t.sinks.fill()) }

// Inject lets a fault strike.
func (t *theatre) Inject(f Fault) error {
	b := t.programs.Brokers
	switch f.Kind {
	case RestartAll:
		for slot := range t.crew.size {
			t.crew.kill(slot)
		}
		return t.Start()
	case KillBroker:
		t.repairs.now() // one at a time
		if err := b.Kill(int(f.Node)); err != nil {
			return err
		}
		t.repairs.after(f.Hold, func() { t.back(b.Revive(int(f.Node))) })
	case PauseBroker:
		t.repairs.now()
		if err := b.Pause(int(f.Node)); err != nil {
			return err
		}
		t.repairs.after(f.Hold, func() { t.back(b.Resume(int(f.Node))) })
	case FullDisk:
		return t.fill(f)
	case StepClock:
		return t.step(f.Slot, f.Hold)
	case KillSink, StopSink, PauseSink:
		return t.strike(t.sinks, strings.TrimSuffix(f.Kind, "-sink"), f)
	default:
		return t.strike(t.crew, f.Kind, f)
	}
	return nil
}

// clock is the file that tells by how much the clock of a slot's machine is wrong.
func (t *theatre) clock(slot int) string { return filepath.Join(t.dir, fmt.Sprintf("clock-%d", slot)) }

// step makes a slot's clock wrong, or right again; whoever reads meanwhile sees the one or the other.
func (t *theatre) step(slot int, by time.Duration) error {
	if t.programs.Clock == nil {
		return errors.New("the clocks of these processes cannot be stepped")
	}
	next := t.clock(slot) + "-next"
	if err := os.WriteFile(next, strconv.AppendInt(nil, int64(by), 10), 0o600); err != nil {
		return fmt.Errorf("step the clock of replica %d: %w", slot, err)
	}
	return os.Rename(next, t.clock(slot))
}

// strike hits one process of a troupe.
func (t *theatre) strike(who *troupe, kind string, f Fault) error {
	switch kind {
	case Kill:
		who.kill(f.Slot)
		return who.start(f.Slot)
	case Stop:
		who.stop(f.Slot, true)
	case Pause:
		who.pause(f.Slot)
		t.pending.after(f.Hold, func() { who.resume(f.Slot) })
	default:
		return fmt.Errorf("inject %q: not a fault of processes", f.Kind)
	}
	return nil
}

// fullAt is how large files may be on a disk that is full: smaller than any store.
const fullAt = 4096

// fill lets no file of a sink grow any more, for a while.
func (t *theatre) fill(f Fault) error {
	pid := t.sinks.starve(f.Slot)
	if pid == 0 {
		return nil
	}
	limit := func(size string) error {
		out, err := exec.Command("prlimit", "--pid="+strconv.Itoa(pid), "--fsize="+size+":").CombinedOutput() //nolint:noctx // ends at once
		if err != nil && t.sinks.pid(f.Slot) == pid && !bytes.Contains(out, []byte("No such process")) {
			return fmt.Errorf("limit the files of sink %d to %s bytes: %w: %s", f.Slot, size, err, out)
		}
		return nil
	}
	if err := limit(strconv.Itoa(fullAt)); err != nil {
		return err
	}
	t.pending.after(f.Hold, func() { t.back(errors.Join(limit("unlimited"), t.sinks.fill())) })
	return nil
}

func (t *theatre) back(err error) {
	t.mu.Lock()
	t.lost = errors.Join(t.lost, err)
	t.mu.Unlock()
}

// Heal brings everything back.
func (t *theatre) Heal() error {
	t.repairs.now()
	t.pending.now()
	t.mu.Lock()
	err := t.lost
	t.mu.Unlock()
	for slot := 0; t.programs.Clock != nil && slot < t.crew.size; slot++ {
		err = errors.Join(err, t.step(slot, 0))
	}
	return errors.Join(err, t.Start())
}

// Troubles are replicas and sinks that ended by themselves.
func (t *theatre) Troubles() []error { return append(t.crew.troubles(), t.sinks.troubles()...) }

// Stored are the pages of the store's views as JSON, one a line.
func (t *theatre) Stored(ctx context.Context) ([]byte, error) {
	if t.sinks.size == 0 {
		return nil, nil
	}
	cmd := t.programs.Rows(t.file)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("read the store: %w: %s", err, errs.String())
	}
	return out.Bytes(), nil
}

// Finish stops all replicas and sinks in order.
func (t *theatre) Finish() {
	t.crew.close()
	t.sinks.close()
}

// Close ends what is left.
func (t *theatre) Close() {
	t.repairs.now()
	t.pending.now()
	t.Finish()
	_ = os.RemoveAll(t.dir) // only its own temporary files
}

// troupe is processes of one sort.
type troupe struct {
	size    int
	output  io.Writer
	command func(slot, nth int) (name string, cmd *exec.Cmd)

	mu      sync.Mutex
	slots   map[int]*process
	started map[int]int
	ended   []error
	closed  bool
	all     sync.WaitGroup
}

func newTroupe(size int, output io.Writer, command func(slot, nth int) (string, *exec.Cmd)) *troupe {
	return &troupe{size: size, output: output, command: command, slots: make(map[int]*process), started: make(map[int]int)}
}

// fill starts a process in every slot that has none.
func (t *troupe) fill() error {
	for slot := range t.size {
		if err := t.start(slot); err != nil {
			return err
		}
	}
	return nil
}

// starve notes that a slot's process is to have no room on its disk, and returns its pid, 0 if there is none.
func (t *troupe) starve(slot int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.slots[slot]
	if p == nil {
		return 0
	}
	p.starved = true
	return p.cmd.Process.Pid
}

// pid is the process of a slot, 0 if there is none.
func (t *troupe) pid(slot int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.slots[slot]; p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// process is one of them.
type process struct {
	cmd     *exec.Cmd
	gone    bool // it was told to end, or killed
	starved bool // it has no disk to begin on, and may end by itself: whoever watches over it starts it again
	done    chan struct{}
}

func (t *troupe) start(slot int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[slot] != nil {
		return nil
	}
	return t.launch(slot)
}

// launch starts a process; the caller holds mu.
func (t *troupe) launch(slot int) error {
	t.started[slot]++
	name, cmd := t.command(slot, t.started[slot])
	p := &process{cmd: cmd, done: make(chan struct{})}
	if t.output != nil {
		out := struct{ io.Writer }{t.output} // through a pipe: a limit of file sizes is not for its log
		cmd.Stdout, cmd.Stderr = out, out
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	t.slots[slot] = p
	t.all.Go(func() { t.wait(slot, p, name) })
	return nil
}

// wait notes how a process ends.
func (t *troupe) wait(slot int, p *process, name string) {
	err := p.cmd.Wait()
	close(p.done)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.gone && !p.starved { // told to end it may say that its last checkpoint failed: the next one goes on from the log
		t.ended = append(t.ended, fmt.Errorf("%s ended by itself: %w", name, err))
	}
	if t.slots[slot] == p {
		delete(t.slots, slot)
	}
}

// take removes a slot's process.
func (t *troupe) take(slot int) *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.slots[slot]
	delete(t.slots, slot)
	if p != nil {
		p.gone = true
	}
	return p
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended already

func (t *troupe) stop(slot int, again bool) {
	p := t.take(slot)
	if p == nil {
		return
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	if again {
		t.all.Go(func() {
			<-p.done
			t.mu.Lock()
			defer t.mu.Unlock()
			if !t.closed && t.slots[slot] == nil {
				if err := t.launch(slot); err != nil {
					t.ended = append(t.ended, err)
				}
			}
		})
	}
}

// end stops a slot's process in order and waits.
func (t *troupe) end(slot int) {
	if p := t.take(slot); p != nil {
		p.signal(syscall.SIGTERM)
		<-p.done
	}
}

func (t *troupe) kill(slot int) {
	if p := t.take(slot); p != nil {
		p.signal(syscall.SIGKILL)
	}
}

func (t *troupe) pause(slot int)  { t.send(slot, syscall.SIGSTOP) }
func (t *troupe) resume(slot int) { t.send(slot, syscall.SIGCONT) }

func (t *troupe) send(slot int, s os.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.slots[slot]; p != nil {
		p.signal(s)
	}
}

func (t *troupe) troubles() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.ended)
}

func (t *troupe) close() {
	t.mu.Lock()
	t.closed = true
	for slot, p := range t.slots {
		p.gone = true
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		delete(t.slots, slot)
	}
	t.mu.Unlock()
	t.all.Wait()
}
