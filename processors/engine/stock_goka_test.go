//go:build stockgoka

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/lovoo/goka/storage"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/processors/engine"
)

// The proof that the faults are real: goka as it comes, with its own group, store, hasher and producer, on the broker that our tests use.
// Each test passes when goka loses, doubles or hangs, and names the test that shows that the engine does not. When one fails after an
// upgrade of goka, the fault is mended there and its mend here may go. They are built with the tag stockgoka only.

// quiet keeps what goka says of its faults out of the output.
type quiet struct{}

func (quiet) Print(...any)          {}
func (quiet) Println(...any)        {}
func (quiet) Printf(string, ...any) {}

// stock runs a goka processor that reads payments and keeps the table of "ledger", with goka's own settings but for a new group's start.
func (w *world) stock(decode goka.Codec, count goka.ProcessCallback, options ...goka.ProcessorOption) (stop func() error, p *goka.Processor) {
	w.Helper()
	cfg := goka.DefaultConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	graph := goka.DefineGroup("ledger", goka.Input("payments", decode, count), goka.Output("totals", new(codec.String)), goka.Persist(new(codec.Int64)))
	options = append([]goka.ProcessorOption{
		goka.WithStorageBuilder(storage.MemoryBuilder()), goka.WithConsumerGroupBuilder(goka.ConsumerGroupBuilderWithConfig(cfg)), goka.WithLogger(quiet{}),
	}, options...)
	p, err := goka.NewProcessor(w.brokers, graph, options...)
	if err != nil {
		w.Fatal(err)
	}
	return w.running(p.Run), p
}

// running runs a part of goka until the returned function is called or the test ends.
func (w *world) running(run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			return errors.New("goka does not stop")
		}
	}
	w.Cleanup(func() { _ = stop() })
	return stop
}

// stockView reads a table of strings into a store.
func (w *world) stockView(table goka.Table, build storage.Builder) (stop func() error, v *goka.View) {
	w.Helper()
	v, err := goka.NewView(w.brokers, table, new(codec.String), goka.WithViewStorageBuilder(build), goka.WithViewLogger(quiet{}))
	if err != nil {
		w.Fatal(err)
	}
	return w.running(v.Run), v
}

// countOne adds one to its key's count.
func countOne(ctx goka.Context, _ any) {
	n, _ := ctx.Value().(int64)
	ctx.SetValue(n + 1)
}

// One message, whose count is in the changelog when its offset cannot be committed, is 2 after a restart.
// The engine: TestRedeliveryCountsNothingTwice, TestFenceWritesAgainAndCountsNothing.
func TestStockCountsARedeliveryTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	commits := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "ledger", Err: kerr.NotCoordinator, Count: -1})
	w.pay("once")
	stop, _ := w.stock(new(codec.String), countOne)
	eventually(t, "the message is counted", func() bool { return slices.Contains(w.values("ledger-table"), "=1") })
	_ = stop()
	commits.Remove()
	if at := w.committed(0); at > 0 {
		t.Fatalf("committed up to %d, want nothing", at)
	}
	w.stock(new(codec.String), countOne)
	eventually(t, "the message is counted again", func() bool { return slices.Contains(w.values("ledger-table"), "=2") })
}

// A count that could not be written to the changelog stays in the local store: after a restart the message is counted on top of it.
// The engine: TestFailedCheckpointPoisonsAllBehindIt, TestReplayPublishesAgain (it keeps no store on disk).
func TestStockKeepsWhatItCouldNotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	onDisk := goka.WithStorageBuilder(storage.DefaultBuilder(t.TempDir()))
	refused := w.refuse("ledger-table", kerr.PolicyViolation, -1)
	w.pay("once")
	stop, _ := w.stock(new(codec.String), countOne, onDisk)
	eventually(t, "the count is refused", func() bool { return refused.Hits() > 0 })
	_ = stop()
	refused.Remove()
	if at := w.committed(0); at > 0 {
		t.Fatalf("committed up to %d, want nothing", at)
	}
	w.stock(new(codec.String), countOne, onDisk)
	eventually(t, "one message is counted as two", func() bool { return slices.Equal(w.values("ledger-table"), []string{"=2"}) })
}

// What a former owner still writes to the changelog is told in a log line at most, and believed after the next restart.
// The engine: TestForeignRecordsAreHealed, and with processes TestZombieAndCompaction.
func TestStockBelievesAZombie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("one", "two", "three")
	stop, _ := w.stock(new(codec.String), countOne)
	eventually(t, "three are committed", func() bool { return w.committed(0) == 3 })
	w.put("ledger-table", 0, "", []byte("1")) // by whom the partition was taken from
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.pay("four")
	w.stock(new(codec.String), countOne)
	eventually(t, "four are counted as two", func() bool { return slices.Equal(w.values("ledger-table"), []string{"=1", "=2", "=3", "=1", "=2"}) })
}

// panicking is a codec with a bug.
type panicking struct{ *codec.String }

func (panicking) Decode([]byte) (any, error) { panic("a bug of the codec") }

// A codec that panics ends the whole process, and again after each restart.
// The engine: TestDeadLetters.
func TestStockDiesOfACodec(t *testing.T) {
	t.Parallel()
	if brokers := os.Getenv("STOCK_GOKA_DIES"); brokers != "" {
		w := &world{T: t, brokers: []string{brokers}, n: 1}
		_, p := w.stock(panicking{}, countOne)
		eventually(t, "it is recovered and waits", func() bool { return p.Recovered() && false })
		return
	}
	w := newWorld(t, 1)
	w.pay("poison")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStockDiesOfACodec$")
	child.Env = append(os.Environ(), "STOCK_GOKA_DIES="+w.brokers[0])
	out, err := child.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "negative WaitGroup counter") {
		t.Errorf("goka survives a codec that panics: %v, %.500s", err, out)
	}
}

// A result that the broker refuses is lost when the message behind it has none: its offset is committed, past the refused one.
// The engine: TestPositionWaitsForEverythingItCaused, TestFailedCheckpointPoisonsAllBehindIt.
func TestStockCommitsPastWhatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	tell := func(ctx goka.Context, m any) {
		if m != "silent" {
			ctx.Emit("totals", "", m)
		}
	}
	refused := w.refuse("totals", kerr.NotEnoughReplicas, -1)
	w.pay("lost", "silent")
	stop, _ := w.stock(new(codec.String), tell)
	eventually(t, "the first is refused", func() bool { return refused.Hits() > 0 })
	eventually(t, "both are committed", func() bool { return w.committed(0) == 2 })
	_ = stop()
	refused.Remove()
	w.pay("told")
	w.stock(new(codec.String), tell)
	eventually(t, "a result is told", func() bool { return len(w.values("totals")) > 0 })
	eventually(t, "the third is committed", func() bool { return w.committed(0) == 3 })
	if got := w.values("totals"); !slices.Equal(got, []string{"=told"}) {
		t.Errorf("results %q: goka has lost nothing", got)
	}
}

// A changelog whose last record no consumer gets to see, here a control record, is never recovered, however often its end is read.
// The engine: TestRecoveryWithoutTheChangelogsTail.
func TestStockWaitsForTheChangelogsTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("ledger-table", 0, "a", []byte("1"))
	stop, whole := w.stockView("ledger-table", storage.MemoryBuilder())
	eventually(t, "with its tail it is recovered", whole.Recovered)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.abort("ledger-table", 0)
	end := w.ends("ledger-table")[0]
	atEnd := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ledger-table", Observe: true, Count: -1, When: func(req kmsg.Request) bool {
		r, ok := req.(*kmsg.FetchRequest)
		return ok && len(r.Topics) == 1 && r.Topics[0].Partitions[0].FetchOffset == end
	}})
	_, v := w.stockView("ledger-table", storage.MemoryBuilder())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := atEnd.Wait(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if v.Recovered() {
		t.Error("goka has recovered")
	}
}

// failing counts what it cannot decode.
type failing struct {
	*codec.Int64
	times *atomic.Int32
}

func (f failing) Decode(data []byte) (any, error) {
	v, err := f.Int64.Decode(data)
	if err != nil {
		f.times.Add(1)
	}
	return v, err
}

// A message that cannot be decoded ends the work of its partition, again after a restart; what is behind it is never counted.
// The engine: TestDeadLetters.
func TestStockStopsAtWhatItCannotDecode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("nonsense", "1")
	f := failing{new(codec.Int64), new(atomic.Int32)}
	for run := range int32(2) {
		stop, _ := w.stock(f, countOne)
		eventually(t, fmt.Sprintf("run %d meets it", run), func() bool { return f.times.Load() > run })
		t.Logf("run %d: %v", run, stop())
	}
	if at := w.committed(0); at > 0 {
		t.Errorf("committed up to %d: goka has passed it", at)
	}
	if got := w.values("ledger-table"); len(got) != 0 {
		t.Errorf("counted %q behind it", got)
	}
}

// A message without a value is committed, and nobody is told.
// The engine: TestDeadLetters.
func TestStockDropsMessagesWithoutAValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.pay("", "", "counted")
	w.stock(new(codec.String), countOne)
	eventually(t, "what has a value is counted", func() bool { return len(w.values("ledger-table")) > 0 })
	eventually(t, "all three are committed", func() bool { return w.committed(0) == 3 })
	if got := w.values("ledger-table"); !slices.Equal(got, []string{"=1"}) {
		t.Errorf("counted %q, want one of three", got)
	}
}

// The memory store's range [a, b) holds b, and it seeks a prefix instead of a place between keys.
// The engine: TestStoreIterates.
func TestStockStoreIterates(t *testing.T) {
	t.Parallel()
	s := storage.NewMemory()
	for _, k := range []string{"b", "a", "bb", "c"} {
		if err := s.Set(k, []byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	it, err := s.IteratorWithRange([]byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for it.Next() {
		got += string(it.Key()) + " "
	}
	if got != "a b " {
		t.Errorf("[a, b) holds %q: the limit is not in it any more", got)
	}
	all, err := s.Iterator()
	if err != nil {
		t.Fatal(err)
	}
	if all.Seek([]byte("ba")) {
		t.Errorf("seek ba: %q", all.Key())
	}
}

// Most keys are looked for, and written, in another partition than Kafka's own producers put them in.
// The engine: TestPartitionOfIsKafkas.
func TestStockHashesOtherwiseThanKafka(t *testing.T) {
	t.Parallel()
	const keys, n = 10_000, 12
	stock := sarama.NewCustomHashPartitioner(goka.DefaultHasher())("payments")
	elsewhere := 0
	for i := range keys {
		key := fmt.Appendf(nil, "N%d", i)
		got, err := stock.Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, n)
		if err != nil {
			t.Fatal(err)
		}
		if got != engine.PartitionOf(key, n) {
			elsewhere++
		}
	}
	t.Logf("%d of %d keys are elsewhere", elsewhere, keys)
	if elsewhere < keys/2 {
		t.Errorf("%d of %d keys are elsewhere, want most", elsewhere, keys)
	}
}

// A key whose hash is the least int32, which has no positive counterpart, makes a view panic.
// The engine: TestHasherIsNeverNegative.
func TestStockPanicsOfAHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 12)
	_, v := w.stockView("totals", storage.MemoryBuilder())
	eventually(t, "the view is recovered", v.Recovered)
	defer func() {
		if r := recover(); r == nil {
			t.Error("no panic")
		} else {
			t.Log(r)
		}
	}()
	got, err := v.Get("afjtjzd")
	t.Errorf("got %v, %v", got, err)
}

// pausing tells how long goka waits between the end of one Consume and the next.
type pausing struct {
	sarama.ConsumerGroup
	ended  time.Time
	pauses chan<- time.Duration
}

func (g *pausing) Consume(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	if !g.ended.IsZero() {
		g.pauses <- time.Since(g.ended)
	}
	defer func() { g.ended = time.Now() }()
	return g.ConsumerGroup.Consume(ctx, topics, h)
}

// Whoever is in a group sleeps 5 s at each rebalance, and nobody counts meanwhile.
// The engine: TestGenerationsLoopWithinOneConsume, TestReplicasComeAndGo.
func TestStockSleepsAtEachRebalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	pauses := make(chan time.Duration, 100)
	_, p := w.stock(new(codec.String), countOne, goka.WithConsumerGroupBuilder(func(brokers []string, group, id string) (sarama.ConsumerGroup, error) {
		g, err := goka.DefaultConsumerGroupBuilder(brokers, group, id)
		return &pausing{ConsumerGroup: g, pauses: pauses}, err
	}))
	eventually(t, "the first is ready", p.Recovered)
	w.stock(new(codec.String), countOne)
	select {
	case d := <-pauses:
		t.Logf("the first was out of the group for %v", d)
		if d < 5*time.Second {
			t.Errorf("the first was out of the group for %v: goka does not sleep any more", d)
		}
	case <-time.After(time.Minute):
		t.Fatal("no rebalance")
	}
}

// A table that was deleted and made anew is recovered with what the old one held, and without what the new one holds.
// The engine: TestRefusals.
func TestStockBelievesADeletedTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	build := storage.DefaultBuilder(t.TempDir())
	w.put("ledger-table", 0, "a", []byte("old"))
	w.put("ledger-table", 0, "b", []byte("old"))
	stop, v := w.stockView("ledger-table", build)
	eventually(t, "the table is recovered", v.Recovered)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.recreate("ledger-table", 1)
	eventually(t, "the new table is known", func() bool { return w.client.RefreshMetadata("ledger-table") == nil })
	w.put("ledger-table", 0, "c", []byte("new"))
	_, v = w.stockView("ledger-table", build)
	eventually(t, "the new table is recovered", v.Recovered)
	for key, want := range map[string]any{"a": "old", "b": "old", "c": nil} {
		if got, err := v.Get(key); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", key, got, err, want)
		}
	}
}

// What goka asks of Kafka by default is not enough for exactness.
// The engine: TestKafkaSettingsThatExactnessNeeds.
func TestStockSettingsAreNotExact(t *testing.T) {
	t.Parallel()
	s := goka.DefaultConfig()
	for what, so := range map[string]bool{
		"the protocol of Kafka 2.0, without static membership":       s.Version == sarama.V2_0_0_0 && !s.Version.IsAtLeast(sarama.V2_3_0_0),
		"acknowledged by the leader alone":                           s.Producer.RequiredAcks == sarama.WaitForLocal,
		"repeated requests out of order, and doubled":                !s.Producer.Idempotent && s.Net.MaxOpenRequests > 1 && s.Producer.Retry.Max > 0,
		"a new group passes over what is there":                      s.Consumer.Offsets.Initial == sarama.OffsetNewest,
		"offsets committed by the clock":                             s.Consumer.Offsets.AutoCommit.Enable,
		"a position that the log does not have is passed over":       s.Consumer.Group.ResetInvalidOffsets,
		"records of aborted transactions are read like all the rest": s.Consumer.IsolationLevel == sarama.ReadUncommitted,
	} {
		if !so {
			t.Errorf("not so any more: %s", what)
		}
	}
}
