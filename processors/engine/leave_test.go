package engine_test

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/processors/engine"
)

// A partition goes to another replica. The one that had it shows nothing of it any more: its lag once stood where it was, and an alarm
// said for ever that this replica makes no checkpoints.
func TestMetricsOfAPartitionThatWasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	logs, reg := [2]*generations{{}, {}}, prometheus.NewRegistry()
	start := func(i int, reg *prometheus.Registry) *engine.Processor {
		_, p := w.process(func(c *engine.Config) { c.Registerer, c.Logger = reg, slog.New(logs[i]) })
		return p
	}
	start(0, reg)
	w.payEach(20, 1)
	keys := func() map[int32]float64 { return gathered(t, reg, "klgstream_table_keys") }
	eventually(t, "both partitions have keys", func() bool { at := keys(); return at[0] > 0 && at[1] > 0 && at[0]+at[1] == 20 })
	q := start(1, prometheus.NewRegistry())
	eventually(t, "one partition each", func() bool { return q.Ready() == nil && len(logs[0].last()) == 1 && len(logs[1].last()) == 1 })
	given := logs[1].last()[0]
	eventually(t, "nothing of the other is shown", func() bool { at := keys(); return at[given] == 0 && at[1-given] > 0 })
}
