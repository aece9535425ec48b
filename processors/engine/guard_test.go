package engine_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	"klgstream.dev/processors/engine"
)

// E7: what another appends to the changelog is written over, also after the changelog's leader has moved. The client that looks behind the
// own writes once learned of that nowhere: it asked the former leader for a minute, and the run ended.
func TestForeignStateIsWrittenOverAfterItsLeaderMoved(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 1, kfake.NumBrokers(2))
	reg := prometheus.NewRegistry()
	w.process(func(c *engine.Config) { c.Registerer, c.WriteTimeout = reg, 2*time.Second })
	w.pay("a 1 1000")
	w.totals(map[string]string{"a": "1/1"})
	var stale []byte
	w.read("ledger-table", func(m *sarama.ConsumerMessage) bool { stale = m.Value; return true })
	if err := w.cluster.MoveTopicPartition("ledger-table", 0, 1-w.cluster.LeaderFor("ledger-table", 0)); err != nil {
		t.Fatal(err)
	}
	w.pay("a 1 1001")
	w.totals(map[string]string{"a": "2/2"})
	if err := w.client.RefreshMetadata(); err != nil {
		t.Fatal(err)
	}
	at := w.state("ledger-table", "a", stale)
	w.pay("b 1 1002")
	eventually(t, "the foreign state is written over, or the run has failed", func() bool {
		return w.last("ledger-table", at, "a", stale) || failures(t, reg) > 0
	})
	if n := failures(t, reg); n > 0 {
		t.Errorf("%v runs failed", n)
	}
}

// last tells whether a key has a record behind an offset of partition 0, other than the given one.
func (w *world) last(topic string, behind int64, key string, than []byte) (found bool) {
	w.Helper()
	end, err := w.client.GetOffset(topic, 0, sarama.OffsetNewest)
	if err != nil {
		w.Fatal(err)
	}
	w.read(topic, func(m *sarama.ConsumerMessage) bool {
		found = found || m.Offset > behind && string(m.Key) == key && !bytes.Equal(m.Value, than)
		return m.Offset == end-1
	})
	return found
}
