package engine

import (
	"errors"
	"maps"
	"slices"
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
		s.broker.SetHandlerByMap(map[string]sarama.MockResponse{"FetchRequest": sarama.NewMockWrapper(resp)})
		asked := 0
		r.config.Now = func() time.Time { asked++; return s.now.Add(time.Duration(asked) * 40 * time.Second) } // patient for a minute
		if err := r.heal(t.Context(), rig.p, hole{3, 6}); want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%v: %v", answer, err)
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
		"a predecessor's": {predecessor + 1, time.Second, time.Second, 2},
		"the own":         {predecessor, time.Second, time.Second, 0},
		"looked just now": {predecessor + 1, time.Second, time.Millisecond, 0},
		"later":           {predecessor + 1, 10 * time.Second, 9 * time.Second, 0},
		"long after":      {predecessor + 1, 20 * time.Second, 10 * time.Second, 2},
	} {
		r, rig, s := changelog(t, map[int64]string{3: "a", 4: "b"})
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
	}
}

// A former owner's results that arrive behind those of its successor do not stay the last word: the newest own ones are repeated, of
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
	rig.p.appends(10)
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
