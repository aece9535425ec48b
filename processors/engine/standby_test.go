package engine_test

import (
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/processors/engine"
)

// payEach publishes one payment of each of so many accounts, where they are at home.
func (w *world) payEach(accounts, cents int) {
	w.Helper()
	p, err := sarama.NewSyncProducerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	messages := make([]*sarama.ProducerMessage, accounts)
	for i := range messages {
		name := fmt.Sprintf("old%d", i)
		messages[i] = &sarama.ProducerMessage{
			Topic: "payments", Partition: engine.PartitionOf([]byte(name), w.n), Key: sarama.StringEncoder(name),
			Value: sarama.StringEncoder(fmt.Sprintf("%s %d 1000", name, cents)),
		}
	}
	if err := p.SendMessages(messages); err != nil {
		w.Fatal(err)
	}
}

// ends is where a topic's partitions end.
func (w *world) ends(topic string) []int64 {
	w.Helper()
	out := make([]int64, w.n)
	for p := range out {
		end, err := w.client.GetOffset(topic, int32(p), sarama.OffsetNewest)
		if err != nil {
			w.Fatal(err)
		}
		out[p] = end
	}
	return out
}

// gathered are the values of a metric by partition; -1 is one without.
func gathered(t *testing.T, reg *prometheus.Registry, name string) map[int32]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[int32]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			id := int64(-1)
			for _, l := range m.GetLabel() {
				if l.GetName() == "partition" {
					if id, err = strconv.ParseInt(l.GetValue(), 10, 32); err != nil {
						t.Fatal(err)
					}
				}
			}
			out[int32(id)] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// copied tells whether a replica's tables and copies hold all that the changelogs do.
func copied(t *testing.T, reg *prometheus.Registry, ends []int64) bool {
	t.Helper()
	at := gathered(t, reg, "klgstream_table_offset")
	for p, end := range ends {
		if end > 0 && at[int32(p)] != float64(end-1) {
			return false
		}
	}
	return true
}

// One of two replicas is killed in the middle of traffic. With a hot standby the other reads of the changelogs that it takes over what
// came since its copies were last seen whole, and none of the rest; without, all of it. Both are exact.
func TestHotStandbyTakesOver(t *testing.T) {
	t.Parallel()
	const old = 900
	for name, hot := range map[string]bool{"hot": true, "cold": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 6)
			logs, regs := [2]*generations{{}, {}}, [2]*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
			first := &cable{}
			start := func(i int) (func() error, *engine.Processor) {
				return w.process(func(c *engine.Config) {
					c.HotStandby, c.Registerer, c.Logger, c.SessionTimeout, c.WriteTimeout = hot, regs[i], slog.New(logs[i]), 20*time.Second, time.Second
					if i == 0 { // it is missed soon
						c.Kafka, c.SessionTimeout = first.cabled(), time.Second
					}
				})
			}
			end, p := start(0)
			w.payEach(old, 1)
			eventually(t, "the first has all partitions", func() bool { return p.Ready() == nil && len(logs[0].last()) == 6 })
			_, q := start(1)
			eventually(t, "three partitions each, and all is counted", func() bool {
				if p.Ready() != nil || q.Ready() != nil || len(logs[0].last()) != 3 || len(logs[1].last()) != 3 {
					return false
				}
				counted := int64(0)
				for id := range w.n {
					counted += max(0, w.committed(id))
				}
				return counted == old
			})
			taken, ends := logs[0].last(), w.ends("ledger-table")
			if hot {
				eventually(t, "the copies are whole", func() bool { return copied(t, regs[1], ends) })
			}
			before := gathered(t, regs[1], "klgstream_recovered_records_total")[-1]
			stop := w.stream(20)
			eventually(t, "new accounts are counted", func() bool { return w.ends("ledger-table")[taken[0]] > ends[taken[0]] })
			first.cut()
			go func() { _ = end() }() // what it says of its end is of no matter
			eventually(t, "the other has all partitions", func() bool { return len(logs[1].last()) == 6 && q.Ready() == nil })
			want := stop()

			read := gathered(t, regs[1], "klgstream_recovered_records_total")[-1] - before
			whole, since := 0.0, 0.0
			for _, id := range taken {
				whole, since = whole+float64(ends[id]), since+float64(w.ends("ledger-table")[id]-ends[id])
			}
			t.Logf("of the changelogs taken over %v records were there when the copies were whole, and %v came since; the takeover read %v", whole, since, read)
			if hot && read > since { // a cold one reads all, unless it had the partitions before and kept their tables
				t.Errorf("the takeover read %v records, %v were there before and %v came since", read, whole, since)
			}
			w.payEach(old, 10)
			for i := range old {
				want[fmt.Sprintf("old%d", i)] = "11/2"
			}
			w.totals(want)
		})
	}
}

// Goka hands out no record before all tables are recovered, hot standbys' among them. A replica that comes with nothing
// counts its own partition at once, even if the copy of the other one cannot be read.
func TestNobodyWaitsForAStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	logs := [2]*generations{{}, {}}
	start := func(i int, reg *prometheus.Registry) (func() error, *engine.Processor) {
		return w.process(func(c *engine.Config) {
			c.HotStandby, c.Registerer, c.Logger, c.InstanceID, c.SessionTimeout = true, reg, slog.New(logs[i]), strconv.Itoa(i), 20*time.Second
		})
	}
	_, p := start(0, prometheus.NewRegistry())
	w.payEach(100, 1)
	stop, q := start(1, prometheus.NewRegistry())
	eventually(t, "one partition each, and all is counted", func() bool {
		return p.Ready() == nil && q.Ready() == nil && len(logs[0].last()) == 1 && len(logs[1].last()) == 1 && w.committed(0)+w.committed(1) == 100
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ends, other := w.ends("ledger-table"), logs[0].last()[0]
	unread := w.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ledger-table", Partitions: []int32{other}, Err: kerr.NotLeaderForPartition, Count: -1,
	})
	reg := prometheus.NewRegistry()
	_, q = start(1, reg)
	eventually(t, "the replica is back", func() bool { return q.Ready() == nil })
	w.payEach(100, 10)
	eventually(t, "both count", func() bool { return w.committed(0)+w.committed(1) == 200 })
	if at := gathered(t, reg, "klgstream_table_offset"); at[other] != 0 || at[1-other] < float64(ends[1-other]) {
		t.Errorf("tables at %v, of which partition %d cannot have been read", at, other)
	}
	unread.Remove()
	eventually(t, "the copy is whole", func() bool { return copied(t, reg, w.ends("ledger-table")) })
}
