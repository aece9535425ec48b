package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kfake"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// payment is an event that has nothing to do with aircraft, total its fold: no windows, the running sum of an account.
type payment struct {
	account []byte
	cents   int64
	at      int64
}

type total struct {
	cents, payments int64
	told            bool
}

// ledgerTopology reads "account cents ms" and emits "cents/payments" per account.
type ledgerTopology struct{}

type badPayment struct{ error }

func (badPayment) Reason() string { return "bad_payment" }

func (ledgerTopology) Decode(dst *payment, r *engine.Record) error {
	f := strings.Fields(string(r.Value))
	if len(f) == 1 && f[0] == "panic" {
		panic("a bug of the decoder")
	}
	if len(f) != 3 {
		return badPayment{fmt.Errorf("%d fields, want 3", len(f))}
	}
	var err1, err2 error
	dst.account = []byte(f[0])
	dst.cents, err1 = strconv.ParseInt(f[1], 10, 64)
	dst.at, err2 = strconv.ParseInt(f[2], 10, 64)
	return errors.Join(err1, err2)
}
func (ledgerTopology) Key(e *payment) []byte { return e.account }
func (ledgerTopology) Time(e *payment) int64 { return e.at }
func (ledgerTopology) Fold(s *total, watermark int64, e *payment) bool {
	if e.at <= watermark {
		return false
	}
	s.cents, s.payments, s.told = s.cents+e.cents, s.payments+1, false
	return true
}
func (ledgerTopology) Touch(s *total) { s.told = false }
func (ledgerTopology) Collect(key string, s *total, _ int64, emit engine.Emit) {
	if !s.told {
		s.told = true
		emit([]byte(key), fmt.Appendf(nil, "%d/%d", s.cents, s.payments))
	}
}
func (ledgerTopology) Advance(string, *total, int64, engine.Emit) {}
func (ledgerTopology) Settle(*total, int64)                       {}
func (ledgerTopology) Due(*total) int64                           { return math.MaxInt64 }
func (ledgerTopology) Idle(s *total) bool                         { return s.told }
func (ledgerTopology) Append(dst []byte, s *total) []byte {
	return binary.AppendVarint(binary.AppendVarint(dst, s.cents), s.payments)
}

func (ledgerTopology) Parse(s *total, data []byte, _ int64) error {
	var n int
	s.cents, n = binary.Varint(data)
	s.payments, _ = binary.Varint(data[n:])
	s.told = true
	return nil
}

func ledgerJob() engine.Job[payment, total] {
	return engine.Job[payment, total]{
		Group: "ledger", Input: "payments", Output: "totals", Late: "payments-late", Dead: "payments-dead", Definition: "v1",
		New: func() engine.Topology[payment, total] { return ledgerTopology{} },
	}
}

var ledgerTopics = []string{"payments", "totals", "payments-late", "payments-dead", "ledger-table", "ledger-loop"}

// world is a broker with the ledger's topics.
type world struct {
	*testing.T
	cluster *kfake.Cluster
	brokers []string
	n       int32
	client  sarama.Client
}

func newWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	return newWorldOf(t, partitions, kfake.NumBrokers(1))
}

// newWorldOf is one whose cluster has further options.
func newWorldOf(t *testing.T, partitions int32, more ...kfake.Opt) *world {
	t.Helper()
	c, err := kfake.NewCluster(append(more, kfake.SeedTopics(partitions, ledgerTopics...),
		kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "100"}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Return.Successes = true
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := sarama.NewClient(c.ListenAddrs(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &world{t, c, c.ListenAddrs(), partitions, client}
}

// pay publishes payments, one partition after the other, whatever their account.
func (w *world) pay(lines ...string) {
	w.Helper()
	p, err := sarama.NewSyncProducerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	for i, l := range lines {
		m := &sarama.ProducerMessage{Topic: "payments", Partition: int32(i) % w.n}
		if l != "" {
			m.Value = sarama.StringEncoder(l)
		}
		if _, _, err := p.SendMessage(m); err != nil {
			w.Fatal(err)
		}
	}
}

// process runs the ledger until the returned function is called or the test ends.
func (w *world) process(change func(*engine.Config)) (stop func() error, p *engine.Processor) {
	w.Helper()
	return w.processJob(ledgerJob(), change)
}

// processJob runs a ledger of the test's own.
func (w *world) processJob(job engine.Job[payment, total], change func(*engine.Config)) (stop func() error, p *engine.Processor) {
	w.Helper()
	c := engine.Config{
		Brokers: w.brokers, CommitInterval: 5 * time.Millisecond, SessionTimeout: 2 * time.Second, Now: time.Now, Idle: engine.IdleHold,
		MaxFutureSkew: -1, Logger: slog.New(slog.NewTextHandler(w.Output(), nil)), Bound: time.Hour,
	}
	if change != nil {
		change(&c)
	}
	p, err := engine.New(c, job)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.Cleanup(func() { _ = stop() })
	return stop, p
}

// read yields a topic's records, all partitions together, until it returns true.
func (w *world) read(topic string, until func(*sarama.ConsumerMessage) bool) {
	w.Helper()
	consumer, err := sarama.NewConsumerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	defer consumer.Close()
	all := make(chan *sarama.ConsumerMessage)
	stop := make(chan struct{})
	defer close(stop)
	for p := range w.n {
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			w.Fatal(err)
		}
		defer pc.AsyncClose()
		go func() {
			for m := range pc.Messages() {
				select {
				case all <- m:
				case <-stop:
					return
				}
			}
		}()
	}
	for m := range all {
		if until(m) {
			return
		}
	}
}

// totals reads the output until every account has the wanted total; the last record of a key counts.
func (w *world) totals(want map[string]string) {
	w.Helper()
	got := make(map[string]string)
	w.read("totals", func(m *sarama.ConsumerMessage) bool {
		got[string(m.Key)] = string(m.Value)
		for k, v := range want {
			if got[k] != v {
				return false
			}
		}
		return len(got) == len(want)
	})
}

// The engine knows no aircraft: another event, another fold, another state.
func TestAnotherJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	want := make(map[string]string)
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("acc%d %d %d", i%7, i, 1_000_000+i))
	}
	for a := range 7 {
		cents, n := 0, 0
		for i := a; i < 300; i += 7 {
			cents, n = cents+i, n+1
		}
		want[fmt.Sprintf("acc%d", a)] = fmt.Sprintf("%d/%d", cents, n)
	}
	w.pay(lines...)
	stop, _ := w.process(nil)
	w.totals(want)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A run that goes on where another stopped counts nothing twice and loses nothing.
func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	for i := 1; i <= 4; i++ {
		w.pay("a 1 1000", "b 10 1000", "a 1 1001")
		stop, _ := w.process(nil)
		w.totals(map[string]string{"a": fmt.Sprintf("%d/%d", 2*i, 2*i), "b": fmt.Sprintf("%d/%d", 10*i, i)})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// What cannot be decoded is kept with where it came from and why, byte for byte; the rest goes on.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000", "nonsense", "", "a 2 x", "panic", "a 2 1001")
	reg := prometheus.NewRegistry()
	w.process(func(c *engine.Config) { c.Registerer = reg })
	w.totals(map[string]string{"a": "3/2"})
	want := []struct{ value, reason, offset string }{{"nonsense", "bad_payment", "1"}, {"", "bad_payment", "2"}, {"a 2 x", "undecodable", "3"}, {"panic", "undecodable", "4"}}
	i := 0
	w.read("payments-dead", func(m *sarama.ConsumerMessage) bool {
		h := make(map[string]string)
		for _, x := range m.Headers {
			h[string(x.Key)] = string(x.Value)
		}
		x := want[i]
		if string(m.Value) != x.value || h["klg-reason"] != x.reason || h["klg-source-offset"] != x.offset ||
			h["klg-source-topic"] != "payments" || h["klg-source-partition"] != "0" || h["klg-detail"] == "" {
			t.Errorf("letter %d: %q %v, want %v", i, m.Value, h, x)
		}
		i++
		return i == len(want)
	})
	if lint, err := testutil.GatherAndLint(reg); err != nil || len(lint) > 0 {
		t.Errorf("metrics: %v %v", lint, err)
	}
}

// Without re-keying an event in a foreign partition is told, not counted in the wrong place.
func TestRekeyOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	foreign := int32(1) // where pay puts the second line
	if engine.PartitionOf([]byte("a"), 2) == foreign {
		foreign = 0
	}
	lines := []string{"a 1 1000", "a 2 1000"}
	w.pay(lines...)
	w.process(func(c *engine.Config) { c.RekeyOff = true })
	w.totals(map[string]string{"a": map[int32]string{1: "1/1", 0: "2/1"}[foreign]})
	w.read("payments-dead", func(m *sarama.ConsumerMessage) bool {
		if string(m.Value) != lines[foreign] {
			t.Errorf("dead: %q", m.Value)
		}
		return true
	})
}

// An event whose time is behind the watermark is late, and says of what.
func TestLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 5000000", "a 2 9000000", "b 7 1000")
	w.process(nil)
	w.totals(map[string]string{"a": "3/2"})
	w.read("payments-late", func(m *sarama.ConsumerMessage) bool {
		if string(m.Value) != "b 7 1000" {
			t.Errorf("late: %q", m.Value)
		}
		return true
	})
}

// E6: a start that would contradict the log is refused with the mend, and nothing is written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(w *world, c *engine.Config)
		says  string
	}{
		"input recreated": {func(w *world, _ *engine.Config) { w.recreate("payments", 2) }, "no position in payments"},
		"loop recreated":  {func(w *world, _ *engine.Config) { w.recreate("ledger-loop", 2) }, "no position in ledger-loop"},
		"table recreated": {func(w *world, _ *engine.Config) { w.recreate("ledger-table", 2) }, "group table"},
		"more partitions": {func(w *world, _ *engine.Config) {
			for _, topic := range []string{"payments", "totals", "ledger-table", "ledger-loop"} {
				if err := w.admin().CreatePartitions(topic, 4, nil, false); err != nil {
					w.Fatal(err)
				}
			}
		}, "klgstream state export"},
		"output of other partitions": {func(w *world, _ *engine.Config) { w.recreate("totals", 3) }, "totals has 3 partitions"},
		"no late topic":              {func(w *world, _ *engine.Config) { w.drop("payments-late") }, "klgstream topics"},
		"foreign commits": {
			func(w *world, _ *engine.Config) { w.commit("ledger", "payments", 0, 1, "theirs") },
			"not written by this version",
		},
		"commits of a newer program": {
			func(w *world, _ *engine.Config) { w.commit("ledger", "payments", 0, 1, "klg2:AAAA") },
			"in the format klg2, this program knows klg1 only; to mend it: run the klgstream that committed it",
		},
		"state of a newer program": {
			func(w *world, _ *engine.Config) {
				w.state("ledger-table", "a", append([]byte{8, codecs.StateVersion + 1}, "whatever it may be"...))
			},
			fmt.Sprintf(`ledger-table/0 key "a": decode state record: version "%d" is unknown_version: must be at most %d`, codecs.StateVersion+1, codecs.StateVersion),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			w.pay("a 1 1000", "b 2 1000", "c 3 1000", "d 4 1000")
			stop, _ := w.process(nil)
			w.totals(map[string]string{"a": "1/1", "b": "2/1", "c": "3/1", "d": "4/1"})
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var cfg engine.Config
			tt.spoil(w, &cfg)
			_, p := w.process(nil)
			var refusal *engine.RefusalError
			err := wait(t, p)
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want a refusal that says %q", err, tt.says)
			}
		})
	}
}

// A broker that has just started, or to which the news of a topic is still on its way, does not know the topic yet. A start that
// meets such a one is tried again; once it was refused, and the process ended while a broker came back.
func TestTopicThatIsKnownALittleLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.drop("totals")
	w.pay("a 1 1000", "b 2 1000")
	_, p := w.process(nil)
	eventually(t, "the start meets no topic", func() bool {
		err := p.Ready()
		return err != nil && strings.Contains(err.Error(), "topic totals does not exist")
	})
	if err := w.admin().CreateTopic("totals", &sarama.TopicDetail{NumPartitions: w.n, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	w.totals(map[string]string{"a": "1/1", "b": "2/1"})
}

// A broker that makes topics when they are asked for is not asked to: it would make a group table of one partition that forgets after a week.
func TestMissingTopicIsNotMade(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 1, kfake.NumBrokers(1), kfake.AllowAutoTopicCreation())
	w.drop("ledger-table")
	_, p := w.process(nil)
	eventually(t, "the start meets no table, or has made one", func() bool {
		err := p.Ready()
		return err == nil || strings.Contains(err.Error(), "topic ledger-table does not exist")
	})
	if w.cluster.TopicInfo("ledger-table") != nil {
		t.Error("the broker has made it")
	}
}

// What a processor shows of its state is what there is: a run that recovers keys tells how many bytes they take, that recovery is
// through, how long it took, and how its checkpoints ended.
func TestMetricsOfState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000", "b 2 1000", "c 3 1000")
	stop, _ := w.process(nil)
	w.totals(map[string]string{"a": "1/1", "b": "2/1", "c": "3/1"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	stop, _ = w.process(func(c *engine.Config) { c.Registerer = reg })
	w.pay("c 4 2000")
	w.totals(map[string]string{"a": "1/1", "b": "2/1", "c": "7/2"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			if name == "klgstream_checkpoints_total" {
				name += m.GetLabel()[1].GetValue()
			}
			got[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if got["klgstream_table_keys"] != 3 || got["klgstream_recovery_remaining_records"] != 0 || got["klgstream_rebalance_stall_seconds"] != 1 {
		t.Errorf("metrics %v", got)
	}
	sizes, bytes := map[string]int{}, 0
	w.read("ledger-table", func(m *sarama.ConsumerMessage) bool {
		bytes += len(m.Value) - sizes[string(m.Key)]
		sizes[string(m.Key)] = len(m.Value)
		return m.Offset == 3
	})
	if got["klgstream_table_bytes"] != float64(bytes) {
		t.Errorf("the states take %v bytes, should be %d: %v", got["klgstream_table_bytes"], bytes, sizes)
	}
	done := got["klgstream_checkpoints_totalcommitted"]
	if done < 1 || got["klgstream_checkpoints_totalfailed"] != 0 || got["klgstream_checkpoint_bytes"] != got["klgstream_checkpoint_duration_seconds"] ||
		got["klgstream_checkpoint_interval_seconds"] > done {
		t.Errorf("metrics %v", got)
	}
}

// wait polls a processor until it says that it is refused.
func wait(t *testing.T, p *engine.Processor) error {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var refusal *engine.RefusalError
		if err := p.Ready(); errors.As(err, &refusal) {
			return err
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			return p.Ready()
		}
	}
}

// state writes a record of partition 0 of a group table and returns its offset.
func (w *world) state(topic, key string, record []byte) int64 {
	w.Helper()
	p, err := sarama.NewSyncProducerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	_, at, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(record)})
	if err != nil {
		w.Fatal(err)
	}
	return at
}

func (w *world) admin() sarama.ClusterAdmin {
	w.Helper()
	a, err := sarama.NewClusterAdmin(w.brokers, w.client.Config())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = a.Close() })
	return a
}

func (w *world) drop(topic string) {
	w.Helper()
	if err := w.admin().DeleteTopic(topic); err != nil {
		w.Fatal(err)
	}
}

func (w *world) recreate(topic string, n int32) {
	w.Helper()
	w.drop(topic)
	if err := w.admin().CreateTopic(topic, &sarama.TopicDetail{NumPartitions: n, ReplicationFactor: 1}, false); err != nil {
		w.Fatal(err)
	}
}

// commit writes an offset as another program would.
func (w *world) commit(group, topic string, partition int32, offset int64, metadata string) {
	w.Helper()
	b, err := w.client.Coordinator(group)
	if err != nil {
		w.Fatal(err)
	}
	req := &sarama.OffsetCommitRequest{Version: 2, ConsumerGroup: group, ConsumerGroupGeneration: -1}
	req.AddBlock(topic, partition, offset, 0, metadata)
	resp, err := b.CommitOffset(req)
	if err != nil || resp.Errors[topic][partition] != sarama.ErrNoError {
		w.Fatal(err, resp)
	}
}

// Where compaction or retention took the last records of the changelog, goka waits for them for ever.
func TestRecoveryWithoutTheChangelogsTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000", "b 2 1000")
	stop, _ := w.process(nil)
	w.totals(map[string]string{"a": "1/1", "b": "2/1"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	end, err := w.client.GetOffset("ledger-table", 0, sarama.OffsetNewest)
	if err != nil {
		t.Fatal(err)
	}
	w.abort("ledger-table", 0) // leaves a control record, which no consumer gets to see, as the last
	if now, _ := w.client.GetOffset("ledger-table", 0, sarama.OffsetNewest); now <= end {
		t.Fatalf("the changelog ends at %d as before", now)
	}
	w.pay("a 1 1001")
	w.process(nil)
	w.totals(map[string]string{"a": "2/2", "b": "2/1"})
}

// abort writes a record in a transaction that is aborted.
func (w *world) abort(topic string, partition int32) {
	w.Helper()
	cfg := *w.client.Config()
	cfg.Producer.Idempotent, cfg.Producer.RequiredAcks, cfg.Net.MaxOpenRequests = true, sarama.WaitForAll, 1
	cfg.Producer.Transaction.ID = "stranger"
	p, err := sarama.NewSyncProducer(w.brokers, &cfg)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	if err := p.BeginTxn(); err != nil {
		w.Fatal(err)
	}
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: partition, Key: sarama.StringEncoder("a"), Value: sarama.StringEncoder("x")}); err != nil {
		w.Fatal(err)
	}
	if err := p.AbortTxn(); err != nil {
		w.Fatal(err)
	}
}

// Keys without events for the state's time to live are forgotten, in the table too.
func TestStateExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("old 1 1000", "new 1 9000000")
	w.process(func(c *engine.Config) { c.StateTTL, c.Bound = time.Hour, 0 })
	w.totals(map[string]string{"old": "1/1", "new": "1/1"})
	w.pay("new 1 9000001")
	w.read("ledger-table", func(m *sarama.ConsumerMessage) bool { return string(m.Key) == "old" && m.Value == nil })
	w.pay("old 5 9000002")
	w.totals(map[string]string{"old": "5/1", "new": "2/2"})
}

// A flood of new keys stays within its bound, and says so.
func TestMaxKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000", "b 1 1000", "c 1 1000", "a 1 1000")
	w.process(func(c *engine.Config) { c.MaxKeys = 2 })
	w.totals(map[string]string{"a": "2/2", "b": "1/1"})
	w.read("payments-dead", func(m *sarama.ConsumerMessage) bool {
		if string(m.Value) != "c 1 1000" {
			t.Errorf("dead: %q", m.Value)
		}
		return true
	})
}

func TestBrokersThatRefuseTheSessionTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	_, p := w.process(func(c *engine.Config) { c.SessionTimeout, c.CommitInterval = 100*time.Hour, time.Second })
	if err := wait(t, p); !strings.Contains(err.Error(), "group.max.session.timeout.ms") {
		t.Error(err)
	}
}

// E7: what another writer appends to the changelog, at any time, is written over before a position is committed behind it.
func TestForeignStateIsWrittenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("a 1 1000")
	reg := prometheus.NewRegistry()
	w.process(func(c *engine.Config) { c.Registerer = reg })
	w.totals(map[string]string{"a": "1/1"})
	var stale []byte
	w.read("ledger-table", func(m *sarama.ConsumerMessage) bool { stale = m.Value; return true })
	w.pay("a 1 1001")
	w.totals(map[string]string{"a": "2/2"})
	at := w.state("ledger-table", "a", stale)
	w.pay("b 1 1002")
	w.read("ledger-table", func(m *sarama.ConsumerMessage) bool {
		return m.Offset > at && string(m.Key) == "a" && !bytes.Equal(m.Value, stale)
	})
}
