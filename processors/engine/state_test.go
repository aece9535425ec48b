package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

// stateLog is the ledger's state in the log.
func (w *world) stateLog(group string) *engine.StateLog {
	return &engine.StateLog{Client: w.client, Group: group, Input: "payments"}
}

// checkpointOf reads where a group stands.
func (w *world) checkpointOf(group string) engine.Checkpoint {
	w.Helper()
	c, err := w.stateLog(group).Checkpoint()
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// put writes records as they are.
func (w *world) put(topic string, partition int32, key string, value []byte, headers ...codecs.Header) int64 {
	w.Helper()
	p, err := sarama.NewSyncProducerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	m := &sarama.ProducerMessage{Topic: topic, Partition: partition, Key: sarama.StringEncoder(key)}
	if value != nil {
		m.Value = sarama.ByteEncoder(value)
	}
	for _, h := range headers {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	_, at, err := p.SendMessage(m)
	if err != nil {
		w.Fatal(err)
	}
	return at
}

// topics makes topics with as many partitions.
func (w *world) topics(n int32, names ...string) {
	w.Helper()
	for _, name := range names {
		if err := w.admin().CreateTopic(name, &sarama.TopicDetail{NumPartitions: n, ReplicationFactor: 1}, false); err != nil {
			w.Fatal(err)
		}
	}
	w.know(names...)
}

// know has the client learn of topics as they are now.
func (w *world) know(names ...string) {
	w.Helper()
	if err := w.client.RefreshMetadata(names...); err != nil {
		w.Fatal(err)
	}
}

// widen adds partitions to topics.
func (w *world) widen(n int32, names ...string) {
	w.Helper()
	for _, name := range names {
		if err := w.admin().CreatePartitions(name, n, nil, false); err != nil {
			w.Fatal(err)
		}
	}
	w.know(names...)
}

// envelope is a state record that the given sources have been applied to.
func envelope(state string, sources ...codecs.Source) []byte {
	e := codecs.Envelope{Sources: sources, Purged: math.MinInt64, Due: math.MaxInt64, State: []byte(state)}
	return e.Append(nil)
}

// refused wants a refusal that says something.
func refused(t *testing.T, what string, err error, says string) {
	t.Helper()
	var refusal *engine.RefusalError
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want a refusal that says %q", what, err, says)
	}
}

// at is an account that is at home in a partition of two.
func at(partition int32) string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("home%d", i); engine.PartitionOf([]byte(name), 2) == partition {
			return name
		}
	}
}

// settledLedger has counted payments in two partitions, the last of each by an account that is at home there, and was stopped
// in order.
func settledLedger(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 2)
	w.pay("a 1 1000000", "b 2 1000001", "c 3 1000002", "a 4 1000003", at(0)+" 5 1000004", at(1)+" 6 1000004")
	stop, _ := w.process(nil)
	w.totals(map[string]string{"a": "5/2", "b": "2/1", "c": "3/1", at(0): "5/1", at(1): "6/1"})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return w
}

// State moves from two partitions to four by the steps that StateLog offers, with one event that lies unread in the loop, and
// goes on there: nothing is lost, and nothing counts twice.
func TestStateMoves(t *testing.T) {
	t.Parallel()
	w := settledLedger(t)
	w.widen(4, "payments", "totals")
	from, to := w.stateLog("ledger"), w.stateLog("moved")
	c := w.checkpointOf("ledger")
	if err := errors.Join(from.Stopped(), from.Clean(c)); err != nil {
		t.Fatal(err)
	}
	home := engine.PartitionOf([]byte("a"), 2)
	unread := engine.LoopEvent{Source: codecs.Source{Partition: 1 - home, Offset: 2}, Value: []byte("a 10 1000005"), History: []codecs.Header{{Key: "klg-replayed", Value: []byte("1")}}}
	w.put("ledger-loop", home, "a", unread.Value, unread.Headers()...)

	w.topics(4, "moved-table", "moved-loop")
	wide, err := c.Spread(4)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Vacant(wide); err != nil {
		t.Fatal(err)
	}
	moved := w.move(from, to, c)
	if !slices.Equal(moved, slices.Sorted(slices.Values([]string{"a", "b", "c", at(0), at(1)}))) {
		t.Errorf("moved the state of %q", moved)
	}
	if err := to.Commit(wide); err != nil {
		t.Fatal(err)
	}
	for i, at := range w.checkpointOf("moved").Positions {
		if at.Input != wide.Positions[i].Input || at.Watermark != wide.Positions[i].Watermark || at.Rekeys != wide.Positions[i].Rekeys {
			t.Errorf("committed %+v, read %+v", wide.Positions[i], at)
		}
	}
	refused(t, "moving there once more", to.Vacant(wide), "cannot take state")

	w.n = 4
	w.pay("a 100 1000006", "b 100 1000006", "c 100 1000006", "d 100 1000006")
	stop := w.processAs("moved")
	w.totals(map[string]string{"a": "115/4", "b": "102/2", "c": "103/2", "d": "100/1", at(0): "5/1", at(1): "6/1"})
	if n, state, err := to.Members(); n != 1 || err != nil {
		t.Errorf("%d members in state %s, error %v", n, state, err)
	}
	refused(t, "a group that runs", to.Stopped(), "has 1 members")
	refused(t, "moving to a group that runs", to.Vacant(wide), "has 1 members")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// move copies table and unread events to where their keys are at home, and tells whose state there is.
func (w *world) move(from, to *engine.StateLog, c engine.Checkpoint) (keys []string) {
	w.Helper()
	for _, at := range c.Positions {
		err := from.Records(w.Context(), at.Partition, func(key string, record []byte) error {
			settled, err := c.Settled(at.Partition, key, record)
			if err != nil {
				return err
			}
			keys = append(keys, key)
			w.put(to.Group+"-table", engine.PartitionOf([]byte(key), 4), key, settled)
			return nil
		})
		if err == nil {
			err = from.Unread(w.Context(), at, func(e engine.LoopEvent) error {
				w.put(to.Group+"-loop", engine.PartitionOf(e.Key, 4), string(e.Key), e.Value, e.Headers()...)
				return nil
			})
		}
		if err != nil {
			w.Fatal(err)
		}
	}
	slices.Sort(keys)
	return keys
}

// processAs runs the ledger as another group.
func (w *world) processAs(group string) (stop func() error) {
	w.Helper()
	job := ledgerJob()
	job.Group = group
	p, err := engine.New(engine.Config{
		Brokers: w.brokers, CommitInterval: 5 * time.Millisecond, SessionTimeout: 2 * time.Second, Now: time.Now, Idle: engine.IdleHold,
		MaxFutureSkew: -1, Logger: slog.New(slog.NewTextHandler(w.Output(), nil)), Bound: time.Hour,
	}, job)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	w.Cleanup(cancel)
	return func() error { cancel(); return <-done }
}

// What a checkpoint says is what was read: every event is behind the positions, and the table ends where it says.
func TestCheckpointSaysWhereAGroupStands(t *testing.T) {
	t.Parallel()
	w := settledLedger(t)
	c := w.checkpointOf("ledger")
	if c.Partitions != 2 || len(c.Positions) != 2 || c.Definition == 0 {
		t.Fatalf("checkpoint %+v", c)
	}
	var read, table int64
	for i, at := range c.Positions {
		if at.Partition != int32(i) || at.Watermark == math.MinInt64 && len(at.Sources) == 0 {
			t.Errorf("position %+v", at)
		}
		read, table = read+at.Input, table+at.Table
	}
	if read != 6 || table < 5 {
		t.Errorf("%d events read and %d records in the table, want 6 and at least 5", read, table)
	}
	w.put("ledger-table", 0, "z", envelope("z"))
	refused(t, "a record behind the checkpoint", w.stateLog("ledger").Clean(c), "was not stopped at a checkpoint")
}

func TestCheckpointRefuses(t *testing.T) {
	t.Parallel()
	w := settledLedger(t)
	if _, err := w.stateLog("ledger").Checkpoint(); err != nil {
		t.Fatal(err)
	}
	_, err := w.stateLog("nobody").Checkpoint()
	refused(t, "no table", err, "nobody-table does not exist")
	w.topics(2, "idle-table")
	if _, err := w.stateLog("idle").Checkpoint(); !errors.Is(err, engine.ErrNothingCommitted) || !strings.Contains(err.Error(), "group idle in payments") {
		t.Errorf("a group that never ran: %v", err)
	}
	if n, state, err := w.stateLog("idle").Members(); n != 0 || err != nil {
		t.Errorf("a group that never ran has %d members (%s), error %v", n, state, err)
	}
	w.commit("idle", "idle-table", 1, 3, "another program's words")
	if _, err := w.stateLog("idle").Checkpoint(); err == nil || !strings.Contains(err.Error(), "group idle at idle-table/1") {
		t.Errorf("a position of another program: %v", err)
	}
	w.widen(3, "ledger-table")
	_, err = w.stateLog("ledger").Checkpoint()
	refused(t, "a table of other partitions", err, "2")
}

// Of two records of a key the one that more was applied to wins, whichever came last (E6), and a tombstone ends a key.
func TestRecordsAreTheNewest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	applied := func(offset int64) codecs.Source { return codecs.Source{Partition: 0, Offset: offset} }
	w.put("ledger-table", 0, "a", envelope("first", applied(1)))
	w.put("ledger-table", 0, "a", envelope("second", applied(5)))
	w.put("ledger-table", 0, "a", envelope("a zombie's", applied(3)))
	w.put("ledger-table", 0, "b", envelope("gone", applied(2)))
	w.put("ledger-table", 0, "b", nil)
	w.put("ledger-table", 0, "c", envelope("kept", applied(4)))
	got := map[string]string{}
	l := w.stateLog("ledger")
	err := l.Records(t.Context(), 0, func(key string, record []byte) error {
		var e codecs.Envelope
		if err := e.Parse(record); err != nil {
			return err
		}
		got[key] = string(e.State)
		return nil
	})
	if err != nil || len(got) != 2 || got["a"] != "second" || got["c"] != "kept" {
		t.Errorf("records %v, error %v", got, err)
	}
	full := errors.New("disk is full")
	if err := l.Records(t.Context(), 0, func(string, []byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("the reader's own error came back as %v", err)
	}
	bad := w.put("ledger-table", 0, "d", []byte{0xff})
	if err := l.Records(t.Context(), 0, func(string, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(`ledger-table/0@%d key "d"`, bad)) {
		t.Errorf("bytes that are no record: %v", err)
	}
}

// The loop's unread events are those behind the position that did not come through before (E7), with what marks them.
func TestUnreadOfTheLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	l := w.stateLog("ledger")
	event := func(offset int64) engine.LoopEvent {
		return engine.LoopEvent{Source: codecs.Source{Partition: 1, Offset: offset}, History: []codecs.Header{{Key: "klg-replayed", Value: []byte("1")}}}
	}
	for _, offset := range []int64{3, 4, 5, 6} {
		e := event(offset)
		w.put("ledger-loop", 0, "a", []byte(strconv.FormatInt(offset, 10)), e.Headers()...)
	}
	read := func(at engine.StatePosition) (got []string) {
		t.Helper()
		if err := l.Unread(t.Context(), at, func(e engine.LoopEvent) error {
			if string(e.Key) != "a" || e.Source.Partition != 1 || strconv.FormatInt(e.Source.Offset, 10) != string(e.Value) {
				t.Errorf("event %+v", e)
			}
			got = append(got, string(e.Value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	fenced := []engine.StateSource{{Partition: 1, Fence: 5}}
	for what, c := range map[string]struct {
		at   engine.StatePosition
		want []string
	}{
		"nothing committed":      {engine.StatePosition{Loop: -1}, []string{"3", "4", "5", "6"}},
		"behind the position":    {engine.StatePosition{Loop: 2}, []string{"5", "6"}},
		"what the fence lets by": {engine.StatePosition{Loop: 0, Sources: fenced}, []string{"6"}},
		"another partition":      {engine.StatePosition{Partition: 1, Loop: 0}, nil},
	} {
		if got := read(c.at); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	w.put("ledger-loop", 1, "a", []byte("x"), codecs.Header{Key: "klg-source", Value: []byte("short")})
	if err := l.Unread(t.Context(), engine.StatePosition{Partition: 1}, func(engine.LoopEvent) error { return nil }); err == nil || !strings.Contains(err.Error(), "ledger-loop/1@0") {
		t.Errorf("a loop record of nobody: %v", err)
	}
	never := w.stateLog("never")
	if err := never.Unread(t.Context(), engine.StatePosition{Loop: -1}, nil); err != nil {
		t.Errorf("a group that never re-keys: %v", err)
	}
	refused(t, "a loop that is gone", never.Unread(t.Context(), engine.StatePosition{Loop: 4}, nil), "never-loop does not exist")
}

// A late event that a checkpoint has published is forgotten, one that it may not have keeps the state from moving.
func TestSettled(t *testing.T) {
	t.Parallel()
	c := engine.Checkpoint{Positions: []engine.StatePosition{{Partition: 0, Input: 10, Sources: []engine.StateSource{{Partition: 1, Fence: 20}}}}}
	record := func(undecided ...codecs.Source) []byte {
		e := codecs.Envelope{Sources: []codecs.Source{{Partition: 0, Offset: 9}}, Undecided: undecided, Purged: 5, Due: math.MaxInt64, State: []byte("x")}
		return e.Append(nil)
	}
	plain := record()
	if got, err := c.Settled(0, "a", plain); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("nothing undecided: %q, error %v", got, err)
	}
	if got, err := c.Settled(0, "a", record(codecs.Source{Partition: 0, Offset: 9}, codecs.Source{Partition: 1, Offset: 20})); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("all published: %q, error %v; want %q", got, err, plain)
	}
	for what, s := range map[string]codecs.Source{
		"at the position": {Partition: 0, Offset: 10}, "behind the fence": {Partition: 1, Offset: 21}, "of a source that never spoke": {Partition: 2, Offset: 0},
	} {
		_, err := c.Settled(0, "a", record(s))
		refused(t, what, err, fmt.Sprintf("late event %d@%d", s.Partition, s.Offset))
	}
	if _, err := c.Settled(0, "a", []byte{0xff}); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("bytes that are no record: %v", err)
	}
}

// Added partitions begin with the least watermark and no position; a partition keeps its own source only.
func TestSpread(t *testing.T) {
	t.Parallel()
	c := engine.Checkpoint{Definition: 7, Partitions: 2, Positions: []engine.StatePosition{
		{Partition: 0, Input: 10, Loop: 4, Table: 9, Watermark: 500, Sources: []engine.StateSource{{0, window.Active, 500, 3}, {1, window.Active, 600, 8}}},
		{Partition: 1, Input: -1, Loop: -1, Watermark: 400},
	}}
	got, err := c.Spread(3)
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Checkpoint{Definition: 7, Partitions: 3, Positions: []engine.StatePosition{
		{Partition: 0, Input: 10, Watermark: 400, Rekeys: true, Sources: []engine.StateSource{{0, window.Active, 500, -1}}},
		{Partition: 1, Watermark: 400, Rekeys: true},
		{Partition: 2, Watermark: 400},
	}}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("spread to\n%+v, want\n%+v", got, want)
	}
	if same, err := c.Spread(2); err != nil || same.Positions[0].Rekeys {
		t.Errorf("as many as before: %+v, error %v", same, err)
	}
	if _, err := c.Spread(1); err == nil || !strings.Contains(err.Error(), "can only have gained partitions") {
		t.Errorf("fewer: %v", err)
	}
}

func TestVacantRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.pay("a 1 1", "b 1 1")
	c := engine.Checkpoint{Partitions: 2, Positions: []engine.StatePosition{{Partition: 0, Input: 1}, {Partition: 1, Input: 1}}}
	w.topics(2, "new-table", "new-loop", "narrow-loop", "used-table", "used-loop", "half-table")
	w.topics(1, "narrow-table")
	if err := w.stateLog("new").Vacant(c); err != nil {
		t.Errorf("a new group: %v", err)
	}
	refused(t, "no loop", w.stateLog("half").Vacant(c), "half-loop does not exist")
	refused(t, "another number of partitions", w.stateLog("narrow").Vacant(c), "narrow-table has 1 partitions, the state is to have 2")
	w.put("used-loop", 1, "a", []byte("x"))
	refused(t, "a loop with records", w.stateLog("used").Vacant(c), "used-loop/1 has had 1 records")
	ahead := engine.Checkpoint{Partitions: 2, Positions: []engine.StatePosition{{Partition: 0, Input: 1}, {Partition: 1, Input: 2}}}
	refused(t, "a shorter input", w.stateLog("new").Vacant(ahead), "payments/1@2, but the log reaches from 0 to 1")
	if err := w.stateLog("new").Commit(c); err != nil {
		t.Fatal(err)
	}
	refused(t, "a group with positions", w.stateLog("new").Vacant(c), "committed positions")
	if err := w.admin().DeleteRecords("payments", map[int32]int64{0: 1}); err != nil {
		t.Fatal(err)
	}
	refused(t, "an input that retention has cut", w.stateLog("new").Bounds(engine.Checkpoint{Positions: []engine.StatePosition{{Partition: 0, Input: 0}}}), "retention was faster")
}

// A reader sees what a consumer sees: committed records within the bounds, in order, with their headers and times.
func TestReadPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for i := range 5 {
		w.put("payments", 0, "k", []byte(strconv.Itoa(i)), codecs.Header{Key: "h", Value: []byte{byte(i)}})
	}
	w.abort("payments", 0) // a record that was taken back, and the mark that says so
	w.put("payments", 0, "k", []byte("last"))
	read := func(from, to int64) (got []string) {
		t.Helper()
		if err := engine.ReadPartition(t.Context(), w.client, "payments", 0, from, to, func(m *sarama.ConsumerMessage) error {
			if m.Offset < 5 && (len(m.Headers) != 1 || m.Headers[0].Value[0] != byte(m.Offset)) || string(m.Key) != "k" || m.Timestamp.IsZero() {
				t.Errorf("record %+v", m)
			}
			got = append(got, string(m.Value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, c := range []struct {
		from, to int64
		want     []string
	}{
		{0, math.MaxInt64, []string{"0", "1", "2", "3", "4", "last"}}, {2, 4, []string{"2", "3"}}, {-5, 1, []string{"0"}}, {5, 7, nil}, {50, 60, nil},
	} {
		if got := read(c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("[%d, %d): %q, want %q", c.from, c.to, got, c.want)
		}
	}
	enough := errors.New("enough")
	if err := engine.ReadPartition(t.Context(), w.client, "payments", 0, 0, 9, func(*sarama.ConsumerMessage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the reader's own error came back as %v", err)
	}
	if err := engine.ReadPartition(t.Context(), w.client, "payments", 9, 0, 9, nil); err == nil || !strings.Contains(err.Error(), "payments/9") {
		t.Errorf("a partition that is not there: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := engine.ReadPartition(ended, w.client, "payments", 0, 0, 9, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that was stopped: %v", err)
	}
}

// A leader that has moved is looked for again; a topic that may not be read is told at once.
func TestReadPartitionIsPatient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("payments", 0, "k", []byte("x"))
	read := func() (n int, err error) {
		err = engine.ReadPartition(t.Context(), w.client, "payments", 0, 0, 9, func(*sarama.ConsumerMessage) error { n++; return nil })
		return n, err
	}
	fetches := w.failFetches(kerr.NotLeaderForPartition, 2)
	if n, err := read(); n != 1 || err != nil || *fetches != 2 {
		t.Errorf("%d records behind %d failures, error %v", n, *fetches, err)
	}
	fetches = w.failFetches(kerr.TopicAuthorizationFailed, 100)
	if _, err := read(); !errors.Is(err, sarama.ErrTopicAuthorizationFailed) || *fetches != 1 {
		t.Errorf("%d attempts at a topic that may not be read, error %v", *fetches, err)
	}
}

// failFetches has the next n fetches of partition 0 of payments fail, and counts them.
func (w *world) failFetches(with *kerr.Error, n int) *int {
	failed := new(int)
	w.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if *failed == n {
			return nil, nil, false
		}
		*failed++
		w.cluster.KeepControl()
		resp, _ := req.ResponseKind().(*kmsg.FetchResponse)
		topic := kmsg.NewFetchResponseTopic()
		asked, _ := req.(*kmsg.FetchRequest)
		topic.Topic, topic.TopicID = asked.Topics[0].Topic, asked.Topics[0].TopicID
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.ErrorCode, partition.RecordBatches = with.Code, []byte{}
		topic.Partitions = append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	return failed
}
