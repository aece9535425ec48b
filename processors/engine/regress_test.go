package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
)

// A run crashes after its states are written and before its late events are. In the next run a key's record is delivered
// again and written before the key's late event is delivered again: the late event is still owed.
func TestLateEventOfACrashedRunStaysOwed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500")
	r.states(r.cut()) // crash

	r.begin(fresh())
	r.deliver(0, "a 1000")
	r.checkpoint()
	r.deliver(1, "a 500")
	r.checkpoint()
	if !slices.Equal(r.late, []string{"a 500"}) {
		t.Errorf("late events %q, want the one", r.late)
	}
}

// Once a position beyond a late event is committed nothing is owed any more, and a key must not be kept for it.
func TestLateEventBehindThePositionIsNotOwed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500")
	at := r.checkpoint()
	r.begin(at)
	r.deliver(2, "a 2000")
	r.checkpoint()
	if e := r.p.entries["a"]; e.live != nil {
		t.Errorf("undecided %v, owed %d after the commit", e.live.undecided, e.live.owed)
	}
	if len(r.late) != 1 {
		t.Errorf("late events %q", r.late)
	}
}

// Late events that come while a cut is being written are not settled with it.
func TestLateEventsDuringACut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500", "a 600")
	r.states(r.cut()) // crash: 500 and 600 are owed

	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500", "a 600")
	c := r.cut()
	r.deliver(3, "a 700")
	r.states(c)
	r.results(c)
	r.p.settle(c, false)
	if u := r.p.entries["a"].live.undecided; len(u) != 1 || u[0].Offset != 3 {
		t.Errorf("undecided %v, want the one at 3", u)
	}
	r.states(r.cut()) // crash again: 700 is owed

	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500", "a 600", "a 700")
	r.checkpoint()
	if !slices.Equal(r.late, []string{"a 500", "a 600", "a 700"}) {
		t.Errorf("late events %q", r.late)
	}
}

// A partition that has heard others but not read of its own input does not know yet whether it will re-key: it must not
// tell the others to go on without it, or they close windows on the events it is about to send.
func TestPartitionThatHasReadNothingIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(fresh())
	r.loop(0, nil, announcement{partition: 1, watermark: 5000}.header())
	if a := told(r.cut(), 1); len(a) != 0 {
		t.Errorf("told %v before reading anything", a)
	}
	stray := "a"
	for PartitionOf([]byte(stray), 2) != 1 {
		stray += "a"
	}
	r.p.spare = r.p.newSpools() // as after settle
	r.deliver(0, stray+" 1000")
	if a := told(r.cut(), 1); len(a) != 1 || a[0].idle || a[0].watermark != 999 {
		t.Errorf("told %v behind the first re-keyed event, want 999", a)
	}
}

// A generation ends between a partition's last event and the announcement of its watermark. The next one has nothing to
// read: it must announce all the same, or the others wait for it and close no window.
func TestWatermarkIsToldAgainInEachGeneration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		rekeys bool
	}{{"re-keys", true}, {"has not re-keyed so far", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.count = 2
			r.begin(position{input: 5, clock: clock{
				watermark: 3000, rekeys: c.rekeys, spoken: true, sources: []sourceClock{{0, 0, 7000, -1}, {1, 0, 3000, -1}},
			}})
			if a := told(r.cut(), 1); len(a) != 1 || a[0].watermark != 7000 || a[0].idle {
				t.Errorf("told %v, want 7000", a)
			}
		})
	}
}

// A generation ends while its tables are being recovered. What a replica has kept of an earlier time is behind the changelog
// and must not be written, whatever its timers say: the owner in between has counted on.
func TestPartitionThatIsNotRecoveredWritesNothing(t *testing.T) {
	t.Parallel()
	for _, worked := range []bool{false, true} {
		rig := newRig(t)
		rig.begin(fresh())
		rig.deliver(0, "a 1000")
		rig.checkpoint()
		rig.p.begin(position{input: 7, clock: clock{watermark: 9000}})
		if worked {
			rig.deliver(7, "a 2000")
		}
		r := &run[tick, tally]{
			owner: &Processor{config: rig.config}, config: &rig.config, partitions: map[int32]*partition[tick, tally]{0: rig.p},
			cancel: func(err error) { t.Errorf("the run failed: %v", err) },
		}
		r.current = &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, stop: make(chan struct{})}
		if err := r.finish(nil); err != nil { // it has no outbox: writing would panic
			t.Fatal(err)
		}
		if kept := r.partitions[0] != nil; kept == worked {
			t.Errorf("worked on %v, kept %v", worked, kept)
		}
		if err := rig.p.process(&frame{}, false); !errors.Is(err, errNotClaimed) {
			t.Errorf("a partition that has ended takes a frame: %v", err)
		}
	}
}

// A coordinator that moves, as in every restart of its broker, is asked again; a member that is known no more is not.
func TestMembershipIsAskedAgainWhileTheCoordinatorMoves(t *testing.T) {
	t.Parallel()
	for err, again := range map[sarama.KError]bool{
		sarama.ErrNotCoordinatorForConsumer: true, sarama.ErrConsumerCoordinatorNotAvailable: true, sarama.ErrOffsetsLoadInProgress: true,
		sarama.ErrUnknownMemberId: false, sarama.ErrIllegalGeneration: false, sarama.ErrFencedInstancedId: false,
	} {
		if got := repeatable(&membershipError{err}); got != again {
			t.Errorf("%v: asked again %v, want %v", err, got, again)
		}
	}
}

// The bounds of a log are asked for again while its leader is being elected; a refusal is told at once.
func TestBoundsWhileALeaderIsElected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		first, then error
		asked       int
	}{
		{nil, nil, 1},
		{sarama.ErrOffsetNotAvailable, nil, 2},
		{sarama.ErrLeaderNotAvailable, sarama.ErrTopicAuthorizationFailed, 2},
		{sarama.ErrOffsetNotAvailable, sarama.ErrOffsetNotAvailable, readAttempts},
		{sarama.ErrTopicAuthorizationFailed, nil, 1},
	} {
		asked := 0
		_, err := patiently(func() (int64, error) {
			if asked++; asked == 1 {
				return 0, c.first
			}
			return 7, c.then
		})
		want := c.then
		if c.asked == 1 {
			want = c.first
		}
		if !errors.Is(err, want) || asked != c.asked {
			t.Errorf("%v, then %v: %v after asking %d times", c.first, c.then, err, asked)
		}
	}
}

// goka sleeps 5 s whenever Consume returns, which sarama's does at each rebalance: ours returns when it is told to end, or failed.
func TestGenerationsLoopWithinOneConsume(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeGroup{then: func(n int) error {
		if n == 5 {
			cancel()
		}
		return nil
	}}
	if err := (&group{ConsumerGroup: f}).Consume(ctx, []string{"in"}, nil); err != nil || f.n != 5 {
		t.Errorf("returned %v after %d generations, want nil after 5", err, f.n)
	}
	broken := errors.New("broken")
	f = &fakeGroup{then: func(n int) error {
		if n == 3 {
			return broken
		}
		return nil
	}}
	if err := (&group{ConsumerGroup: f}).Consume(t.Context(), []string{"in"}, nil); !errors.Is(err, broken) || f.n != 3 {
		t.Errorf("returned %v after %d generations, want the failure of the third", err, f.n)
	}
}

// fakeGroup is a consumer group whose generations end at once.
type fakeGroup struct {
	sarama.ConsumerGroup
	n       int
	then    func(n int) error
	handled func(h sarama.ConsumerGroupHandler)
}

func (f *fakeGroup) Consume(_ context.Context, _ []string, h sarama.ConsumerGroupHandler) error {
	if f.n++; f.n > 100 {
		return errors.New("it goes on for ever")
	}
	if f.handled != nil {
		f.handled(h)
	}
	return f.then(f.n)
}

// E1: goka marks messages as done, whatever became of them; nothing of that reaches the group.
func TestGokasMarksAreIgnored(t *testing.T) {
	t.Parallel()
	s := unmarked{nil} // a session that would panic if anything were passed on
	s.MarkOffset("in", 0, 1, "")
	s.ResetOffset("in", 0, 1, "")
	s.MarkMessage(nil, "")
	s.Commit()
}

// E4: a key's windows were purged at a watermark that was not committed any more. After the crash the partition's watermark
// comes from further back, but the purged windows stay closed.
func TestPurgedKeyJudgesByItsOwnWatermark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	env := codecs.Envelope{Purged: 5000, Due: codecs.NoDue, State: []byte{2}, Sources: []codecs.Source{{Partition: 0, Offset: 3}}}
	r.table["a"] = env.Append(nil)
	r.begin(position{input: 4, clock: clock{watermark: 1000}})
	r.deliver(4, "a 4000", "b 4000")
	r.checkpoint()
	if !slices.Equal(r.late, []string{"a 4000"}) {
		t.Errorf("late %q, want the purged key's", r.late)
	}
}

// E5: after a restart lateness is judged by the watermark that was committed with the position.
func TestRestartedPartitionJudgesByTheCommittedWatermark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 9000")
	at := r.checkpoint()
	meta, err := at.clock.pack(identity{})
	if err != nil {
		t.Fatal(err)
	}
	if _, at.clock, err = unpack(meta); err != nil {
		t.Fatal(err)
	}
	r.begin(at)
	r.deliver(1, "b 8000", "b 9001")
	r.checkpoint()
	if !slices.Equal(r.late, []string{"b 8000"}) {
		t.Errorf("late %q, want what lies before 9000", r.late)
	}
}

// E3: a redelivered event changes no state; the state and what follows from it are written again, a late event's letter too.
func TestFenceWritesAgainAndCountsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 2000", "a 500")
	r.states(r.cut()) // crash before results and letters
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 2000", "a 500")
	r.checkpoint()
	if !slices.Equal(r.out, []string{"a=2"}) || !slices.Equal(r.late, []string{"a 500"}) {
		t.Errorf("published %q, late %q", r.out, r.late)
	}
}

// E1, E2: after a failure a partition lets nobody wait for room that nothing will make.
func TestFailureWakesWhoWaitsForRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.MaxDirty = 1
	r.begin(fresh())
	full := make(chan struct{}, 1) // as the run's own: a kick before anybody listens is kept
	r.p.kick = func() {
		select {
		case full <- struct{}{}:
		default:
		}
	}
	done := make(chan error)
	go func() {
		done <- r.p.process(&frame{records: []*sarama.ConsumerMessage{{Topic: "in", Value: []byte("a 1000")}}}, false)
	}()
	go func() { // whoever waits has kicked; it may not sleep yet, so the failure is told until it is heard
		<-full
		r.p.fail(errors.New("broken"))
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("woken with %v", err)
	}
}

// E7: what the exactness of writing and reading rests on is set over whatever the caller's connection settings say.
func TestKafkaSettingsThatExactnessNeeds(t *testing.T) {
	t.Parallel()
	wrong := sarama.NewConfig()
	wrong.Producer.RequiredAcks, wrong.Net.MaxOpenRequests = sarama.NoResponse, 50
	wrong.Consumer.Offsets.AutoCommit.Enable, wrong.Consumer.Offsets.Initial = true, sarama.OffsetNewest
	wrong.Consumer.Group.ResetInvalidOffsets, wrong.Consumer.IsolationLevel = true, sarama.ReadUncommitted
	c := Config{Kafka: wrong, InstanceID: "r1"}.withDefaults()
	s := c.sarama()
	for what, ok := range map[string]bool{
		"acknowledged by all replicas":      s.Producer.RequiredAcks == sarama.WaitForAll,
		"one request in flight":             s.Net.MaxOpenRequests == 1,
		"no commits but the checkpoint's":   !s.Consumer.Offsets.AutoCommit.Enable,
		"a new group starts at the oldest":  s.Consumer.Offsets.Initial == sarama.OffsetOldest,
		"no jump over a contradiction":      !s.Consumer.Group.ResetInvalidOffsets,
		"nothing of aborted transactions":   s.Consumer.IsolationLevel == sarama.ReadCommitted,
		"no topics of a broker's making":    !s.Metadata.AllowAutoTopicCreation,
		"errors are told":                   s.Consumer.Return.Errors,
		"heartbeats within the session":     s.Consumer.Group.Heartbeat.Interval*3 <= s.Consumer.Group.Session.Timeout,
		"static membership":                 s.Consumer.Group.InstanceId == "r1" && s.Version.IsAtLeast(sarama.V2_3_0_0),
		"the caller's settings are its own": wrong.Producer.RequiredAcks == sarama.NoResponse,
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

// E3, E8: while a checkpoint is written share by share, folding goes on and the watermark with it. States are settled no further than
// the watermark that this checkpoint commits: a restart begins there, tells what closed since then again, and needs
// all of it. Settled further, hopping windows came out a second time with fewer events, behind their final results.
func TestSharesAreSettledToTheCommittedWatermark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.ShareKeys = 1
	r.begin(fresh())
	r.deliver(0, "a 1000", "b 1001", "c 1002")
	c := r.cut()
	at := c.at.clock.watermark
	for offset := int64(3); c.begun < len(c.entries); offset++ {
		r.p.release(&c)
		r.deliver(offset, "a "+strconv.FormatInt(2000+offset, 10)) // the watermark moves on between two shares
		r.p.nextShare(&c)
	}
	r.p.settle(c, true)
	if at != 1001 || r.settled != at {
		t.Errorf("the checkpoint commits watermark %d, and states are settled to %d", at, r.settled)
	}
	if c = r.cut(); r.settled != at {
		t.Errorf("settled to %d before the next checkpoint is written", r.settled)
	}
	for c.begun < len(c.entries) {
		r.p.release(&c)
		r.p.nextShare(&c)
	}
	if r.p.settle(c, true); r.settled != 2003 {
		t.Errorf("settled to %d behind it, want 2003", r.settled)
	}
}

// A cut is written in shares. What changes before its share is written with it and once; the position is that of the cut, and a
// replay from there finds the event fenced (E3).
func TestKeyThatChangesBeforeItsShareIsWrittenOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.ShareKeys = 1
	r.begin(fresh())
	r.deliver(0, "a 1000", "b 1000")
	c := r.cut()
	r.states(c)
	r.results(c)
	r.deliver(2, "b 2000")
	if c.at.input != 2 || len(c.spools.table.records) != 1 {
		t.Fatalf("a share of %d states at input offset %d, want 1 at 2", len(c.spools.table.records), c.at.input)
	}
	r.p.release(&c) // its states are acknowledged
	r.p.nextShare(&c)
	r.states(cut[tick, tally]{spools: c.fresh.spools})
	r.results(cut[tick, tally]{spools: c.fresh.spools})
	r.p.release(&c) // its results, and the next one's states
	r.p.settle(c, true)
	for _, s := range r.p.shares {
		if n := len(s.table.records) + len(s.out.records); n > 0 { // an older state behind a newer one: compaction would keep it
			t.Errorf("%d records would be written again with a later share", n)
		}
	}
	if e := r.p.entries["b"]; e.dirty || e.live != nil {
		t.Errorf("b is to be written again (%v), or is not packed", e.dirty)
	}

	r.begin(c.at) // crash
	r.deliver(2, "b 2000")
	r.checkpoint()
	if !slices.Equal(r.out, []string{"a=1", "b=2", "b=2"}) {
		t.Errorf("published %q", r.out)
	}
}

// What waits to be written is bounded for all partitions together, and counted with what it takes beside its bytes: a flood of dead
// letters once took 927 MiB, 32 MiB of bytes in each of four partitions.
func TestPendingIsBoundedForAllPartitions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count, r.config.MaxPending = 4, 8000
	r.begin(fresh())
	r.deliver(0, "x") // no time: a dead letter
	one := r.p.pending
	if least := recordSize(nil, []byte("x"), nil) + 7*100; one < least {
		t.Errorf("a dead letter counts %d bytes, it takes at least %d", one, least)
	}
	r.p.pending = 1999
	if r.p.full() {
		t.Error("full with less than a quarter")
	}
	if r.p.pending = 2000; !r.p.full() {
		t.Error("a quarter is not full")
	}
}

// The group's errors reach goka, and those of a claim say that its partition cannot be read.
func TestErrorsOfClaims(t *testing.T) {
	t.Parallel()
	errs := make(chan error, 3)
	told := make(chan int32, 3)
	g := &group{ConsumerGroup: &troubledGroup{errs: errs}, sessions: listener{told: told}}
	plain, claim := errors.New("no coordinator"), &sarama.ConsumerError{Topic: "in", Partition: 2, Err: sarama.ErrOutOfBrokers}
	errs <- plain
	errs <- claim
	out := g.Errors()
	if a, b := <-out, <-out; !errors.Is(a, plain) || !errors.Is(b, claim) {
		t.Errorf("passed on %v and %v", a, b)
	}
	if p := <-told; p != 2 {
		t.Errorf("told of partition %d, want 2", p)
	}
	if close(errs); <-out != nil {
		t.Error("an error of a group that is closed")
	}
}

type troubledGroup struct {
	sarama.ConsumerGroup
	errs chan error
}

func (g *troubledGroup) Errors() <-chan error { return g.errs }

type listener struct {
	sessions
	told chan int32
}

func (l listener) trouble(partition int32) { l.told <- partition }

// stages notes what a generation comes to.
type stages struct {
	sarama.ConsumerGroupHandler
	sarama.ConsumerGroupSession
	over                 bool
	refusal, setup, stop error
	seen                 []string
}

func (s *stages) Context() context.Context {
	if !s.over {
		return context.Background()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
func (s *stages) trouble(int32) {}

func (s *stages) claim(sarama.ConsumerGroupClaim) {}

func (s *stages) begin(sarama.ConsumerGroupSession) error {
	s.seen = append(s.seen, "begin")
	return s.refusal
}

func (s *stages) Setup(sarama.ConsumerGroupSession) error {
	s.seen = append(s.seen, "recover")
	return s.setup
}

func (s *stages) ready(sarama.ConsumerGroupSession) { s.seen = append(s.seen, "ready") }

func (s *stages) Cleanup(sarama.ConsumerGroupSession) error { return s.stop }
func (s *stages) finish(sarama.ConsumerGroupSession) error {
	s.seen = append(s.seen, "finish")
	return nil
}

// E6: a generation that is refused recovers nothing, and one that has not recovered, or is over by then, folds and writes nothing. What goka
// fails with when its partitions stop ends the run, and what is folded is written all the same.
func TestStagesOfAGeneration(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		s    stages
		seen []string
		err  error
	}{
		"good":          {stages{}, []string{"begin", "recover", "ready"}, nil},
		"refused":       {stages{refusal: broken}, []string{"begin"}, broken},
		"not recovered": {stages{setup: broken}, []string{"begin", "recover"}, broken},
		"over by then":  {stages{over: true}, []string{"begin", "recover"}, nil},
	} {
		h := &handler{ConsumerGroupHandler: &c.s, group: &group{sessions: &c.s}}
		if err := h.Setup(&c.s); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || !slices.Equal(c.s.seen, c.seen) {
			t.Errorf("%s: %v with %v", name, c.s.seen, err)
		}
	}
	s := &stages{over: true, stop: broken}
	h := &handler{ConsumerGroupHandler: s, group: &group{sessions: s}}
	if err := h.Cleanup(s); !errors.Is(err, broken) || !errors.Is(h.err, broken) || !slices.Equal(s.seen, []string{"finish"}) {
		t.Errorf("cleaned up with %v, told is %v, after %v", err, h.err, s.seen)
	}
	f := &fakeGroup{
		then:    func(int) error { return nil },
		handled: func(h sarama.ConsumerGroupHandler) { _ = h.Cleanup(s) }, // as sarama, which only logs what it returns
	}
	if err := (&group{ConsumerGroup: f, sessions: s}).Consume(t.Context(), []string{"in"}, s); !errors.Is(err, broken) {
		t.Errorf("consumed with %v", err)
	}
}
