package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
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

// What a processor's restart is for is said while it lasts, also of a run that ended without a word; how the run ends that is told to stop is not an
// error of the processor's, but what it had no time to write is told.
func TestWhyARunIsStartedAgain(t *testing.T) {
	t.Parallel()
	broken, unwritten := errors.New("broken"), errors.New("not all is written")
	for name, c := range map[string]struct {
		ends, stops error
		says        string // while it waits for the next start
		told        bool
	}{
		"it failed":                {broken, context.Canceled, "restarting: broken", false},
		"it ended":                 {nil, nil, "restarting: the run ended by itself", false},
		"it stopped with a rest":   {broken, unwritten, "restarting: broken", true},
		"it was stopped, no error": {broken, nil, "restarting: broken", false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var log bytes.Buffer
		p := &Processor{
			config: Config{
				Now: func() time.Time { return time.UnixMilli(1e12) }, Logger: slog.New(slog.NewTextHandler(&log, nil)), Backoff: 1, MaxBackoff: 1,
			},
			metrics: newMetrics(prometheus.NewRegistry()),
		}
		runs, says := 0, ""
		p.start = func(context.Context, func()) error {
			if runs++; runs == 1 {
				return c.ends
			}
			says = p.problem.Error()
			cancel()
			return c.stops
		}
		if err := p.Run(ctx); err != nil || says != c.says || runs != 2 {
			t.Errorf("%s: %v after %d runs, between them %q, want %q", name, err, runs, says, c.says)
		}
		if told := strings.Contains(log.String(), "stopped before everything was written"); told != c.told {
			t.Errorf("%s: told that not all is written: %v", name, told)
		}
		if err := p.Ready(); err == nil || err.Error() != "stopped" {
			t.Errorf("%s: ready says %v", name, err)
		}
	}
}

// A job is complete, and what is missing is named, all of it.
func TestJobFaults(t *testing.T) {
	t.Parallel()
	complete := Job[tick, tally]{
		Group: "g", Input: "i", Output: "o", Late: "l", Dead: "d", New: func() Topology[tick, tally] { return tickTopology{new(int64)} },
	}
	c := valid()
	c.Registerer = prometheus.NewRegistry()
	if p, err := New(c, complete); err != nil || p.Ready() == nil {
		t.Errorf("a complete job: %v", err)
	}
	wants := []string{"group is empty", "input is empty", "output is empty", "late is empty", "dead is empty", "no topology"}
	_, err := New(c, Job[tick, tally]{})
	for i, strip := range []func(j *Job[tick, tally]){
		func(j *Job[tick, tally]) { j.Group = "" }, func(j *Job[tick, tally]) { j.Input = "" }, func(j *Job[tick, tally]) { j.Output = "" },
		func(j *Job[tick, tally]) { j.Late = "" }, func(j *Job[tick, tally]) { j.Dead = "" }, func(j *Job[tick, tally]) { j.New = nil },
	} {
		if err == nil || !strings.Contains(err.Error(), wants[i]) {
			t.Errorf("a job of nothing: %v, want %q", err, wants[i])
		}
		j := complete
		strip(&j)
		if _, err := New(c, j); err == nil || !strings.Contains(err.Error(), wants[i]) || strings.Count(err.Error(), "job: ") != 1 {
			t.Errorf("%s: %v", wants[i], err)
		}
	}
	c.Brokers = nil
	if _, err := New(c, complete); err == nil || !strings.Contains(err.Error(), "brokers") {
		t.Errorf("a configuration with a fault: %v", err)
	}
}
