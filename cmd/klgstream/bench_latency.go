package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"klgstream.dev/deploy/devstack/bench"
	"klgstream.dev/views"
)

// benchLatencyCmd measures how long an event takes to where its count is seen.
type benchLatencyCmd struct {
	BenchTarget    `group:"command"`
	CommitInterval []time.Duration `default:"5ms,20ms,100ms" placeholder:"DURATION" help:"Times between checkpoints, one run each. Default ${default}." group:"command"`
	Rate           int             `default:"20000" placeholder:"N" help:"Events per second. Default ${default}." group:"events"`
	Duration       time.Duration   `default:"30s" placeholder:"DURATION" help:"How long each run sends. Default ${default}." group:"command"`
	WarmUp         time.Duration   `default:"5s" placeholder:"DURATION" help:"What of it is not recorded. Default ${default}." group:"command"`
	Keys           int             `default:"5000" placeholder:"N" help:"Aircraft. Default ${default}." group:"events"`
	Partitions     int             `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}." group:"events"`
	StoreURL       string          `name:"bench-store" secret:"url" placeholder:"URL" help:"Store to load, from postgresql://…; its tables are written to. Default: SQLite in a temporary file." group:"command"`
	Only           string          `default:"all" placeholder:"WHERE" help:"output: look at the output topic only; all: run sink and API as well. Default ${default}." group:"command"`
}

func (c *benchLatencyCmd) check() error {
	faults := []error{
		c.BenchTarget.check(), oneOf("only", c.Only, "output", "all"), atLeast("rate", c.Rate, 1), atLeast("keys", c.Keys, 1), atLeast("partitions", c.Partitions, 1),
		below("warm-up", c.WarmUp, "--duration", c.Duration),
	}
	if c.StoreURL != "" {
		faults = append(faults, (&Store{StoreURL: c.StoreURL}).check())
	}
	return errors.Join(faults...)
}

// Run measures at every commit interval and prints quantiles.
func (c *benchLatencyCmd) Run(ctx context.Context, a *app) error {
	var all []bench.Delays
	brokers := c.brokers(a)
	err := bench.WithBroker(ctx, brokers, func(brokers []string) error {
		for _, interval := range c.CommitInterval {
			got, err := c.at(ctx, brokers, interval)
			if err != nil {
				return err
			}
			all = append(all, got...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%d events/s of %d keys on %d partitions, %v from which the first %v are left out\n", c.Rate, c.Keys, c.Partitions, c.Duration, c.WarmUp)
	return errors.Join(bench.DelaysTable(a.stdout, all), c.save(struct {
		Environment bench.Environment `json:"environment"`
		Rate        int               `json:"rate"`
		Delays      []bench.Delays    `json:"delays"`
	}{bench.Here(brokers), c.Rate, all}))
}

// at measures at one commit interval.
func (c *benchLatencyCmd) at(ctx context.Context, brokers []string, interval time.Duration) (all []bench.Delays, err error) {
	err = onRig(ctx, brokers, "latency", c.Partitions, func(r *rig) error {
		// Windows of a length that no other run has: a store that was used before would show its old rows as new ones.
		window := time.Hour + time.Duration(time.Now().UnixMilli()%time.Hour.Milliseconds())*time.Millisecond
		if _, err := r.processor(ctx, fmt.Sprintf("--commit-interval=%v", interval), fmt.Sprintf("--window=tumbling:%dms", window.Milliseconds())); err != nil {
			return err
		}
		l := &latencyRun{benchLatencyCmd: c, rig: r, window: window, tracker: bench.NewTracker(time.Now())}
		if c.Only == "all" {
			dir, err := os.MkdirTemp("", "klgstream-bench-")
			if err != nil {
				return fmt.Errorf("make temporary directory: %w", err)
			}
			defer func() { _ = os.RemoveAll(dir) }()
			if err := l.startViews(ctx, dir); err != nil {
				return err
			}
			defer l.store.Close()
		}
		all, err = l.run(ctx, interval)
		return err
	})
	return all, err
}

// latencyRun is one run with its observers.
type latencyRun struct {
	*benchLatencyCmd
	*rig

	window  time.Duration
	tracker *bench.Tracker
	store   views.Store // nil without views
	api     string      // base URL
}

// startViews starts sink and API on a store.
func (l *latencyRun) startViews(ctx context.Context, dir string) (err error) {
	s := Store{StoreURL: l.StoreURL}
	if s.StoreURL == "" {
		s.StoreURL = "sqlite:" + filepath.Join(dir, "windows.db")
	}
	if l.store, err = s.open(ctx); err != nil {
		return err
	}
	if err = l.store.Migrate(ctx); err != nil {
		return errors.Join(err, l.store.Close())
	}
	addr, err := freeAddr(ctx)
	if err == nil {
		l.api = "http://" + addr
		_, err = l.start(ctx, "sink", "sink-ops-addr", "--store-url="+s.StoreURL)
	}
	if err == nil {
		_, err = l.rig.start(ctx, "api", "api-ops-addr", "--store-url="+s.StoreURL, "--http-addr="+addr)
	}
	if err != nil {
		return errors.Join(err, l.store.Close())
	}
	return nil
}

// run sends, watches until everything has come out, and returns the delays at every stage.
func (l *latencyRun) run(ctx context.Context, interval time.Duration) ([]bench.Delays, error) {
	for _, p := range l.roles {
		if _, err := p.ready(ctx); err != nil {
			return nil, err
		}
	}
	*l.tracker = *bench.NewTracker(time.Now().Add(l.WarmUp))
	output, row, pushed := l.tracker.Stage(), l.tracker.Stage(), l.tracker.Stage()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, watching := errgroup.WithContext(watching)
	g.Go(func() error { return bench.Watch(watching, l.brokers, l.names.Output, output) })
	if l.store != nil {
		g.Go(func() error { return l.watchStore(watching, row) })
		g.Go(func() error { return l.watchStream(watching, pushed) })
	}
	g.Go(func() error {
		defer stop()
		return l.sendAll(watching, output)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	all := []bench.Delays{output.Delays("output topic", interval)}
	if l.store != nil {
		all = append(all, row.Delays("row in the "+l.store.Name()+" store", interval), pushed.Delays("client of the event stream", interval))
	}
	return all, nil
}

// sendAll sends and waits until the output has all of it.
func (l *latencyRun) sendAll(ctx context.Context, output *bench.Stage) error {
	p := bench.Pace{Brokers: l.brokers, Topic: l.names.Input, Partitions: l.Partitions, Rate: l.Rate, Duration: l.Duration, Keys: l.Keys, Window: l.window, Tracker: l.tracker}
	if _, err := p.Run(ctx); err != nil {
		return err
	}
	deadline, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(storePoll)
	defer tick.Stop()
	for !output.All() {
		select {
		case <-tick.C:
		case <-deadline.Done():
			return errors.New("not all events came out within a minute: the results are incomplete")
		}
	}
	return nil
}

// storePoll is how often the store is asked: what a row may seem too late, at most.
const storePoll = 2 * time.Millisecond

// watchStore looks at the rows of ten aircraft.
func (l *latencyRun) watchStore(ctx context.Context, s *bench.Stage) error {
	q := views.Query{View: "aircraft_windows", Limit: views.MaxLimit, Filters: []views.Filter{{Column: "registration_number", Op: views.Prefix, Value: bench.Probe}}}
	tick := time.NewTicker(storePoll)
	defer tick.Stop()
	for {
		page, err := l.store.Query(ctx, q)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at the store: %w", err)
		}
		now := time.Now()
		eachCounted(page, func(registration string, start time.Time, count int64) {
			s.Seen(registration, start.UnixMilli(), count, now)
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// eachCounted calls do with the windows of a page of aircraft_windows.
func eachCounted(page views.Result, do func(registration string, start time.Time, count int64)) {
	for _, row := range page.Rows {
		cells := make(map[string]any, len(row))
		for i, column := range page.Columns {
			cells[column.Name] = row[i]
		}
		registration, _ := cells["registration_number"].(string)
		start, _ := cells["window_start"].(time.Time)
		do(registration, start, integer(cells["event_count"]))
	}
}

// watchStream listens to the API's event stream.
func (l *latencyRun) watchStream(ctx context.Context, s *bench.Stage) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.api+"/api/v1/streaming/updates", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return fmt.Errorf("listen to the event stream: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			if err := takeFrame(data, s, time.Now()); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("the event stream ended: %w", lines.Err())
}

// takeFrame tells a stage of the windows in a frame of the event stream.
func takeFrame(data []byte, s *bench.Stage, at time.Time) error {
	var f struct {
		View string `json:"view"`
		Rows []struct {
			Registration string    `json:"registration_number"`
			Start        time.Time `json:"window_start"`
			Count        int64     `json:"event_count"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("read a frame of the event stream: %w", err)
	}
	if f.View != "aircraft_windows" {
		return nil
	}
	for _, row := range f.Rows {
		s.Seen(row.Registration, row.Start.UnixMilli(), row.Count, at)
	}
	return nil
}
