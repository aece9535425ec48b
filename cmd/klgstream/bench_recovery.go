package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"klgstream.dev/deploy/devstack/bench"
)

// benchRecoveryCmd measures how long a start takes, with nothing and with much to recover.
type benchRecoveryCmd struct {
	BenchTarget `group:"command"`
	Keys        int `default:"1000000" placeholder:"N" help:"Aircraft in the group table. Default ${default}." group:"events"`
	PerKey      int `default:"2" placeholder:"N" help:"Events of each, on average. Default ${default}." group:"events"`
	Partitions  int `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}." group:"events"`
	Rounds      int `default:"3" placeholder:"N" help:"How often it is started again; medians are shown. Default ${default}." group:"command"`
}

func (c *benchRecoveryCmd) check() error {
	return errors.Join(c.BenchTarget.check(), atLeast("keys", c.Keys, 1), atLeast("per-key", c.PerKey, 1), atLeast("partitions", c.Partitions, 1), atLeast("rounds", c.Rounds, 1))
}

// recoveryFigures is what a start takes.
type recoveryFigures struct {
	Environment bench.Environment `json:"environment"`
	Keys        int               `json:"keys"`
	FirstResult float64           `json:"start_to_first_result_seconds"` // with nothing to recover
	Ready       []float64         `json:"start_to_ready_seconds"`        // with all keys, each round
	Resident    int64             `json:"resident_bytes"`                // when it is ready
	Verdict     bench.Verdict     `json:"verdict"`                       // of all windows, closed after the last start
}

// Run measures, prints the figures, and fails if a window is wrong after the recovery.
func (c *benchRecoveryCmd) Run(ctx context.Context, a *app) error {
	f := recoveryFigures{Environment: bench.Here(c.brokers(a)), Keys: c.Keys}
	err := bench.WithBroker(ctx, c.brokers(a), func(brokers []string) error {
		few := bench.Peers{
			Shape: bench.Shape{Events: 1000, Keys: 100, Partitions: c.Partitions}, Brokers: brokers, Rounds: c.Rounds,
			Peers: []bench.Peer{{Name: "start", Command: thisPeer, Prepare: prepareThis, Ours: true}},
		}
		first, err := few.Measure(ctx, a.stderr)
		if err != nil {
			return err
		}
		f.FirstResult = first.Median("start").FirstResult
		return onRig(ctx, brokers, "recovery", c.Partitions, func(r *rig) error { return c.recover(ctx, a, r, &f) })
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "start → first result, nothing to recover   %.2f s\nstart → ready, %d keys to recover     %.2f s\nresident when ready                        %d MB\nwindows right after the recovery           %d of %d\n",
		f.FirstResult, f.Keys, median(f.Ready), f.Resident>>20, f.Verdict.Windows-f.Verdict.Wrong, f.Verdict.Windows)
	return errors.Join(c.save(f), f.Verdict.Err())
}

// recover fills the group table through the product, starts it again and again, and at last lets it close all windows.
func (c *benchRecoveryCmd) recover(ctx context.Context, a *app, r *rig, f *recoveryFigures) error {
	s := bench.Shape{Events: c.Keys * c.PerKey, Keys: c.Keys, Partitions: c.Partitions, EveryKey: true}.WithDefaults()
	fmt.Fprintf(a.stderr, "filling the group table: %d events of %d keys\n", s.Events, s.Keys)
	if err := bench.FillOpen(ctx, r.brokers, r.names.Input, s); err != nil {
		return err
	}
	p, err := r.processor(ctx, "--bound="+s.Disorder.String())
	if err != nil {
		return err
	}
	for round := range c.Rounds {
		if err := errors.Join(r.through(ctx), p.stop()); err != nil {
			return err
		}
		if p, err = r.processor(ctx, "--bound="+s.Disorder.String()); err != nil {
			return err
		}
		took, err := p.ready(ctx)
		if err != nil {
			return err
		}
		f.Ready, f.Resident = append(f.Ready, took.Seconds()), p.resident("VmRSS:")
		fmt.Fprintf(a.stderr, "round %d: ready after %v\n", round+1, took.Round(time.Millisecond))
	}
	if err := bench.Seal(ctx, r.brokers, r.names.Input, s); err != nil {
		return err
	}
	if err := errors.Join(r.through(ctx), r.closed(ctx, p, s)); err != nil {
		return err
	}
	f.Verdict, err = bench.Verify(ctx, r.brokers, r.names.Output, s, []string{"tumbling:1h"})
	return err
}

// through waits until the processor has committed all that is in its input. A role that ended ends the wait.
func (r *rig) through(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := r.roles[len(r.roles)-1]
	go func() {
		select {
		case <-p.ended:
			cancel(fmt.Errorf("%s ended: %w\n%s", p.name, p.err, p.log.String()))
		case <-ctx.Done():
		}
	}()
	if err := bench.AwaitCommitted(ctx, r.brokers, r.names.Group, r.names.Input); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// closed waits until a processor has closed all windows and published them.
func (r *rig) closed(ctx context.Context, p *roleProcess, s bench.Shape) error {
	want := float64(r.partitions) * float64(s.Sealed(s.Disorder).Unix())
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		sum, err := p.metric(ctx, "klgstream_watermark_seconds", false)
		if err != nil || sum >= want {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
