package engine

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// predecessor is the producer of what lies in the changelog.
const predecessor = 5

// changelog is a run whose reader finds keys in the changelog table/0 at offsets, and the rig of its partition.
func changelog(t *testing.T, keys map[int64]string) (*run[tick, tally], *rig, *scripted) {
	t.Helper()
	found := &sarama.FetchResponse{Version: 7}
	for _, offset := range slices.Sorted(maps.Keys(keys)) {
		found.AddRecordBatch("table", 0, sarama.StringEncoder(keys[offset]), sarama.StringEncoder("a predecessor's"), offset, predecessor, false)
	}
	if len(keys) == 0 {
		found.AddError("table", 0, sarama.ErrNoError)
	}
	s := newScripted(t, map[string]sarama.MockResponse{"FetchRequest": sarama.NewMockWrapper(found)})
	rig := newRig(t)
	rig.begin(fresh())
	rig.deliver(0, "a 1000", "b 1000", "c 1000")
	rig.checkpoint()
	r, _ := s.membership()
	r.reader, r.topics, r.outbox = s.client, &rig.topics, s.outbox(1000)
	return r, rig, s
}

// E7: between the last record known of the changelog and the first that is acknowledged lies what another has appended: it is read, its keys are
// written again, and the checkpoint that found it commits nothing.
func TestForeignRecordsAreHealed(t *testing.T) {
	t.Parallel()
	r, rig, _ := changelog(t, map[int64]string{3: "a", 4: "b", 5: "unknown", 6: "c"})
	rig.p.table = 2
	sound, err := r.unbroken(t.Context(), &session[tick, tally]{}, []cut[tick, tally]{{p: rig.p}}, acked{{"table", 0}: {first: 6, last: 9}})
	if err != nil || sound {
		t.Fatalf("sound %v, error %v", sound, err)
	}
	var again []string
	for _, e := range rig.p.dirty {
		again = append(again, e.key)
	}
	if len(again) != 2 || again[0] != "a" || again[1] != "b" {
		t.Errorf("written again: %q, want a and b, which lie before what is acknowledged", again)
	}
	if n := testutil.ToFloat64(rig.p.metrics.all.overwritten); n != 2 {
		t.Errorf("%v records are overwritten, want 2", n)
	}
	rig.checkpoint()
	if got := rig.out[len(rig.out)-2:]; got[0] != "a=1" || got[1] != "b=1" {
		t.Errorf("published %q again", got)
	}
	if sound, err = r.unbroken(t.Context(), &session[tick, tally]{}, []cut[tick, tally]{{p: rig.p}}, acked{{"table", 0}: {first: 10, last: 12}}); err != nil || !sound {
		t.Errorf("right behind it: sound %v, error %v", sound, err)
	}
}

// What another has appended and the broker has deleted since needs no healing; what cannot be read is an error in the end.
func TestHealingThatIsImpossible(t *testing.T) {
	t.Parallel()
	for answer, want := range map[sarama.KError]error{
		sarama.ErrOffsetOutOfRange: nil, sarama.ErrTopicAuthorizationFailed: sarama.ErrTopicAuthorizationFailed, sarama.ErrNotLeaderForPartition: sarama.ErrNotLeaderForPartition,
	} {
		r, rig, s := changelog(t, nil)
		resp := &sarama.FetchResponse{Version: 7}
		resp.AddError("table", 0, answer)
		s.answer("FetchRequest", sarama.NewMockWrapper(resp))
		s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("table", 0, sarama.OffsetOldest, 6))
		asked := 0
		r.config.Now = func() time.Time { asked++; return s.now.Add(time.Duration(asked) * 40 * time.Second) } // patient for a minute
		if err := r.heal(t.Context(), rig.p, hole{3, 6}); want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%v: %v", answer, err)
		}
	}
}

// A stretch that the log does not reach to, as when its end was told by a leader that is none any more, is passed over at once; where a log
// begins is not guessed.
func TestHealingBehindTheLog(t *testing.T) {
	t.Parallel()
	gone, refused := &sarama.FetchResponse{Version: 7}, &sarama.FetchResponse{Version: 7}
	gone.AddError("table", 0, sarama.ErrOffsetOutOfRange)
	refused.AddError("table", 0, sarama.ErrTopicAuthorizationFailed)
	for oldest, known := range map[int64]bool{0: true, 3: true, 2: false} {
		r, rig, s := changelog(t, nil)
		s.answer("FetchRequest", sarama.NewMockSequence(gone, refused))
		bounds := sarama.NewMockWrapper(&sarama.OffsetResponse{
			Version: 6, Blocks: map[string]map[int32]*sarama.OffsetResponseBlock{"table": {0: {Err: sarama.ErrTopicAuthorizationFailed}}},
		})
		if s.answer("OffsetRequest", bounds); known {
			s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("table", 0, sarama.OffsetOldest, oldest))
		}
		if err := r.heal(t.Context(), rig.p, hole{3, 6}); (err == nil) != known || s.requests("FetchRequest") != 1 {
			t.Errorf("a log from %d on: %v after %d fetches", oldest, err, s.requests("FetchRequest"))
		}
	}
}

// E7: for one session time-out after a takeover the end of the own changelog is looked at now and then: what others append is written over,
// what this run appended is not.
func TestProbeOfTheOwnChangelog(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		own   int64 // producer
		after time.Duration
		again time.Duration // since the last look
		want  int
	}{
		"a predecessor's":   {predecessor + 1, time.Second, time.Second, 2},
		"the own":           {predecessor, time.Second, time.Second, 0},
		"looked just now":   {predecessor + 1, time.Second, time.Millisecond, 0},
		"this moment":       {predecessor + 1, time.Second, 0, 0},
		"the clock is back": {predecessor + 1, time.Second, -time.Millisecond, 2},
		"later":             {predecessor + 1, 10 * time.Second, 9 * time.Second, 0},
		"long after":        {predecessor + 1, 20 * time.Second, 10 * time.Second, 2},
	} {
		r, rig, s := changelog(t, map[int64]string{2: "c", 3: "a", 4: "b"}) // the first is known
		s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("table", 0, sarama.OffsetNewest, 5).SetOffset("out", 0, sarama.OffsetNewest, 0))
		r.outbox.producer.id, rig.p.table = c.own, 2
		now := s.now.Add(c.after)
		gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(10 * time.Second), probed: now.Add(-c.again)}
		if err := r.probe(t.Context(), gen, now); err != nil {
			t.Fatal(err)
		}
		if got := len(rig.p.dirty); got != c.want {
			t.Errorf("%s: %d keys are written again, want %d", name, got, c.want)
		}
		if known := rig.p.table; c.want > 0 && known != 4 {
			t.Errorf("%s: the changelog is known up to %d, want 4", name, known)
		}
		rig.p.dirty = nil
		if err := r.probe(t.Context(), gen, now.Add(time.Hour)); err != nil || c.want > 0 && len(rig.p.dirty) > 0 {
			t.Errorf("%s: what was seen is written again an hour later, %v", name, err)
		}
	}
}

// E7: a former owner's results that arrive behind those of its successor do not stay the last word: the newest own ones are repeated, of
// the keys concerned and of no other.
func TestForeignResultsAreNotTheLastWord(t *testing.T) {
	t.Parallel()
	const own = 7
	log := &sarama.FetchResponse{Version: 7}
	for i, rec := range []struct {
		producer   int64
		key, value string
	}{
		{own, "a", "a1"},
		{own, "b", "b1"},
		{own, "a", "a2"},
		{own, "c", "c1"},
		{predecessor, "a", "stale"},
		{predecessor, "b", "stale"},
		{predecessor, "d", "its own"},
		{own, "b", "b2"},
	} {
		log.AddRecordBatch("out", 0, sarama.StringEncoder(rec.key), sarama.StringEncoder(rec.value), 10+int64(i), rec.producer, false)
	}
	r, rig, s := changelog(t, nil)
	s.answer("FetchRequest", sarama.NewMockWrapper(log))
	rig.p.appends(position{}, 10, 1)
	rig.p.outEnd = 14
	gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(time.Second), lease: s.now}
	ok, err := r.unbroken(t.Context(), gen, []cut[tick, tally]{{p: rig.p}}, acked{{"out", 0}: {first: 17, last: 17}})
	if err != nil || !ok {
		t.Fatalf("sound %v, error %v", ok, err)
	}
	if n := testutil.ToFloat64(rig.p.metrics.all.repeated); n != 1 || s.requests("ProduceRequest") != 1 {
		t.Errorf("%v results are repeated in %d requests", n, s.requests("ProduceRequest"))
	}
	again, err := r.overtaken(t.Context(), gen, rig.p, hole{14, 17})
	if err != nil || len(again.records) != 1 || string(again.records[0].Key) != "a" || string(again.records[0].Value) != "a2" {
		t.Errorf("overtaken are %v, %v", again.records, err)
	}
}

// E7: a former owner that does not know yet that it is none repeats nothing behind newer results: it would have the last word if the new owner
// died.
func TestNewerForeignResults(t *testing.T) {
	t.Parallel()
	for foreign, repeated := range map[string]int{"a1": 1, "a2": 0, "a3": 0} {
		log := &sarama.FetchResponse{Version: 7}
		log.AddRecordBatch("out", 0, sarama.StringEncoder("a"), sarama.StringEncoder("a2"), 10, 7, false)
		log.AddRecordBatch("out", 0, sarama.StringEncoder("a"), sarama.StringEncoder(foreign), 11, predecessor, false)
		r, rig, s := changelog(t, nil)
		s.answer("FetchRequest", sarama.NewMockWrapper(log))
		rig.p.newer = func(value, than []byte) bool { return string(value) > string(than) }
		rig.p.appends(position{}, 10, 1)
		rig.p.outEnd = 11
		again, err := r.overtaken(t.Context(), &session[tick, tally]{guarded: s.now.Add(1)}, rig.p, hole{11, 12})
		if err != nil || len(again.records) != repeated {
			t.Errorf("behind %s: overtaken are %v, %v", foreign, again.records, err)
		}
	}
}

// E7: a former owner's results that come between the last own one and a new generation are looked into, if nobody else can have had the
// partition in between.
func TestForeignResultsBetweenGenerations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		generation int32
		out        int64
		from       int64 // where own results are looked for
		hole       hole
	}{
		"the next":               {5, 16, 10, hole{14, 16}},
		"nothing came":           {5, 14, 10, hole{14, 14}},
		"others were in between": {6, 16, 16, hole{16, 16}},
		"the group began anew":   {1, 16, 16, hole{16, 16}},
		"the log is shorter":     {5, 12, 12, hole{12, 12}},
	} {
		_, rig, _ := changelog(t, nil)
		rig.p.appends(position{}, 10, 4)
		rig.p.outEnd = 14
		rig.p.appends(position{}, c.out, c.generation)
		_, out := rig.p.beyond(map[topicPartition]int64{{"out", 0}: c.out})
		if rig.p.outFrom != c.from || out != c.hole {
			t.Errorf("%s: own results from %d, hole %v, want %d and %v", name, rig.p.outFrom, out, c.from, c.hole)
		}
	}
	_, rig, _ := changelog(t, nil)
	if rig.p.appends(position{}, 10, 1); rig.p.outFrom != 10 {
		t.Errorf("the first generation looks for own results from %d", rig.p.outFrom)
	}
}

// E7: who takes over from one that died looks into what has come to the output since the last commit. If a former owner has left an older
// result there behind a newer one, the newer one is repeated, whoever wrote it and however long before; the one who died is not suspected.
func TestForeignResultsOfTwoWhoAreGone(t *testing.T) {
	t.Parallel()
	const dead, own = 6, 7
	type result struct {
		producer int64
		value    string // its first letter is its key
	}
	newer := func(value, than []byte) bool { return string(value) > string(than) }
	results := []result{{dead, "a2"}, {dead, "b2"}, {dead, "c3"}, {dead, "d2"}, {predecessor, "a1"}, {predecessor, "c2"}, {predecessor, "d1"}, {own, "c4"}}
	for name, c := range map[string]struct {
		results []result // from offset 10 on
		at      position
		newer   func(value, than []byte) bool
		since   int64 // where the log was when the first foreign result was written; -1: the broker does not know
		want    string
	}{
		"since the commit":               {results, position{out: 10, writer: dead + 1}, newer, 10, "a2 d2"},
		"the newer ones before it":       {results, position{out: 14, writer: dead + 1}, newer, 10, "a2 d2"},
		"nobody knows who has committed": {results, position{out: 14}, newer, 10, "a2 d2"},
		"a commit behind it":             {results, position{out: 18, writer: dead + 1}, newer, 10, ""},
		"a longer log once":              {results, position{out: 99, writer: dead + 1}, newer, 10, ""},
		"nothing is known":               {results, position{}, newer, 10, ""},
		"which is newer":                 {results, position{out: 10, writer: dead + 1}, nil, 10, ""},
		"when they were written":         {results, position{out: 14, writer: dead + 1}, newer, -1, ""},
		"mended": {
			[]result{{dead, "a2"}, {predecessor, "a1"}, {dead, "a2"}}, position{out: 11, writer: dead + 1}, newer, 10, "",
		},
		"behind the one who died": {
			[]result{{dead, "a2"}, {predecessor, "a1"}, {dead, "a1"}}, position{out: 11, writer: dead + 1}, newer, 10, "a2",
		},
		"the one who died, after the takeover": {
			append(slices.Clone(results), result{dead, "c3"}), position{out: 10, writer: dead + 1}, newer, 10, "a2 c4 d2",
		},
		"nobody else's": {[]result{{dead, "a2"}, {dead, "a1"}}, position{out: 11, writer: dead + 1}, newer, 10, ""},
	} {
		r, rig, s := changelog(t, nil)
		log := &sarama.FetchResponse{Version: 7}
		end := int64(10)
		for _, rec := range c.results {
			log.AddRecordBatchWithTimestamp("out", 0, sarama.StringEncoder(rec.value[:1]), sarama.StringEncoder(rec.value), end, rec.producer, false, s.now)
			end++
		}
		s.answer("FetchRequest", sarama.NewMockWrapper(log))
		s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("out", 0, s.now.Add(-r.config.SessionTimeout).UnixMilli(), c.since))
		rig.p.newer = c.newer
		rig.p.appends(c.at, 10+min(7, int64(len(c.results))), 4) // where the own begin
		_, h := rig.p.beyond(map[topicPartition]int64{{"out", 0}: end})
		again, err := r.overtaken(t.Context(), &session[tick, tally]{guarded: s.now.Add(1)}, rig.p, h)
		var got []string
		for _, rec := range again.records {
			got = append(got, string(rec.Value))
		}
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: repeated %q, want %q, %v", name, got, c.want, err)
		}
	}
}

// A client that may write its results and not read them goes on without looking behind them.
func TestForeignResultsThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	for answer, ends := range map[sarama.KError]bool{sarama.ErrTopicAuthorizationFailed: false, sarama.ErrInvalidTopic: true} {
		r, rig, s := changelog(t, nil)
		refused := &sarama.FetchResponse{Version: 7}
		refused.AddError("out", 0, answer)
		s.answer("FetchRequest", sarama.NewMockWrapper(refused))
		gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(time.Second), lease: s.now}
		_, err := r.unbroken(t.Context(), gen, []cut[tick, tally]{{p: rig.p}}, acked{{"out", 0}: {first: 3, last: 4}})
		if (err != nil) != ends {
			t.Errorf("%v: %v", answer, err)
		}
	}
}

// E7: batches whose offset the broker does not tell, for it had them already, hide nothing that others have appended beside them.
func TestHolesBesideRepeatedBatches(t *testing.T) {
	t.Parallel()
	tp := topicPartition{"table", 0}
	for name, offsets := range map[string][]int64{
		"first":      {-1, 16}, // two records at 10 or behind, and others'
		"in between": {10, -1, 16},
	} {
		acks := make(acked)
		for _, offset := range offsets {
			acks.add(tp, offset, 2)
		}
		next := int64(10)
		found := acks.holes(tp, &next)
		if want := (hole{10 + 2*int64(len(offsets)-2), 16}); len(found) != 1 || found[0] != want || next != 18 {
			t.Errorf("%s: holes %v up to %d, want %v", name, found, next, want)
		}
	}
	acks := make(acked)
	acks.add(tp, 10, 2)
	acks.add(tp, -1, 2) // at 12, or behind what others have appended: the next write tells
	next := int64(10)
	if found := acks.holes(tp, &next); len(found) != 0 || next != 12 {
		t.Errorf("last: holes %v up to %d, want none up to 12", found, next)
	}
}

// E7: the own results before foreign ones are found also where retention has deleted the first of them.
func TestForeignResultsBehindADeletedStart(t *testing.T) {
	t.Parallel()
	log := &sarama.FetchResponse{Version: 7}
	log.AddRecordBatch("out", 0, sarama.StringEncoder("a"), sarama.StringEncoder("a2"), 12, 7, false)
	log.AddRecordBatch("out", 0, sarama.StringEncoder("a"), sarama.StringEncoder("stale"), 13, predecessor, false)
	deleted := &sarama.FetchResponse{Version: 7}
	deleted.AddError("out", 0, sarama.ErrOffsetOutOfRange)
	r, rig, s := changelog(t, nil)
	s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("out", 0, sarama.OffsetOldest, 12))
	s.answer("FetchRequest", sarama.NewMockSequence(log, deleted, log))
	rig.p.appends(position{}, 10, 1)
	rig.p.outEnd = 13
	again, err := r.overtaken(t.Context(), &session[tick, tally]{guarded: s.now.Add(1)}, rig.p, hole{13, 14})
	if err != nil || len(again.records) != 1 || string(again.records[0].Value) != "a2" {
		t.Errorf("overtaken are %v, %v", again.records, err)
	}
}

// Two groups that count the same windows into one output once repeated each other's results for ever. What says the same is not repeated.
func TestForeignResultsThatSayTheSame(t *testing.T) {
	t.Parallel()
	log := &sarama.FetchResponse{Version: 7}
	for i, producer := range []int64{7, predecessor} {
		log.AddRecordBatch("out", 0, sarama.StringEncoder("a"), sarama.StringEncoder("a2"), 10+int64(i), producer, false)
	}
	r, rig, s := changelog(t, nil)
	s.answer("FetchRequest", sarama.NewMockWrapper(log))
	rig.p.appends(position{}, 10, 1)
	rig.p.outEnd = 11
	again, err := r.overtaken(t.Context(), &session[tick, tally]{guarded: s.now.Add(1)}, rig.p, hole{11, 12})
	if err != nil || len(again.records) != 0 {
		t.Errorf("overtaken are %v, %v", again.records, err)
	}
}

// E7: what the last checkpoint of a generation finds is written over before the partition is given up, and the position is committed: there
// is no next checkpoint to do so.
func TestLastCheckpointWritesOverWhatItFinds(t *testing.T) {
	t.Parallel()
	r, rig, s := changelog(t, map[int64]string{3: "a"})
	ok := sarama.NewMockOffsetCommitResponse(t)
	s.answer("OffsetCommitRequest", ok)
	var produced []any
	for _, at := range []struct {
		topic  string
		offset int64
	}{{"table", 4}, {"out", 0}, {"table", 5}, {"out", 1}} {
		produced = append(produced, sarama.NewMockWrapper(&sarama.ProduceResponse{
			Version: 7, Blocks: map[string]map[int32]*sarama.ProduceResponseBlock{at.topic: {0: {Offset: at.offset}}},
		}))
	}
	s.answer("ProduceRequest", sarama.NewMockSequence(produced...))
	rig.p.table, rig.p.outEnd = 2, 0
	r.owner = &Processor{config: rig.config, metrics: rig.p.metrics.all}
	r.partitions = map[int32]*partition[tick, tally]{0: rig.p}
	r.cancel = func(err error) { t.Errorf("the run failed: %v", err) }
	r.current = &session[tick, tally]{
		partitions: []*partition[tick, tally]{rig.p}, stop: make(chan struct{}), recovered: true, lease: s.now, probed: s.now,
		member: member{generation: 3, id: "m"},
	}
	rig.deliver(3, "b 2000")
	if err := r.finish(nil); err != nil {
		t.Fatal(err)
	}
	if rig.p.unwritten() || rig.p.committed.input != 4 || s.requests("OffsetCommitRequest") != 1 {
		t.Errorf("unwritten %v, committed up to %d", rig.p.unwritten(), rig.p.committed.input)
	}
	if at := rig.p.committed; at.out != 2 || at.writer != r.outbox.producer.id+1 {
		t.Errorf("committed is that the output was looked into up to %d by %d", at.out, at.writer)
	}
}

// A leader that was just elected does not tell the end of its log yet: it is asked again. The run ended once.
func TestProbeAtALeaderThatIsBehind(t *testing.T) {
	t.Parallel()
	for answer, ends := range map[sarama.KError]bool{sarama.ErrOffsetNotAvailable: false, sarama.ErrNotLeaderForPartition: false, sarama.ErrTopicAuthorizationFailed: true} {
		r, rig, s := changelog(t, nil)
		resp := &sarama.OffsetResponse{Version: 6, Blocks: map[string]map[int32]*sarama.OffsetResponseBlock{"table": {0: {Err: answer}}}}
		s.answer("OffsetRequest", sarama.NewMockWrapper(resp))
		gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(time.Second)}
		if err := r.probe(t.Context(), gen, s.now); (err != nil) != ends || ends && !errors.Is(err, answer) {
			t.Errorf("%v: %v", answer, err)
		}
	}
}

// Why the last checkpoint of a run that is told to stop was not written is said when the run ends: goka and sarama drop it.
func TestLastCheckpointThatFails(t *testing.T) {
	t.Parallel()
	r, rig, s := changelog(t, nil)
	s.answer("ProduceRequest", sarama.NewMockProduceResponse(t).SetVersion(7).SetError("table", 0, sarama.ErrInvalidRecord))
	r.owner = &Processor{config: rig.config, metrics: rig.p.metrics.all}
	r.partitions = map[int32]*partition[tick, tally]{0: rig.p}
	r.cancel = func(error) {}
	r.current = &session[tick, tally]{
		partitions: []*partition[tick, tally]{rig.p}, stop: make(chan struct{}), recovered: true, lease: s.now, probed: s.now,
	}
	rig.deliver(3, "b 2000")
	if err := r.finish(nil); !errors.Is(err, sarama.ErrInvalidRecord) || !errors.Is(r.unwritten, sarama.ErrInvalidRecord) {
		t.Errorf("failed with %v, told is %v", err, r.unwritten)
	}
}

// E7: foreign states that cannot be read end the checkpoint that found them: nobody would look for them a second time.
func TestForeignRecordsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	r, rig, s := changelog(t, nil)
	refused := &sarama.FetchResponse{Version: 7}
	refused.AddError("table", 0, sarama.ErrTopicAuthorizationFailed)
	s.answer("FetchRequest", sarama.NewMockWrapper(refused))
	rig.p.table = 2
	sound, err := r.unbroken(t.Context(), &session[tick, tally]{}, []cut[tick, tally]{{p: rig.p}}, acked{{"table", 0}: {first: 6, last: 9}})
	if sound || !errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
		t.Errorf("sound %v, error %v", sound, err)
	}
	s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("table", 0, sarama.OffsetNewest, 20).SetOffset("out", 0, sarama.OffsetNewest, 0))
	gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(time.Second)}
	if err := r.probe(t.Context(), gen, s.now); !errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
		t.Errorf("found by a look behind the own records: %v", err)
	}
	refused = &sarama.FetchResponse{Version: 7}
	refused.AddError("out", 0, sarama.ErrInvalidTopic)
	s.answer("FetchRequest", sarama.NewMockWrapper(refused))
	s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("table", 0, sarama.OffsetNewest, 20).SetOffset("out", 0, sarama.OffsetNewest, 9))
	gen.probed = s.now.Add(-time.Hour)
	if err := r.probe(t.Context(), gen, s.now); !errors.Is(err, sarama.ErrInvalidTopic) {
		t.Errorf("results found by a look behind the own ones: %v", err)
	}
}

// Where records begin that a writer may have compared with is asked of the broker by time, a session time-out before the writer began.
func TestWrittenSince(t *testing.T) {
	t.Parallel()
	r, _, s := changelog(t, nil)
	since := time.UnixMilli(1e12)
	for offset, want := range map[int64]int64{-1: 10, 0: 0, 5: 5, 10: 10, 12: 10} {
		at := since.Add(-r.config.SessionTimeout).UnixMilli()
		s.answer("OffsetRequest", sarama.NewMockOffsetResponse(t).SetOffset("out", 0, at, offset))
		if got, err := r.writtenSince(t.Context(), topicPartition{"out", 0}, since, 10); got != want || err != nil {
			t.Errorf("the broker says %d: from %d, %v, want %d", offset, got, err, want)
		}
	}
	for _, none := range []time.Time{{}, time.Unix(0, 0)} {
		if got, err := r.writtenSince(t.Context(), topicPartition{"out", 0}, none, 10); got != 10 || err != nil {
			t.Errorf("who does not tell when: from %d, %v", got, err)
		}
	}
}

// The one whom a partition was taken over from is suspected of what comes behind that, from its first record on.
func TestForeignResultsOfAnHeirThatLives(t *testing.T) {
	t.Parallel()
	log := &sarama.FetchResponse{Version: 7}
	for offset := range int64(3) {
		log.AddRecordBatch("out", 0, sarama.StringEncoder(string(rune('a'+offset))), nil, 11+offset, predecessor, false)
	}
	r, rig, s := changelog(t, nil)
	s.answer("FetchRequest", sarama.NewMockWrapper(log))
	rig.p.appends(position{writer: predecessor + 1}, 12, 1)
	words, _, err := r.foreign(t.Context(), rig.p, hole{11, 14})
	if keys := slices.Sorted(maps.Keys(words)); err != nil || !slices.Equal(keys, []string{"b", "c"}) {
		t.Errorf("suspected are %q, %v, want those at 12 and 13", keys, err)
	}
}

// A batch's records have the offsets that they tell.
func TestOffsetsOfABatch(t *testing.T) {
	t.Parallel()
	b := fetched{&sarama.RecordBatch{FirstOffset: 10, Records: []*sarama.Record{{}, {OffsetDelta: 1}, {OffsetDelta: 4}}}, true} // compacted
	var got []int64
	each(b, func(_ *sarama.Record, offset int64) { got = append(got, offset) })
	if !slices.Equal(got, []int64{10, 11, 14}) {
		t.Errorf("offsets %v", got)
	}
}

// E7: a topology that tells its results from those of other jobs on the topic has its own repeated at any time, and leaves the others' alone.
func TestForeignResultsOfOtherJobs(t *testing.T) {
	t.Parallel()
	log := &sarama.FetchResponse{Version: 7}
	for i, key := range []string{"mine", "other", "mine", "other"} {
		producer := int64(7)
		if i > 1 {
			producer = predecessor
		}
		log.AddRecordBatch("out", 0, sarama.StringEncoder(key), sarama.StringEncoder(string(rune('0'+i))), 10+int64(i), producer, false)
	}
	for name, c := range map[string]struct {
		owns  bool
		after time.Duration // of the guarded time
		want  int
	}{
		"told apart": {true, -1, 1}, "told apart, long after a takeover": {true, time.Hour, 1},
		"not told apart": {false, -1, 2}, "not told apart, long after a takeover": {false, 0, 0},
	} {
		r, rig, s := changelog(t, nil)
		s.answer("FetchRequest", sarama.NewMockWrapper(log))
		if c.owns {
			rig.p.owns = func(key []byte) bool { return string(key) == "mine" }
		}
		rig.p.appends(position{}, 10, 1)
		rig.p.outEnd = 12
		again, err := r.overtaken(t.Context(), &session[tick, tally]{guarded: s.now.Add(-c.after)}, rig.p, hole{12, 14})
		if err != nil || len(again.records) != c.want {
			t.Errorf("%s: overtaken are %v, %v", name, again.records, err)
		}
	}
}

// E7: what comes in front of the results that are repeated is looked into as well.
func TestForeignResultsBehindRepeatedOnes(t *testing.T) {
	t.Parallel()
	log := &sarama.FetchResponse{Version: 7}
	for i, rec := range []struct {
		producer int64
		key      string
	}{{7, "a"}, {7, "b"}, {predecessor, "a"}, {predecessor, "b"}, {7, "a"}} { // the second stale one comes while the repetition is on its way
		log.AddRecordBatch("out", 0, sarama.StringEncoder(rec.key), sarama.StringEncoder(string(rune('0'+rec.producer))), 10+int64(i), rec.producer, false)
	}
	r, rig, s := changelog(t, nil)
	s.answer("FetchRequest", sarama.NewMockWrapper(log))
	var produced []any
	for _, offset := range []int64{14, 15} {
		produced = append(produced, sarama.NewMockWrapper(&sarama.ProduceResponse{
			Version: 7, Blocks: map[string]map[int32]*sarama.ProduceResponseBlock{"out": {0: {Offset: offset}}},
		}))
	}
	s.answer("ProduceRequest", sarama.NewMockSequence(produced...))
	rig.p.appends(position{}, 10, 1)
	rig.p.outEnd = 13
	gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}, guarded: s.now.Add(time.Second), lease: s.now}
	if err := r.repeat(t.Context(), gen, rig.p, hole{12, 13}); err != nil {
		t.Fatal(err)
	}
	if n := s.requests("ProduceRequest"); n != 2 || rig.p.outEnd != 16 {
		t.Errorf("%d results are repeated, the output is known up to %d, want 2 and 16", n, rig.p.outEnd)
	}
}
