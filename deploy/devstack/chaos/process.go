package chaos

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
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
		"--emit=close": w.OnClose, "--no-rekey": w.RekeyOff, "--instance-id=" + m.Instance: m.Instance != "",
		fmt.Sprintf("--max-dirty=%d", w.MaxDirty): w.MaxDirty > 0,
	} {
		if set {
			args = append(args, flag)
		}
	}
	return args
}

// NewProcessRound draws a round of faults that strike processes.
func NewProcessRound(seed uint64, faults int) Round {
	w := NewWorkload(seed, max(4, faults))
	w.Mode = Mode(seed % 2) // wide and ordered: every window can be checked
	w.reshape()
	w.IdleClock, w.DataDir, w.Frame, w.Batch, w.Brokers = false, false, 0, 0, 1
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
	switch n := r.IntN(100); {
	case n < 45:
		return Fault{Kind: Kill, Slot: slot}
	case n < 60:
		return Fault{Kind: Stop, Slot: slot}
	case n < 80:
		return Fault{Kind: Pause, Slot: slot, Hold: ms(300, 4000)}
	case n < 88:
		return Fault{Kind: KillBroker, Node: 1, Hold: ms(100, 1500)}
	case n < 94:
		return Fault{Kind: PauseBroker, Node: 1, Hold: ms(100, 2500)}
	}
	return Fault{Kind: RestartAll}
}

// theatre is the stage of processes.
type theatre struct {
	programs *Programs
	crew     *troupe
	slots    int
	pending  later

	mu   sync.Mutex
	lost error // a broker that could not be brought back
}

// NewStage makes the stage of a round.
func (p *Programs) NewStage(w Workload) Stage {
	return &theatre{programs: p, slots: w.Replicas, crew: &troupe{programs: p, workload: w, slots: make(map[int]*process), started: make(map[int]int)}}
}

func (t *theatre) Addrs() []string { return t.programs.Brokers.Addrs() }

func (t *theatre) Start() error {
	for slot := range t.slots {
		if err := t.crew.start(slot); err != nil {
			return err
		}
	}
	return nil
}

// Inject lets a fault strike.
func (t *theatre) Inject(f Fault) error {
	b := t.programs.Brokers
	switch f.Kind {
	case Kill:
		t.crew.kill(f.Slot)
		return t.crew.start(f.Slot)
	case Stop:
		t.crew.stop(f.Slot, true)
	case Pause:
		t.crew.pause(f.Slot)
		t.pending.after(f.Hold, func() { t.crew.resume(f.Slot) })
	case RestartAll:
		for slot := range t.slots {
			t.crew.kill(slot)
		}
		return t.Start()
	case KillBroker:
		if err := b.Kill(int(f.Node)); err != nil {
			return err
		}
		t.pending.after(f.Hold, func() { t.back(b.Revive(int(f.Node))) })
	case PauseBroker:
		if err := b.Pause(int(f.Node)); err != nil {
			return err
		}
		t.pending.after(f.Hold, func() { t.back(b.Resume(int(f.Node))) })
	default:
		return fmt.Errorf("inject %q: not a fault of processes", f.Kind)
	}
	return nil
}

func (t *theatre) back(err error) {
	t.mu.Lock()
	t.lost = errors.Join(t.lost, err)
	t.mu.Unlock()
}

// Heal brings everything back.
func (t *theatre) Heal() error {
	t.pending.now()
	t.mu.Lock()
	err := t.lost
	t.mu.Unlock()
	return errors.Join(err, t.Start())
}

// Troubles are replicas that ended by themselves.
func (t *theatre) Troubles() []error { return t.crew.troubles() }

// Finish stops all replicas in order.
func (t *theatre) Finish() { t.crew.close() }

// Close ends what is left.
func (t *theatre) Close() {
	t.pending.now()
	t.crew.close()
}

// troupe is a crew of processes.
type troupe struct {
	programs *Programs
	workload Workload

	mu      sync.Mutex
	slots   map[int]*process
	started map[int]int
	ended   []error
	closed  bool
	all     sync.WaitGroup
}

// process is one replica.
type process struct {
	cmd  *exec.Cmd
	gone bool // it was told to end, or killed
	done chan struct{}
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
	m := Member{Brokers: t.programs.Brokers.Addrs(), ClientID: fmt.Sprintf("%s%d.%d", clientPrefix, slot, t.started[slot]), Workload: t.workload}
	if t.workload.Static {
		m.Instance = fmt.Sprintf("slot-%d", slot)
	}
	p := &process{cmd: t.programs.Processor(m), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = t.programs.Output, t.programs.Output
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start replica %s: %w", m.ClientID, err)
	}
	t.slots[slot] = p
	t.all.Go(func() { t.wait(slot, p, m.ClientID) })
	return nil
}

// wait notes how a process ends.
func (t *troupe) wait(slot int, p *process, name string) {
	err := p.cmd.Wait()
	close(p.done)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.gone { // told to end it may say that its last checkpoint failed: the next one goes on from the log
		t.ended = append(t.ended, fmt.Errorf("replica %s ended by itself: %w", name, err))
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
