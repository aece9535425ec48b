package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"klgstream.dev/deploy/devstack/chaos"
	"klgstream.dev/views"
	"klgstream.dev/views/sqlite"
)

// benchChaosCmd breaks what can be broken while events are counted, and compares every window with the input log.
type benchChaosCmd struct {
	Faults    int           `default:"100" placeholder:"N" help:"How many faults strike. Default ${default}."`
	PerRound  int           `default:"20" placeholder:"N" help:"How many of them in one round. Default ${default}."`
	Seed      uint64        `placeholder:"N" help:"What is published and what breaks follows from it; the same seed repeats a run. Default: the clock's, printed."`
	Schedule  string        `placeholder:"FILE" help:"Faults to strike instead of the seed's, as a failing run prints them; one round."`
	Shrink    int           `default:"40" placeholder:"N" help:"Rounds to spend on the smallest failing schedule. Default ${default}."`
	Processes bool          `help:"Strike processes: kill, stop and pause replicas, sinks and a broker that are programs of their own."`
	Patience  time.Duration `default:"1m" placeholder:"DURATION" help:"How long results may take after everything is healed. Default ${default}."`
}

func (c *benchChaosCmd) check() error {
	faults := []error{
		atLeast("faults", c.Faults, 1), atLeast("per-round", c.PerRound, 1), atLeast("shrink", c.Shrink, 0),
		atLeast("patience", c.Patience, time.Second),
	}
	if c.Schedule != "" && c.Processes {
		faults = append(faults, errors.New("--schedule and --processes: a schedule strikes the embedded broker only"))
	}
	return errors.Join(faults...)
}

// errNotExact is the end of a run that found something.
var errNotExact = errors.New("a round was not exact")

// Run strikes until it is done or a round is not exact.
func (c *benchChaosCmd) Run(ctx context.Context, a *app) error {
	b := &chaos.Bench{Log: slog.New(slog.DiscardHandler), Now: a.now, Patience: c.Patience}
	defer b.Wait()
	if c.Seed == 0 {
		c.Seed = chaos.FreshSeed(a.now())
	}
	fmt.Fprintf(a.stdout, "klgstream bench chaos --seed=%d --faults=%d --per-round=%d\n", c.Seed, c.Faults, c.PerRound)
	campaign := chaos.Campaign{Seed: c.Seed, Faults: c.Faults, PerRound: c.PerRound, ShrinkRuns: c.Shrink, Out: a.stdout}
	if c.Schedule != "" {
		if err := c.fix(&campaign); err != nil {
			return err
		}
	}
	if c.Processes {
		stop, err := c.separate(b, &campaign)
		if err != nil {
			return err
		}
		defer stop()
	}
	s, err := campaign.Run(ctx, b)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\n%s", chaos.Table(s.Reports))
	if s.Failed == nil {
		return nil
	}
	fmt.Fprintf(a.stdout, "\n%s", s.Describe())
	return errNotExact
}

// fix makes a campaign one round of the schedule in a file.
func (c *benchChaosCmd) fix(campaign *chaos.Campaign) error {
	text, err := os.ReadFile(c.Schedule)
	if err != nil {
		return fmt.Errorf("read schedule: %w", err)
	}
	schedule, err := chaos.ParseSchedule(string(text))
	if err != nil {
		return err
	}
	campaign.Faults = len(schedule)
	campaign.Draw = func(seed uint64, _ int) chaos.Round {
		r := chaos.NewRound(seed, c.PerRound)
		r.Schedule = schedule
		return r
	}
	return nil
}

// separate makes broker and replicas processes of this program.
func (c *benchChaosCmd) separate(b *chaos.Bench, campaign *chaos.Campaign) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "klgstream-chaos-")
	if err != nil {
		return nil, err
	}
	broker, err := chaos.StartBroker(func(port int) *exec.Cmd {
		return exec.Command(self, "bench", "chaos-broker", "--port="+strconv.Itoa(port), "--data-dir="+dir) //nolint:noctx // ended by Kill
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	program := func(args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...) //nolint:noctx // ended by the stage
		cmd.Env = withoutSettings(os.Environ())
		return cmd
	}
	programs := &chaos.Programs{
		Brokers:   broker,
		Processor: func(m chaos.Member) *exec.Cmd { return program(m.Arguments()...) },
		Sink:      func(m chaos.Member, file string) *exec.Cmd { return program(m.SinkArguments(file)...) },
		Rows:      func(file string) *exec.Cmd { return program("bench", "chaos-store", "--file="+file) },
	}
	b.Stage = func(_ context.Context, w chaos.Workload) (chaos.Stage, error) { return programs.NewStage(w) }
	campaign.Draw, campaign.ShrinkRuns = chaos.NewProcessRound, min(campaign.ShrinkRuns, 10)
	return func() {
		_ = broker.Kill(1)    // it holds nothing worth keeping
		_ = os.RemoveAll(dir) // nor does its directory
	}, nil
}

// withoutSettings is an environment without this program's settings: a replica is what its arguments say.
func withoutSettings(environ []string) []string {
	var out []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "KLGSTREAM_") && !strings.HasPrefix(e, "REDPANDA_") && !strings.HasPrefix(e, "RISINGWAVE_") && !strings.HasPrefix(e, "FLINK_") {
			out = append(out, e)
		}
	}
	return out
}

// chaosBrokerCmd is an embedded broker in a process of its own, to be killed.
type chaosBrokerCmd struct {
	Port    int    `placeholder:"N"`
	DataDir string `placeholder:"DIR"`
}

func (*chaosBrokerCmd) check() error { return nil }

// Run serves until ctx ends.
func (c *chaosBrokerCmd) Run(ctx context.Context, a *app) error {
	return chaos.ServeBroker(ctx, c.Port, c.DataDir, io.Writer(a.stdout))
}

// chaosStoreCmd prints what a store shows, for the comparison with the input log.
type chaosStoreCmd struct {
	File string `placeholder:"FILE"`
}

func (*chaosStoreCmd) check() error { return nil }

// Run prints every page of the views of results and letters, one a line.
func (c *chaosStoreCmd) Run(ctx context.Context, a *app) error {
	store, err := sqlite.Open(ctx, sqlite.Config{Path: c.File})
	if err != nil {
		return err
	}
	defer store.Close()
	out := json.NewEncoder(a.stdout)
	for _, view := range []string{"aircraft_windows", "late_events", "dead_letters"} {
		for q := (views.Query{View: view, Limit: views.MaxLimit}); ; {
			page, err := store.Query(ctx, q)
			if err == nil {
				err = out.Encode(page)
			}
			if err != nil {
				return err
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
	}
	return nil
}
