package engine

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A run that lasted longer than a minute was sound: its failure is the first again. Shorter ones add up, and with them the pause.
func TestRunThatLastedCountsAsSound(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1e12)
	lasts := []time.Duration{time.Second, time.Minute, 0, time.Minute + 1, time.Second}
	var restarts []int
	ctx, cancel := context.WithCancel(t.Context())
	p := &Processor{
		config:  Config{Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler), Backoff: 1, MaxBackoff: 1},
		metrics: newMetrics(prometheus.NewRegistry()),
	}
	p.start = func(context.Context, func()) error {
		restarts = append(restarts, p.restarts)
		if len(restarts) > len(lasts) {
			cancel()
			return context.Canceled
		}
		now = now.Add(lasts[len(restarts)-1])
		return errors.New("broken")
	}
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 1, 2, 3, 1, 2} {
		if restarts[i] != want {
			t.Errorf("%d restarts before run %d, want %d", restarts[i], i, want)
		}
	}
}

// Since when a processor is ready, or is not, does not change with the reason why not.
func TestReadySince(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1e12)
	p := &Processor{config: Config{Now: func() time.Time { return now }}}
	for i, c := range []struct {
		problem error
		changes bool
	}{{errors.New("starting"), true}, {errors.New("recovering"), false}, {nil, true}, {nil, false}, {errors.New("rebalancing"), true}} {
		before := p.changed
		now = now.Add(time.Second)
		p.report(c.problem)
		if changed := !p.changed.Equal(before); changed != c.changes || changed && !p.changed.Equal(now) {
			t.Errorf("report %d, %v: since %v", i, c.problem, p.changed)
		}
		if !errors.Is(p.Ready(), c.problem) {
			t.Errorf("ready says %v, want %v", p.Ready(), c.problem)
		}
	}
}
