package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// stateCmd looks at the state of the processor and moves it.
type stateCmd struct {
	Inspect stateInspectCmd `cmd:"" help:"Show what is known of one aircraft, or how much state each partition has."`
	Export  stateExportCmd  `cmd:"" help:"Write the state of a stopped group, with its positions, as JSON lines."`
	Import  stateImportCmd  `cmd:"" help:"Give an exported state to a new group, whose topics may have more partitions: the next processor goes on exactly."`
}

// openState connects to the broker.
func openState(k Kafka, n Names) (*engine.StateLog, error) {
	c := clientConfig(k)
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	client, err := sarama.NewClient(k.Brokers, c)
	if err != nil {
		return nil, fmt.Errorf("connect to broker %q (set --brokers or REDPANDA_BROKERS): %w", k.Brokers, err)
	}
	return &engine.StateLog{Client: client, Group: n.Group, Input: n.Input}, nil
}

// stateInspectCmd shows state. Processors may run.
type stateInspectCmd struct {
	Key   string `arg:"" optional:"" help:"Registration number; without it, totals per partition."`
	Kafka `group:"kafka"`
	Names `group:"names"`
}

func (c *stateInspectCmd) check() error { return checkAll(&c.Kafka, &c.Names) }

// Run shows one key as JSON or totals as a table.
func (c *stateInspectCmd) Run(ctx context.Context, a *app) error {
	state, err := openState(c.Kafka, c.Names)
	if err != nil {
		return err
	}
	defer state.Client.Close()
	partitions, err := state.Client.Partitions(c.table())
	if err != nil {
		return fmt.Errorf("describe topic %q: %w", c.table(), err)
	}
	if c.Key == "" {
		return c.totals(ctx, a, state, partitions)
	}
	c.Key = strings.ToUpper(strings.TrimSpace(c.Key)) // as an event's is
	home := engine.PartitionOf([]byte(c.Key), int32(len(partitions)))
	var found []byte
	if err := state.Records(ctx, home, func(key string, record []byte) error {
		if key == c.Key {
			found = record
		}
		return nil
	}); err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("inspect %q: %s/%d has no state of it", c.Key, c.table(), home)
	}
	view, err := decodeState(c.Key, home, found)
	if err != nil {
		return fmt.Errorf("inspect %q: %w", c.Key, err)
	}
	out := json.NewEncoder(a.stdout)
	out.SetIndent("", "  ")
	return out.Encode(view)
}

func (c *stateInspectCmd) totals(ctx context.Context, a *app, state *engine.StateLog, partitions []int32) error {
	members, status, err := state.Members()
	if err != nil {
		return err
	}
	checkpoint, err := state.Checkpoint()
	if err != nil {
		fmt.Fprintln(a.stderr, "positions:", err)
	}
	fmt.Fprintf(a.stdout, "group %s: %d members (%s)\n", c.Group, members, cmp.Or(status, "unknown"))
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "PARTITION\tKEYS\tBYTES\tINPUT\tLOOP\tTABLE\tWATERMARK\t")
	var sumKeys, sumBytes int
	for _, p := range partitions {
		keys, bytes := 0, 0
		if err := state.Records(ctx, p, func(_ string, record []byte) error {
			keys, bytes = keys+1, bytes+len(record)
			return nil
		}); err != nil {
			return err
		}
		sumKeys, sumBytes = sumKeys+keys, sumBytes+bytes
		at := engine.StatePosition{Input: -1, Loop: -1, Table: -1, Watermark: codecs.NoTime}
		if int(p) < len(checkpoint.Positions) {
			at = checkpoint.Positions[p]
		}
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", p, keys, bytes, at.Input, at.Loop, at.Table, cmp.Or(timeText(at.Watermark), "-"))
	}
	fmt.Fprintf(table, "all\t%d\t%d\t\t\t\t\t\n", sumKeys, sumBytes)
	return table.Flush()
}

// timeText is an event time as text, "" if there is none.
func timeText(ms int64) string {
	if ms == codecs.NoTime || ms == codecs.NoDue {
		return ""
	}
	return string(codecs.AppendTime(nil, ms))
}

// stateView is one key's record as JSON.
type stateView struct {
	Key       string            `json:"key"`
	Partition int32             `json:"partition"`
	Fences    []sourceView      `json:"fences"`           // last offset applied, per source partition
	Purged    string            `json:"purged,omitempty"` // watermark of the last purge
	Due       string            `json:"due,omitempty"`    // when a window of it has something to say
	Undecided []sourceView      `json:"undecided,omitempty"`
	Bytes     int               `json:"bytes"`
	Summary   *aggregateView    `json:"summary,omitempty"`
	Windows   []*definitionView `json:"definitions,omitempty"`
	State     []byte            `json:"state,omitempty"` // base64, if it is not the state of this job
}

type definitionView struct {
	Definition string           `json:"definition"`
	Slices     []*aggregateView `json:"slices"`
	Withdrawn  []withdrawnView  `json:"withdrawn,omitempty"`
}

type sourceView struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

func sourceViews(sources []codecs.Source) []sourceView {
	all := make([]sourceView, 0, len(sources))
	for _, s := range sources {
		all = append(all, sourceView{s.Partition, s.Offset})
	}
	return all
}

type withdrawnView struct {
	Start    string `json:"start"`
	End      string `json:"end"`
	Revision int64  `json:"revision"`
}

type aggregateView struct {
	Start      string           `json:"start,omitempty"`
	End        string           `json:"end,omitempty"`
	Closed     bool             `json:"closed,omitempty"`
	Count      int64            `json:"count"`
	Types      map[string]int64 `json:"types"`
	First      string           `json:"first_event_time,omitempty"`
	Last       string           `json:"last_event_time,omitempty"`
	LastType   string           `json:"last_event_type,omitempty"`
	AircraftID *int64           `json:"aircraft_id,omitempty"`

	known codecs.Aggregate
}

func (v *aggregateView) fill() {
	a := &v.known
	v.Types = make(map[string]int64, len(a.Types))
	for _, t := range a.Types {
		v.Types[t.Type] = t.Count
	}
	if a.Empty() {
		return
	}
	v.First, v.Last, v.LastType = timeText(a.First), timeText(a.Last), a.LastType
	if a.HasAircraftID {
		v.AircraftID = &a.AircraftID
	}
}

// decodeState reads a record of the group table.
func decodeState(key string, partition int32, record []byte) (*stateView, error) {
	var env codecs.Envelope
	if err := env.Parse(record); err != nil {
		return nil, err
	}
	v := &stateView{
		Key: key, Partition: partition, Fences: sourceViews(env.Sources), Purged: timeText(env.Purged), Due: timeText(env.Due),
		Undecided: sourceViews(env.Undecided), Bytes: len(record),
	}
	if err := codecs.ParseState(env.State, nil, stateVisitor{v}); err != nil {
		v.Summary, v.Windows, v.State = nil, nil, env.State
		return v, nil //nolint:nilerr // another job's state is shown as it is
	}
	if v.Summary != nil {
		v.Summary.fill()
	}
	for _, d := range v.Windows {
		for _, s := range d.Slices {
			s.fill()
		}
	}
	return v, nil
}

// stateVisitor fills a stateView.
type stateVisitor struct{ *stateView }

// Summary implements [codecs.StateVisitor].
func (v stateVisitor) Summary(total int64) *codecs.Aggregate {
	v.stateView.Summary = &aggregateView{Count: total}
	return &v.stateView.Summary.known
}

// Definition implements [codecs.StateVisitor].
func (v stateVisitor) Definition(name []byte) bool {
	v.Windows = append(v.Windows, &definitionView{Definition: string(name)})
	return true
}

// Slice implements [codecs.StateVisitor].
func (v stateVisitor) Slice(s codecs.Slice) *codecs.Aggregate {
	d := v.Windows[len(v.Windows)-1]
	slice := &aggregateView{Start: timeText(s.Start), End: timeText(s.End), Count: s.Count, Closed: s.Closed}
	d.Slices = append(d.Slices, slice)
	return &slice.known
}

// Withdrawn implements [codecs.StateVisitor].
func (v stateVisitor) Withdrawn(w codecs.Withdrawn) {
	d := v.Windows[len(v.Windows)-1]
	d.Withdrawn = append(d.Withdrawn, withdrawnView{timeText(w.Start), timeText(w.End), w.Revision})
}

// stateFormat is the version of the export's format.
const stateFormat = 1

// stateLine is one line of an export: the first says what it is, the last that it is whole.
type stateLine struct {
	Format     int                `json:"klgstream_state,omitempty"` // first line
	Group      string             `json:"group,omitempty"`
	Input      string             `json:"input,omitempty"`
	Checkpoint *engine.Checkpoint `json:"checkpoint,omitempty"`

	Key    []byte            `json:"key,omitempty"` // base64, as what follows
	Name   string            `json:"name,omitempty"`
	State  []byte            `json:"state,omitempty"`
	Event  *engine.LoopEvent `json:"event,omitempty"`  // re-keyed, not counted yet
	Totals *stateTotals      `json:"totals,omitempty"` // last line
}

type stateTotals struct {
	Keys   int `json:"keys"`
	Events int `json:"events"`
}

// stateExportCmd writes state to a file.
type stateExportCmd struct {
	File  string `arg:"" help:"File to write; - is the standard output."`
	Kafka `group:"kafka"`
	Names `group:"names"`
}

func (c *stateExportCmd) check() error { return checkAll(&c.Kafka, &c.Names) }

// Run writes the file whole or not at all.
func (c *stateExportCmd) Run(ctx context.Context, a *app) error {
	state, err := openState(c.Kafka, c.Names)
	if err != nil {
		return err
	}
	defer state.Client.Close()
	if c.File == "-" {
		_, err := exportState(ctx, state, a.stdout)
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(c.File), ".klgstream-state-*")
	if err != nil {
		return &createError{fmt.Errorf("create export: %w", err)}
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it is renamed if all is well
	totals, err := exportState(ctx, state, file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), c.File); err != nil {
		return &createError{fmt.Errorf("name export: %w", err)}
	}
	fmt.Fprintf(a.stdout, "exported %d keys and %d events in the loop of group %s to %s\n", totals.Keys, totals.Events, c.Group, c.File)
	return nil
}

// exportState writes the state of a group that was stopped at a checkpoint.
func exportState(ctx context.Context, state *engine.StateLog, w io.Writer) (stateTotals, error) {
	var totals stateTotals
	if err := state.Stopped(); err != nil {
		return totals, err
	}
	checkpoint, err := state.Checkpoint()
	if err != nil {
		return totals, err
	}
	if err := state.Clean(checkpoint); err != nil {
		return totals, err
	}
	buffered := bufio.NewWriterSize(w, 1<<16)
	out := json.NewEncoder(buffered)
	if err := out.Encode(stateLine{Format: stateFormat, Group: state.Group, Input: state.Input, Checkpoint: &checkpoint}); err != nil {
		return totals, fmt.Errorf("write export: %w", err)
	}
	for _, at := range checkpoint.Positions {
		if err := exportPartition(ctx, state, checkpoint, at, out, &totals); err != nil {
			return totals, err
		}
	}
	// A processor that started meanwhile has made it worthless.
	if err := errors.Join(state.Stopped(), state.Clean(checkpoint)); err != nil {
		return totals, err
	}
	if err := errors.Join(out.Encode(stateLine{Totals: &totals}), buffered.Flush()); err != nil {
		return totals, fmt.Errorf("write export: %w", err)
	}
	return totals, nil
}

func exportPartition(ctx context.Context, state *engine.StateLog, c engine.Checkpoint, at engine.StatePosition, out *json.Encoder, totals *stateTotals) error {
	err := state.Records(ctx, at.Partition, func(key string, record []byte) error {
		record, err := c.Settled(at.Partition, key, record)
		if err != nil {
			return err
		}
		totals.Keys++
		return out.Encode(stateLine{Key: []byte(key), Name: key, State: record})
	})
	if err != nil {
		return err
	}
	return state.Unread(ctx, at, func(e engine.LoopEvent) error {
		totals.Events++
		return out.Encode(stateLine{Event: &e})
	})
}

// stateImportCmd gives state to a new group.
type stateImportCmd struct {
	File   string `arg:"" help:"File that export wrote; - is the standard input."`
	DryRun bool   `help:"Only check the file, the group and the topics." group:"command"`
	Kafka  `group:"kafka"`
	Names  `group:"names"`
}

func (c *stateImportCmd) check() error { return checkAll(&c.Kafka, &c.Names) }

// Run reads the file twice: all of it is known to be right before anything is written.
func (c *stateImportCmd) Run(ctx context.Context, a *app) error {
	state, err := openState(c.Kafka, c.Names)
	if err != nil {
		return err
	}
	defer state.Client.Close()
	file, err := c.read(a)
	if err != nil {
		return err
	}
	defer file.close()
	m, err := newStateMove(state, file)
	if err != nil {
		return fmt.Errorf("import %s: %w", c.File, err)
	}
	if c.DryRun {
		fmt.Fprintf(a.stdout, "%d keys and %d events can be imported\n", m.totals.Keys, m.totals.Events)
		return nil
	}
	if err := m.write(ctx, c.Kafka, c.Names); err != nil {
		return fmt.Errorf("import %s: %w", c.File, err)
	}
	fmt.Fprintf(a.stdout, "imported %d keys and %d events in the loop from group %s with %d partitions into group %s with %d\n",
		m.totals.Keys, m.totals.Events, m.head.Group, m.head.Checkpoint.Partitions, c.Group, m.checkpoint.Partitions)
	return nil
}

// stateFile is an export that can be read twice.
type stateFile struct {
	*os.File

	close func()
}

// read opens the file; the standard input is kept in one.
func (c *stateImportCmd) read(a *app) (stateFile, error) {
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return stateFile{}, fmt.Errorf("open export: %w", err)
		}
		return stateFile{f, func() { _ = f.Close() }}, nil
	}
	f, err := os.CreateTemp("", "klgstream-state-*")
	if err != nil {
		return stateFile{}, fmt.Errorf("keep export: %w", err)
	}
	file := stateFile{f, func() { _, _ = f.Close(), os.Remove(f.Name()) }}
	if _, err := io.Copy(f, a.stdin); err != nil {
		file.close()
		return stateFile{}, fmt.Errorf("keep export: %w", err)
	}
	return file, nil
}

// stateMove is one import.
type stateMove struct {
	state      *engine.StateLog
	file       stateFile
	head       stateLine
	totals     stateTotals
	checkpoint engine.Checkpoint   // of the new group
	events     []*engine.LoopEvent // in the order of their sources
}

// newStateMove checks the file, then the group and the topics.
func newStateMove(state *engine.StateLog, file stateFile) (*stateMove, error) {
	m := &stateMove{state: state, file: file}
	if err := m.survey(); err != nil {
		return nil, &dataError{err}
	}
	if m.head.Input != state.Input {
		return nil, fmt.Errorf("it counts %q, and --input-topic is %q", m.head.Input, state.Input)
	}
	partitions, err := state.Client.Partitions(state.Input)
	if err != nil {
		return nil, fmt.Errorf("describe topic %q: %w", state.Input, err)
	}
	if m.checkpoint, err = m.head.Checkpoint.Spread(int32(len(partitions))); err != nil {
		return nil, err
	}
	// The fence of the loop is one offset per source: what came in several loops of the old group must come in its order.
	slices.SortStableFunc(m.events, func(a, b *engine.LoopEvent) int {
		return cmp.Or(cmp.Compare(a.Source.Partition, b.Source.Partition), cmp.Compare(a.Source.Offset, b.Source.Offset))
	})
	return m, state.Vacant(m.checkpoint)
}

// survey reads the file to its end.
func (m *stateMove) survey() error {
	whole := false
	err := m.lines(func(n int, l *stateLine) error {
		switch {
		case n == 1:
			if l.Format != stateFormat || l.Checkpoint == nil || len(l.Checkpoint.Positions) != int(l.Checkpoint.Partitions) {
				return fmt.Errorf("not an export of format %d", stateFormat)
			}
			m.head = *l
		case whole:
			return errors.New("there is more behind its last line")
		case l.Totals != nil:
			if whole = true; *l.Totals != m.totals {
				return fmt.Errorf("it has %+v, and should have %+v", m.totals, *l.Totals)
			}
		case l.Event != nil:
			m.totals.Events++
			m.events = append(m.events, l.Event)
		default:
			m.totals.Keys++
			var env codecs.Envelope
			if len(l.Key) == 0 {
				return errors.New("a state without a key")
			}
			return env.Parse(l.State)
		}
		return nil
	})
	if err != nil && m.head.Format != stateFormat {
		return fmt.Errorf("not a file that klgstream state export wrote: %w", err)
	}
	return errors.Join(err, m.complete(&whole))
}

func (m *stateMove) complete(whole *bool) error {
	if *whole {
		return nil
	}
	return errors.New("it is cut off: its last line is missing")
}

// lines calls do with every line and its number, from 1.
func (m *stateMove) lines(do func(n int, l *stateLine) error) error {
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	in := json.NewDecoder(bufio.NewReaderSize(m.file, 1<<16))
	in.DisallowUnknownFields()
	for n := 1; ; n++ {
		var l stateLine
		if err := in.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := do(n, &l); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// write writes states, then events, then the positions: before these are there, the group does not exist.
func (m *stateMove) write(ctx context.Context, k Kafka, n Names) error {
	err := publishAll(ctx, k, n.table(), func(send func(record) error) error {
		return m.lines(func(_ int, l *stateLine) error {
			if len(l.Key) == 0 {
				return ctx.Err()
			}
			return send(record{key: string(l.Key), value: l.State})
		})
	})
	if err != nil {
		return err
	}
	err = publishAll(ctx, k, n.loop(), func(send func(record) error) error {
		for _, e := range m.events {
			r := record{key: string(e.Key), value: e.Value}
			for _, h := range e.Headers() {
				r.headers = append(r.headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
			}
			if err := send(r); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return m.state.Commit(m.checkpoint)
}

// publishAll publishes what produce sends and waits until all of it is acknowledged.
func publishAll(ctx context.Context, k Kafka, topic string, produce func(send func(record) error) error) error {
	p, err := newPublisher(k, topic)
	if err != nil {
		return err
	}
	r := &replayer{}
	err = produce(func(rec record) error {
		r.sent.Add(1)
		return p.send(ctx, rec, r.done)
	})
	_ = p.Close() // always nil: what was not acknowledged is counted
	if err == nil {
		err = r.failure()
	}
	if n := r.acknowledged.Load(); err == nil && n != r.sent.Load() {
		err = fmt.Errorf("write %s: %d of %d records are acknowledged", topic, n, r.sent.Load())
	}
	return err
}
