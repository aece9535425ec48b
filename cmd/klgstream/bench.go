package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"klgstream.dev/deploy/devstack/bench"
)

// benchCmd measures this program on the machine it runs on.
type benchCmd struct {
	Throughput  benchThroughputCmd `cmd:"" help:"Events per second and what one costs, beside what its parts can do at most. Every window is verified."`
	Latency     benchLatencyCmd    `cmd:"" help:"How long an event takes to the output topic, to a row of the store, and to a client of the API."`
	Recovery    benchRecoveryCmd   `cmd:"" help:"How long a start takes until it counts, with nothing and with much to recover."`
	Memory      benchMemoryCmd     `cmd:"" help:"Bytes per aircraft, and whether memory stays flat while windows open and close."`
	Sink        benchSinkCmd       `cmd:"" help:"Rows per second into the store, beside what the store takes at most."`
	Scale       benchScaleCmd      `cmd:"" help:"How cost grows with partitions, aircraft and open windows; with plots."`
	Peers       benchPeersCmd      `cmd:"" help:"The same job in Apache Flink and Kafka Streams, on the same topic of a real Kafka."`
	Chaos       benchChaosCmd      `cmd:"" help:"Break brokers, network and replicas while events are counted, and compare every window with the input log."`
	Child       benchChildCmd      `cmd:"" hidden:""`
	Broker      benchBrokerCmd     `cmd:"" hidden:""`
	ChaosBroker chaosBrokerCmd     `cmd:"" hidden:""`
	ChaosStore  chaosStoreCmd      `cmd:"" hidden:""`
}

// benchChildCmd is one measurement in a process of its own.
type benchChildCmd struct{}

func (*benchChildCmd) check() error { return nil }

// Run reads a task from the standard input and writes the measurement to the standard output.
func (*benchChildCmd) Run(ctx context.Context, a *app) error {
	return bench.Child(ctx, a.stdin, a.stdout)
}

// benchBrokerCmd is the embedded broker in a process of its own.
type benchBrokerCmd struct{}

func (*benchBrokerCmd) check() error { return nil }

// Run serves until the standard input ends.
func (*benchBrokerCmd) Run(ctx context.Context, a *app) error {
	return bench.Broker(ctx, a.stdin, a.stdout)
}

// BenchTarget is where a measurement runs and where its figures go.
type BenchTarget struct {
	Brokers []string `env:"REDPANDA_BROKERS" placeholder:"HOST:PORT" help:"Brokers to measure on, from the command line only. Default: an embedded one in a process of its own."`
	JSON    string   `name:"json" placeholder:"FILE" help:"Write the figures to a file, too."`
}

func (t *BenchTarget) check() error {
	var faults []error
	for _, b := range t.Brokers {
		faults = append(faults, address("brokers", b, 1))
	}
	return errors.Join(faults...)
}

// brokers are those of the command line: one that production is set to is not filled with events by mistake.
func (t *BenchTarget) brokers(a *app) []string {
	if slices.ContainsFunc(a.settings, func(s setting) bool { return s.name == "brokers" && s.source == "flag" }) {
		return t.Brokers
	}
	return nil
}

// save writes figures as JSON where that is asked for.
func (t *BenchTarget) save(figures any) error {
	if t.JSON == "" {
		return nil
	}
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(t.JSON, append(data, '\n'), 0o644); err != nil {
		return &createError{fmt.Errorf("save figures: %w", err)}
	}
	return nil
}

// BenchShape is what the events are like.
type BenchShape struct {
	Events     int           `default:"4000000" placeholder:"N" help:"Events in the topic. Default ${default}."`
	Keys       int           `default:"5000" placeholder:"N" help:"Aircraft. Default ${default}."`
	Partitions int           `default:"4" placeholder:"N" help:"Partitions of all topics. Default ${default}."`
	Span       time.Duration `default:"10000s" placeholder:"DURATION" help:"Event time from the first to the last event. Default ${default}."`
	Disorder   time.Duration `default:"5s" placeholder:"DURATION" help:"How far events are out of order. Default ${default}."`
	Zipf       float64       `default:"0" placeholder:"S" help:"Exponent of the aircraft's Zipf distribution, above 1; 0: all are equally frequent. Default ${default}."`
	Unkeyed    bool          `help:"Events without a key, dealt out among the partitions."`
}

func (s *BenchShape) shape() bench.Shape {
	return bench.Shape{Events: s.Events, Keys: s.Keys, Partitions: s.Partitions, Span: s.Span, Disorder: s.Disorder, Zipf: s.Zipf, Unkeyed: s.Unkeyed}
}

func (s *BenchShape) check() error { return errors.Join(s.given(), s.shape().Validate()) }

// given refuses zeros: they are the default to whom these are handed on, and no wish of the command line.
func (s *BenchShape) given() error {
	return errors.Join(atLeast("events", s.Events, 1), atLeast("keys", s.Keys, 1), atLeast("partitions", s.Partitions, 1))
}

// BenchProduct is how klgstream is set.
type BenchProduct struct {
	CommitInterval time.Duration `default:"100ms" placeholder:"DURATION" help:"Time between checkpoints. Default ${default}."`
	Window         []string      `default:"tumbling:1h" placeholder:"DEFINITION" help:"Window definition, repeatable. Default ${default}."`
	Emit           string        `default:"update" placeholder:"WHEN" help:"update: a window is published whenever it changed; close: once, when it is complete. Default ${default}."`
}

func (p *BenchProduct) check() error {
	return errors.Join(oneOf("emit", p.Emit, "update", "close"), atLeast("commit-interval", p.CommitInterval, time.Millisecond))
}

func (p *BenchProduct) product() bench.Product {
	return bench.Product{Commit: p.CommitInterval, Windows: p.Window, OnClose: p.Emit == "close"}
}

// benchThroughputCmd measures events per second.
type benchThroughputCmd struct {
	BenchTarget  `group:"command"`
	BenchShape   `group:"events"`
	BenchProduct `group:"meaning"`
	Modes        []string `default:"raw,empty,klgstream" placeholder:"MODE" help:"What is measured: raw (bare sarama consumers), empty (goka with an empty callback), stock (goka done the usual way, which is slow), klgstream. Default ${default}." group:"command"`
	Rounds       int      `default:"1" placeholder:"N" help:"How often, in turn; medians are shown. Default ${default}." group:"command"`
	StockEvents  int      `default:"0" placeholder:"N" help:"Events for the mode stock. Default: a twentieth." group:"command"`
	Profile      string   `placeholder:"DIR" help:"Write CPU and allocation profiles of every measurement there." group:"command"`
}

func (c *benchThroughputCmd) throughput() bench.Throughput {
	return bench.Throughput{Shape: c.shape(), Product: c.product(), Modes: c.Modes, Rounds: c.Rounds, StockAt: c.StockEvents, Profile: c.Profile}
}

func (c *benchThroughputCmd) check() error {
	faults := []error{
		checkAll(&c.BenchTarget, &c.BenchProduct), c.given(), atLeast("rounds", c.Rounds, 1), c.checkProfile(), c.throughput().Validate(),
	}
	return errors.Join(faults...)
}

// checkProfile sees to the directory before minutes are spent on what goes there.
func (c *benchThroughputCmd) checkProfile() error {
	if c.Profile == "" {
		return nil
	}
	if info, err := os.Stat(c.Profile); err != nil || !info.IsDir() {
		return fmt.Errorf("--profile: %q must be a directory that is there", c.Profile)
	}
	return nil
}

// Run measures, prints a table, and fails if a window was wrong.
func (c *benchThroughputCmd) Run(ctx context.Context, a *app) error {
	t := c.throughput()
	t.Brokers = c.brokers(a)
	result, err := t.Measure(ctx, a.stderr)
	if err != nil {
		return err
	}
	return errors.Join(result.Table(a.stdout), c.save(result), result.Err())
}
