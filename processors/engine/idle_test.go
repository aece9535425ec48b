package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/processors/engine"
)

// An input whose last offsets are a transaction's marker, or records of one that was aborted, is read to its end behind the last record that
// can be read. Once it was waited for what never comes: it was never idle, and the last windows of what a transactional producer had
// sent were never final.
func TestIdleInputThatEndsInATransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000000")
	w.abort("payments", 0)
	reg := prometheus.NewRegistry()
	w.process(func(c *engine.Config) {
		c.Registerer, c.Idle, c.IdleTimeout = reg, engine.IdleClock, 50*time.Millisecond
	})
	w.totals(map[string]string{"a": "1/1"})
	eventually(t, "the clock drives the watermark", func() bool {
		return gathered(t, reg, "klgstream_watermark_seconds")[0] > 1e9 && gathered(t, reg, "klgstream_input_lag_records")[0] == 0
	})
}

// While the input cannot be read, the clock does not drive the watermark: what producers sent, or kept, in that time is counted.
func TestInputThatCannotBeReadForLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	reg := prometheus.NewRegistry()
	w.process(func(c *engine.Config) {
		c.Registerer, c.Idle, c.IdleTimeout, c.Bound = reg, engine.IdleClock, 2*time.Second, 0
		c.Kafka = sarama.NewConfig()
		c.Kafka.Consumer.Retry.Backoff = 20 * time.Millisecond
	})
	w.pay(fmt.Sprintf("a 1 %d", time.Now().UnixMilli()))
	w.totals(map[string]string{"a": "1/1"})
	broken := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "payments", Err: kerr.UnknownServerError, Count: -1})
	at := time.Now()
	w.pay(fmt.Sprintf("a 1 %d", at.UnixMilli()))
	eventually(t, "an idle time-out passes, and half a one", func() bool { return time.Since(at) > 3*time.Second })
	broken.Remove()
	eventually(t, "both are read", func() bool { return outcomes(t, reg)["counted"]+outcomes(t, reg)["late"] == 2 })
	if n := outcomes(t, reg)["late"]; n > 0 {
		t.Errorf("%v are late", n)
	}
}
