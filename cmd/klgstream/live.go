package main

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
	"klgstream.dev/views/httpapi"
	"klgstream.dev/views/live"
)

// liveTables are the group tables that the API reads.
type liveTables struct {
	windows  *live.Table
	aircraft *live.Table // nil without a registry
	open     live.Decode
}

// newLiveTables prepares them; they are read once run.
func newLiveTables(a *app, k Kafka, n Names, w *Windows) (*liveTables, error) {
	open, err := activity.OpenWindows(activity.Config{Windows: w.Window, AllowedLateness: w.AllowedLateness})
	if err != nil {
		return nil, err
	}
	t := &liveTables{windows: liveTable(a, k, n.table()), open: open}
	if g := n.registry(); g != "" {
		t.aircraft = liveTable(a, k, g+"-table")
	}
	return t, nil
}

func liveTable(a *app, k Kafka, table string) *live.Table {
	config := clientConfig(k)
	config.Version = sarama.V2_8_0_0
	return live.NewTable(live.Config{
		Brokers: k.Brokers, Kafka: config, Table: table, Hasher: engine.Hasher, Logger: a.log, Now: a.now,
		Consumer: func(brokers []string, _ string) (sarama.Consumer, error) {
			return engine.TableConsumer(brokers, config)
		},
	})
}

// serve puts the tables behind the API.
func (t *liveTables) serve(a *app, config *httpapi.Config) {
	config.Live = live.NewWindows(t.windows, t.open)
	config.Checks = append(config.Checks, httpapi.Check{Name: "open windows", Probe: t.windows.Fresh})
	if t.aircraft != nil {
		config.Checks = append(config.Checks, httpapi.Check{Name: "registry", Probe: t.aircraft.Fresh})
		config.Registry = live.NewRegistry(t.aircraft, config.Publisher, a.now)
	}
}

// parts are what has to run.
func (t *liveTables) parts() []func(ctx context.Context) error {
	parts := []func(ctx context.Context) error{t.windows.Run}
	if t.aircraft != nil {
		parts = append(parts, t.aircraft.Run)
	}
	return parts
}

// counted adds up the events of all aircraft, as their summaries in the group table tell; it waits a while for the table to
// show as many as there should be.
func (t *liveTables) counted(ctx context.Context, expected int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	tick := time.NewTicker(throughPoll)
	defer tick.Stop()
	for {
		var all summaries
		t.windows.Ascend("", all.add)
		if all.err != nil || all.total == expected {
			return all.total, all.err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return all.total, nil
		}
	}
}

// summaries adds up the summaries of states.
type summaries struct {
	total int64
	err   error
}

func (s *summaries) add(key string, record []byte) bool {
	var env codecs.Envelope
	err := env.Parse(record)
	if err == nil {
		err = codecs.ParseState(env.State, nil, s)
	}
	if err != nil {
		s.err = fmt.Errorf("read the state of %q: %w", key, err)
	}
	return err == nil
}

// Summary implements codecs.StateVisitor.
func (s *summaries) Summary(total int64) *codecs.Aggregate { s.total += total; return nil }

// Definition implements codecs.StateVisitor.
func (*summaries) Definition([]byte) bool { return false }

// Slice implements codecs.StateVisitor.
func (*summaries) Slice(codecs.Slice) *codecs.Aggregate { return nil }

// Withdrawn implements codecs.StateVisitor.
func (*summaries) Withdrawn(codecs.Withdrawn) {}
