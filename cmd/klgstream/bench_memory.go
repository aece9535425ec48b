package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"klgstream.dev/deploy/devstack/bench"
)

// benchMemoryCmd measures what an aircraft costs and whether memory stays flat.
type benchMemoryCmd struct {
	BenchTarget `group:"command"`
	Keys        []int         `default:"5000,1000000,5000000" placeholder:"N" help:"Aircraft, one run each. Default ${default}." group:"events"`
	Partitions  int           `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}." group:"events"`
	Duration    time.Duration `default:"10m" placeholder:"DURATION" help:"How long the flat run takes; 0s: none. Default ${default}." group:"command"`
	Rate        int           `default:"20000" placeholder:"N" help:"Events per second in the flat run. Default ${default}." group:"events"`
	Churn       time.Duration `default:"20s" placeholder:"DURATION" help:"After which the flat run's 5000 aircraft are replaced by others. Default ${default}." group:"events"`
	Sample      time.Duration `default:"1s" placeholder:"DURATION" help:"How often memory is looked at. Default ${default}." group:"command"`
}

func (c *benchMemoryCmd) check() error {
	faults := []error{
		c.BenchTarget.check(), atLeast("partitions", c.Partitions, 1), atLeast("rate", c.Rate, 1), atLeast("duration", c.Duration, 0),
		atLeast("churn", c.Churn, time.Millisecond), atLeast("sample", c.Sample, time.Millisecond),
	}
	for _, n := range c.Keys {
		faults = append(faults, atLeast("keys", n, 1))
	}
	return errors.Join(faults...)
}

// memoryFigures is what a number of aircraft costs.
type memoryFigures struct {
	Keys   int   `json:"keys"`
	Peak   int64 `json:"peak_resident_bytes"`
	Open   int64 `json:"live_heap_bytes_windows_open"`   // after a garbage collection
	Closed int64 `json:"live_heap_bytes_windows_closed"` // after all windows were closed
}

// flatFigures is how memory went over time.
type flatFigures struct {
	Seconds  float64 `json:"seconds"`
	Events   int     `json:"events"`
	Keys     int     `json:"keys"` // that ever came
	Resident []int64 `json:"resident_bytes"`
	Drift    float64 `json:"drift"` // of the last quarter against the second
}

// Run measures and prints two tables.
func (c *benchMemoryCmd) Run(ctx context.Context, a *app) error {
	var perKey []memoryFigures
	var flat *flatFigures
	err := bench.WithBroker(ctx, c.brokers(a), func(brokers []string) error {
		for _, keys := range c.Keys {
			fmt.Fprintf(a.stderr, "%d keys\n", keys)
			if err := onRig(ctx, brokers, "memory", c.Partitions, func(r *rig) error {
				f, err := c.hold(ctx, r, keys)
				perKey = append(perKey, f)
				return err
			}); err != nil {
				return err
			}
		}
		if c.Duration == 0 {
			return nil
		}
		return onRig(ctx, brokers, "flat", c.Partitions, func(r *rig) (err error) {
			flat, err = c.flow(ctx, r)
			return err
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(c.print(a, perKey, flat), c.save(struct {
		Environment bench.Environment `json:"environment"`
		PerKey      []memoryFigures   `json:"per_key"`
		Flat        *flatFigures      `json:"flat,omitempty"`
	}{bench.Here(c.brokers(a)), perKey, flat}))
}

// hold counts events of so many aircraft and looks at the memory, before and after their windows are closed.
func (c *benchMemoryCmd) hold(ctx context.Context, r *rig, keys int) (memoryFigures, error) {
	f := memoryFigures{Keys: keys}
	s := bench.Shape{Events: 2 * keys, Keys: keys, Partitions: c.Partitions, EveryKey: true, Span: 30 * time.Minute}.WithDefaults()
	if err := bench.FillOpen(ctx, r.brokers, r.names.Input, s); err != nil {
		return f, err
	}
	p, err := r.processor(ctx, "--bound="+s.Disorder.String())
	if err != nil {
		return f, err
	}
	if f.Open, err = r.liveHeap(ctx, p); err != nil {
		return f, err
	}
	if err := bench.Seal(ctx, r.brokers, r.names.Input, s); err != nil {
		return f, err
	}
	if err := errors.Join(r.through(ctx), r.closed(ctx, p, s)); err != nil {
		return f, err
	}
	f.Closed, err = r.liveHeap(ctx, p)
	f.Peak = p.resident("VmHWM:")
	return f, err
}

// liveHeap is what a processor has in use when it is through with its input.
func (r *rig) liveHeap(ctx context.Context, p *roleProcess) (int64, error) {
	if err := r.through(ctx); err != nil {
		return 0, err
	}
	n, err := p.metric(ctx, "go_memstats_heap_alloc_bytes", true)
	return int64(n), err
}

// The flat run's windows, and how long its aircraft are remembered.
const flatWindow, flatTTL = 10 * time.Second, 20 * time.Second

// flow sends at a steady rate, with windows that open and close and aircraft that come and go.
func (c *benchMemoryCmd) flow(ctx context.Context, r *rig) (*flatFigures, error) {
	p, err := r.processor(ctx, "--bound=1s", fmt.Sprintf("--window=tumbling:%v", flatWindow), fmt.Sprintf("--state-ttl=%v", flatTTL))
	if err != nil {
		return nil, err
	}
	if _, err := p.ready(ctx); err != nil {
		return nil, err
	}
	const keys = 5000
	f := &flatFigures{Seconds: c.Duration.Seconds(), Keys: keys * int((c.Duration+c.Churn-1)/c.Churn)}
	done := make(chan error, 1)
	go func() {
		pace := bench.Pace{Brokers: r.brokers, Topic: r.names.Input, Partitions: c.Partitions, Rate: c.Rate, Duration: c.Duration, Keys: keys, Churn: c.Churn, Window: flatWindow}
		var err error
		f.Events, err = pace.Run(ctx)
		done <- err
	}()
	tick := time.NewTicker(c.Sample)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.Resident = append(f.Resident, p.resident("VmRSS:"))
		case err := <-done:
			f.Drift = drift(f.Resident)
			return f, err
		}
	}
}

// drift is how much a series grew from its second quarter to its last, as a part of the former: in the first it warms up.
func drift(series []int64) float64 {
	n := len(series) / 4
	if n == 0 {
		return math.NaN()
	}
	return float64(middle(series[3*n:]))/float64(middle(series[n:2*n])) - 1
}

func middle(of []int64) int64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

func (c *benchMemoryCmd) print(a *app, perKey []memoryFigures, flat *flatFigures) error {
	tw := tabwriter.NewWriter(a.stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "keys\tpeak resident MB\tlive heap MB, windows open\tclosed\tbytes per further key, peak\topen\tclosed")
	for i, f := range perKey {
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d", f.Keys, f.Peak>>20, f.Open>>20, f.Closed>>20)
		if i > 0 && f.Keys != perKey[0].Keys {
			first, more := perKey[0], int64(f.Keys-perKey[0].Keys)
			fmt.Fprintf(tw, "\t%d\t%d\t%d", (f.Peak-first.Peak)/more, (f.Open-first.Open)/more, (f.Closed-first.Closed)/more)
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if flat != nil && len(flat.Resident) > 0 {
		fmt.Fprintf(a.stdout, "%.0f s at %d events/s, %d keys in all: resident %d to %d MB, last quarter %+.1f %% of the second\n",
			flat.Seconds, c.Rate, flat.Keys, slices.Min(flat.Resident)>>20, slices.Max(flat.Resident)>>20, 100*flat.Drift)
	}
	return nil
}
