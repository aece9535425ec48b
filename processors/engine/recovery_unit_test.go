package engine

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// Compaction takes records out of a batch and leaves its end where it was. Recovery once took the last batch, of which only the first
// record was left, for one with a record to come, and waited for it for ever.
func TestRecoveryBehindABatchThatLostItsTail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		next int64
		left bool
	}{"its last record is read": {4, false}, "it is not": {3, true}} {
		log := &sarama.FetchResponse{Version: 7}
		log.AddRecordBatch("table", 0, sarama.StringEncoder("a"), sarama.StringEncoder("x"), 3, predecessor, false)
		log.GetBlock("table", 0).RecordsSet[0].RecordBatch.LastOffsetDelta = 2 // 4 and 5 are gone
		s := newScripted(t, map[string]sarama.MockResponse{"FetchRequest": sarama.NewMockWrapper(log)})
		r := &tableReader{client: s.client, topic: "table", next: c.next, end: 6}
		if got := r.nothingLeft(); got == c.left {
			t.Errorf("%s: nothing left is %v", name, got)
		}
		for _, h := range s.broker.History() {
			if f, ok := h.Request.(*sarama.FetchRequest); ok && f.SessionEpoch != -1 { // 0 has the broker make a fetch session, each time a new one
				t.Errorf("%s: a fetch session is begun", name)
			}
		}
	}
}

// A leader that was just elected may not know yet how far the log is replicated, and answers with nothing where there are records. Recovery took
// that for the end, and went on without them.
func TestRecoveryAtALeaderThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		known int64
		left  bool
	}{{5, true}, {6, false}, {7, false}} {
		log := &sarama.FetchResponse{Version: 7}
		log.AddError("table", 0, sarama.ErrNoError)
		log.GetBlock("table", 0).HighWaterMarkOffset = c.known
		s := newScripted(t, map[string]sarama.MockResponse{"FetchRequest": sarama.NewMockWrapper(log)})
		r := &tableReader{client: s.client, topic: "table", next: 4, end: 6}
		if got := r.nothingLeft(); got == c.left {
			t.Errorf("a leader that knows %d of 6 offsets: nothing left is %v", c.known, got)
		}
	}
}

// E6: what the last checkpoint of a generation left to be written, another owner counted on, or forgot. When the partition is back, its
// changelog is what counts; once the next checkpoint met an entry without a state there, and the process ended.
func TestKeptPartitionThatWasLeftUnwritten(t *testing.T) {
	t.Parallel()
	rig := newRig(t)
	rig.begin(fresh())
	rig.deliver(0, "a 1000", "b 1000", "c 1000")
	rig.checkpoint()
	for _, key := range []string{"a", "b", "c"} {
		rig.p.overwrite([]*sarama.Record{{Key: []byte(key)}}) // found in the last checkpoint
	}
	rig.p.end()

	other := newRig(t)
	other.table = rig.table
	other.begin(position{input: 3, clock: clock{watermark: 999}})
	other.deliver(3, "a 2000")
	at := other.checkpoint()

	rig.p.begin(at)
	s := store[tick, tally]{rig.p, &frames{}, func(error) {}}
	recoverRecord(t, s, "a", other.table["a"])
	recoverRecord(t, s, "b", nil)
	rig.out = nil
	rig.checkpoint()
	if len(rig.out) != 1 || rig.out[0] != "c=1" { // the other has published its own
		t.Errorf("published %q", rig.out)
	}
	if !bytes.Equal(rig.table["a"], other.table["a"]) || rig.p.entries["b"] != nil {
		t.Errorf("a is written as %x, the other has written %x", rig.table["a"], other.table["a"])
	}
}

// E6, E7: an older state of a former owner that lies behind the newer one in the changelog is written over by whoever recovers it, be it that
// the partition was its own or a hot standby's copy before: else compaction would keep the older one, and what it lacks were lost.
func TestStaleStateIsWrittenOverAfterRecovery(t *testing.T) {
	t.Parallel()
	for _, standby := range []bool{false, true} {
		first := newRig(t)
		first.begin(fresh())
		first.deliver(0, "a 1000")
		first.checkpoint()
		stale := first.table["a"]
		first.deliver(1, "a 2000")
		at := first.checkpoint()

		rig := newRig(t)
		rig.begin(at)
		if standby {
			rig.p.end()
		}
		s := store[tick, tally]{rig.p, &frames{}, func(error) {}}
		recoverRecord(t, s, "a", first.table["a"])
		recoverRecord(t, s, "a", stale)
		if standby {
			if len(rig.p.dirty) > 0 {
				t.Error("a copy is written")
			}
			rig.p.begin(at)
		}
		rig.checkpoint()
		if string(rig.table["a"]) != string(first.table["a"]) || len(rig.out) != 1 || rig.out[0] != "a=2" {
			t.Errorf("standby %v: published %q", standby, rig.out)
		}
	}
}

// What a replica keeps of a partition that another has now is memory for nothing, unless the partition comes back soon. A replica that had
// started first once kept all tables for as long as it ran.
func TestTablesOfOthersAreDropped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		claimed bool
		standby bool
		after   time.Duration
		kept    bool
	}{
		{"just given up", false, false, keptFor, true},
		{"long given up", false, false, keptFor + 1, false},
		{"a hot standby's", false, true, time.Hour, true},
		{"the own", true, false, time.Hour, true},
	} {
		rig := newRig(t)
		rig.config.HotStandby = c.standby
		rig.begin(fresh())
		if !c.claimed {
			rig.p.end()
		}
		r := &run[tick, tally]{config: &rig.config, partitions: map[int32]*partition[tick, tally]{0: rig.p}}
		r.drop(&session[tick, tally]{}, rig.after(c.after))
		if kept := len(r.partitions) == 1; kept != c.kept {
			t.Errorf("%s: kept %v", c.name, kept)
		}
	}
}

// A reading of the changelog that ends by itself, as when its next records are deleted, is a fault. goka takes channels that are closed for the
// end of the changelog, and one time in two did so before it saw the error: it went on with a part of the state.
func TestReadingThatEndsByItself(t *testing.T) {
	t.Parallel()
	pc := &endedConsumer{messages: make(chan *sarama.ConsumerMessage), errors: make(chan *sarama.ConsumerError, 1)}
	pc.errors <- &sarama.ConsumerError{Topic: "table", Err: sarama.ErrOffsetOutOfRange}
	close(pc.errors)
	close(pc.messages)
	r := &tableReader{
		PartitionConsumer: pc, topic: "table", next: 3, end: 6,
		out: make(chan *sarama.ConsumerMessage), errors: make(chan *sarama.ConsumerError, 1), closed: make(chan struct{}),
	}
	passed := make(chan struct{}, 2)
	for _, pass := range []func(){r.pass, r.passErrors} {
		go func() { pass(); passed <- struct{}{} }()
	}
	for _, want := range []error{sarama.ErrOffsetOutOfRange, errReadingEnded} {
		select {
		case err := <-r.Errors():
			if err == nil || !errors.Is(err.Err, want) {
				t.Fatalf("told %v, want %v", err, want)
			}
		case <-r.Messages():
			t.Fatal("the messages have ended")
		}
	}
	r.AsyncClose()
	for range 2 {
		<-passed
	}
	if _, open := <-r.Messages(); open {
		t.Error("a message")
	}
	if err, open := <-r.Errors(); open {
		t.Errorf("told %v", err)
	}
}

// endedConsumer is a consumer of a partition whose channels are closed already.
type endedConsumer struct {
	sarama.PartitionConsumer
	messages chan *sarama.ConsumerMessage
	errors   chan *sarama.ConsumerError
}

func (c *endedConsumer) Messages() <-chan *sarama.ConsumerMessage { return c.messages }
func (c *endedConsumer) Errors() <-chan *sarama.ConsumerError     { return c.errors }
func (c *endedConsumer) AsyncClose()                              {}

// A reader of a changelog passes on what there is, one by one or in frames, and when nothing comes and nothing is left says so with the last offset.
func TestReaderOfAChangelog(t *testing.T) {
	t.Parallel()
	for _, framed := range []bool{false, true} {
		log := &sarama.FetchResponse{Version: 7}
		log.AddRecordBatch("table", 0, sarama.StringEncoder("a"), nil, 4, predecessor, false) // which is read already
		log.GetBlock("table", 0).HighWaterMarkOffset = 7
		s := newScripted(t, map[string]sarama.MockResponse{"FetchRequest": sarama.NewMockWrapper(log)})
		pc := &endedConsumer{messages: make(chan *sarama.ConsumerMessage, 2), errors: make(chan *sarama.ConsumerError)}
		r := &tableReader{
			PartitionConsumer: pc, client: s.client, topic: "table", next: 3, end: 7, limit: 10,
			out: make(chan *sarama.ConsumerMessage, 1), errors: make(chan *sarama.ConsumerError, 1), closed: make(chan struct{}),
		}
		if framed {
			r.frames = &frames{}
		}
		for offset := range int64(2) {
			pc.messages <- &sarama.ConsumerMessage{Topic: "table", Offset: 3 + offset, Value: []byte("x")}
		}
		done := make(chan struct{})
		go func() { r.pass(); close(done) }()
		var got []int64
		for m := range r.Messages() {
			switch {
			case m.Value == nil:
			case framed:
				fr, err := r.frames.take(m.Value)
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range fr.records {
					got = append(got, rec.Offset)
				}
				continue
			}
			if got = append(got, m.Offset); m.Value == nil { // the end
				r.AsyncClose()
				close(pc.messages)
			}
		}
		<-done
		if !slices.Equal(got, []int64{3, 4, 6}) || r.next != 7 {
			t.Errorf("framed %v: passed on %v, goes on at %d", framed, got, r.next)
		}
	}
}

// As many frames are remembered as goka may leave behind, and those are forgotten when the reading ends.
func TestFramesThatAreLeftBehind(t *testing.T) {
	t.Parallel()
	r := &tableReader{frames: &frames{}, out: make(chan *sarama.ConsumerMessage, 2), closed: make(chan struct{})}
	for range 10 {
		r.lend(r.frames.put(r.frames.fresh()))
	}
	if len(r.sent) != 4 {
		t.Errorf("%d frames are remembered, want those on the channel, in goka's hands and this one", len(r.sent))
	}
	close(r.closed)
	if r.takeBack(); len(r.frames.lent) != 6 {
		t.Errorf("%d frames are lent still, want 6", len(r.frames.lent))
	}
}

// A batch shows what compaction has left of it: of an empty one nothing.
func TestWhatABatchShows(t *testing.T) {
	t.Parallel()
	of := func(deltas ...int64) fetched {
		b := &sarama.RecordBatch{FirstOffset: 10, LastOffsetDelta: 9}
		for _, d := range deltas {
			b.Records = append(b.Records, &sarama.Record{OffsetDelta: d})
		}
		return fetched{b, true}
	}
	for _, c := range []struct {
		b     fetched
		from  int64
		shows bool
	}{{of(), 10, false}, {of(0), 10, true}, {of(0), 11, false}, {of(0, 4), 14, true}, {of(0, 4), 15, false}, {fetched{of(4).RecordBatch, false}, 10, false}} {
		if got := c.b.shows(c.from); got != c.shows {
			t.Errorf("%d records, from %d on: shows %v", len(c.b.Records), c.from, got)
		}
	}
}
