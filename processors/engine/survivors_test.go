package engine

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"klgstream.dev/codecs"
)

// A checkpoint settles the late events that it published, and leaves those that an earlier run owes until they are delivered again.
func TestCutLeavesWhatIsOwed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000", "a 500", "a 600")
	r.states(r.cut()) // crash: 500 and 600 are owed
	r.begin(fresh())
	r.deliver(0, "a 1000")
	r.deliver(7, "a 700") // before they come again
	r.checkpoint()
	l := r.p.entries["a"].live
	if l == nil || l.owed != 2 || len(l.undecided) != 2 || !slices.Equal(r.late, []string{"a 700"}) {
		t.Fatalf("owed %+v, late %q", l, r.late)
	}
	for _, s := range slices.Clone(l.undecided) {
		if !l.send(s) {
			t.Errorf("%v is not undecided", s)
		}
	}
	if l.owed != 0 || len(l.undecided) != 2 {
		t.Errorf("%d owed of %v after both were sent", l.owed, l.undecided)
	}
	if l.send(l.undecided[0]); l.owed != 0 {
		t.Errorf("%d owed after one was sent twice", l.owed)
	}
	if l.send(codecs.Source{Offset: 99}) {
		t.Error("an event that nobody knows is undecided")
	}
}

// A key that is kept as bytes, read from the table or left from an earlier generation, has its timers again: it is open as long as a window of it is,
// and forgotten when its time has come.
func TestKeysThatAreKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.StateTTL = time.Second
	for key, due := range map[string]int64{"open": 5000, "closed": codecs.NoDue} {
		env := codecs.Envelope{Purged: math.MinInt64, Due: due, State: []byte{2}, Sources: []codecs.Source{{Offset: 0}}}
		r.table[key] = env.Append(nil)
	}
	at := position{input: 1, clock: clock{watermark: 1000, sources: []sourceClock{{0, 0, 1000, -1}}}}
	r.begin(at)
	for range 2 { // as recovered, then as kept
		if e := r.p.entries["open"]; !e.open || e.seen != 5000 {
			t.Errorf("the open key: %+v", e)
		}
		if e := r.p.entries["closed"]; e.open || e.seen != 1000 {
			t.Errorf("the closed key: %+v", e)
		}
		r.p.begin(at)
	}
	r.deliver(1, "x 2002")
	r.checkpoint()
	r.p.tick(r.config.Now())
	r.checkpoint()
	if r.p.entries["closed"] != nil || r.p.entries["open"] == nil {
		t.Errorf("kept: closed %v, open %v", r.p.entries["closed"] != nil, r.p.entries["open"] != nil)
	}
}

// A letter says where a record was read, and whose it is if that could be told.
func TestLettersSayWhereFrom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(3, "nonsense", "a 1000", "a 500")
	r.loop(9, []byte("x"), nil)
	values := func(s *spool, i int) (out []string) {
		for _, h := range s.records[i].Headers {
			out = append(out, string(h.Value))
		}
		return out
	}
	dead := &r.p.open.dead
	if got := values(dead, 0); !slices.Contains(got, "in") || slices.Contains(got, "a") || slices.Contains(got, "loop") {
		t.Errorf("the undecodable record's letter: %q", got)
	}
	if got := values(dead, 1); !slices.Contains(got, "loop") || slices.Contains(got, "in") {
		t.Errorf("the letter of a record of the loop: %q", got)
	}
	if got := values(&r.p.open.late, 0); !slices.Contains(got, "a") || !slices.Contains(got, "in") {
		t.Errorf("the late event's letter: %q", got)
	}
}

// What is cut off is told, whatever is missing, and nothing is read twice.
func TestMetadataThatIsCutOff(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*reader){
		"byte": func(r *reader) { r.byte() }, "uint32": func(r *reader) { r.uint32() }, "uvarint": func(r *reader) { r.uvarint() }, "time": func(r *reader) { r.time(0) },
	} {
		r := reader{}
		if read(&r); r.err == nil {
			t.Errorf("%s of nothing", name)
		}
	}
	r := reader{b: []byte{0, 0, 1, 0, 7, 5}}
	if a, b, c := r.uint32(), r.byte(), r.uvarint(); a != 256 || b != 7 || c != 5 || r.err != nil || len(r.b) != 0 {
		t.Errorf("read %d, %d, %d, %v", a, b, c, r.err)
	}
	if r = (reader{b: []byte{0, 0, 1, 0}}); r.uint32() != 256 || r.err != nil {
		t.Errorf("four bytes: %v", r.err)
	}
	if r = (reader{b: []byte{0, 0, 1}}); r.uint32() != 0 || r.err == nil {
		t.Error("three bytes are a number of four")
	}
}

// A batch that the broker has had already lies where nobody says; a produce request gives the replicas the producer's time-out.
func TestRepeatedBatchLiesNobodyKnowsWhere(t *testing.T) {
	t.Parallel()
	s := newScripted(t, map[string]sarama.MockResponse{
		"ProduceRequest": sarama.NewMockProduceResponse(t).SetVersion(7).SetError("out", 0, sarama.ErrDuplicateSequenceNumber),
	})
	acks, err := s.outbox(1000).write(t.Context(), permitted, []*spool{letters(0, "0", "1")})
	if err != nil || acks[topicPartition{"out", 0}].first != -1 || acks[topicPartition{"out", 0}].last != -1 {
		t.Errorf("acknowledged %v, %v", acks, err)
	}
	for _, h := range s.broker.History() {
		if p, ok := h.Request.(*sarama.ProduceRequest); ok && (p.Timeout != 10_000 || p.RequiredAcks != sarama.WaitForAll) {
			t.Errorf("the replicas have %d ms, %v of them", p.Timeout, p.RequiredAcks)
		}
	}
}

// A checkpoint is committed, put off or failed, and the time between two is told from the second on.
func TestCheckpointMetrics(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry())
	at := time.UnixMilli(1e12)
	m.checkpointed(&Checkpointed{Began: at, Ended: at, Committed: true}, time.Time{})
	m.checkpointed(&Checkpointed{Began: at, Ended: at, Committed: true}, at)
	m.checkpointed(&Checkpointed{Began: at, Ended: at}, at)
	m.checkpointed(&Checkpointed{Began: at, Ended: at, Err: sarama.ErrNotEnoughReplicas}, at)
	for outcome, want := range map[string]float64{"committed": 2, "deferred": 1, "failed": 1} {
		if got := testutil.ToFloat64(m.checkpoints.WithLabelValues(outcome)); got != want {
			t.Errorf("%v checkpoints %s, want %v", got, outcome, want)
		}
	}
}
