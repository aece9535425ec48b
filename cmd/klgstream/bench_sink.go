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
	Events      int      `default:"1000000" placeholder:"N" help:"Results in the topic: several revisions of each window. Default ${default}." group:"events"`
	Keys        int      `default:"5000" placeholder:"N" help:"Aircraft. Default ${default}." group:"events"`
	Partitions  int      `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}." group:"events"`
	StoreURL    []string `name:"bench-store" secret:"url" placeholder:"URL" help:"Stores to load, repeatable, from postgresql://…; their tables are written to and must be empty. Default: SQLite in a temporary file." group:"command"`
	BatchRows   int      `default:"2000" placeholder:"N" help:"Rows of one write. Default ${default}." group:"command"`
	Rounds      int      `default:"1" placeholder:"N" help:"How often, in turn; medians are shown. Default ${default}." group:"command"`
}

func (c *benchSinkCmd) check() error {
	faults := []error{
		c.BenchTarget.check(), atLeast("events", c.Events, 1), atLeast("keys", c.Keys, 1), atLeast("partitions", c.Partitions, 1),
		atLeast("batch-rows", c.BatchRows, 1), atLeast("rounds", c.Rounds, 1),
	}
	if len(c.StoreURL) > 0 && c.Rounds > 1 {
		faults = append(faults, fmt.Errorf("--rounds: %d rounds would write the same rows into one database again: name a fresh one per round with as many --bench-store", c.Rounds))
	}
	for _, u := range c.StoreURL {
		faults = append(faults, (&Store{StoreURL: u}).check())
	}
	return errors.Join(faults...)
}

// sinkFigures is one round on one store.
type sinkFigures struct {
	Store string  `json:"store"`
	Rows  int     `json:"rows"`
	Bare  float64 `json:"bare_rows_per_second"` // a loop of writes of the same rows in the same batches by as many writers
	Sink  float64 `json:"sink_rows_per_second"` // from the topic: from its first write until its offsets are committed
	Wrong int     `json:"wrong_rows"`           // in the store behind the sink
}

// Run measures every store and prints a table. It fails if a row is wrong.
func (c *benchSinkCmd) Run(ctx context.Context, a *app) error {
	var all []sinkFigures
	err := bench.WithBroker(ctx, c.brokers(a), func(brokers []string) error {
		stores := c.StoreURL
		if len(stores) == 0 {
			stores = []string{""}
		}
		for range c.Rounds {
			for _, url := range stores {
				if err := onRig(ctx, brokers, "sink", c.Partitions, func(r *rig) error {
					f, err := c.load(ctx, a, r, url)
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

func (c *benchSinkCmd) shape() bench.Shape {
	return bench.Shape{Events: c.Events, Keys: c.Keys, Partitions: c.Partitions}.WithDefaults()
}

// load writes the same results twice: bare, into a store of its own where that is possible, and through the sink.
func (c *benchSinkCmd) load(ctx context.Context, a *app, r *rig, url string) (f sinkFigures, err error) {
	dir, err := os.MkdirTemp("", "klgstream-bench-")
	if err != nil {
		return f, fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if f.Rows, err = bench.FillWindows(ctx, r.brokers, r.names.Output, c.shape()); err != nil {
		return f, err
	}
	rows := c.shape().Results()
	store, err := openBench(ctx, url, filepath.Join(dir, "bare.db"))
	if err != nil {
		return f, err
	}
	f.Store = store.Name()
	var took time.Duration
	if err = empty(ctx, store); err == nil {
		took, err = c.bare(ctx, store, rows)
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return f, err
	}
	f.Bare = float64(len(rows)) / took.Seconds()
	fmt.Fprintf(a.stderr, "%s, bare: %.0f rows/s\n", f.Store, f.Bare)
	if store, err = openBench(ctx, url, filepath.Join(dir, "sink.db")); err != nil {
		return f, err
	}
	defer store.Close()
	if took, err = c.throughSink(ctx, a, r, store); err != nil {
		return f, err
	}
	f.Sink = float64(len(rows)) / took.Seconds()
	fmt.Fprintf(a.stderr, "%s, sink: %.0f rows/s\n", f.Store, f.Sink)
	f.Wrong, err = wrongRows(ctx, store, rows)
	return f, err
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

// bare writes the rows with one writer per partition, as a sink does, and nothing else. A database that is used by both is
// given other definitions, so that the sink's rows are new ones.
func (c *benchSinkCmd) bare(ctx context.Context, store views.Store, rows []codecs.Window) (time.Duration, error) {
	parts := make([][]codecs.Window, c.Partitions)
	for i := range rows {
		w := rows[i]
		w.Definition = "bare:1h"
		p := bench.PartitionOf(w.Registration, c.Partitions)
		parts[p] = append(parts[p], w)
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
	started := time.Now()
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
	fmt.Fprintf(a.stderr, "sink: first write %.2fs after its start\n", first.began.Sub(started).Seconds())
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
	fmt.Fprintf(a.stdout, "%d results of %d aircraft on %d partitions, %d rows a write\n", c.Events, c.Keys, c.Partitions, c.BatchRows)
	fmt.Fprintln(tw, "store\tbare rows/s\tsink rows/s\tsink ÷ bare\twrong rows")
	var names []string
	rounds, wrong := map[string][]sinkFigures{}, 0
	for _, f := range all {
		if rounds[f.Store] == nil {
			names = append(names, f.Store)
		}
		rounds[f.Store] = append(rounds[f.Store], f)
	}
	for _, name := range names {
		var bare, through, ratio []float64
		lost := 0
		for _, f := range rounds[name] {
			bare, through, ratio, lost = append(bare, f.Bare), append(through, f.Sink), append(ratio, f.Sink/f.Bare), lost+f.Wrong
		}
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.2f\t%d\n", name, median(bare), median(through), median(ratio), lost)
		wrong += lost
	}
	if err := tw.Flush(); err != nil || wrong == 0 {
		return err
	}
	return fmt.Errorf("%d rows are wrong", wrong)
}
