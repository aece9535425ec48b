package main

import (
	"context"
	"errors"
	"time"

	"klgstream.dev/deploy/devstack/bench"
)

// benchScaleCmd measures how cost grows.
type benchScaleCmd struct {
	BenchTarget    `group:"command"`
	SVG            string        `name:"svg" placeholder:"DIR" help:"Write plots there." group:"command"`
	Events         int           `default:"2000000" placeholder:"N" help:"Events of each measurement. Default ${default}." group:"events"`
	Rounds         int           `default:"1" placeholder:"N" help:"How often, in turn; medians are shown. Default ${default}." group:"command"`
	CommitInterval time.Duration `default:"100ms" placeholder:"DURATION" help:"Time between checkpoints. Default ${default}." group:"meaning"`
	Axes           []string      `default:"partitions,keys,windows,open,hopping" placeholder:"AXIS" help:"What grows: partitions, keys, windows (definitions counted at once), open (windows open per aircraft), hopping (hopping:24h/1h beside tumbling:1h, on close). Default ${default}." group:"command"`
	Partitions     []int         `default:"1,4,16,64" placeholder:"N" help:"Steps of that axis. Default ${default}." group:"events"`
	Keys           []int         `default:"1000,5000,50000,200000,2000000" placeholder:"N" help:"Steps of that axis. Default ${default}." group:"events"`
	Open           []int         `name:"open-windows" default:"1,4,16" placeholder:"N" help:"Steps of that axis. Default ${default}." group:"events"`
}

func (c *benchScaleCmd) scale() bench.Scale {
	s := bench.Scale{
		Base:       bench.Throughput{Shape: bench.Shape{Events: c.Events}, Product: bench.Product{Commit: c.CommitInterval}, Rounds: c.Rounds},
		Partitions: []int{}, Keys: []int{}, Windows: []int{}, Open: []int{},
	}
	for _, axis := range c.Axes {
		switch axis {
		case "partitions":
			s.Partitions = c.Partitions
		case "keys":
			s.Keys = c.Keys
		case "windows":
			s.Windows = nil // as many as there are
		case "open":
			s.Open = c.Open
		case "hopping":
			s.Hopping = true
		}
	}
	return s
}

func (c *benchScaleCmd) check() error {
	faults := []error{c.BenchTarget.check(), atLeast("commit-interval", c.CommitInterval, time.Millisecond), atLeast("rounds", c.Rounds, 1)}
	for _, axis := range c.Axes {
		faults = append(faults, oneOf("axes", axis, "partitions", "keys", "windows", "open", "hopping"))
	}
	return errors.Join(append(faults, c.scale().Validate())...)
}

// Run measures, prints a table, plots, and fails if a window was wrong.
func (c *benchScaleCmd) Run(ctx context.Context, a *app) error {
	s := c.scale()
	s.Base.Brokers = c.brokers(a)
	result, err := s.Measure(ctx, a.stderr)
	if err != nil {
		return err
	}
	faults := []error{result.Table(a.stdout), c.save(result)}
	if c.SVG != "" {
		faults = append(faults, result.Plot(c.SVG))
	}
	return errors.Join(append(faults, result.Err())...)
}
