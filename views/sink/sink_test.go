package sink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/sink"
	"klgstream.dev/views/sqlite"
	"klgstream.dev/views/viewtest"
)

const (
	windows    = "aircraft-windows"
	late       = "aircraft-events-late"
	dead       = "aircraft-events-dlq"
	partitions = 4
)

// broker is a Kafka broker in this process, with the three topics.
type broker struct {
	t      *testing.T
	addrs  []string
	client *kgo.Client
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, windows, late, dead))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &broker{t: t, addrs: cluster.ListenAddrs(), client: client}
}

func (b *broker) produce(records ...*kgo.Record) {
	b.t.Helper()
	if err := b.client.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// produceFleet publishes windows in all their revisions: aircraft × hours × revisions records.
func (b *broker) produceFleet(aircraft, hours, revisions int64) {
	b.t.Helper()
	var records []*kgo.Record
	for revision := range revisions {
		for i := range aircraft {
			for h := range hours {
				w := viewtest.Window(fmt.Sprintf("N%03d", i), h, revision+1)
				records = append(records, &kgo.Record{Topic: windows, Partition: int32(i % partitions), Key: w.AppendKey(nil), Value: w.AppendJSON(nil)})
			}
		}
	}
	b.produce(records...)
}

func (b *broker) produceLetter(topic string, l codecs.Letter) {
	b.t.Helper()
	r := &kgo.Record{Topic: topic, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	b.produce(r)
}

// admin does something with the broker.
func (b *broker) admin(do func(sarama.ClusterAdmin) error) {
	b.t.Helper()
	admin, err := sarama.NewClusterAdmin(b.addrs, sarama.NewConfig())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(do(admin), admin.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// committed is the sum of the group's offsets of a topic.
func (b *broker) committed(group, topic string) (sum int64) {
	b.t.Helper()
	b.admin(func(admin sarama.ClusterAdmin) error {
		offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
		if err != nil {
			return err
		}
		for _, block := range offsets.Blocks[topic] {
			sum += max(0, block.Offset)
		}
		return nil
	})
	return sum
}

// store is SQLite with a say in each write, and a bell that rings behind it.
type store struct {
	views.Store
	bell chan struct{}

	mu     sync.Mutex
	before func(views.Batch) error // what to do instead of a write
	after  func(views.Batch) error // what to say behind one
	writes int
}

func newStore(t *testing.T) *store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "views.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &store{Store: s, bell: make(chan struct{}, 1)}
}

func (s *store) script(before, after func(views.Batch) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

func (s *store) Write(ctx context.Context, b views.Batch) error {
	defer s.ring()
	s.mu.Lock()
	before, after := s.before, s.after
	s.writes++
	s.mu.Unlock()
	if before != nil {
		if err := before(b); err != nil {
			return err
		}
	}
	if err := s.Store.Write(ctx, b); err != nil || after == nil {
		return err
	}
	return after(b)
}

func (s *store) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// until waits until something holds, and looks again behind every write and now and then.
func (s *store) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-s.bell:
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: still not so after a minute", what)
		}
	}
}

// rows is the view's column, by key; nil while the store has no tables yet.
func (s *store) rows(t *testing.T, view, column string) []any {
	t.Helper()
	r, err := s.Query(t.Context(), views.Query{View: view, Limit: views.MaxLimit})
	if err != nil {
		return nil
	}
	at := slices.IndexFunc(r.Columns, func(c views.Column) bool { return c.Name == column })
	var list []any
	for _, row := range r.Rows {
		list = append(list, row[at])
	}
	return list
}

// holdsFleet tells whether the store has every window in its last revision.
func (s *store) holdsFleet(t *testing.T, aircraft, hours, revisions int64) func() bool {
	return func() bool {
		return cmp.Equal(s.rows(t, "aircraft_windows", "event_count"), slices.Repeat([]any{revisions}, int(aircraft*hours)))
	}
}

// running is a sink under way.
type running struct {
	*sink.Sink
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run, once it ended
}

// run starts a sink; the test's end stops it.
func run(t *testing.T, b *broker, s views.Store, change func(*sink.Config)) *running {
	t.Helper()
	c := sink.Config{
		Brokers: b.addrs, Store: s, Now: time.Now, BatchRows: 50, RetryMin: time.Millisecond, RetryMax: 50 * time.Millisecond,
		CommitInterval: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&c)
	}
	loading, err := sink.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Sink: loading, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = loading.Run(ctx)
	}()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// stop ends the sink and returns what Run did.
func (r *running) stop() error {
	r.cancel()
	<-r.ended
	return r.err
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestLoadsAllTopics(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	b.produceFleet(20, 3, 4)
	b.produceLetter(late, viewtest.Letter(1, "late"))
	b.produceLetter(dead, viewtest.Letter(2, "not_json"))
	r := run(t, b, s, nil)
	s.until(t, "windows", s.holdsFleet(t, 20, 3, 4))
	s.until(t, "letters", func() bool {
		return len(s.rows(t, "late_events", "reason"))+len(s.rows(t, "dead_letters", "reason")) == 2
	})
	check(t, "ready", r.Ready(), nil)
	check(t, "stop", r.stop(), nil)
	check(t, "committed windows", b.committed("klgstream-sink", windows), int64(20*3*4))
	check(t, "committed late events", b.committed("klgstream-sink", late), int64(1))
	check(t, "committed dead letters", b.committed("klgstream-sink", dead), int64(1))
}

// K1: nothing is committed while nothing is durable, and a sink that comes back begins where that was.
func TestCommitsOnlyWhatIsDurable(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	b.produceFleet(8, 2, 5)
	s.script(func(views.Batch) error { return errors.New("disk is full") }, nil)
	r := run(t, b, s, nil)
	s.until(t, "fault to be told", func() bool { return r.Ready() != nil && strings.Contains(r.Ready().Error(), "disk is full") })
	check(t, "stop", r.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(0))
	s.script(nil, nil)
	r = run(t, b, s, nil)
	s.until(t, "windows", s.holdsFleet(t, 8, 2, 5))
	check(t, "stop", r.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(8*2*5))
}

// TestStopCommits has no commit come by itself: what is durable is committed when the sink lets its partitions go.
func TestStopCommits(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	b.produceFleet(8, 2, 2)
	r := run(t, b, s, func(c *sink.Config) { c.CommitInterval = time.Hour })
	s.until(t, "windows", s.holdsFleet(t, 8, 2, 2))
	check(t, "committed before the stop", b.committed("klgstream-sink", windows), int64(0))
	check(t, "stop", r.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(8*2*2))
}

// K2: the group keeps its session while the store is away, and other partitions go on when only one cannot.
func TestStoreAwayKeepsTheSession(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	var mu sync.Mutex
	away := true
	s.script(func(batch views.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if away && slices.ContainsFunc(batch.Windows, func(w codecs.Window) bool { return w.Registration == "N000" }) {
			return errors.New("connection refused")
		}
		return nil
	}, nil)
	b.produceFleet(partitions, 1, 1)
	var sessions counter
	metrics := prometheus.NewRegistry()
	r := run(t, b, s, func(c *sink.Config) { c.Logger, c.Registerer = slog.New(&sessions), metrics })
	s.until(t, "other partitions", func() bool { return len(s.rows(t, "aircraft_windows", "event_count")) == partitions-1 })
	writes := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.writes }
	s.until(t, "many attempts", func() bool { return writes() > 40 })
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "aircraft-windows/0@0") {
		t.Errorf("ready: %v", err)
	}
	s.until(t, "lag", func() bool { return lag(t, metrics, "0") == 1 })
	mu.Lock()
	away = false
	mu.Unlock()
	s.until(t, "all partitions", s.holdsFleet(t, partitions, 1, 1))
	s.until(t, "readiness", func() bool { return r.Ready() == nil })
	s.until(t, "no lag", func() bool { return lag(t, metrics, "0") == 0 })
	check(t, "sessions", sessions.count("session begins"), 1)
	check(t, "stop", r.stop(), nil)
}

// lag is the lag of a partition of the windows; -1 if it is not told.
func lag(t *testing.T, from prometheus.Gatherer, partition string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if family.GetName() == "klgstream_sink_lag_records" && labels["topic"] == windows && labels["partition"] == partition {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// counter is a log handler that counts messages.
type counter struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counter) WithGroup(string) slog.Handler            { return c }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[r.Message]++
	return nil
}

func (c *counter) count(message string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[message]
}

// K3, through the broker: the record comes back as a row of dead_letters.
func TestHopelessRowEndsAsDeadLetter(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	s.script(func(batch views.Batch) error {
		for _, w := range batch.Windows {
			if w.Registration == "N999" {
				return views.Permanent(errors.New("no such aircraft"))
			}
		}
		return nil
	}, nil)
	b.produceFleet(8, 1, 3)
	poison := viewtest.Window("N999", 0, 2)
	b.produce(&kgo.Record{Topic: windows, Partition: 1, Key: poison.AppendKey(nil), Value: poison.AppendJSON(nil)})
	b.produce(&kgo.Record{Topic: windows, Partition: 1, Key: []byte("k"), Value: []byte("no window")})
	r := run(t, b, s, nil)
	s.until(t, "everything else", s.holdsFleet(t, 8, 1, 3))
	s.until(t, "dead letters", func() bool { return len(s.rows(t, "dead_letters", "reason")) == 2 })
	check(t, "reasons", s.rows(t, "dead_letters", "reason"), []any{sink.ReasonRefused, codecs.ReasonNotJSON})
	check(t, "topics", s.rows(t, "dead_letters", "source_topic"), []any{windows, windows})
	check(t, "payloads", s.rows(t, "dead_letters", "payload"), []any{string(poison.AppendJSON(nil)), "no window"})
	check(t, "stop", r.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(8*3+2))
}

// K1, the other way round: the sink dies between the write and the commit, and what it wrote is written again.
func TestCrashBehindTheWriteRepeatsIt(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	b.produceFleet(8, 2, 3)
	died := make(chan struct{})
	dies := sync.OnceFunc(func() { close(died) })
	s.script(nil, func(views.Batch) error { dies(); return errors.New("connection lost behind the commit") })
	r := run(t, b, s, func(c *sink.Config) { c.RetryMin, c.RetryMax = time.Hour, time.Hour })
	<-died
	s.until(t, "rows of a sink that never hears of them", s.holdsFleet(t, 8, 2, 3))
	check(t, "stop", r.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(0))
	before := s.rows(t, "aircraft_windows", "revision")
	s.script(nil, nil)
	r = run(t, b, s, nil)
	s.until(t, "commits", func() bool { return b.committed("klgstream-sink", windows) == 8*2*3 })
	check(t, "rows", s.rows(t, "aircraft_windows", "revision"), before)
	check(t, "stop", r.stop(), nil)
}

// TestReplicasShare has sinks come and go while records come: nothing is lost, whoever loads it.
func TestReplicasShare(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	first := run(t, b, s, nil)
	b.produceFleet(8, 1, 1)
	s.until(t, "first rows", s.holdsFleet(t, 8, 1, 1))
	second := run(t, b, s, nil)
	b.produceFleet(8, 2, 2)
	s.until(t, "second replica", func() bool { return second.Ready() == nil })
	b.produceFleet(8, 2, 3)
	s.until(t, "rows of both", s.holdsFleet(t, 8, 2, 3))
	check(t, "stop of the first", first.stop(), nil)
	b.produceFleet(8, 2, 5)
	s.until(t, "rows of the second", s.holdsFleet(t, 8, 2, 5))
	check(t, "stop of the second", second.stop(), nil)
	check(t, "committed", b.committed("klgstream-sink", windows), int64(8+32+48+80))
}

// TestTwoStores has two groups load one broker's topics into two stores at once, one of them away for a while.
func TestTwoStores(t *testing.T) {
	t.Parallel()
	b, one, two := newBroker(t), newStore(t), newStore(t)
	two.script(func(views.Batch) error { return errors.New("away") }, nil)
	b.produceFleet(8, 2, 2)
	r1 := run(t, b, one, nil)
	r2 := run(t, b, two, func(c *sink.Config) { c.Group = "other" })
	one.until(t, "first store", one.holdsFleet(t, 8, 2, 2))
	two.script(nil, nil)
	two.until(t, "second store", two.holdsFleet(t, 8, 2, 2))
	check(t, "stop", []error{r1.stop(), r2.stop()}, []error{nil, nil})
}

func TestRebuildsFromBeginning(t *testing.T) {
	t.Parallel()
	b, s := newBroker(t), newStore(t)
	b.produceFleet(8, 2, 2)
	r := run(t, b, s, nil)
	s.until(t, "windows", s.holdsFleet(t, 8, 2, 2))
	fresh := newStore(t)
	beside := run(t, b, fresh, func(c *sink.Config) { c.FromBeginning = true })
	<-beside.ended
	if beside.err == nil || !strings.Contains(beside.err.Error(), "stop every sink of it") {
		t.Errorf("rebuild beside a running sink: %v", beside.err)
	}
	check(t, "stop", r.stop(), nil)
	r = run(t, b, fresh, nil)
	s.until(t, "commits", func() bool { return b.committed("klgstream-sink", windows) == 8*2*2 })
	check(t, "stop", r.stop(), nil)
	check(t, "rows of a new store without rebuild", len(fresh.rows(t, "aircraft_windows", "event_count")), 0)
	r = run(t, b, fresh, func(c *sink.Config) { c.FromBeginning = true })
	fresh.until(t, "rebuilt windows", fresh.holdsFleet(t, 8, 2, 2))
	check(t, "stop", r.stop(), nil)
}

// TestWaitsForTopics starts the sink before its topics are there, and before the store is.
func TestWaitsForTopicsAndStore(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b, s := &broker{t: t, addrs: cluster.ListenAddrs(), client: client}, &absent{store: newStore(t)}
	r := run(t, b, s, nil)
	s.until(t, "complaint about the store", func() bool { return complains(r.Sink, "migrate store") })
	s.arrive()
	s.until(t, "complaint about the topics", func() bool { return complains(r.Sink, "join group") })
	b.admin(func(admin sarama.ClusterAdmin) error {
		var errs []error
		for _, topic := range []string{windows, late, dead} {
			errs = append(errs, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
		}
		return errors.Join(errs...)
	})
	b.produceFleet(4, 1, 1)
	s.until(t, "windows", s.holdsFleet(t, 4, 1, 1))
	check(t, "stop", r.stop(), nil)
}

func complains(s *sink.Sink, of string) bool {
	err := s.Ready()
	return err != nil && strings.Contains(err.Error(), of)
}

// absent is a store that is not there at first.
type absent struct {
	*store
	mu   sync.Mutex
	here bool
}

func (s *absent) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here = true
}

func (s *absent) Migrate(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.here {
		return errors.New("no such host")
	}
	return s.store.Migrate(ctx)
}
