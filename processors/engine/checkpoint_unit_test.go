package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"klgstream.dev/codecs"
)

// How much of the input waits decides how long results may: far behind is more than 10,000 records, and more than were folded since
// the last checkpoint as long as those are fewer than 100,000.
func TestBacklog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		behind, folded int64
		want           backlog
	}{
		{0, 0, backlogNone},
		{0, 1, backlogNear},
		{1, 0, backlogNear},
		{10_000, 0, backlogNear},
		{10_001, 0, backlogFar},
		{20_000, 20_000, backlogNear},
		{20_001, 20_000, backlogFar},
		{100_000, 500_000, backlogNear},
		{100_001, 500_000, backlogFar},
	} {
		r := newRig(t)
		r.begin(position{input: 1000, clock: clock{watermark: math.MinInt64}})
		r.p.at.input += c.folded
		r.p.claim = &fakeClaim{end: r.p.at.input + c.behind}
		if got := r.p.backlog(); got != c.want {
			t.Errorf("%d records wait, %d were folded: %d, want %d", c.behind, c.folded, got, c.want)
		}
	}
	r := newRig(t)
	r.begin(fresh())
	if got := r.p.backlog(); got != backlogNone {
		t.Errorf("without a claim: %d", got)
	}
}

// Checkpoints follow each other at the commit interval. One that took longer is followed by a pause of twice its time, one that finds the input
// far behind by the longest, until the backlog is gone; none by more than a second, unless the interval itself is longer.
func TestPauseBetweenCheckpoints(t *testing.T) {
	t.Parallel()
	const every = 100 * time.Millisecond
	for _, c := range []struct {
		name        string
		every, took time.Duration
		behind      []int64
		want        time.Duration
	}{
		{"quick", every, time.Millisecond, []int64{1, 0}, every},
		{"as long as the interval", every, every, []int64{1}, every},
		{"as long as the interval, of many keys", every, every, []int64{1}, every},
		{"longer, of many keys", every, every + 1, []int64{1}, 2*every + 2},
		{"much longer, of many keys", every, time.Minute, []int64{1}, longestPause},
		{"longer, of few keys", every, time.Second, []int64{1}, every},
		{"a long interval", 3 * time.Second, 4 * time.Second, nil, 3 * time.Second},
		{"all far behind", every, 0, []int64{20_000, 30_000}, longestPause},
		{"far behind, and one with nothing", every, 0, []int64{20_000, 0}, longestPause},
		{"one is near", every, 0, []int64{20_000, 5}, every},
		{"nothing anywhere", every, 0, []int64{0, 0}, every},
	} {
		s := &session[tick, tally]{}
		for _, behind := range c.behind {
			r := newRig(t)
			r.begin(fresh())
			r.p.claim = &fakeClaim{end: behind}
			s.partitions = append(s.partitions, r.p)
		}
		r := &run[tick, tally]{config: &Config{CommitInterval: c.every}, wrote: Checkpointed{Keys: smallCheckpoint}}
		if strings.Contains(c.name, "many") {
			r.wrote.Keys++
		}
		if got := r.interval(s, c.took); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		patient := strings.Contains(c.name, "far behind")
		for _, p := range s.partitions {
			if p.patient != patient {
				t.Errorf("%s: patient %v", c.name, p.patient)
			}
		}
	}
}

// Folding that has caught up ends the long pause: it kicks the checkpointer once what waits is less than a frame.
func TestBacklogThatIsGoneEndsThePause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.FrameRecords = 10
	r.begin(fresh())
	kicks := 0
	r.p.kick = func() { kicks++ }
	claim := &fakeClaim{end: 12}
	r.p.claim = claim
	r.p.bePatient()
	if r.deliver(0, "a 1"); kicks != 0 { // 11 wait
		t.Error("kicked with more than a frame waiting")
	}
	if r.deliver(1, "a 1"); kicks != 1 || r.p.patient {
		t.Errorf("kicked %d times with a frame waiting", kicks)
	}
	if r.deliver(2, "a 1"); kicks != 1 {
		t.Errorf("kicked %d times, nobody is waiting any more", kicks)
	}
}

// What of the changelog lies between the last record known and the first acknowledged is of others (E7).
func TestForeignRecordsShowInTheAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                  string
		first, last           int64
		from, to, table, ends int64
	}{
		{"right behind", 5, 7, 5, 5, 7, 8},
		{"a gap", 7, 9, 5, 7, 9, 10},
		{"a repeated batch, of which nobody says where", -1, -1, 5, 5, 4, 5},
		{"an earlier one", 3, 4, 5, 5, 4, 5},
	} {
		r := newRig(t)
		r.begin(fresh())
		r.p.table = 4
		holes, _ := r.p.acknowledged(acked{{"table", 0}: {first: c.first, last: c.last}})
		ends, _ := r.p.ends()
		if want := (hole{c.from, c.to}); c.from < c.to && !slices.Equal(holes, []hole{want}) || c.from == c.to && len(holes) > 0 || r.p.table != c.table || ends != c.ends {
			t.Errorf("%s: others' %v, table %d, end %d", c.name, holes, r.p.table, ends)
		}
		if holes, _ = r.p.acknowledged(acked{{"table", 1}: {first: 77, last: 78}}); len(holes) > 0 || r.p.table != c.table {
			t.Errorf("%s: another partition's acknowledgement says %v, table %d", c.name, holes, r.p.table)
		}
	}
}

// What others append between two batches of one write shows as well.
func TestForeignRecordsBetweenBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.p.appends(position{}, 10, 1)
	acks := make(acked)
	for _, batch := range []struct {
		offset int64
		n      int
	}{{10, 5}, {15, 5}, {23, 2}, {-1, 4}, {40, 1}} { // of the fourth nobody knows where it is: it is to be looked for before the fifth
		acks.add(topicPartition{"out", 0}, batch.offset, batch.n)
	}
	if table, out := r.p.acknowledged(acks); len(table) > 0 || !slices.Equal(out, []hole{{20, 23}, {25, 40}}) || r.p.outEnd != 41 {
		t.Errorf("others' %v and %v, end %d", table, out, r.p.outEnd)
	}
	acks = make(acked)
	acks.add(topicPartition{"out", 0}, 44, 1)
	if _, out := r.p.acknowledged(acks); !slices.Equal(out, []hole{{41, 44}}) {
		t.Errorf("others' %v", out)
	}
}

// A share has so many keys, and so many bytes, that it is one batch with a sixteenth to spare.
func TestSharesFitIntoABatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keys, batch int
		shares      []int
	}{
		{4, 1 << 20, []int{4, 4, 2}}, {5, 1 << 20, []int{5, 5}}, {10, 1 << 20, []int{10}}, {11, 1 << 20, []int{10}},
	} {
		r := newRig(t)
		r.config.ShareKeys, r.config.MaxBatch = c.keys, c.batch
		r.begin(fresh())
		for i := range 10 {
			r.deliver(int64(i), fmt.Sprintf("%04d 1000", i))
		}
		c2 := r.cut()
		got := []int{len(c2.spools.table.records)}
		for c2.begun < len(c2.entries) {
			r.p.release(&c2)
			r.p.nextShare(&c2)
			got = append(got, len(c2.fresh.spools.table.records))
		}
		if fmt.Sprint(got) != fmt.Sprint(c.shares) {
			t.Errorf("%d keys a share: %v, want %v", c.keys, got, c.shares)
		}
		r.p.settle(c2, true)
	}
	r := newRig(t)
	r.begin(fresh())
	for i := range 40 {
		r.deliver(int64(i), fmt.Sprintf("%04d 1000", i))
	}
	probe := r.cut()
	size := probe.spools.table.bytes / len(probe.spools.table.records)
	if r.p.settle(probe, true); r.p.usual != size {
		t.Errorf("a record has usually %d bytes, want %d", r.p.usual, size)
	}
	r.config.MaxBatch = 16 * size // fifteen fill it but for a sixteenth
	for i := range 40 {
		r.deliver(int64(40+i), fmt.Sprintf("%04d 2000", i))
	}
	if c := r.cut(); c.begun != 15 || c.spools.table.bytes > r.config.MaxBatch {
		t.Errorf("%d states of %d bytes in a batch of %d, want 15", c.begun, size, r.config.MaxBatch)
	}
}

// openTopology is a tick topology whose states have a window open until due.
type openTopology struct {
	tickTopology
	due int64
}

func (t openTopology) Due(*tally) int64 { return t.due }
func (openTopology) Idle(*tally) bool   { return false }

// A key with an open window stays decoded as long as there is room, and so does one of which more was closed than is committed: from its
// bytes it would tell again what it has told.
func TestKeysThatStayDecoded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		keep    int
		purged  int64
		decoded bool
	}{
		{"room", 1, math.MinInt64, true},
		{"no room", 0, math.MinInt64, false},
		{"closed as far as is committed", 0, 999, false},
		{"closed further", 0, 1000, true},
	} {
		r := newRig(t)
		r.begin(fresh())
		r.p.topology, r.p.keep = openTopology{r.p.topology.(tickTopology), 5000}, c.keep
		r.deliver(0, "a 1000")
		e := r.p.entries["a"]
		e.live.purged = c.purged
		r.checkpoint()
		if got := e.live != nil; got != c.decoded {
			t.Errorf("%s: decoded %v, want %v", c.name, got, c.decoded)
		}
		if !c.decoded && (!e.open || e.seen != 5000 || r.p.lives != 0 || r.p.packed != len(e.raw)) {
			t.Errorf("%s: packed as open %v until %d, %d decoded, %d bytes", c.name, e.open, e.seen, r.p.lives, r.p.packed)
		}
	}
}

// The memory of packed keys is taken for others, up to as many as may be decoded, and carries nothing over.
func TestMemoryOfPackedKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.p.keep = 1
	r.deliver(0, "a 1000", "b 1000")
	r.checkpoint()
	if len(r.p.idle) != 1 {
		t.Errorf("memory for %d keys is kept, want 1", len(r.p.idle))
	}
	r.p.idle[0].undecided, r.p.idle[0].owed, r.p.idle[0].inCut = nil, 3, 4
	l := r.p.liven(r.p.entries["b"])
	if len(r.p.idle) != 0 || l.owed != 0 || l.inCut != 0 || len(l.fences) != 1 || l.fences[0].Offset != 1 {
		t.Errorf("decoded as %+v", l)
	}
	if r.p.lives != 1 || r.p.packed != len(r.p.entries["a"].raw) {
		t.Errorf("%d decoded, %d bytes of others", r.p.lives, r.p.packed)
	}
}

// The gauges say where a partition stands at its last checkpoint.
func TestGauges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.p.topology = openTopology{r.p.topology.(tickTopology), 5000}
	r.p.claim = &fakeClaim{end: 7}
	r.p.show()
	for name, g := range map[string]float64{"watermark": testutil.ToFloat64(r.p.metrics.watermark), "event lag": testutil.ToFloat64(r.p.metrics.eventLag)} {
		if g != 0 {
			t.Errorf("%s %v before there is a watermark", name, g)
		}
	}
	r.deliver(0, "a 1000", "b 3001")
	r.checkpoint()
	r.p.keep = 1
	r.deliver(2, "b 4001")
	r.checkpoint() // packs one
	m := r.p.metrics
	state := 0
	for _, e := range r.p.entries {
		if state += len(e.raw); e.live != nil {
			state += r.p.usual
		}
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"keys", testutil.ToFloat64(m.keys), 2},
		{"decoded", testutil.ToFloat64(m.decoded), 1},
		{"state", testutil.ToFloat64(m.state), float64(state)},
		{"watermark", testutil.ToFloat64(m.watermark), 4},
		{"event lag", testutil.ToFloat64(m.eventLag), 1e9 - 4},
		{"lag", testutil.ToFloat64(m.lag), 4},
	} {
		if c.got != c.want {
			t.Errorf("%s %v, want %v", c.name, c.got, c.want)
		}
	}
	if testutil.ToFloat64(m.state) == 0 || r.p.usual == 0 {
		t.Error("states take no bytes")
	}
}

// E1: a position that the group has not taken is not committed, though what led to it is written: the next checkpoint commits it, whether
// anything comes or not, and until then no late event counts as published.
func TestCheckpointThatIsNotCommitted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500")
	first := codecs.Source{Partition: 0, Offset: 0}
	for _, committed := range []bool{false, true} {
		c := r.cut()
		r.p.settle(c, committed)
		if got := r.p.published(first); got != committed || r.p.unwritten() == committed {
			t.Errorf("committed %v: published %v, unwritten %v", committed, got, r.p.unwritten())
		}
		if want := c.at.input; committed && r.p.committed.input != want {
			t.Errorf("committed up to %d, want %d", r.p.committed.input, want)
		}
	}
}

// E1, E2: a checkpoint whatever of which is not acknowledged commits nothing, ends the run and tells every partition; nothing is written behind
// it, by nobody.
func TestFailedCheckpointIsTheLast(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"table", "out", "late", "dead"} {
		r, rig, s := changelog(t, nil)
		s.answer("ProduceRequest", sarama.NewMockProduceResponse(t).SetVersion(7).SetError(topic, 0, sarama.ErrInvalidRecord))
		s.answer("OffsetCommitRequest", sarama.NewMockOffsetCommitResponse(t))
		r.owner = &Processor{config: rig.config, metrics: rig.p.metrics.all}
		r.partitions, r.kicked = map[int32]*partition[tick, tally]{0: rig.p}, make(chan struct{}, 1)
		gen := &session[tick, tally]{
			partitions: []*partition[tick, tally]{rig.p}, stop: make(chan struct{}), recovered: true, lease: s.now, probed: s.now,
		}
		var failed error
		r.cancel = func(err error) { failed = err }
		stop := sync.OnceFunc(func() { close(gen.stop) })
		r.config.CommitInterval, r.config.Checkpointed = time.Hour, func(Checkpointed) { stop() }
		rig.deliver(3, "b 2000", "c 5", "nonsense")
		r.kick()
		r.checkpoints(t.Context(), gen)
		if !errors.Is(failed, sarama.ErrInvalidRecord) || !errors.Is(rig.p.failed, sarama.ErrInvalidRecord) || s.requests("OffsetCommitRequest") > 0 {
			t.Fatalf("%s: the run ends with %v, the partition with %v, after %d commits", topic, failed, rig.p.failed, s.requests("OffsetCommitRequest"))
		}
		rig.p.pending = rig.p.room // nothing will make room
		if err := rig.p.wait(); !errors.Is(err, sarama.ErrInvalidRecord) {
			t.Errorf("%s: who waits is told %v", topic, err)
		}
		gen.stop, r.current = make(chan struct{}), gen
		before := s.requests("ProduceRequest")
		if err := r.finish(nil); !errors.Is(err, sarama.ErrInvalidRecord) || s.requests("ProduceRequest") != before {
			t.Errorf("%s: the last checkpoint: %v, %d writes behind the one that failed", topic, err, s.requests("ProduceRequest")-before)
		}
	}
}

// Of a cut of several shares each one's states are written with the results of the one before, and the position is committed behind the last.
func TestSharesAreWritten(t *testing.T) {
	t.Parallel()
	r, rig, s := changelog(t, nil)
	commit := sarama.NewMockOffsetCommitResponse(t)
	s.answer("OffsetCommitRequest", commit)
	var told []Checkpointed
	r.owner = &Processor{config: rig.config, metrics: rig.p.metrics.all}
	r.config.Checkpointed = func(c Checkpointed) { told = append(told, c) }
	gen := &session[tick, tally]{
		partitions: []*partition[tick, tally]{rig.p}, lease: s.now, probed: s.now, member: member{generation: 3, id: "m"},
	}
	for i, c := range []struct{ keys, writes int }{{1, 4}, {2, 3}, {3, 2}, {4, 2}} {
		rig.config.ShareKeys = c.keys
		before, at := s.requests("ProduceRequest"), int64(3+3*i)
		rig.deliver(at, fmt.Sprintf("a %d", 2000+i), fmt.Sprintf("b %d", 2000+i), fmt.Sprintf("c %d", 2000+i))
		if err := r.checkpoint(t.Context(), gen); err != nil {
			t.Fatal(err)
		}
		if n := s.requests("ProduceRequest") - before; n != c.writes || rig.p.committed.input != at+3 || rig.p.lives != 0 {
			t.Errorf("%d keys a share: %d writes, committed up to %d, %d keys are decoded", c.keys, n, rig.p.committed.input, rig.p.lives)
		}
		if got := told[i]; !got.Committed || got.Keys != 3 || got.Records != 6 {
			t.Errorf("%d keys a share: told is %+v", c.keys, got)
		}
	}
}
