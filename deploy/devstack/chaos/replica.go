package chaos

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/IBM/sarama"

	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

// clientPrefix begins the client ids of replicas: the network's faults strike only them.
const clientPrefix = "klg-"

// Member is everything a replica of a round is started with.
type Member struct {
	Brokers  []string
	ClientID string
	Instance string // static membership; "" without
	Workload Workload
}

// Short time-outs let a round see many faults in little time; their proportions are those of production.
const (
	sessionTimeout = time.Second
	writeTimeout   = 10 * time.Second
	noIdling       = 10_000 * time.Hour // beyond what a clock is stepped by
)

func (w *Workload) session() time.Duration {
	if w.Session > 0 {
		return w.Session
	}
	return sessionTimeout
}

// Processor is the processor of a member.
func (m Member) Processor(log *slog.Logger, now func() time.Time) (*engine.Processor, error) {
	w := m.Workload
	emit := window.OnUpdate
	if w.OnClose {
		emit = window.OnClose
	}
	job, err := activity.New(activity.Config{
		Windows: w.Windows, AllowedLateness: w.Lateness, Emit: emit,
		Group: w.group(), Input: w.input(), Output: w.output(), Late: w.late(), Dead: w.dead(),
	})
	if err != nil {
		return nil, err
	}
	kafka := sarama.NewConfig()
	kafka.ClientID = m.ClientID
	kafka.Metadata.RefreshFrequency = time.Second
	c := engine.Config{
		Brokers: m.Brokers, Kafka: kafka, InstanceID: m.Instance,
		CommitInterval: w.Commit, MaxDirty: w.MaxDirty, ShareKeys: w.Share, DecodedKeys: w.Decoded, FrameRecords: w.Frame, MaxBatch: w.Batch,
		Bound: w.Bound, IdleTimeout: noIdling, Idle: engine.IdleHold, MaxFutureSkew: cmp.Or(w.Skew, -1), MaxKeys: w.MaxKeys, RekeyOff: w.RekeyOff,
		HotStandby: w.Standby, SessionTimeout: w.session(), WriteTimeout: writeTimeout, Backoff: 20 * time.Millisecond, MaxBackoff: 300 * time.Millisecond,
		Now: now, Logger: log,
	}
	if w.IdleClock {
		c.Idle, c.IdleTimeout = engine.IdleClock, 300*time.Millisecond
	}
	return engine.New(c, job)
}

// crew is the replicas of a round. A slot holds at most one replica at a time.
type crew interface {
	start(slot int) error
	stop(slot int, again bool) // in order, and starts another when it has ended; does not wait
	kill(slot int)
	pause(slot int)
	resume(slot int)
	step(slot int, by time.Duration) // the slot's clock; 0 sets it right
	client(slot int) string          // client id of the slot's replica
	troubles() []error               // replicas that ended by themselves
	close()                          // stops all and waits
}

// team is a crew within this process.
type team struct {
	wire     *wire
	brokers  []string
	workload Workload
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex
	slots   map[int]*replica
	clocks  map[int]*atomic.Int64 // by how much the clock of a slot's machine is wrong, ns
	started map[int]int
	ended   []error
	closed  bool
	all     sync.WaitGroup
	linger  *sync.WaitGroup // killed ones: they end when their write times out
}

// replica is one processor.
type replica struct {
	client string
	cancel context.CancelFunc
	held   []*rule
	done   chan struct{}
	gone   bool // it is meant to end
	killed bool
}

func newTeam(e *embedded, w Workload, b *Bench) *team {
	return &team{
		wire: e.wire, brokers: e.addrs(), workload: w, log: b.Log, now: b.Now, slots: make(map[int]*replica),
		clocks: make(map[int]*atomic.Int64), started: make(map[int]int), linger: &b.linger,
	}
}

func (t *team) start(slot int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[slot] != nil {
		return nil
	}
	return t.launch(slot)
}

// launch starts a replica; the caller holds mu.
func (t *team) launch(slot int) error {
	t.started[slot]++
	r := &replica{client: fmt.Sprintf("%s%d.%d", clientPrefix, slot, t.started[slot])}
	m := Member{Brokers: t.brokers, ClientID: r.client, Workload: t.workload}
	if t.workload.Static {
		m.Instance = fmt.Sprintf("slot-%d", slot)
	}
	p, err := m.Processor(t.log.With("replica", r.client), t.clock(slot))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	t.slots[slot] = r
	r.done = make(chan struct{})
	t.all.Add(1)
	go func() {
		err := p.Run(ctx)
		close(r.done)
		t.mu.Lock()
		defer t.mu.Unlock()
		if !r.gone {
			t.ended = append(t.ended, fmt.Errorf("replica %s ended by itself: %w", r.client, err))
			if t.slots[slot] == r {
				delete(t.slots, slot)
			}
		}
		if !r.killed {
			t.all.Done()
		}
	}()
	return nil
}

// clock is the clock of a slot's machine; the caller holds mu.
func (t *team) clock(slot int) func() time.Time {
	if t.clocks[slot] == nil {
		t.clocks[slot] = &atomic.Int64{}
	}
	wrong := t.clocks[slot]
	return func() time.Time { return Stepped(t.now(), time.Duration(wrong.Load())) }
}

// Stepped is what a machine tells whose clock was set forward or back, in whole seconds: the wall clock is wrong, while what measures
// distances of time goes on as it did. No method of [time.Time] moves the one without the other, so it is done to its fields: the
// first has a bit for a monotonic reading, 33 bits of seconds and 30 of nanoseconds.
func Stepped(t time.Time, by time.Duration) time.Time {
	const monotonic = 1 << 63
	if wall := (*uint64)(unsafe.Pointer(&t)); *wall&monotonic != 0 { //nolint:gosec // see above; TestSteppedClock holds it
		*wall += uint64(int64(by/time.Second)) << 30
	}
	return t
}

// step makes a slot's clock wrong, or right again.
func (t *team) step(slot int, by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock(slot)
	t.clocks[slot].Store(int64(by))
}

// take removes a slot's replica.
func (t *team) take(slot int) *replica {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.slots[slot]
	delete(t.slots, slot)
	if r != nil {
		r.gone = true
	}
	return r
}

func (t *team) stop(slot int, again bool) {
	r := t.take(slot)
	if r == nil {
		return
	}
	r.cancel()
	if again {
		t.all.Go(func() {
			<-r.done
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

// kill cuts a replica off from everything, and only then ends it: what it still does reaches nobody.
func (t *team) kill(slot int) {
	if r := t.take(slot); r != nil {
		t.wire.isolate(r.client)
		r.cancel()
		t.abandon(r)
	}
}

// abandon does not wait for a replica any more.
func (t *team) abandon(r *replica) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-r.done: // it has ended, or is about to say so
		return
	default:
	}
	r.killed = true
	t.all.Done()
	t.linger.Go(func() { <-r.done })
}

// pause holds everything a replica sends and is sent.
func (t *team) pause(slot int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.slots[slot]; r != nil {
		for _, s := range []side{before, after} {
			r.held = append(r.held, t.wire.add(&rule{client: r.client, side: s, left: -1, hold: time.Hour}))
		}
	}
}

func (t *team) resume(slot int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.slots[slot]; r != nil {
		for _, h := range r.held {
			t.wire.lift(h)
		}
		r.held = nil
	}
}

func (t *team) client(slot int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.slots[slot]; r != nil {
		return r.client
	}
	return ""
}

func (t *team) troubles() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]error(nil), t.ended...)
}

func (t *team) close() {
	t.mu.Lock()
	t.closed = true
	for slot, r := range t.slots {
		r.gone = true
		r.cancel()
		delete(t.slots, slot)
	}
	t.mu.Unlock()
	t.all.Wait()
}
