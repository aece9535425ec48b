package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Gap is how long results were away while something happened to replicas.
type Gap struct {
	// What happened.
	What string
	// Longest is the longest time from an event's acknowledgement to a result that counts it; Typical the median.
	Longest, Typical time.Duration
	// Events is how many were waited for.
	Events int
}

// Gaps is measurements as a Markdown table.
func Gaps(list []Gap) string {
	var b strings.Builder
	b.WriteString("| what happens | events | typical wait | longest wait |\n|---|--:|--:|--:|\n")
	for _, s := range list {
		fmt.Fprintf(&b, "| %s | %d | %d ms | %d ms |\n", s.What, s.Events, s.Typical.Milliseconds(), s.Longest.Milliseconds())
	}
	return b.String()
}

// MeasureGaps lets replicas come and go, in order and not, while an event a beat arrives in each partition, and measures how
// long each waits for a result that counts it. Session is the members' session timeout; quiet is how long nothing happens first.
// Every event must be counted, once; how long that takes is only told.
func (b *Bench) MeasureGaps(ctx context.Context, p *Programs, session, quiet time.Duration) ([]Gap, error) {
	var out []Gap
	for i, static := range []bool{true, false} {
		w := Workload{
			Seed: 1, Partitions: 6, Brokers: 1, Replicas: 3, Static: static, Windows: []string{"tumbling:24h"}, Bound: 1000 * time.Hour,
			Commit: 100 * time.Millisecond, Session: session, Suffix: fmt.Sprintf("-gap-%d-%d", i, b.Now().UnixNano()),
		}
		list, err := b.measureGroup(ctx, p, w, quiet)
		if err != nil {
			return out, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// act is one thing that happens to replicas.
type act struct {
	what string
	do   func(m *metronome) error
}

// acts of a group of static members, and of one without.
func acts(t *troupe, static bool) []act {
	restart := func(end func(int)) func(*metronome) error {
		return func(m *metronome) error {
			for slot := range t.size {
				end(slot)
				if err := errors.Join(t.start(slot), m.caughtUp()); err != nil {
					return err
				}
			}
			return nil
		}
	}
	nothing := act{"nothing", func(*metronome) error { return nil }}
	if static {
		return []act{
			nothing,
			{"rolling restart of 3 static replicas, one after the other (SIGTERM)", restart(t.end)},
			{"the same with SIGKILL", restart(t.kill)},
		}
	}
	return []act{
		nothing,
		{"a fourth replica joins", func(*metronome) error { return t.start(3) }},
		{"it leaves (SIGTERM)", func(*metronome) error { t.end(3); return nil }},
		{"rolling restart of 3 replicas without names (SIGTERM)", restart(t.end)},
		{"one is killed (SIGKILL) and not replaced", func(*metronome) error { t.kill(0); return nil }},
	}
}

func (b *Bench) measureGroup(ctx context.Context, p *Programs, w Workload, quiet time.Duration) ([]Gap, error) {
	stage, err := p.NewStage(w)
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	t := stage.(*theatre).crew //nolint:forcetypeassert // NewStage makes no other
	connect := connecting(p.Brokers.Addrs())
	if err := createTopics(ctx, connect, &w, int16(w.Brokers)); err != nil {
		return nil, err
	}
	m, err := newMetronome(ctx, connect, w, b.Now)
	if err != nil {
		return nil, err
	}
	defer m.stop()
	if err := errors.Join(stage.Start(), m.caughtUp()); err != nil {
		return nil, err
	}
	var out []Gap
	for _, a := range acts(t, w.Static) {
		m.mark()
		if err := errors.Join(a.do(m), m.beats(quiet), m.caughtUp()); err != nil {
			return out, fmt.Errorf("while %s: %w", a.what, err)
		}
		out = append(out, m.gap(a.what))
	}
	return out, errors.Join(t.troubles()...)
}

// beat is the time between two events of a partition.
const beat = 25 * time.Millisecond

// metronome publishes an event a beat to each partition and notes when a result counts it.
type metronome struct {
	ctx       context.Context //nolint:containedctx // of the goroutines, which live as long as the metronome
	cancel    context.CancelFunc
	now       func() time.Time
	w         Workload
	names     []string // per partition: the aircraft whose events it gets
	publisher *publisher
	results   *kgo.Client
	source    *source
	running   sync.WaitGroup

	mu     sync.Mutex
	sent   [][]time.Time // per partition: when its nth event was acknowledged
	seen   []int         // how many are counted
	waits  []time.Duration
	failed error
}

func newMetronome(ctx context.Context, connect connector, w Workload, now func() time.Time) (*metronome, error) {
	m := &metronome{now: now, w: w, source: newSource(w), sent: make([][]time.Time, w.Partitions), seen: make([]int, w.Partitions)}
	m.names = m.source.settlers
	var err error
	if m.publisher, err = newPublisher(connect, w.input()); err != nil {
		return nil, err
	}
	if m.results, err = connect("reader", kgo.ConsumeTopics(w.output()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(10*time.Millisecond)); err != nil {
		m.publisher.close()
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(ctx)
	m.running.Go(m.publish)
	m.running.Go(m.read)
	return m, nil
}

func (m *metronome) stop() {
	m.cancel()
	m.running.Wait()
	m.publisher.close()
	m.results.Close()
}

func (m *metronome) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() == nil {
		m.failed = errors.Join(m.failed, err)
	}
}

func (m *metronome) publish() {
	t := time.NewTicker(beat)
	defer t.Stop()
	for n := 0; m.ctx.Err() == nil; n++ {
		records := make([]record, 0, len(m.names))
		for p, name := range m.names {
			records = append(records, record{int32(p), []byte(name), m.source.event(name, epoch.Add(time.Duration(n)*time.Millisecond), 1)})
		}
		if err := m.publisher.publish(m.ctx, records); err != nil {
			m.fail(err)
			return
		}
		at := m.now()
		m.mu.Lock()
		for p := range m.sent {
			m.sent[p] = append(m.sent[p], at)
		}
		m.mu.Unlock()
		select {
		case <-t.C:
		case <-m.ctx.Done():
		}
	}
}

func (m *metronome) read() {
	for m.ctx.Err() == nil {
		m.results.PollFetches(m.ctx).EachRecord(func(r *kgo.Record) {
			var v result
			if err := json.Unmarshal(r.Value, &v); err != nil {
				m.fail(fmt.Errorf("read result %d@%d: %w", r.Partition, r.Offset, err))
				return
			}
			m.counted(slices.Index(m.names, v.Registration), int(v.Count))
		})
	}
}

// counted notes a result of a partition's aircraft.
func (m *metronome) counted(p, count int) {
	at := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.seen[p] < min(count, len(m.sent[p])) { // a result may come before the acknowledgement of its event: the next one tells
		m.waits = append(m.waits, at.Sub(m.sent[p][m.seen[p]]))
		m.seen[p]++
	}
	if count > len(m.sent[p])+1 && m.failed == nil {
		m.failed = fmt.Errorf("%s: %d events counted, %d sent", m.names[p], count, len(m.sent[p]))
	}
}

// mark begins a measurement.
func (m *metronome) mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waits = nil
}

func (m *metronome) gap(what string) Gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.waits)
	n := len(m.waits)
	return Gap{What: what, Longest: m.waits[n-1], Typical: m.waits[n/2], Events: n}
}

// until waits until something holds of what was sent and seen.
func (m *metronome) until(holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(m.ctx, 2*time.Minute, errors.New("results stay away for two minutes"))
	defer cancel()
	return await(ctx, beat, func() (bool, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return holds(), m.failed
	})
}

// beats waits until events of so long a time were sent.
func (m *metronome) beats(d time.Duration) error {
	n := -1
	return m.until(func() bool {
		if n < 0 {
			n = len(m.sent[0])
		}
		return len(m.sent[0]) >= n+int(d/beat)
	})
}

// caughtUp waits until every event that is sent by now is counted.
func (m *metronome) caughtUp() error {
	n := -1
	return m.until(func() bool {
		if n < 0 {
			n = len(m.sent[0]) + 1
		}
		return slices.Min(m.seen) >= n
	})
}
