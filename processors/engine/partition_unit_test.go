package engine

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"klgstream.dev/codecs"
)

// letter is what a record of the late or dead topic says.
func reasons(s *spool) (out []string) {
	for i := range s.records {
		for _, h := range s.records[i].Headers {
			if strings.HasSuffix(string(h.Key), "reason") {
				out = append(out, string(h.Value))
			}
		}
	}
	return out
}

// Letters of many partitions are spread over those of the late and the dead topic, states and results stay with their partition; the room
// for decoded keys is shared out.
func TestWhereAPartitionWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.DecodedKeys = 100
	top := &topics{"in", "loop", "table", "out", "late", "dead", 2, 3}
	m := newMetrics(prometheus.NewRegistry())
	for id, want := range map[int32]string{0: "table/0 out/0 late/0 dead/0", 5: "table/5 out/5 late/1 dead/2", 7: "table/7 out/7 late/1 dead/1"} {
		p := newPartition[tick, tally](id, 8, &r.config, top, tickTopology{}, m.partition(id), nil)
		s := p.newSpools()
		var got []string
		for _, to := range []topicPartition{s.table.to, s.out.to, s.late.to, s.dead.to} {
			got = append(got, fmt.Sprintf("%s/%d", to.topic, to.partition))
		}
		if strings.Join(got, " ") != want || p.keep != 12 {
			t.Errorf("partition %d writes to %v, want %s; it keeps %d keys decoded", id, got, want, p.keep)
		}
	}
	r.config.DecodedKeys = 3
	if p := newPartition[tick, tally](0, 8, &r.config, top, tickTopology{}, m.partition(0), nil); p.keep != 1 {
		t.Errorf("keeps %d keys decoded, want at least 1", p.keep)
	}
}

// What comes through the loop and is no event of a partition there is, or cannot be read, is a dead letter; a repeat is told by the source's fence (E7).
func TestLoopRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(fresh())
	key := keyOf(0, 2)
	r.loop(0, []byte(key+" 1000"), source{1, 5}.header())
	r.loop(1, []byte(key+" 1000"), source{1, 5}.header()) // a repeat
	r.loop(2, []byte(key+" 1000"), source{1, 4}.header()) // a repeat of an earlier one
	r.loop(3, []byte(key+" 1000"), source{1, 6}.header())
	if n, f := r.p.entries[key].live.state.n, r.p.outcomes.fenced; n != 2 || f != 2 {
		t.Errorf("counted %d and fenced %d, want 2 and 2", n, f)
	}
	r.loop(4, []byte(key+" 1000"), source{-1, 7}.header())
	r.loop(5, []byte(key+" 1000"), source{2, 7}.header())
	r.loop(6, []byte(key+" 1000"), nil)
	r.loop(7, []byte("nonsense"), source{1, 8}.header())
	if got := reasons(&r.p.open.dead); !slices.Equal(got, []string{ReasonLoop, ReasonLoop, ReasonLoop, ReasonUndecodable}) {
		t.Errorf("dead for %q", got)
	}
	if r.p.at.loop != 8 || r.p.hands.fences[1] != 8 || r.p.outcomes.dead != 4 || r.p.outcomes.counted != 2 {
		t.Errorf("stands at %d of the loop, fence %d, outcomes %+v", r.p.at.loop, r.p.hands.fences[1], r.p.outcomes)
	}
}

// E7: a repeat through the loop is told by the fence that was committed, also of a key that was forgotten meanwhile and has no fence any more.
func TestLoopRepeatOfAForgottenKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(position{clock: clock{watermark: 1000, sources: []sourceClock{{0, 0, 1000, -1}, {1, 0, 1000, 7}}}})
	key := keyOf(0, 2)
	for offset, counted := range []int{7: 0, 8: 1} {
		r.loop(int64(offset), []byte(key+" 2000"), source{1, int64(offset)}.header())
		if got := len(r.p.entries); got != counted {
			t.Errorf("offset %d of the source behind its fence at 7: %d keys", offset, got)
		}
	}
}

// What is not for this job is passed over, what is for another partition is passed on or, without re-keying, a dead letter: each counts as what it is.
func TestOutcomesOfInput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(fresh())
	r.p.topology = skipTopology{r.p.topology.(tickTopology)}
	home, stray := keyOf(0, 2), keyOf(1, 2)
	r.deliver(0, "skip", "skip", home+" 1000", stray+" 2000", "nonsense")
	if o := r.p.outcomes; o != (outcomes{counted: 1, dead: 1, rekeyed: 1, skipped: 2}) {
		t.Errorf("outcomes %+v", o)
	}
	if s := r.p.open.loop[1]; len(s.records) != 1 || string(s.records[0].Key) != stray || !r.p.hands.rekeys {
		t.Errorf("passed on %+v", s)
	}
	if r.p.at.input != 5 || r.p.pending == 0 {
		t.Errorf("stands at %d with %d bytes pending", r.p.at.input, r.p.pending)
	}
	r.config.RekeyOff = true
	r.deliver(5, stray+" 2000")
	if got := reasons(&r.p.open.dead); !slices.Equal(got, []string{ReasonUndecodable, ReasonWrongPartition}) {
		t.Errorf("dead for %q", got)
	}
}

// skipTopology passes over what begins with skip.
type skipTopology struct{ tickTopology }

func (t skipTopology) Decode(dst *tick, r *Record) error {
	if bytes.HasPrefix(r.Value, []byte("skip")) {
		return ErrSkip
	}
	return t.tickTopology.Decode(dst, r)
}

// A job beside another one writes no second letter of an event from the future, in a foreign partition or of a key too many, only of what its
// own loop holds: the registry and the counts of aircraft once wrote each its own, and both were replayed and counted.
func TestShadowWritesNoLetters(t *testing.T) {
	t.Parallel()
	for _, shadow := range []bool{false, true} {
		r := newRig(t)
		r.count, r.config.MaxFutureSkew, r.config.RekeyOff, r.config.MaxKeys = 2, time.Hour, true, 1
		var told bytes.Buffer
		r.config.Logger = slog.New(slog.NewTextHandler(&told, nil))
		r.begin(fresh())
		top := r.p.topology
		if shadow {
			top = shadowTopology{r.p.topology.(tickTopology)}
		}
		r.p = newPartition(0, r.count, &r.config, &r.topics, top, r.p.metrics, func() {})
		r.p.begin(fresh())
		home := keyOf(0, 2)
		r.deliver(0, "nonsense", home+" 9000000000000", keyOf(1, 2)+" 1000", home+" 1000")
		for i, more := 0, 3; more > 0; i++ {
			if key := fmt.Sprintf("more-%d", i); PartitionOf([]byte(key), r.count) == 0 {
				r.deliver(int64(10+i), key+" 1000")
				more--
			}
		}
		r.loop(0, nil, &sarama.RecordHeader{Key: []byte("a stranger's")})
		got, want := reasons(&r.p.open.dead), []string{ReasonLoop}
		if !shadow {
			if slices.Contains(got, ReasonFuture) && slices.Contains(got, ReasonWrongPartition) && slices.Contains(got, ReasonUndecodable) {
				continue
			}
			t.Errorf("letters %q", got)
		} else if !slices.Equal(got, want) || r.p.outcomes.dead != 1 || r.p.outcomes.skipped != 6 {
			t.Errorf("a shadow: letters %q, outcomes %+v", got, r.p.outcomes)
		} else if n := strings.Count(told.String(), "keeps 1 keys already, limit 1"); n != 1 { // of which the other job may keep more
			t.Errorf("told %d times of three keys too many: %s", n, &told)
		}
	}
}

type shadowTopology struct{ tickTopology }

func (shadowTopology) Shadow() {}

// Of more keys than a partition may keep the further ones are dead letters, and those that it has go on.
func TestMostKeys(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: 3, 1: 1, 2: 2, 3: 3, 4: 3} {
		r := newRig(t)
		r.config.MaxKeys = limit
		r.begin(fresh())
		r.deliver(0, "a 1000", "b 1001", "c 1002", "a 1003")
		if got := len(r.p.entries); got != want || r.p.entries["a"].live.state.n != 2 {
			t.Errorf("limit %d: %d keys, want %d", limit, got, want)
		}
		if got := len(reasons(&r.p.open.dead)); got != 3-want {
			t.Errorf("limit %d: %d letters", limit, got)
		}
	}
}

// A partition is full at its limit of changed keys, or of bytes, and not before.
func TestFull(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.MaxDirty, r.config.MaxPending = 3, 100
	r.begin(fresh())
	for _, c := range []struct {
		dirty, pending int
		full           bool
	}{{2, 99, false}, {3, 0, true}, {0, 100, true}, {4, 101, true}, {0, 0, false}} {
		r.p.dirty, r.p.pending = make([]*entry[tally], c.dirty), c.pending
		if got := r.p.full(); got != c.full {
			t.Errorf("%d keys, %d bytes: full %v", c.dirty, c.pending, got)
		}
	}
	r.p.dirty, r.p.pending, r.p.moved = nil, 0, false
	if r.p.unwritten() {
		t.Error("something is unwritten of nothing")
	}
	for name, set := range map[string]func(){
		"moved": func() { r.p.moved = true }, "dirty": func() { r.p.dirty = make([]*entry[tally], 1) }, "pending": func() { r.p.pending = 1 },
	} {
		r.p.dirty, r.p.pending, r.p.moved = nil, 0, false
		if set(); !r.p.unwritten() {
			t.Errorf("%s, and nothing is unwritten", name)
		}
	}
}

// What tells that an event was replayed stays with it wherever it is passed on; other headers do not.
func TestHistoryStays(t *testing.T) {
	t.Parallel()
	m := &sarama.ConsumerMessage{Headers: []*sarama.RecordHeader{
		nil, {Key: []byte(HistoryPrefix + "-from"), Value: []byte("x")}, {Key: []byte("trace"), Value: []byte("y")}, {Key: []byte("klg")},
	}}
	got := history(m, source{1, 2}.header())
	if len(got) != 2 || string(got[0].Key) != headerSource || string(got[1].Key) != HistoryPrefix+"-from" {
		t.Errorf("%d headers", len(got))
	}
}

// Fences are kept one per source, by partition, whatever the order in which sources come.
func TestFencesPerSource(t *testing.T) {
	t.Parallel()
	l := newLive[tally]()
	for _, p := range []int32{5, 1, 3, 9} {
		if fenceOf(l, p) != nil {
			t.Errorf("a fence of %d before it is there", p)
		}
		l.fences = insertSource(l.fences, codecs.Source{Partition: p, Offset: int64(p) * 10})
	}
	if !slices.IsSortedFunc(l.fences, func(a, b codecs.Source) int { return int(a.Partition - b.Partition) }) {
		t.Errorf("fences %v", l.fences)
	}
	for _, p := range []int32{1, 3, 5, 9} {
		if f := fenceOf(l, p); f == nil || f.Offset != int64(p)*10 {
			t.Errorf("the fence of %d is %v", p, f)
		}
	}
}

// The table counts what its keys take: a newer record replaces an older one, decoded or not, and a tombstone takes it away.
func TestTableCountsItsBytes(t *testing.T) {
	t.Parallel()
	record := func(offset int64, state int) []byte {
		env := codecs.Envelope{Sources: []codecs.Source{{Offset: offset}}, Purged: math.MinInt64, Due: codecs.NoDue, State: bytes.Repeat([]byte{2}, state)}
		return env.Append(nil)
	}
	r := newRig(t)
	r.begin(fresh())
	set := func(key string, value []byte) {
		t.Helper()
		if err := r.p.load(&frame{records: []*sarama.ConsumerMessage{{Key: []byte(key), Value: value}}}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, keys, lives, packed int) {
		t.Helper()
		if len(r.p.entries) != keys || r.p.lives != lives || r.p.packed != packed {
			t.Errorf("%s: %d keys, %d decoded, %d bytes, want %d, %d, %d", name, len(r.p.entries), r.p.lives, r.p.packed, keys, lives, packed)
		}
	}
	short, long := record(1, 1), record(2, 50)
	set("a", short)
	check("one", 1, 0, len(short))
	set("a", long)
	check("a longer one", 1, 0, len(long))
	set("a", short)
	check("an older one, over which it is to be written again", 1, 1, 0)
	set("a", record(3, 1))
	check("a shorter one", 1, 0, len(short))
	r.p.liven(r.p.entries["a"])
	check("decoded", 1, 1, 0)
	set("a", record(4, 1))
	check("read anew", 1, 0, len(short))
	set("b", long)
	r.p.liven(r.p.entries["b"])
	check("two", 2, 1, len(short))
	set("b", nil)
	check("the decoded one is gone", 1, 0, len(short))
	for _, key := range []string{"a", "none"} {
		set(key, nil)
	}
	check("none", 0, 0, 0)
}

// How much recovery has still to read is told as it goes on.
func TestRecoveryTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	s := store[tick, tally]{r.p, &frames{}, nil}
	left := func() float64 { return testutil.ToFloat64(r.p.metrics.recovery) }
	if r.p.recovering(5000); left() != 5000 {
		t.Errorf("%v records left of an unread table of 5000", left())
	}
	for _, c := range []struct {
		offset int64
		want   float64
	}{{0, 4999}, {100, 4899}, {4998, 1}, {4999, 0}, {5001, 0}} {
		if err := s.SetOffset(c.offset); err != nil || left() != c.want {
			t.Errorf("at %d: %v left, want %v", c.offset, left(), c.want)
		}
		if at, _ := s.GetOffset(-2); at != c.offset {
			t.Errorf("stands at %d, want %d", at, c.offset)
		}
	}
	r.p.table = 0
	if at, _ := s.GetOffset(-2); at != 0 {
		t.Errorf("a table of one record stands at %d, want 0", at)
	}
	if r.p.recovering(1); left() != 0 {
		t.Errorf("%v records left of a table that is read", left())
	}
}

// A spool's size is that of keys, values and headers, with what each adds; small values share chunks, large ones have memory of their own.
func TestSpoolSizes(t *testing.T) {
	t.Parallel()
	h := &sarama.RecordHeader{Key: make([]byte, 5), Value: make([]byte, 7)}
	if got := recordSize(make([]byte, 3), make([]byte, 4), []*sarama.RecordHeader{h, h}); got != 3+4+36+2*(5+7+10) {
		t.Errorf("a record has %d bytes", got)
	}
	var s spool
	for range 4 {
		s.add(nil, make([]byte, chunkSize/4))
	}
	if len(s.chunks) != 1 || len(s.chunks[0]) != chunkSize {
		t.Errorf("four quarters take %d chunks", len(s.chunks))
	}
	s.add(nil, make([]byte, chunkSize/4+1))
	if len(s.chunks) != 1 {
		t.Error("a large value is in a chunk")
	}
	s.add(nil, []byte("x"))
	if len(s.chunks) != 2 || s.bytes != chunkSize+chunkSize/4+1+1+6*36 {
		t.Errorf("%d chunks, %d bytes", len(s.chunks), s.bytes)
	}
}

// After a burst a spool's memory shrinks by an eighth a time, to eight chunks and records for a thousand.
func TestSpoolShrinksStepByStep(t *testing.T) {
	t.Parallel()
	var s spool
	for range 32 {
		s.add(nil, make([]byte, chunkSize/4))
		s.add(nil, make([]byte, chunkSize/4))
		s.add(nil, make([]byte, chunkSize/4))
		s.add(nil, make([]byte, chunkSize/4))
	}
	var got []int
	for range 12 {
		s.reset()
		got = append(got, len(s.chunks))
	}
	if want := []int{32, 27, 23, 20, 17, 14, 12, 10, 8, 8, 8, 8}; !slices.Equal(got, want) {
		t.Errorf("chunks %v, want %v", got, want)
	}
	s = spool{}
	for range 40_000 {
		s.add(nil, nil)
	}
	s.reset()
	if cap(s.records) < 40_000 {
		t.Errorf("room for %d records is kept of what the last cut used", cap(s.records))
	}
	rounds := 0
	for ; cap(s.records) >= 40_000 && rounds < 100; rounds++ {
		s.reset()
	}
	if rounds < 8 || rounds > 20 {
		t.Errorf("the records' memory goes after %d rounds", rounds)
	}
}

// A key is itself whatever its length: in its entry, in the table, and when it is read back and found again.
func TestKeysOfAnyLength(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	var keys, values []string
	for _, n := range []int{1, shortKey - 1, shortKey, shortKey + 1, shortKey + 2, 300} {
		keys = append(keys, strings.Repeat("k", n))
		values = append(values, keys[len(keys)-1]+" 1000")
	}
	r.deliver(0, values...)
	at := r.checkpoint()
	r.begin(at)
	r.deliver(int64(len(keys)), strings.Split(strings.ReplaceAll(strings.Join(values, "|"), "1000", "2000"), "|")...)
	r.checkpoint()
	if len(r.p.entries) != len(keys) || len(r.table) != len(keys) {
		t.Errorf("%d keys, %d in the table, want %d", len(r.p.entries), len(r.table), len(keys))
	}
	for _, key := range keys {
		if e := r.p.entries[key]; e == nil || e.key != key || r.p.liven(e).state.n != 2 {
			t.Errorf("a key of %d bytes is %+v", len(key), e)
		}
	}
}

// warmTopology notes what states it was to read before they are folded or written.
type warmTopology struct {
	tickTopology
	warmed *[]int64
}

func (w warmTopology) Warm(s *tally) int64 {
	*w.warmed = append(*w.warmed, s.n)
	return s.n
}

// The states of known keys are read before they are folded, and before they are written and settled; those of keys that are kept as bytes are not.
// A record's own key tells where to look, not whose event it is.
func TestStatesAreWarmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	var warmed []int64
	r.p = newPartition[tick, tally](0, 1, &r.config, &r.topics, warmTopology{r.p.topology.(tickTopology), &warmed}, r.p.metrics, func() {})
	r.p.begin(fresh())
	offset := int64(-1)
	fold := func(records ...string) []int64 {
		t.Helper()
		warmed = nil
		fr := &frame{}
		for _, v := range records {
			key, value, _ := strings.Cut(v, ": ")
			offset++
			fr.records = append(fr.records, &sarama.ConsumerMessage{Topic: "in", Offset: offset, Key: []byte(key), Value: []byte(value)})
		}
		if err := r.p.process(fr, false); err != nil {
			t.Fatal(err)
		}
		return warmed
	}
	for i, c := range []struct {
		records []string
		want    []int64
	}{
		{[]string{"a: a 1000", "b: b 1000"}, nil},
		{[]string{"a: a 2000", ": b 2000", "c: c 2000"}, []int64{1}},
		{[]string{"a: b 3000", "b: b 3001"}, []int64{2, 2}}, // the first is b's
	} {
		if got := fold(c.records...); !slices.Equal(got, c.want) {
			t.Errorf("frame %d: warmed are states of %v events, want %v", i, got, c.want)
		}
	}
	warmed = nil
	r.checkpoint()
	if slices.Sort(warmed); !slices.Equal(warmed, []int64{1, 1, 2, 2, 4, 4}) {
		t.Errorf("for a checkpoint warmed are states of %v events", warmed)
	}
	if got := fold("a: a 4000"); len(got) != 0 {
		t.Errorf("of a key that is kept as bytes warmed are %v", got)
	}
	for key, n := range map[string]int64{"a": 3, "b": 4, "c": 1} {
		if got := r.p.liven(r.p.entries[key]).state.n; got != n {
			t.Errorf("%s has %d events, want %d", key, got, n)
		}
	}
}
