package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack/bench"
	"klgstream.dev/views"
	"klgstream.dev/views/sink"
)

// benchSinkCmd measures the sink against its store.
type benchSinkCmd struct {
	BenchTarget `group:"command"`
	Events      int      `default:"500000" placeholder:"N" help:"Results in the topic of a round: several revisions of each window, or one with more aircraft than results. Default ${default}." group:"events"`
	Keys        int      `default:"5000" placeholder:"N" help:"Aircraft. Default ${default}." group:"events"`
	Partitions  int      `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}." group:"events"`
	StoreURL    []string `name:"bench-store" secret:"url" placeholder:"URL" help:"Stores to load, repeatable, from postgresql://…; their tables are written to and must be empty. Default: SQLite in a temporary file." group:"command"`
	BatchRows   int      `default:"2000" placeholder:"N" help:"Rows of one write. Default ${default}." group:"command"`
	Rounds      int      `default:"2" placeholder:"N" help:"How often; every other round begins with the sink. Default ${default}." group:"command"`
}

func (c *benchSinkCmd) check() error {
	faults := []error{
		c.BenchTarget.check(), atLeast("events", c.Events, 1), atLeast("keys", c.Keys, 1), atLeast("partitions", c.Partitions, 1),
		atLeast("batch-rows", c.BatchRows, 1), atLeast("rounds", c.Rounds, 1),
	}
	for _, u := range c.StoreURL {
		faults = append(faults, (&Store{StoreURL: u}).check())
	}
	return errors.Join(faults...)
}

// sinkFigures is one round on one store.
type sinkFigures struct {
	Store     string  `json:"store"`
	Rows      int     `json:"rows"`
	SinkFirst bool    `json:"sink_first"`
	Bare      float64 `json:"bare_rows_per_second"` // a loop of writes of the same rows in the same batches by as many writers
	Sink      float64 `json:"sink_rows_per_second"` // from the topic: from its first write until its offsets are committed
	BareCPU   float64 `json:"bare_cpu_seconds"`     // of this process: neither of the database nor of the broker
	SinkCPU   float64 `json:"sink_cpu_seconds"`
	Wrong     int     `json:"wrong_rows"` // in the store behind the sink
}

// Run measures every store and prints a table. It fails if a row is wrong.
func (c *benchSinkCmd) Run(ctx context.Context, a *app) error {
	var all []sinkFigures
	err := bench.WithBroker(ctx, c.brokers(a), func(brokers []string) error {
		stores := c.StoreURL
		if len(stores) == 0 {
			stores = []string{""}
		}
		for round := range c.Rounds {
			for _, url := range stores {
				if err := onRig(ctx, brokers, "sink", c.Partitions, func(r *rig) error {
					f, err := c.load(ctx, a, r, url, round)
					all = append(all, f)
					return err
				}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(c.print(a, all), c.save(struct {
		Environment bench.Environment `json:"environment"`
		Rounds      []sinkFigures     `json:"rounds"`
	}{bench.Here(c.brokers(a)), all}))
}

// results are the rows of a round, of a definition that nothing else has: one database takes all rounds, and a row that is there
// already is written faster. It is a tumbling one, because stores add up such windows.
func (c *benchSinkCmd) results(what string, round int) []codecs.Window {
	rows := bench.Shape{Events: c.Events, Keys: c.Keys, Partitions: c.Partitions}.WithDefaults().Results()
	for i := range rows {
		rows[i].Definition = fmt.Sprintf("tumbling:1h/%s/%d", what, round)
	}
	return rows
}

// load writes the same results twice, bare and through the sink. Whatever is written second meets a larger table and a disk that
// is busy with the first, so that the rounds take turns.
func (c *benchSinkCmd) load(ctx context.Context, a *app, r *rig, url string, round int) (f sinkFigures, err error) {
	dir, err := os.MkdirTemp("", "klgstream-bench-")
	if err != nil {
		return f, fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f.SinkFirst = round%2 == 1
	first := func() error { return c.loadBare(ctx, url, filepath.Join(dir, "bare.db"), round, &f) }
	second := func() error { return c.loadSink(ctx, a, r, url, filepath.Join(dir, "sink.db"), round, &f) }
	if f.SinkFirst {
		first, second = second, first
	}
	if err = first(); err == nil {
		err = second()
	}
	if err == nil {
		fmt.Fprintf(a.stderr, "%s, round %d: bare %.0f rows/s, sink %.0f rows/s\n", f.Store, round+1, f.Bare, f.Sink)
	}
	return f, err
}

func (c *benchSinkCmd) loadBare(ctx context.Context, url, file string, round int, f *sinkFigures) error {
	rows := c.results("bare", round)
	store, err := openBench(ctx, url, file)
	if err != nil {
		return err
	}
	defer store.Close()
	if round == 0 {
		if err := empty(ctx, store); err != nil {
			return err
		}
	}
	cpu := bench.CPUTime()
	took, err := c.bare(ctx, store, rows)
	f.Store, f.Bare, f.BareCPU = store.Name(), float64(len(rows))/took.Seconds(), (bench.CPUTime() - cpu).Seconds()
	return err
}

func (c *benchSinkCmd) loadSink(ctx context.Context, a *app, r *rig, url, file string, round int, f *sinkFigures) error {
	rows := c.results("sink", round)
	store, err := openBench(ctx, url, file)
	if err != nil {
		return err
	}
	defer store.Close()
	if f.Rows, err = bench.FillWindows(ctx, r.brokers, r.names.Output, c.Partitions, rows); err != nil {
		return err
	}
	cpu := bench.CPUTime()
	took, err := c.throughSink(ctx, a, r, store)
	if err != nil {
		return err
	}
	f.Sink, f.SinkCPU = float64(len(rows))/took.Seconds(), (bench.CPUTime() - cpu).Seconds()
	f.Wrong, err = wrongRows(ctx, store, rows)
	return err
}

// empty refuses a store with rows: what is there already is written faster.
func empty(ctx context.Context, store views.Store) error {
	page, err := store.Query(ctx, views.Query{View: "aircraft_windows", Limit: 1})
	if err == nil && len(page.Rows) > 0 {
		err = fmt.Errorf("the %s store has windows already: name a database of its own with --bench-store", store.Name())
	}
	return err
}

// openBench opens a store, or SQLite in a file without one, ready to be written to.
func openBench(ctx context.Context, url, file string) (views.Store, error) {
	s := Store{StoreURL: url}
	if url == "" {
		s.StoreURL = "sqlite:" + file
	}
	store, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// bare writes the rows with one writer per partition, as a sink does, and nothing else: the same statement, each batch as durable.
func (c *benchSinkCmd) bare(ctx context.Context, store views.Store, rows []codecs.Window) (time.Duration, error) {
	parts := make([][]codecs.Window, c.Partitions)
	for i := range rows {
		p := bench.PartitionOf(rows[i].Registration, c.Partitions)
		parts[p] = append(parts[p], rows[i])
	}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		g.Go(func() error {
			for batch := range slices.Chunk(part, c.BatchRows) {
				if err := store.Write(ctx, views.Batch{Windows: batch}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return time.Since(began), err
}

// firstWrite notes when a store was first written to.
type firstWrite struct {
	views.Store

	once  sync.Once
	began time.Time
}

// Write notes the time, once, and writes.
func (s *firstWrite) Write(ctx context.Context, b views.Batch) error {
	s.once.Do(func() { s.began = time.Now() })
	return s.Store.Write(ctx, b)
}

// throughSink runs a sink until it has committed the end of the topic. What it takes to join the group is no part of the time:
// the bare loop has its connections, too.
func (c *benchSinkCmd) throughSink(ctx context.Context, a *app, r *rig, store views.Store) (time.Duration, error) {
	first := &firstWrite{Store: store}
	s, err := sink.New(sink.Config{
		Brokers: r.brokers, Sarama: clientConfig(Kafka{ClientID: "klgstream-bench"}), Group: r.names.SinkGroup, Store: first, BatchRows: c.BatchRows,
		Topics: sink.Topics{Windows: r.names.Output, Late: r.names.Late, Dead: r.names.Dead}, Now: a.now, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx) })
	var ended time.Time
	g.Go(func() error {
		defer stop()
		err := bench.AwaitCommitted(ctx, r.brokers, r.names.SinkGroup, r.names.Output)
		ended = time.Now()
		return err
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return ended.Sub(first.began), nil
}

// wrongRows compares the store with the last revision of every window.
func wrongRows(ctx context.Context, store views.Store, rows []codecs.Window) (int, error) {
	type window struct {
		registration string
		start        int64
	}
	want := map[window]int64{}
	for i := range rows {
		want[window{rows[i].Registration, rows[i].Start}] = rows[i].Count
	}
	wrong := 0
	q := views.Query{View: "aircraft_windows", Limit: views.MaxLimit, Filters: []views.Filter{{Column: "window_definition", Op: views.Equal, Value: rows[0].Definition}}}
	for {
		page, err := store.Query(ctx, q)
		if err != nil {
			return wrong, fmt.Errorf("look at the store: %w", err)
		}
		eachCounted(page, func(registration string, start time.Time, count int64) {
			w := window{registration, start.UnixMilli()}
			if want[w] != count {
				wrong++
			}
			delete(want, w)
		})
		if q.Cursor = page.Next; q.Cursor == "" {
			return wrong + len(want), nil
		}
	}
}

func (c *benchSinkCmd) print(a *app, all []sinkFigures) error {
	tw := tabwriter.NewWriter(a.stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintf(a.stdout, "%d results of %d aircraft on %d partitions, %d rows a write, %d rounds\n", c.Events, c.Keys, c.Partitions, c.BatchRows, c.Rounds)
	fmt.Fprintln(tw, "store\tbare rows/s\tsink rows/s\tsink ÷ bare\tof rounds\tCPU s per M, bare\tsink\twrong rows")
	var names []string
	rounds, wrong := map[string][]sinkFigures{}, 0
	for _, f := range all {
		if rounds[f.Store] == nil {
			names = append(names, f.Store)
		}
		rounds[f.Store] = append(rounds[f.Store], f)
		wrong += f.Wrong
	}
	for _, name := range names {
		t := totalOf(rounds[name])
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.2f\t%.2f to %.2f\t%.1f\t%.1f\t%d\n", name, t.Bare, t.Sink, t.Sink/t.Bare,
			slices.Min(t.ratios), slices.Max(t.ratios), t.BareCPU/float64(t.Rows)*1e6, t.SinkCPU/float64(t.Rows)*1e6, t.Wrong)
	}
	if err := tw.Flush(); err != nil || wrong == 0 {
		return err
	}
	return fmt.Errorf("%d rows are wrong", wrong)
}

// sinkTotal is several rounds as one: all their rows in all their time.
type sinkTotal struct {
	sinkFigures

	ratios []float64
}

func totalOf(rounds []sinkFigures) (t sinkTotal) {
	var bare, through float64 // seconds
	for _, f := range rounds {
		t.Rows, t.Wrong = t.Rows+f.Rows, t.Wrong+f.Wrong
		t.BareCPU, t.SinkCPU = t.BareCPU+f.BareCPU, t.SinkCPU+f.SinkCPU
		bare, through = bare+float64(f.Rows)/f.Bare, through+float64(f.Rows)/f.Sink
		t.ratios = append(t.ratios, f.Sink/f.Bare)
	}
	t.Bare, t.Sink = float64(t.Rows)/bare, float64(t.Rows)/through
	return t
}
