package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// What stock goka loses, doubles or hangs on, one test each, and the faults that write-behind brings with it.

// committed is the group's offset in a partition of the input; -1 is none.
func (w *world) committed(partition int32) int64 {
	w.Helper()
	b, err := w.client.Coordinator("ledger")
	if err != nil {
		w.Fatal(err)
	}
	resp, err := b.FetchOffset(sarama.NewOffsetFetchRequest(sarama.V2_8_0_0, "ledger", map[string][]int32{"payments": {partition}}))
	if err != nil {
		w.Fatal(err)
	}
	if of := resp.GetBlock("payments", partition); of != nil {
		return of.Offset
	}
	return -1 // the group is not known yet
}

// eventually waits for what must come without anything else happening.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		}
	}
}

// refuse makes the broker answer what is produced to a topic with an error.
func (w *world) refuse(topic string, err *kerr.Error, count int) *kfake.FaultHandle {
	return w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: err, Count: count})
}

// values are all records of a topic up to its present end, "key=value".
func (w *world) values(topic string) []string {
	w.Helper()
	var out []string
	left := int64(0)
	for p := range w.n {
		end, err := w.client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			w.Fatal(err)
		}
		left += end
	}
	if left == 0 {
		return nil
	}
	w.read(topic, func(m *sarama.ConsumerMessage) bool {
		out = append(out, fmt.Sprintf("%s=%s", m.Key, m.Value))
		left--
		return left == 0
	})
	return out
}

// E1: goka commits a message that emits nothing, or whose emit is done, past an earlier one whose emit is not.
func TestPositionWaitsForEverythingItCaused(t *testing.T) {
	t.Parallel()
	home, dead, away := []string{"a 1 1000", "d 1 1000"}, []string{"nonsense", "nonsense"}, []string{"f 1 1000", "b 1 1000"} // of partition 0 and 1
	for topic, first := range map[string][]string{"ledger-table": home, "totals": home, "payments-dead": dead, "ledger-loop": away} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			refused := w.refuse(topic, kerr.NotEnoughReplicas, -1)
			w.pay(first...) // what is refused comes first: a checkpoint may be of this alone
			w.pay(slices.Concat(home, dead, away)...)
			w.process(nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := refused.Wait(ctx, 3); err != nil {
				t.Fatal(err)
			}
			for p := range int32(2) {
				if at := w.committed(p); at > 0 {
					t.Errorf("partition %d is committed up to %d though %s has nothing of it", p, at, topic)
				}
			}
			refused.Remove()
			want := map[string]string{"a": "1/1", "b": "1/1", "d": "1/1", "f": "1/1"}
			for _, line := range first {
				if key, _, ok := strings.Cut(line, " "); ok {
					want[key] = "2/2"
				}
			}
			w.totals(want)
			eventually(t, "everything is committed", func() bool { return w.committed(0) == 4 && w.committed(1) == 4 })
		})
	}
}

// E2: a write-behind layer that let the next batch through after a failed one committed past the hole and lost 60,615 events.
// The refusal here is one that repeating does not mend, and there is much behind the hole.
func TestFailedCheckpointPoisonsAllBehindIt(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"ledger-table", "totals"} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			var lines []string
			for i := range 500 {
				lines = append(lines, fmt.Sprintf("a%d 1 %d", i%5, 1000+i))
			}
			reg := prometheus.NewRegistry()
			refused := w.refuse(topic, kerr.OutOfOrderSequenceNumber, 3)
			w.process(func(c *engine.Config) {
				c.Registerer, c.Backoff, c.FrameRecords, c.MaxDirty = reg, 10*time.Millisecond, 10, 2
			})
			w.pay(lines...)
			w.totals(map[string]string{"a0": "100/100", "a1": "100/100", "a2": "100/100", "a3": "100/100", "a4": "100/100"})
			if refused.Hits() != 3 {
				t.Errorf("%d writes refused, want 3", refused.Hits())
			}
			if n := failures(t, reg); n < 3 {
				t.Errorf("%v runs ended, want one per refusal", n)
			}
		})
	}
}

// failures is how many runs have ended with an error.
func failures(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "klgstream_run_failures_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no metric klgstream_run_failures_total")
	return 0
}

// E2: with an idle input nobody would notice a failed write: the run must end by itself, whoever waits for room must wake,
// and what was counted must come out without another event.
func TestFailedCheckpointEndsTheRunOfAnIdleInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000", "b 1 1000", "c 1 1000", "d 1 1000")
	reg := prometheus.NewRegistry()
	w.refuse("ledger-table", kerr.UnknownProducerID, 1)
	// Two keys fill the partition: folding waits for room that only the failed checkpoint could have made.
	w.process(func(c *engine.Config) {
		c.Registerer, c.Backoff, c.MaxDirty, c.CommitInterval = reg, 10*time.Millisecond, 2, 50*time.Millisecond
	})
	w.totals(map[string]string{"a": "1/1", "b": "1/1", "c": "1/1", "d": "1/1"})
	if n := failures(t, reg); n != 1 {
		t.Errorf("%v runs ended, want 1", n)
	}
}

// E3: states are written, results are not; the replay finds its events counted and must publish all the same. Without that
// 60 to 94 windows were wrong or missing after a kill.
func TestReplayPublishesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	reg := prometheus.NewRegistry()
	w.refuse("totals", kerr.InvalidProducerEpoch, 1)
	w.pay("a 1 1000", "a 2 1001", "b 4 1002")
	w.process(func(c *engine.Config) { c.Registerer, c.Backoff = reg, 10*time.Millisecond })
	w.totals(map[string]string{"a": "3/2", "b": "4/1"})
	if n := failures(t, reg); n != 1 {
		t.Errorf("%v runs ended, want 1", n)
	}
}

// E3: stock goka counts an event again that it had counted and not committed.
func TestRedeliveryCountsNothingTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	commits := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "ledger", Err: kerr.UnknownMemberID, Count: 3})
	w.pay("a 1 1000", "b 1 1000", "a 1 1001", "b 1 1001")
	w.process(func(c *engine.Config) { c.Backoff = 10 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := commits.Wait(ctx, 3); err != nil {
		t.Fatal(err)
	}
	w.pay("a 1 1002", "b 1 1002")
	w.totals(map[string]string{"a": "3/3", "b": "3/3"})
	for _, v := range w.values("totals") {
		if strings.HasSuffix(v, "/4") || strings.HasSuffix(v, "/5") || strings.HasSuffix(v, "/6") {
			t.Errorf("%s: counted twice", v)
		}
	}
}

// E7: an acknowledgement that is lost makes the same batch arrive again: the broker must know it.
func TestLostAcknowledgementDoublesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for _, topic := range []string{"ledger-table", "totals", "payments-dead"} {
		w.refuse(topic, kerr.RequestTimedOut, 2) // answered after the write
	}
	w.pay("a 1 1000", "nonsense")
	stop, _ := w.process(func(c *engine.Config) { c.CommitInterval = 100 * time.Millisecond })
	w.totals(map[string]string{"a": "1/1"})
	eventually(t, "everything is committed", func() bool { return w.committed(0) == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{"totals": "a=1/1", "payments-dead": "=nonsense"} {
		if got := w.values(topic); len(got) != 1 || got[0] != want {
			t.Errorf("%s holds %q, want %q once", topic, got, want)
		}
	}
	if got := w.values("ledger-table"); len(got) != 1 {
		t.Errorf("the table holds %d records, want 1", len(got))
	}
}

// Replicas come and go while events are counted. How long that takes is logged; that goka's sleep of 5 s in every rebalance is
// passed by is TestGenerationsLoopWithinOneConsume.
func TestReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	first, p := w.process(nil)
	eventually(t, "the first is ready", func() bool { return p.Ready() == nil })
	began := time.Now()
	const times = 4
	for i := range times {
		second, q := w.process(nil)
		eventually(t, "the second is ready", func() bool { return q.Ready() == nil && p.Ready() == nil })
		w.pay(fmt.Sprintf("a 1 %d", 1000+i), "", "", "")
		if err := second(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the first is ready again", func() bool { return p.Ready() == nil })
		w.totals(map[string]string{"a": fmt.Sprintf("%d/%d", i+1, i+1)})
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d joins and %d leaves: %v", times, times, time.Since(began))
}

// A replica that restarts under its own name moves no partition: nobody else notices.
func TestRollingRestartOfStaticMembersMovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6)
	logs := make([]*generations, 3)
	start := func(i int) (func() error, *engine.Processor) {
		return w.process(func(c *engine.Config) {
			c.InstanceID, c.SessionTimeout, c.Logger = fmt.Sprintf("replica-%d", i), 20*time.Second, slog.New(logs[i])
		})
	}
	stops, ps := make([]func() error, 3), make([]*engine.Processor, 3)
	for i := range logs {
		logs[i] = &generations{}
		stops[i], ps[i] = start(i)
	}
	eventually(t, "two partitions each", func() bool {
		for i := range ps {
			if ps[i].Ready() != nil || len(logs[i].last()) != 2 {
				return false
			}
		}
		return true
	})
	for i := range logs {
		before := [3]int{logs[0].count(), logs[1].count(), logs[2].count()}
		if err := stops[i](); err != nil {
			t.Fatal(err)
		}
		w.pay("a 1 1000", "b 1 1000", "c 1 1000", "d 1 1000", "e 1 1000", "f 1 1000")
		stops[i], ps[i] = start(i)
		eventually(t, "the replica is back", func() bool { return ps[i].Ready() == nil && len(logs[i].last()) == 2 })
		for k := range logs {
			if k != i && logs[k].count() != before[k] {
				t.Errorf("restart of replica %d: replica %d had %d generations, now %d", i, k, before[k], logs[k].count())
			}
		}
	}
	want := map[string]string{}
	for _, k := range []string{"a", "b", "c", "d", "e", "f"} {
		want[k] = "3/3"
	}
	w.totals(want)
}

// A replica that joins takes its part and nothing else moves; when it leaves, what it had goes to the others, who keep theirs.
func TestJoinAndLeaveMoveNoMoreThanTheyMust(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6)
	logs, ps := make([]*generations, 3), make([]*engine.Processor, 3)
	start := func(i int) (stop func() error) {
		logs[i] = &generations{}
		stop, ps[i] = w.process(func(c *engine.Config) { c.Logger = slog.New(logs[i]) })
		return stop
	}
	settled := func(counts ...int) {
		t.Helper()
		eventually(t, fmt.Sprintf("the replicas have %v partitions", counts), func() bool {
			for i, n := range counts {
				if ps[i].Ready() != nil || len(logs[i].last()) != n {
					return false
				}
			}
			return true
		})
	}
	start(0)
	settled(6)
	start(1)
	settled(3, 3)
	before := [][]int32{logs[0].last(), logs[1].last()}
	stop := start(2)
	settled(2, 2, 2)
	for i, had := range before {
		if !within(had, logs[i].last()) {
			t.Errorf("replica %d had %v, and has %v since one more is there", i, had, logs[i].last())
		}
	}
	before = [][]int32{logs[0].last(), logs[1].last()}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	settled(3, 3)
	for i, had := range before {
		if !within(logs[i].last(), had) {
			t.Errorf("replica %d had %v, and has %v since one is gone", i, had, logs[i].last())
		}
	}
}

// within tells whether all of part is in whole.
func within(whole, part []int32) bool {
	return !slices.ContainsFunc(part, func(p int32) bool { return !slices.Contains(whole, p) })
}

// generations is a log that only counts the generations a replica took part in, and knows its partitions in the last.
type generations struct {
	mu         sync.Mutex
	n          int
	partitions []int32
}

func (g *generations) Enabled(context.Context, slog.Level) bool { return true }
func (g *generations) WithAttrs([]slog.Attr) slog.Handler       { return g }
func (g *generations) WithGroup(string) slog.Handler            { return g }
func (g *generations) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "partitions assigned" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	r.Attrs(func(a slog.Attr) bool {
		if ids, ok := a.Value.Any().([]int32); ok {
			g.partitions = slices.Clone(ids)
		}
		return true
	})
	return nil
}

func (g *generations) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

func (g *generations) last() []int32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.partitions
}

// A restart after an orderly stop replays nothing.
func TestRestartAfterAStopReplaysNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.pay("a 1 1000", "b 1 1000", "a 1 1001", "b 1 1001")
	stop, _ := w.process(nil)
	w.totals(map[string]string{"a": "2/2", "b": "2/2"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	written := len(w.values("ledger-table"))
	reg := prometheus.NewRegistry()
	stop, _ = w.process(func(c *engine.Config) { c.Registerer = reg })
	w.pay("a 1 1002")
	w.totals(map[string]string{"a": "3/3", "b": "2/2"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(t, reg); got["counted"] != 1 || got["fenced"] != 0 {
		t.Errorf("outcomes %v, want the one new event counted and none fenced", got)
	}
	if now := len(w.values("ledger-table")); now != written+1 {
		t.Errorf("%d states written by the restart, want 1", now-written)
	}
}

// outcomes are klgstream_events_total, all partitions together.
func outcomes(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "klgstream_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" {
					out[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return out
}

// BenchmarkRecovery is how long a replica with nothing takes to be ready, with a million keys in the changelog.
func BenchmarkRecovery(b *testing.B) {
	const keys, partitions = 1_000_000, 4
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, ledgerTopics...),
		kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "100"}))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	fillTable(b, c.ListenAddrs(), keys, partitions)
	for b.Loop() {
		p, err := engine.New(engine.Config{Brokers: c.ListenAddrs(), Now: time.Now, Idle: engine.IdleHold, Logger: slog.New(slog.DiscardHandler)}, ledgerJob())
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		for tick := time.NewTicker(time.Millisecond); p.Ready() != nil; <-tick.C {
		}
		b.StopTimer()
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}

// fillTable writes one state per key.
func fillTable(b *testing.B, brokers []string, keys, partitions int) {
	b.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Partitioner, cfg.Producer.Flush.Messages, cfg.Producer.Flush.Frequency = sarama.NewManualPartitioner, 5000, 50*time.Millisecond
	p, err := sarama.NewAsyncProducer(brokers, cfg)
	if err != nil {
		b.Fatal(err)
	}
	for i := range keys {
		env := codecs.Envelope{
			Sources: []codecs.Source{{Partition: 0, Offset: int64(i)}}, Purged: math.MinInt64, Due: codecs.NoDue, State: make([]byte, 60),
		}
		p.Input() <- &sarama.ProducerMessage{
			Topic: "ledger-table", Partition: int32(i % partitions), Key: sarama.StringEncoder(fmt.Sprintf("key-%d", i)), Value: sarama.ByteEncoder(env.Append(nil)),
		}
	}
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
}

// Sarama locks a broker while a request is under way. To watch for a predecessor's writes, fetches once waited 250 ms each for something to
// come, one partition after the other: a replica of 64 partitions that was told to stop while it guarded them took 16 s, and so did every
// rebalance. The ends of all logs are asked for in one request instead.
func TestGuardsHoldUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	waiting := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ledger-table", Observe: true, Count: -1, When: func(req kmsg.Request) bool {
		r, ok := req.(*kmsg.FetchRequest)
		return ok && r.MaxWaitMillis > 0
	}})
	looking := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "ledger-table", Observe: true, Count: -1, When: func(req kmsg.Request) bool {
		r, ok := req.(*kmsg.ListOffsetsRequest)
		return ok && len(r.Topics) == 2 && len(r.Topics[0].Partitions) == 4
	}})
	stop, _ := w.process(func(c *engine.Config) { c.SessionTimeout = 20 * time.Second })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := looking.Wait(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if n := waiting.Hits(); n != 0 {
		t.Errorf("%d fetches of guards wait", n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
