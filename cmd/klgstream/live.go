package main

import (
	"context"

	"github.com/IBM/sarama"

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
func newLiveTables(a *app, k Kafka, n Names, m *Meaning) (*liveTables, error) {
	open, err := activity.OpenWindows(activity.Config{Windows: m.Window, AllowedLateness: m.AllowedLateness})
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
		Brokers: k.Brokers, Kafka: config, Table: table, Hasher: engine.Hasher, Logger: a.log,
		Consumer: func(brokers []string, _ string) (sarama.Consumer, error) {
			return engine.TableConsumer(brokers, config)
		},
	})
}

// serve puts the tables behind the API.
func (t *liveTables) serve(a *app, config *httpapi.Config) {
	config.Live = live.NewWindows(t.windows, t.open)
	if t.aircraft != nil {
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
