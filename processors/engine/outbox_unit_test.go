package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// scripted is a broker that answers as the test says.
type scripted struct {
	*testing.T
	broker *sarama.MockBroker
	client sarama.Client
	now    time.Time

	handlers map[string]sarama.MockResponse
}

// answer changes what a kind of request is answered with.
func (s *scripted) answer(kind string, with sarama.MockResponse) {
	s.handlers[kind] = with
	s.broker.SetHandlerByMap(s.handlers)
}

// newScripted makes a broker that leads two partitions of "out" and coordinates the group "g".
func newScripted(t *testing.T, more map[string]sarama.MockResponse) *scripted {
	t.Helper()
	b := sarama.NewMockBroker(t, 1)
	handlers := map[string]sarama.MockResponse{
		"ApiVersionsRequest": sarama.NewMockApiVersionsResponse(t),
		"MetadataRequest": sarama.NewMockMetadataResponse(t).SetBroker(b.Addr(), b.BrokerID()).SetController(b.BrokerID()).
			SetLeader("out", 0, b.BrokerID()).SetLeader("out", 1, b.BrokerID()).SetLeader("table", 0, b.BrokerID()).SetLeader("in", 0, b.BrokerID()).
			SetLeader("late", 0, b.BrokerID()).SetLeader("dead", 0, b.BrokerID()),
		"FindCoordinatorRequest": sarama.NewMockFindCoordinatorResponse(t).SetCoordinator(sarama.CoordinatorGroup, "g", b),
		"InitProducerIDRequest":  sarama.NewMockInitProducerIDResponse(t).SetProducerID(7),
		"ProduceRequest":         sarama.NewMockProduceResponse(t).SetVersion(7),
	}
	maps.Copy(handlers, more)
	b.SetHandlerByMap(handlers)
	cfg := (&Config{SessionTimeout: 10 * time.Second, Kafka: sarama.NewConfig()}).sarama()
	cfg.Metadata.Retry.Max, cfg.ApiVersionsRequest = 0, false
	client, err := sarama.NewClient([]string{b.Addr()}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t, b, client, time.UnixMilli(1e12), handlers}
	t.Cleanup(func() {
		_ = client.Close()
		b.Close()
	})
	return s
}

// requests counts those of a kind.
func (s *scripted) requests(kind string) (n int) {
	for _, h := range s.broker.History() {
		if strings.HasSuffix(fmt.Sprintf("%T", h.Request), "."+kind) {
			n++
		}
	}
	return n
}

func (s *scripted) outbox(maxBatch int) *outbox {
	s.Helper()
	asked := time.Duration(0) // a write that is repeated for ever ends after ten times
	o, err := newOutbox(s.client, time.Minute, maxBatch, slog.New(slog.DiscardHandler), func() time.Time {
		asked++
		return s.now.Add(asked * 6 * time.Second)
	})
	if err != nil {
		s.Fatal(err)
	}
	return o
}

func letters(partition int32, values ...string) *spool {
	s := &spool{to: topicPartition{"out", partition}}
	for _, v := range values {
		s.add([]byte("k"), []byte(v))
	}
	return s
}

func permitted() error { return nil }

// What a spool holds goes out in batches of at most so many bytes, at least a record each, in order and numbered.
func TestBatches(t *testing.T) {
	t.Parallel()
	size := recordSize([]byte("k"), []byte("0"), nil)
	for _, c := range []struct {
		limit int
		want  string
	}{{1, "[1 1 1 1 1]"}, {2*size - 1, "[1 1 1 1 1]"}, {2 * size, "[2 2 1]"}, {5 * size, "[5]"}, {5*size - 1, "[4 1]"}} {
		o := &outbox{maxBatch: c.limit, config: sarama.NewConfig(), producer: sequencer{id: 7, epoch: 2}}
		var sizes []int
		seen := ""
		for _, b := range o.batches(letters(0, "0", "1", "2", "3", "4"), time.UnixMilli(5)) {
			sizes = append(sizes, len(b.Records))
			if int(b.LastOffsetDelta) != len(b.Records)-1 || b.ProducerID != 7 || b.ProducerEpoch != 2 {
				t.Errorf("batch %+v", b)
			}
			for i, r := range b.Records {
				if seen += string(r.Value); r.OffsetDelta != int64(i) {
					t.Errorf("record %d of a batch has delta %d", i, r.OffsetDelta)
				}
			}
		}
		if fmt.Sprint(sizes) != c.want || seen != "01234" {
			t.Errorf("batches of %d bytes: %v of %s, want %s", c.limit, sizes, seen, c.want)
		}
	}
}

// E7: a write is acknowledged when every batch is; each has the sequence number behind the one before it, also when an answer was lost or an
// error made it go out again.
func TestWriteRepeatsWithTheSameSequence(t *testing.T) {
	t.Parallel()
	produce := func(err sarama.KError) *sarama.MockProduceResponse {
		return sarama.NewMockProduceResponse(t).SetVersion(7).SetError("out", 0, err)
	}
	s := newScripted(t, map[string]sarama.MockResponse{"ProduceRequest": sarama.NewMockSequence(
		produce(sarama.ErrNoError), produce(sarama.ErrNotLeaderForPartition), produce(sarama.ErrDuplicateSequenceNumber), produce(sarama.ErrNoError),
	)})
	o := s.outbox(1) // a batch per record
	asked := 0
	acks, err := o.write(t.Context(), func() error { asked++; return nil }, []*spool{letters(0, "0", "1", "2")})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.requests("ProduceRequest"); n != 4 || asked != 4 {
		t.Errorf("%d requests, the membership was asked for %d times, want 4", n, asked)
	}
	if next := o.producer.next[topicPartition{"out", 0}]; next != 3 {
		t.Errorf("the next sequence number is %d, want 3", next)
	}
	if a := acks[topicPartition{"out", 0}]; a.first != 0 || len(acks) != 1 {
		t.Errorf("acknowledged %+v", acks)
	}
	next := map[topicPartition][]*sarama.RecordBatch{{"out", 0}: o.batches(letters(0, "3"), s.now)}
	for range 2 { // as it is repeated
		if _, err := o.requests(next); err != nil || next[topicPartition{"out", 0}][0].FirstSequence != 3 {
			t.Errorf("the next batch has sequence %d, %v, want 3", next[topicPartition{"out", 0}][0].FirstSequence, err)
		}
	}
}

// What a broker refuses for good ends the write, and so does a member that may not write; nothing is sent without permission.
func TestWriteThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newScripted(t, map[string]sarama.MockResponse{
		"ProduceRequest": sarama.NewMockProduceResponse(t).SetVersion(7).SetError("out", 1, sarama.ErrOutOfOrderSequenceNumber),
	})
	o := s.outbox(1000)
	_, err := o.write(t.Context(), permitted, []*spool{letters(0, "0"), letters(1, "1")})
	if w := (*writeError)(nil); !errors.As(err, &w) || w.tp.partition != 1 || !errors.Is(err, sarama.ErrOutOfOrderSequenceNumber) {
		t.Errorf("refused with %v", err)
	}
	if o.producer.next[topicPartition{"out", 0}] != 1 || o.producer.next[topicPartition{"out", 1}] != 0 {
		t.Errorf("sequence numbers %v, want that of what is acknowledged to move", o.producer.next)
	}
	before := s.requests("ProduceRequest")
	_, err = o.write(t.Context(), func() error { return &membershipError{sarama.ErrUnknownMemberId} }, []*spool{letters(0, "0")})
	if !errors.Is(err, sarama.ErrUnknownMemberId) || s.requests("ProduceRequest") != before {
		t.Errorf("without a membership: %v, %d requests", err, s.requests("ProduceRequest")-before)
	}
}

// A write is repeated for as long as the outbox is patient; then the last error ends it. So does the end of the context.
func TestWriteThatIsNeverTaken(t *testing.T) {
	t.Parallel()
	s := newScripted(t, map[string]sarama.MockResponse{
		"ProduceRequest": sarama.NewMockProduceResponse(t).SetVersion(7).SetError("out", 0, sarama.ErrNotEnoughReplicas),
	})
	o := s.outbox(1000)
	tries := 0
	permit := func() error {
		if tries++; tries == 3 {
			s.now = s.now.Add(time.Minute + 1)
		}
		return nil
	}
	if _, err := o.write(t.Context(), permit, []*spool{letters(0, "0")}); !errors.Is(err, sarama.ErrNotEnoughReplicas) || tries != 3 {
		t.Errorf("%v after %d tries, want 3", err, tries)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	_, err := o.write(ctx, func() error { cancel(over); return nil }, []*spool{letters(0, "0")})
	if !errors.Is(err, over) {
		t.Errorf("a write whose context ended: %v", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	_, err = o.write(ctx, func() error { cancel(over); return &membershipError{sarama.ErrNotCoordinatorForConsumer} }, []*spool{letters(0, "0")})
	if !errors.Is(err, over) {
		t.Errorf("asking for membership when the context ended: %v", err)
	}
}

// While the coordinator moves nobody can say whether this is a member still: it is asked again, as long as the outbox is patient.
func TestWriteWaitsForTheCoordinator(t *testing.T) {
	t.Parallel()
	s := newScripted(t, nil)
	o := s.outbox(1000)
	asked := 0
	moving := func() error {
		if asked++; asked < 3 {
			return &membershipError{sarama.ErrNotCoordinatorForConsumer}
		}
		return nil
	}
	acks, err := o.write(t.Context(), moving, []*spool{letters(0, "0", "1")})
	if err != nil || asked != 3 || acks[topicPartition{"out", 0}].first != 0 || acks[topicPartition{"out", 0}].last != 1 {
		t.Errorf("acknowledged %v, error %v, asked %d times", acks, err, asked)
	}
	asked = 0
	_, err = o.write(t.Context(), func() error {
		s.now = s.now.Add(30*time.Second + 1)
		asked++
		return &membershipError{sarama.ErrNotCoordinatorForConsumer}
	}, []*spool{letters(0, "0")})
	if !errors.Is(err, sarama.ErrNotCoordinatorForConsumer) || asked != 2 {
		t.Errorf("%v after it was asked for %d times, want 2", err, asked)
	}
}

// An acknowledgement says where the first batch began and the last ended of those of which it is known; of a repeated batch it is not.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	tp := topicPartition{"out", 0}
	for _, c := range []struct {
		offsets []int64 // of batches of two records
		want    [2]int64
	}{{[]int64{5}, [2]int64{5, 6}}, {[]int64{0}, [2]int64{0, 1}}, {[]int64{5, 7}, [2]int64{5, 8}}, {[]int64{-1}, [2]int64{-1, -1}}, {[]int64{5, -1}, [2]int64{5, 6}}, {[]int64{-1, 9}, [2]int64{9, 10}}} {
		a := make(acked)
		for _, o := range c.offsets {
			a.add(tp, o, 2)
		}
		if got := [2]int64{a[tp].first, a[tp].last}; got != c.want {
			t.Errorf("batches at %v: %v, want %v", c.offsets, got, c.want)
		}
	}
}

// No request is larger than a broker takes, however many partitions it leads: 64 partitions of a group that caught up made one of more than
// 100 MiB, which was repeated until the run ended, and the next run did the same.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	s := newScripted(t, nil)
	o := s.outbox(1 << 20)
	one := batchSize(o.batches(letters(0, "0"), s.now)[0])
	for most, want := range map[int]int{2 * one: 1, 2*one - 1: 2, 1: 2} {
		o.most = most
		before := s.requests("ProduceRequest")
		if _, err := o.write(t.Context(), permitted, []*spool{letters(0, "0"), letters(1, "1")}); err != nil {
			t.Fatal(err)
		}
		if got := s.requests("ProduceRequest") - before; got != want {
			t.Errorf("two batches of %d bytes, %d in a request: %d requests, want %d", one, most, got, want)
		}
	}
}

// A broker that gives no producer id opens no outbox.
func TestOutboxWithoutAProducerID(t *testing.T) {
	t.Parallel()
	s := newScripted(t, map[string]sarama.MockResponse{
		"InitProducerIDRequest": sarama.NewMockInitProducerIDResponse(t).SetError(sarama.ErrClusterAuthorizationFailed),
	})
	_, err := newOutbox(s.client, time.Minute, 1000, slog.New(slog.DiscardHandler), time.Now)
	if !errors.Is(err, sarama.ErrClusterAuthorizationFailed) {
		t.Errorf("opened with %v", err)
	}
	if o := newScripted(t, nil).outbox(1000); o.producer.id != 7 {
		t.Errorf("producer id %d, want the broker's 7", o.producer.id)
	}
}

// membership is a run and a session of the group "g" at a scripted broker.
func (s *scripted) membership() (*run[tick, tally], *session[tick, tally]) {
	r := &run[tick, tally]{
		config: &Config{SessionTimeout: 10 * time.Second, WriteTimeout: time.Minute, Now: func() time.Time { return s.now }},
		log:    slog.New(slog.DiscardHandler), client: s.client, job: &Job[tick, tally]{Group: "g"},
		ledger: &ledger{client: s.client, group: "g", input: "in", loop: "loop", table: "table", id: identity{1, 2}},
	}
	return r, &session[tick, tally]{member: member{generation: 3, id: "m"}, lease: s.now}
}

// E7: the group is asked whether this is its member still when the last proof is half a session time-out old, or the clock went back; a member
// that is none any more does not write, one that the group waits for to rebalance still is.
func TestProofOfMembership(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		age    time.Duration
		answer sarama.KError
		asked  int
		fails  bool
	}{
		{"fresh", 0, sarama.ErrUnknownMemberId, 0, false},
		{"just fresh enough", 5*time.Second - 1, sarama.ErrUnknownMemberId, 0, false},
		{"half a time-out old", 5 * time.Second, sarama.ErrNoError, 1, false},
		{"lost", 5 * time.Second, sarama.ErrUnknownMemberId, 1, true},
		{"the clock went back", -1, sarama.ErrIllegalGeneration, 1, true},
		{"rebalancing", time.Hour, sarama.ErrRebalanceInProgress, 1, false},
	} {
		s := newScripted(t, map[string]sarama.MockResponse{"HeartbeatRequest": heartbeat(t, c.answer)})
		r, session := s.membership()
		session.lease = s.now.Add(-c.age)
		err := r.renew(session)
		if (err != nil) != c.fails || s.requests("HeartbeatRequest") != c.asked {
			t.Errorf("%s: %v, asked %d times", c.name, err, s.requests("HeartbeatRequest"))
		}
		if m := (*membershipError)(nil); c.fails && (!errors.As(err, &m) || !errors.Is(err, c.answer)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if proven := session.lease.Equal(s.now); proven != (c.age == 0 || c.answer == sarama.ErrNoError) { // who is told that the group rebalances may write this once
			t.Errorf("%s: proven %v", c.name, proven)
		}
	}
}

func heartbeat(t *testing.T, err sarama.KError) sarama.MockResponse {
	m := sarama.NewMockHeartbeatResponse(t)
	if err != sarama.ErrNoError {
		m.SetError(err)
	}
	return m
}

func commits(t *testing.T, errs ...sarama.KError) sarama.MockResponse {
	var all []any
	for _, err := range errs {
		all = append(all, sarama.NewMockOffsetCommitResponse(t).SetError("g", "in", 0, err))
	}
	return sarama.NewMockSequence(all...)
}

// E1, E5: a commit that the group takes proves the membership; while the coordinator moves it is repeated, a rebalance puts it off, and any
// other error ends the run.
func TestCommitAtAMovingCoordinator(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		answers   []sarama.KError
		committed bool
		err       error
		tries     int
	}{
		{"taken", []sarama.KError{sarama.ErrNoError}, true, nil, 1},
		{"after the coordinator has moved", []sarama.KError{sarama.ErrNotCoordinatorForConsumer, sarama.ErrRequestTimedOut, sarama.ErrNoError}, true, nil, 3},
		{"in a rebalance", []sarama.KError{sarama.ErrRebalanceInProgress}, false, nil, 1},
		{"of a member that is none", []sarama.KError{sarama.ErrUnknownMemberId}, false, sarama.ErrUnknownMemberId, 1},
	} {
		s := newScripted(t, map[string]sarama.MockResponse{"OffsetCommitRequest": commits(t, c.answers...)})
		r, session := s.membership()
		session.lease = time.Time{}
		ok, err := r.commit(t.Context(), session, map[int32]position{0: {input: 5, loop: 6, clock: clock{watermark: 1000, table: 9}}})
		if ok != c.committed || !errors.Is(err, c.err) || s.requests("OffsetCommitRequest") != c.tries {
			t.Errorf("%s: %v, %v after %d tries", c.name, ok, err, s.requests("OffsetCommitRequest"))
		}
		if session.lease.IsZero() == c.committed {
			t.Errorf("%s: the membership is proven at %v", c.name, session.lease)
		}
	}
}

// A commit is repeated for as long as a write is, and not after its context.
func TestCommitThatIsNeverTaken(t *testing.T) {
	t.Parallel()
	s := newScripted(t, map[string]sarama.MockResponse{"OffsetCommitRequest": commits(t, sarama.ErrOffsetsLoadInProgress)})
	r, session := s.membership()
	at := map[int32]position{0: {input: 5, loop: 6}}
	begun := 0
	r.config.Now = func() time.Time { begun++; return s.now.Add(time.Duration(begun) * 20 * time.Second) }
	if ok, err := r.commit(t.Context(), session, at); ok || !errors.Is(err, sarama.ErrOffsetsLoadInProgress) || s.requests("OffsetCommitRequest") != 2 {
		t.Errorf("%v, %v after %d tries, want 2", ok, err, s.requests("OffsetCommitRequest"))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	r.config.Now = func() time.Time { return s.now }
	if ok, err := r.commit(ctx, session, at); ok || !errors.Is(err, over) {
		t.Errorf("%v, %v behind its context", ok, err)
	}
}

// E5: the own source's part of the clock is committed with the input's position, the others' with the loop's, and the ends of the table and the
// output, and who has written there, beside them;
// a position of nothing is not committed.
func TestCommitSplitsTheClock(t *testing.T) {
	t.Parallel()
	clock := clock{watermark: 1000, table: 9, rekeys: true, sources: []sourceClock{{0, 0, 1000, -1}, {1, 0, 2000, 7}}}
	for _, c := range []struct {
		input, loop int64
		loops       string
		want        []string
	}{
		{5, 6, "loop", []string{"table@9 with 12", "in@5 0", "loop@6 with 34 1"}},
		{0, 0, "loop", []string{"table@9 with 12", "in@0 0", "loop@0 with 34 1"}},
		{-1, 6, "loop", []string{"table@9 with 12", "loop@6 with 34 1"}},
		{5, -1, "loop", []string{"table@9 with 12", "in@5 0"}},
		{5, 6, "", []string{"table@9 with 12 by 34", "in@5 0"}},
	} {
		l := &ledger{group: "g", input: "in", loop: c.loops, table: "table", id: identity{1, 2}}
		req := &sarama.OffsetCommitRequest{Version: 7, ConsumerGroup: "g"}
		if err := l.add(req, 0, position{input: c.input, loop: c.loop, out: 12, writer: 34, clock: clock}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, topic := range []string{"table", "in", "loop"} {
			offset, meta, err := req.Offset(topic, 0)
			if err != nil {
				continue
			}
			id, read, err := unpack(meta)
			if err != nil || id != l.id {
				t.Errorf("%s: identity %v, %v", topic, id, err)
			}
			line := fmt.Sprintf("%s@%d", topic, offset)
			if topic != "in" {
				line += fmt.Sprintf(" with %d", read.table)
			}
			if topic == "table" && c.loops == "" {
				line += fmt.Sprintf(" by %d", read.watermark)
			}
			for _, s := range read.sources {
				line += fmt.Sprintf(" %d", s.partition)
			}
			got = append(got, line)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("position %d, %d is committed as %v, want %v", c.input, c.loop, got, c.want)
		}
	}
}
