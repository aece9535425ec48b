package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// movers are aircraft whose events are published without a pause, whatever happens meanwhile.
type movers struct {
	random *rand.Rand
	end    time.Time
	truth  map[string]int64 // by key of the window, as the input log has it

	width     atomic.Int32 // partitions that the producer knows of
	published atomic.Int64
	stop      func()
	done      chan struct{}
}

// launchMovers begins to publish.
func launchMovers(t *testing.T, k Kafka, n int32) *movers {
	t.Helper()
	m := &movers{random: rand.New(rand.NewPCG(1, 2)), end: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), done: make(chan struct{})}
	m.width.Store(n)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := m.publish(ctx, k); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
		}
	}()
	m.stop = func() { cancel(); <-m.done }
	t.Cleanup(m.stop)
	return m
}

// publish is a producer that ends when there are more partitions than it knows of: another one takes its place.
func (m *movers) publish(ctx context.Context, k Kafka) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	n := m.width.Load()
	for pace := time.NewTicker(2 * time.Millisecond); ctx.Err() == nil && m.width.Load() == n; <-pace.C {
		records := make([]*kgo.Record, 10)
		for i := range records {
			records[i] = m.next(n)
		}
		if err := cl.ProduceSync(context.WithoutCancel(ctx), records...).FirstErr(); err != nil {
			return err
		}
		m.published.Add(int64(len(records)))
	}
	return nil
}

// next is an event of the next four hours: half of them lie where their key belongs among n partitions, half of them anywhere.
func (m *movers) next(n int32) *kgo.Record {
	registration := fmt.Sprintf("N%d", m.random.IntN(60))
	at := m.end.Add(time.Duration(m.random.Int64N(int64(4 * time.Hour)))).Truncate(time.Millisecond)
	m.end = m.end.Add(2 * time.Second)
	r := &kgo.Record{Topic: "aircraft-events", Partition: m.random.Int32N(n), Value: []byte(strings.TrimSpace(event(registration, at.Format(time.RFC3339Nano))))}
	if m.random.IntN(2) == 0 {
		r.Key, r.Partition = []byte(registration), engine.PartitionOf([]byte(registration), n)
	}
	return r
}

// more waits until so many further events are published.
func (m *movers) more(t *testing.T, events int64) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for want := m.published.Load() + events; m.published.Load() < want; {
		select {
		case <-tick.C:
		case <-m.done:
			t.Fatal("nothing is published any more")
		}
	}
}

// count makes the truth of the input log, and tells how many of its events lie in each partition.
func (m *movers) count(t *testing.T, k Kafka) (events map[int32]int) {
	t.Helper()
	m.stop()
	m.truth, events = map[string]int64{}, map[int32]int{}
	for _, r := range consume(t, k, "aircraft-events", int(m.published.Load())) {
		var e struct {
			Registration string    `json:"registration_number"`
			At           time.Time `json:"timestamp"`
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		w := codecs.Window{Registration: e.Registration, Definition: "tumbling:1h", Start: e.At.Truncate(time.Hour).UnixMilli()}
		w.End = w.Start + time.Hour.Milliseconds()
		m.truth[string(w.AppendKey(nil))]++
		events[r.Partition]++
	}
	return events
}

// await reads the output until it has come to the truth. A count beyond it can never be right.
func (m *movers) await(t *testing.T, k Kafka, through func(right int) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ConsumeTopics("aircraft-windows"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	newest, right := map[string]codecs.Window{}, 0
	for !through(right) {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d windows are right", right, len(m.truth))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var w codecs.Window
			if err := w.UnmarshalJSON(r.Value); err != nil {
				t.Fatal(err)
			}
			key := string(r.Key)
			if w.Revision > newest[key].Revision {
				if newest[key].Count != m.truth[key] && w.Count == m.truth[key] {
					right++
				}
				newest[key] = w
			}
			if w.Count > m.truth[key] {
				t.Fatalf("%s counts %d, truth is %d", key, w.Count, m.truth[key])
			}
		})
	}
}

// widen adds partitions to topics.
func widen(t *testing.T, k Kafka, n int32, topics ...string) {
	t.Helper()
	admin, err := newTopicAdmin(k)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for _, topic := range topics {
		if err := admin.CreatePartitions(topic, n, nil, false); err != nil {
			t.Fatal(err)
		}
	}
}

// Four partitions become twelve while events are published all along, before, during and after, and no window is lost, doubled or late.
func TestStateMovesFromFourToTwelvePartitions(t *testing.T) {
	_, k := broker(t)
	processor := func(group string) *program {
		return launch(t, "processor", "--brokers", k.Brokers[0], "--group", group, "--registry-group=none", "--ops-url=http://127.0.0.1:0",
			"--bound=5h", "--idle=hold", "--idle-timeout=1s", "--commit-interval=5ms", "--log-format=json")
	}
	m := launchMovers(t, k, 4)
	old := processor("aircraft-activity")
	consume(t, k, "aircraft-windows", 300)
	m.more(t, 3000)
	if code := old.end(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	began := m.published.Load()
	widen(t, k, 12, "aircraft-events", "aircraft-windows")
	m.more(t, 500) // by a producer that does not know yet

	file := filepath.Join(t.TempDir(), "state.jsonl")
	out, _ := on(t, k, exitOK, "state", "export", file)
	t.Log(strings.TrimSpace(out))
	m.width.Store(12)
	on(t, k, exitOK, "topics", "--group=wide", "--registry-group=none", "--partitions=12")
	if out, _ := on(t, k, exitOK, "state", "import", file, "--group=wide", "--registry-group=none", "--dry-run"); !strings.Contains(out, "can be imported") {
		t.Errorf("dry run printed %s", out)
	}
	m.more(t, 500)
	out, _ = on(t, k, exitOK, "state", "import", file, "--group=wide", "--registry-group=none")
	if !strings.Contains(out, "from group aircraft-activity with 4 partitions into group wide with 12") {
		t.Errorf("printed %s", out)
	}
	if _, errs := on(t, k, exitConfig, "state", "import", file, "--group=wide", "--registry-group=none"); !strings.Contains(errs, "group wide cannot take state") {
		t.Errorf("a second import said %s", errs)
	}
	moved := m.published.Load()
	wide := processor("wide")
	m.more(t, 3000)
	events := m.count(t, k)
	t.Logf("%d events were published before the move, %d during it, %d after; by partition: %v", began, moved-began, m.published.Load()-moved, events)
	if len(events) != 12 {
		t.Errorf("events by partition: %v, want some in all twelve", events)
	}
	m.await(t, k, func(right int) bool { return right == len(m.truth) })
	if _, errs := on(t, k, exitConfig, "state", "export", "-", "--group=wide", "--registry-group=none"); !strings.Contains(errs, "has 1 members") {
		t.Errorf("export of a running group said %s", errs)
	}
	if code := wide.end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, box := range []string{"late", "dlq"} {
		if out, _ := on(t, k, exitOK, box, "list", "--json", "--group=wide"); out != "" {
			t.Errorf("%s: %s", box, out)
		}
	}
	again, _ := on(t, k, exitOK, "state", "export", "-", "--group=wide", "--registry-group=none")
	if !strings.Contains(again, `"partitions":12`) || strings.Count(again, "\n") < 60 {
		t.Errorf("exported again: %.300s", again)
	}
	m.inspect(t, k)
}

// inspect compares what inspect shows of one aircraft with the truth.
func (m *movers) inspect(t *testing.T, k Kafka) {
	t.Helper()
	out, _ := on(t, k, exitOK, "state", "inspect", "n7", "--group=wide", "--registry-group=none")
	if !strings.Contains(out, `"offset":`) || strings.Contains(out, `"Offset"`) {
		t.Errorf("fences of N7:\n%s", out)
	}
	var v stateView
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	var total int64
	for key, n := range m.truth {
		if strings.HasSuffix(key, "|N7") {
			total += n
		}
	}
	if v.Summary == nil || v.Summary.Count != total || v.Summary.Types["created"] != total || v.Partition != engine.PartitionOf([]byte("N7"), 12) {
		t.Errorf("shown of N7, of which there were %d events:\n%s", total, out)
	}
	if len(v.Fences) < 2 || len(v.Windows) != 1 || len(v.Windows[0].Slices) == 0 {
		t.Errorf("fences and windows of N7:\n%s", out)
	}
	out, _ = on(t, k, exitOK, "state", "inspect", "--group=wide", "--registry-group=none")
	if !strings.Contains(out, "group wide: 0 members (Empty)") || !strings.Contains(out, "WATERMARK") || strings.Count(out, "\n") != 15 {
		t.Errorf("totals:\n%s", out)
	}
	if _, errs := on(t, k, exitFailed, "state", "inspect", "NOBODY", "--group=wide", "--registry-group=none"); !strings.Contains(errs, "has no state of it") {
		t.Errorf("said %s", errs)
	}
}

// stateExport is a whole export of a group with one key and one event in its loop.
func stateExport(t *testing.T, change func(lines []stateLine) []stateLine) string {
	t.Helper()
	env := codecs.Envelope{Sources: []codecs.Source{{Partition: 0, Offset: 0}}, Purged: codecs.NoTime, Due: codecs.NoDue}
	lines := []stateLine{
		{Format: stateFormat, Group: "old", Input: "aircraft-events", Checkpoint: &engine.Checkpoint{Partitions: 2, Positions: []engine.StatePosition{{Partition: 0, Watermark: codecs.NoTime}, {Partition: 1, Watermark: 5}}}},
		{Key: []byte("N1"), Name: "N1", State: env.Append(nil)},
		{Event: &engine.LoopEvent{Source: codecs.Source{Partition: 1, Offset: 9}, Key: []byte("N2"), Value: []byte("second")}},
		{Event: &engine.LoopEvent{Source: codecs.Source{Partition: 1, Offset: 3}, Key: []byte("N2"), Value: []byte("first"), History: []codecs.Header{{Key: headerReplayed, Value: []byte("1")}}}},
		{Totals: &stateTotals{Keys: 1, Events: 2}},
	}
	if change != nil {
		lines = change(lines)
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, l := range lines {
		if err := out.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// Re-keyed events that were not read come in the order of their source, with what marks them, where their key belongs.
func TestStateImportKeepsTheLoop(t *testing.T) {
	_, k := broker(t)
	o := newOutside()
	o.stdin = strings.NewReader(stateExport(t, nil))
	if code := run(t.Context(), []string{"state", "import", "-", "--brokers", k.Brokers[0]}, o.environment); code != exitOK {
		t.Fatalf("exit code %d: %s", code, o.errs.String())
	}
	events := consume(t, k, "aircraft-activity-loop", 2)
	if string(events[0].Value) != "first" || string(events[1].Value) != "second" || events[0].Partition != engine.PartitionOf([]byte("N2"), 4) {
		t.Errorf("loop: %s in %d, then %s", events[0].Value, events[0].Partition, events[1].Value)
	}
	if h := events[0].Headers; len(h) != 2 || h[0].Key != "klg-source" || h[1].Key != headerReplayed {
		t.Errorf("headers %v", h)
	}
	if r := consume(t, k, "aircraft-activity-table", 1)[0]; string(r.Key) != "N1" || r.Partition != engine.PartitionOf([]byte("N1"), 4) {
		t.Errorf("table: %s in %d", r.Key, r.Partition)
	}
	state, err := openState(k, testNames)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Client.Close()
	c, err := state.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range c.Positions {
		if at.Input != 0 || at.Loop != 0 || at.Watermark != codecs.NoTime || at.Rekeys != (at.Partition < 2) {
			t.Errorf("position %+v", at)
		}
	}
}

func TestStateImportRefuses(t *testing.T) {
	_, k := broker(t)
	for name, c := range map[string]struct {
		change func(lines []stateLine) []stateLine
		args   []string
		says   string
	}{
		"cut off":          {func(l []stateLine) []stateLine { return l[:3] }, nil, "cut off"},
		"a line is gone":   {func(l []stateLine) []stateLine { return append(l[:1:1], l[2:]...) }, nil, "should have"},
		"not an export":    {func(l []stateLine) []stateLine { return l[1:] }, nil, "not an export"},
		"two exports":      {func(l []stateLine) []stateLine { return append(l, l[1]) }, nil, "behind its last line"},
		"bad state":        {func(l []stateLine) []stateLine { l[1].State = []byte{1}; return l }, nil, "line 2"},
		"another input":    {nil, []string{"--input-topic=elsewhere"}, "it counts"},
		"another log":      {func(l []stateLine) []stateLine { l[0].Checkpoint.Positions[1].Input = 77; return l }, nil, "aircraft-events/1@77"},
		"no topics":        {nil, []string{"--group=nobody"}, "nobody-table does not exist"},
		"fewer partitions": {shrink, nil, "can only have gained partitions"},
	} {
		o := newOutside()
		o.stdin = strings.NewReader(stateExport(t, c.change))
		code := run(t.Context(), append([]string{"state", "import", "-", "--brokers", k.Brokers[0]}, c.args...), o.environment)
		if (code != exitData && code != exitConfig && code != exitFailed) || !strings.Contains(o.errs.String(), c.says) {
			t.Errorf("%s: exit code %d, said %s, want %s", name, code, o.errs.String(), c.says)
		}
	}
	o := newOutside()
	o.stdin = strings.NewReader("bound: 5m\n")
	if code := run(t.Context(), []string{"state", "import", "-", "--brokers", k.Brokers[0]}, o.environment); code != exitData ||
		!strings.Contains(o.errs.String(), "not a file that klgstream state export wrote") || strings.Contains(o.errs.String(), "cut off") {
		t.Errorf("exit code %d, said %s", code, o.errs.String())
	}
	// Nothing was written by any of them.
	o = newOutside()
	o.stdin = strings.NewReader(stateExport(t, nil))
	if code := run(t.Context(), []string{"state", "import", "-", "--brokers", k.Brokers[0]}, o.environment); code != exitOK {
		t.Errorf("exit code %d: %s", code, o.errs.String())
	}
}

// shrink makes it an export of five partitions.
func shrink(l []stateLine) []stateLine {
	l[0].Checkpoint.Partitions = 5
	for p := int32(2); p < 5; p++ {
		l[0].Checkpoint.Positions = append(l[0].Checkpoint.Positions, engine.StatePosition{Partition: p})
	}
	return l
}

// A group that was not stopped at a checkpoint, or never ran, is not exported, and no file is left.
func TestStateExportRefuses(t *testing.T) {
	_, k := broker(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "state.jsonl")
	if _, errs := on(t, k, exitFailed, "state", "export", file); !strings.Contains(errs, "nothing is committed") {
		t.Errorf("of a group that never ran: %s", errs)
	}
	o := newOutside()
	o.stdin = strings.NewReader(stateExport(t, nil))
	if code := run(t.Context(), []string{"state", "import", "-", "--brokers", k.Brokers[0]}, o.environment); code != exitOK {
		t.Fatalf("exit code %d: %s", code, o.errs.String())
	}
	on(t, k, exitOK, "state", "export", "-")
	env := codecs.Envelope{Purged: codecs.NoTime, Due: codecs.NoDue}
	put(t, k, &kgo.Record{Topic: "aircraft-activity-table", Partition: 0, Key: []byte("N9"), Value: env.Append(nil)})
	if _, errs := on(t, k, exitConfig, "state", "export", file); !strings.Contains(errs, "was not stopped at a checkpoint") {
		t.Errorf("with a record behind the checkpoint: %s", errs)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestStateWithoutBroker(t *testing.T) {
	for _, args := range [][]string{{"inspect"}, {"export", "-"}, {"import", "-"}} {
		o := newOutside()
		if code := run(t.Context(), append(append([]string{"state"}, args...), "--brokers=127.0.0.1:1"), o.environment); code != exitUnavailable || !strings.Contains(o.errs.String(), "REDPANDA_BROKERS") {
			t.Errorf("%q: exit code %d, said %s", args, code, o.errs.String())
		}
	}
}
