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
	sound, err := r.unbroken(t.Context(), []cut[tick, tally]{{p: rig.p}}, acked{{"table", 0}: {6, 9}})
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
	if sound, err = r.unbroken(t.Context(), []cut[tick, tally]{{p: rig.p}}, acked{{"table", 0}: {10, 12}}); err != nil || !sound {
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
		if err := r.heal(t.Context(), rig.p, 3, 6); want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%v: %v", answer, err)
		}
	}
}

// E7: for one session time-out after a takeover the own changelog is watched: what others append is written over, what this run appends is not.
func TestWatchOverTheOwnChangelog(t *testing.T) {
	t.Parallel()
	for own, want := range map[int64]int{predecessor: 0, predecessor + 1: 2} {
		r, rig, s := changelog(t, map[int64]string{3: "a", 4: "b"})
		r.outbox.producer.id = own
		asked := 0
		r.config.Now = func() time.Time { // the watch ends when both are read
			asked++
			return s.now.Add(time.Duration(asked-1) * time.Minute)
		}
		if err := r.watch(t.Context(), rig.p, 3, s.now.Add(90*time.Second)); err != nil {
			t.Fatal(err)
		}
		if got := len(rig.p.dirty); got != want {
			t.Errorf("own producer %d: %d keys are written again, want %d", own, got, want)
		}
	}
}
