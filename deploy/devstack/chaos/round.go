package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"klgstream.dev/processors/engine"
)

// Round is one run of a workload under a schedule.
type Round struct {
	Workload Workload
	Schedule Schedule
}

// NewRound draws a round's workload and schedule for an embedded broker.
func NewRound(seed uint64, faults int) Round {
	w := NewWorkload(seed, max(6, faults))
	return Round{w, NewSchedule(&w, seed, faults)}
}

// Report is what came of a round.
type Report struct {
	Round      Round
	Struck     int // faults injected
	Published  int
	Windows    int // true windows
	Records    int // of the output topic
	Late, Dead int
	Retained   int64 // records of input and loop deleted behind the group
	Violations []Violation
	Took       time.Duration
}

// Failed reports whether anything was wrong.
func (r *Report) Failed() bool { return len(r.Violations) > 0 }

// String is the report for a person: what was wrong, and how to see it again.
func (r *Report) String() string {
	var b strings.Builder
	w := &r.Round.Workload
	fmt.Fprintf(&b, "seed %d: %d events, %d windows, %d results, %d late, %d dead, %d faults, %v\n%s\n", w.Seed, r.Published, r.Windows,
		r.Records, r.Late, r.Dead, r.Struck, r.Took.Round(time.Millisecond), w)
	for i, v := range r.Violations {
		if i == maxShown {
			fmt.Fprintf(&b, "… and %d more\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "%s\n", v)
	}
	return b.String()
}

// maxShown is how many violations a report spells out.
const maxShown = 20

// Bench is where rounds run.
type Bench struct {
	// Log takes what brokers and processors say. Required.
	Log *slog.Logger
	// Now is the processing time. Required.
	Now func() time.Time
	// Dump takes group table and output of rounds that fail. Default none.
	Dump io.Writer
	// Patience is how long a round may take from its flush to the truth. Default 60 s.
	Patience time.Duration
	// Stage makes the broker and the replicas of a round. Default: both in this process.
	Stage func(ctx context.Context, w Workload) (Stage, error)

	linger sync.WaitGroup
}

// Wait returns when the last killed replica has ended.
func (b *Bench) Wait() { b.linger.Wait() }

// Stage is a broker with replicas, and what can be done to them.
type Stage interface {
	// Addrs is where the brokers listen.
	Addrs() []string
	// Start starts the round's replicas.
	Start() error
	// Inject lets a fault strike.
	Inject(f Fault) error
	// Heal ends all faults and fills all slots.
	Heal() error
	// Troubles are replicas that ended by themselves.
	Troubles() []error
	// Finish stops all replicas in order and waits; Close ends the rest.
	Finish()
	Close()
}

// home is the embedded stage.
type home struct {
	*injector
	dir string
}

// newHome makes an embedded stage.
func (b *Bench) newHome(w Workload) (Stage, error) {
	h := &home{}
	if w.DataDir {
		dir, err := os.MkdirTemp("", "klg-chaos-")
		if err != nil {
			return nil, err
		}
		h.dir = dir
	}
	e, err := newEmbedded(w.Brokers, h.dir)
	if err != nil {
		return nil, err
	}
	h.injector = &injector{broker: e, crew: newTeam(e, w, b), slots: w.Replicas, group: w.group()}
	return h, nil
}

func (h *home) Addrs() []string      { return h.broker.addrs() }
func (h *home) Start() error         { return h.fill() }
func (h *home) Inject(f Fault) error { return h.inject(f) }
func (h *home) Heal() error          { return h.heal() }
func (h *home) Troubles() []error    { return h.crew.troubles() }
func (h *home) Finish()              { h.crew.close() }
func (h *home) Close() {
	h.pending.now()
	h.crew.close()
	h.broker.close()
	if h.dir != "" {
		_ = os.RemoveAll(h.dir) // only its own temporary files
	}
}

// Run is one round. An error is the harness's own; what the processors did wrong is in the report.
func (b *Bench) Run(ctx context.Context, r Round) (Report, error) {
	began := b.Now()
	report := Report{Round: r}
	make := b.Stage
	if make == nil {
		make = func(_ context.Context, w Workload) (Stage, error) { return b.newHome(w) }
	}
	stage, err := make(ctx, r.Workload)
	if err != nil {
		return report, fmt.Errorf("set the stage: %w", err)
	}
	defer stage.Close()
	p := &play{bench: b, stage: stage, round: r, report: &report, source: newSource(r.Workload)}
	defer p.close()
	err = p.perform(ctx)
	report.Took = b.Now().Sub(began)
	return report, err
}

// play is a round in progress.
type play struct {
	bench       *Bench
	stage       Stage
	round       Round
	report      *Report
	source      *source
	publisher   *publisher
	reader      *reader
	definitions []definition
	tails       map[string]*tail
	shelf       *shelf
	shelved     int
	seen        map[windowID]int64 // revisions that the store had
	truth       *Truth
}

func (p *play) close() {
	for _, t := range p.tails {
		t.close()
	}
	if p.publisher != nil {
		p.publisher.close()
	}
	if p.reader != nil {
		p.reader.close()
	}
}

// perform is the round from the first topic to the last word.
func (p *play) perform(ctx context.Context) error {
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if err := p.steps(ctx); err != nil {
		return err
	}
	if err := p.stage.Heal(); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	if err := p.publisher.publish(ctx, p.source.flush()); err != nil {
		return err
	}
	if err := p.readTruth(ctx); err != nil {
		return err
	}
	wrong, err := p.settle(ctx)
	if err != nil {
		return err
	}
	if len(wrong) == 0 {
		if wrong, err = p.settleStore(ctx); err != nil {
			return err
		}
	}
	p.stage.Finish()
	if len(wrong) == 0 { // stopping in order may still publish, and must change nothing
		if wrong, err = p.look(ctx); err != nil {
			return err
		}
		stored, err := p.lookStore(ctx)
		if err != nil {
			return err
		}
		wrong = append(wrong, stored...)
	}
	for _, t := range p.stage.Troubles() {
		p.report.Violations = append(p.report.Violations, Violation{"refused", t.Error()})
	}
	p.report.Violations = append(p.report.Violations, wrong...)
	if p.report.Failed() && p.bench.Dump != nil {
		return p.dump(ctx, p.bench.Dump)
	}
	return nil
}

func (p *play) prepare(ctx context.Context) (err error) {
	w := &p.round.Workload
	for _, name := range w.Windows {
		d, err := parseDefinition(name)
		if err != nil {
			return err
		}
		p.definitions = append(p.definitions, d)
	}
	connect := connecting(p.stage.Addrs())
	if err := createTopics(ctx, connect, w, int16(w.Brokers)); err != nil {
		return err
	}
	if p.publisher, err = newPublisher(connect, w.input()); err != nil {
		return err
	}
	if p.reader, err = newReader(connect); err != nil {
		return err
	}
	p.shelf, p.tails = newShelf(), make(map[string]*tail)
	for _, topic := range []string{w.input(), w.output(), w.late(), w.dead()} {
		if p.tails[topic], err = newTail(connect, topic); err != nil {
			return err
		}
	}
	return p.stage.Start()
}

// steps publishes and breaks things. The next step waits until the group has moved on, but not for ever: it may be broken.
func (p *play) steps(ctx context.Context) error {
	w, schedule := &p.round.Workload, p.round.Schedule
	if err := p.publisher.publish(ctx, p.source.opening()); err != nil {
		return err
	}
	for step := range w.Steps {
		if err := p.publisher.publish(ctx, p.source.step()); err != nil {
			return err
		}
		for len(schedule) > 0 && schedule[0].Step <= step {
			p.bench.Log.Info("fault", "fault", schedule[0].String())
			if err := p.inject(ctx, schedule[0]); err != nil {
				return fmt.Errorf("inject %q: %w", schedule[0], err)
			}
			p.report.Struck++
			schedule = schedule[1:]
		}
		p.breathe(ctx)
		p.glance(ctx)
	}
	return nil
}

// inject lets a fault strike.
func (p *play) inject(ctx context.Context, f Fault) error {
	if f.Kind != Retain {
		return p.stage.Inject(f)
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	w := &p.round.Workload
	var last error
	err := await(ctx, 50*time.Millisecond, func() (bool, error) {
		var ends map[int32]int64
		if ends, last = p.reader.ends(ctx, w.input()); last == nil {
			last = p.tails[w.input()].to(ctx, ends) // the truth is of the whole log (X1)
		}
		if last == nil {
			var n int64
			n, last = p.reader.retain(ctx, w)
			p.report.Retained += n
		}
		return last == nil, nil // the faults strike here too: it is tried again
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// breath is how long a step waits for progress at most.
const breath = 400 * time.Millisecond

// breathe waits until the group has committed something more.
func (p *play) breathe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, breath)
	defer cancel()
	was := int64(-1)
	_ = await(ctx, 20*time.Millisecond, func() (bool, error) {
		at, _, err := p.reader.progress(ctx, &p.round.Workload)
		if err != nil {
			return false, nil //nolint:nilerr // the faults strike here too: it is tried again
		}
		if was < 0 {
			was = at
		}
		return at > was, nil
	})
}

// readTruth reads the input log back (X1).
func (p *play) readTruth(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	w := &p.round.Workload
	t := p.tails[w.input()]
	ends, err := p.reader.ends(ctx, w.input())
	if err == nil {
		err = t.to(ctx, ends)
	}
	if err != nil {
		return fmt.Errorf("read the input back: %w", err)
	}
	sortRecords(t.records)
	var homeOf func(string) int32
	if w.RekeyOff {
		homeOf = func(name string) int32 { return engine.PartitionOf([]byte(name), w.Partitions) }
	}
	p.truth = newTruth(t.records, p.definitions, homeOf)
	p.report.Published, p.report.Windows = p.truth.published, len(p.truth.windows)
	return nil
}

func (p *play) patience() time.Duration {
	if p.bench.Patience > 0 {
		return p.bench.Patience
	}
	return time.Minute
}

// grace is how long results may still change after everything is committed: the watermark travels between partitions.
const grace = 5 * time.Second

// settle waits until the truth is there, or nothing moves any more, or patience ends.
func (p *play) settle(ctx context.Context) ([]Violation, error) {
	limited, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	var wrong []Violation
	var quiet time.Time // since when everything is committed
	err := await(limited, 50*time.Millisecond, func() (bool, error) {
		if len(p.stage.Troubles()) > 0 { // nobody restarts what has ended by itself
			return true, nil
		}
		_, all, err := p.reader.progress(limited, &p.round.Workload)
		if err != nil {
			return false, nil //nolint:nilerr // the faults strike here too: it is tried again
		}
		if wrong, err = p.look(limited); err != nil {
			return false, nil //nolint:nilerr // the faults strike here too: it is tried again
		}
		if !all {
			quiet = time.Time{}
			return false, nil
		}
		if quiet.IsZero() {
			quiet = p.bench.Now()
		}
		return len(wrong) == 0 || p.bench.Now().Sub(quiet) > grace, nil
	})
	if err != nil && ctx.Err() == nil {
		at, all, e := p.reader.progress(ctx, &p.round.Workload)
		wrong = append(wrong, Violation{"stuck", fmt.Sprintf("after %v: everything committed %v (at %d, %v)", p.patience(), all, at, e)})
		return wrong, nil
	}
	return wrong, err
}

// look reads what there is now and checks it.
func (p *play) look(ctx context.Context) ([]Violation, error) {
	w := &p.round.Workload
	for topic, t := range p.tails {
		if topic == w.input() {
			continue
		}
		ends, err := p.reader.ends(ctx, topic)
		if err == nil {
			err = t.to(ctx, ends)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read %s", topic), err)
		}
	}
	out := p.tails[w.output()].records
	for ; p.shelved < len(out); p.shelved++ {
		p.shelf.put(&out[p.shelved])
	}
	late, dead := p.tails[w.late()].records, p.tails[w.dead()].records
	p.report.Records, p.report.Late, p.report.Dead = len(out), len(late), len(dead)
	return check(w, p.definitions, p.truth, p.shelf, late, dead, p.source.flushed()), nil
}
