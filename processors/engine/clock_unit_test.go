package engine

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// fakeClaim is a claim that knows how far the log reaches.
type fakeClaim struct {
	sarama.ConsumerGroupClaim
	end int64
}

func (c *fakeClaim) HighWaterMarkOffset() int64 { return c.end }

// keyOf is a key that belongs to a partition.
func keyOf(partition, count int32) string {
	key := "k"
	for PartitionOf([]byte(key), count) != partition {
		key += "k"
	}
	return key
}

// at is a moment of the rig's clock, which begins at 0.
func (r *rig) after(d time.Duration) time.Time { return time.UnixMilli(1e12).Add(d) }

// speaks takes a cut of all partitions' announcements at a moment and settles it.
func (r *rig) speaks(at time.Time) []announcement {
	r.Helper()
	c, ok := r.p.cut(at)
	if !ok {
		return nil
	}
	told := told(c, 1)
	r.p.settle(c, true)
	for _, s := range c.spools.loop {
		s.reset()
	}
	return told
}

// A watermark that moves on is told every 200 ms; of many partitions less often, since each announcement goes to all of them.
func TestWatermarkIsToldLessOftenOfMany(t *testing.T) {
	t.Parallel()
	for count, every := range map[int32]time.Duration{
		2: announceEvery, 15: announceEvery, 16: 2 * announceEvery, 31: 2 * announceEvery, 32: 3 * announceEvery,
	} {
		r := newRig(t)
		r.count = count
		r.begin(fresh())
		key := keyOf(0, count)
		r.deliver(0, key+" 1000")
		if got := r.speaks(r.after(0)); len(got) != 1 || got[0].watermark != 999 {
			t.Errorf("%d partitions: told %v at first, want 999", count, got)
		}
		r.deliver(1, key+" 2000")
		if got := r.speaks(r.after(every - 1)); len(got) != 0 {
			t.Errorf("%d partitions: told %v before %v", count, got, every)
		}
		r.deliver(2, key+" 3000")
		if got := r.speaks(r.after(every)); len(got) != 1 || got[0].watermark != 2999 {
			t.Errorf("%d partitions: told %v after %v, want 2999", count, got, every)
		}
		r.deliver(3, key+" 3000") // moves nothing
		if got := r.speaks(r.after(time.Hour)); len(got) != 0 {
			t.Errorf("%d partitions: told %v, and nothing is new", count, got)
		}
	}
}

// A partition says that nobody need wait for it when it was read to its end for longer than the idle time-out and has re-keyed
// nothing; one that has re-keyed, or has records waiting, does not.
func TestPartitionThatIsQuietSaysSo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		end   int64
		rekey bool
		after time.Duration
		quiet bool
	}{
		{"read to its end", 1, false, time.Hour + 1, true},
		{"not for long enough", 1, false, time.Hour, false},
		{"records are waiting", 2, false, time.Hour + 1, false},
		{"it re-keys", 1, true, time.Hour + 1, false},
	} {
		r := newRig(t)
		r.count = 2
		r.begin(fresh())
		r.p.claim = &fakeClaim{end: c.end}
		home := int32(0)
		if c.rekey {
			home = 1
		}
		r.deliver(0, keyOf(home, 2)+" 1000")
		r.speaks(r.after(0))
		r.p.moved = true // else nothing is cut
		got := r.speaks(r.after(c.after))
		if quiet := len(got) == 1 && got[0].idle; quiet != c.quiet || len(got) > 1 {
			t.Errorf("%s: told %v, want quiet %v", c.name, got, c.quiet)
		}
		if !c.quiet {
			continue
		}
		r.p.moved = true
		if got = r.speaks(r.after(2 * c.after)); len(got) != 0 {
			t.Errorf("%s: told %v once more", c.name, got)
		}
	}
}

// What is told in a generation's beginning: whoever has read, is idle or has spoken before speaks, the others wait.
func TestNewsOfAGeneration(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1e12)
	for _, c := range []struct {
		hands hands
		want  bool
	}{
		{hands{}, false}, {hands{read: true}, true}, {hands{idle: true}, true}, {hands{spoken: true}, true},
	} {
		r := newRig(t)
		r.begin(fresh())
		c.hands.marks = r.p.hands.marks
		if got := c.hands.hasNews(now, false, time.Second); got != c.want {
			t.Errorf("read %v, idle %v, spoken %v: news %v", c.hands.read, c.hands.idle, c.hands.spoken, got)
		}
	}
}

// An input is idle when it was read to its end and nothing came for longer than the idle time-out; then the clock drives the
// watermark, if that is wanted, and never past what an event within the bound could still bring.
func TestIdleInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		end   int64
		after time.Duration
		idle  IdleMode
		want  int64 // watermark
	}{
		{"idle", 1, time.Hour + 1, IdleClock, 1e12 + 3_600_000 - 5000 - 1},
		{"held", 1, time.Hour + 1, IdleHold, math.MinInt64},
		{"silent exactly as long as allowed", 1, time.Hour, IdleClock, math.MinInt64},
		{"a record waits", 2, time.Hour + 1, IdleClock, math.MinInt64},
	} {
		r := newRig(t)
		r.config.Bound, r.config.Idle = 5*time.Second, c.idle
		r.begin(fresh())
		r.deliver(0, "a 1000")
		before := r.p.hands.watermark
		r.p.claim = &fakeClaim{end: c.end}
		r.p.tick(r.after(c.after))
		want := max(c.want, before)
		if got := r.p.hands.watermark; got != want {
			t.Errorf("%s: watermark %d, want %d", c.name, got, want)
		}
	}
}

// An input that comes alive again has to be silent for a whole idle time-out before it counts as quiet.
func TestInputThatComesAlive(t *testing.T) {
	t.Parallel()
	h := hands{idle: true, settled: true}
	now := time.UnixMilli(1e12)
	if h.heard(now, true); !h.idle || h.read {
		t.Error("a record of the loop makes the input alive")
	}
	if h.heard(now, false); h.idle || !h.read || h.settled || !h.since.Equal(now) || !h.last.Equal(now) || h.now != 1e12 {
		t.Errorf("the input came alive: %+v", h)
	}
	later := now.Add(time.Second)
	if h.heard(later, false); !h.since.Equal(now) || !h.last.Equal(later) {
		t.Errorf("the input is alive since %v, last heard at %v", h.since, h.last)
	}
}

// Announcements of partitions that are none, and of itself, are not heard.
func TestAnnouncementsOfStrangers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(fresh())
	r.deliver(0, keyOf(0, 2)+" 9000")
	for i, p := range []int32{-1, 2, 0} {
		if r.loop(int64(i), nil, announcement{partition: p, watermark: 10}.header()); r.p.hands.watermark != math.MinInt64 {
			t.Errorf("an announcement of partition %d moved the watermark to %d", p, r.p.hands.watermark)
		}
	}
	r.loop(3, nil, announcement{partition: 1, watermark: 5000}.header())
	if got := r.p.hands.watermark; got != 5000 {
		t.Errorf("watermark %d, want the other partition's 5000", got)
	}
}

// E5: what a position says of sources is read back. It may name partitions that there are not: they hold nothing back.
func TestClockOfSourcesThatAreNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(position{clock: clock{watermark: 1000, sources: []sourceClock{
		{-1, 0, 10, 1}, {0, 0, 1500, 2}, {1, 0, 1000, 3}, {2, 0, 10, 4},
	}}})
	if got := r.p.hands.fences; !slices.Equal(got, []int64{2, 3}) {
		t.Errorf("fences %v, want 2 and 3", got)
	}
	if c := r.p.hands.clock(); len(c.sources) != 2 || c.watermark != 1000 {
		t.Errorf("clock %+v, want two sources at 1000", c)
	}
	r.loop(0, nil, announcement{partition: 1, watermark: 5000}.header())
	if got := r.p.hands.watermark; got != 1500 {
		t.Errorf("watermark %d, want that of the input, 1500", got)
	}
}

// A single partition, and one whose group does not re-key, waits for no other and tells none.
func TestPartitionWithoutOthers(t *testing.T) {
	t.Parallel()
	for count, off := range map[int32]bool{1: false, 2: true} {
		r := newRig(t)
		r.count, r.config.RekeyOff = count, off
		r.begin(fresh())
		r.deliver(0, keyOf(0, count)+" 1000")
		if got := r.p.hands.watermark; got != 999 {
			t.Errorf("%d partitions: watermark %d, want 999", count, got)
		}
		if c := r.cut(); len(c.spools.loop) != 0 {
			t.Errorf("%d partitions: something is told to %d others", count, len(c.spools.loop))
		}
	}
}

// A watermark that moved without records is committed once a second.
func TestOverdueWatermark(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	r.deliver(0, "a 1000")
	r.checkpoint()
	if r.p.overdue(r.after(time.Hour)) {
		t.Error("a committed watermark is overdue")
	}
	r.p.hands.watermark = 2000
	if r.p.overdue(r.after(time.Second - 1)) {
		t.Error("overdue within a second")
	}
	if !r.p.overdue(r.after(time.Second)) {
		t.Error("not overdue after a second")
	}
}

// An event is from the future by its distance from its arrival: the record's time stamp, unless that lies ahead of the clock itself.
func TestSkew(t *testing.T) {
	t.Parallel()
	const now, day = int64(1e12), int64(86_400_000)
	for _, c := range []struct {
		name         string
		limit        time.Duration
		event, stamp int64
		skewed       bool
	}{
		{"at the limit", 24 * time.Hour, now + day, now, false},
		{"beyond it", 24 * time.Hour, now + day + 1, now, true},
		{"of its arrival, not of now", 24 * time.Hour, now - day + day + 1, now - day, true},
		{"whose stamp lies ahead", 24 * time.Hour, now + day + 1, now + 2*day, true},
		{"without a stamp", 24 * time.Hour, now + day, 0, false},
		{"without a stamp, beyond", 24 * time.Hour, now + day + 1, 0, true},
		{"no limit", -1, now + 1000*day, now, false},
		{"limit of 0, on time", time.Duration(0), now, now, false},
		{"limit of 0, ahead", time.Duration(0), now + 1, now, true},
	} {
		r := newRig(t)
		r.begin(fresh())
		r.config.MaxFutureSkew = c.limit
		r.p.hands.now = now
		detail, skewed := r.p.skewed(c.event, time.UnixMilli(c.stamp))
		if skewed != c.skewed || skewed != strings.Contains(detail, "--max-future-skew") {
			t.Errorf("%s: skewed %v (%s)", c.name, skewed, detail)
		}
	}
}

// E5: that an input was idle is a generation's own finding. In the time between two generations records may have come; the clock once drove
// the watermark past them before the first of them was read, and all were late.
func TestIdleInputOfAnEarlierGeneration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.Idle = IdleClock
	r.begin(position{input: 1, clock: clock{watermark: 1000, sources: []sourceClock{{0, byte(window.Idle), 1000, -1}}}})
	claim := &fakeClaim{end: 2}
	for _, c := range []struct {
		what  string
		claim sarama.ConsumerGroupClaim
		after time.Duration
		want  int64
	}{
		{"before its records come", nil, time.Second, 1000},
		{"a record waits", claim, time.Second, 1000},
		{"a record waits for long", claim, time.Hour + 1, 1000},
	} {
		r.p.claim = c.claim
		if r.p.tick(r.after(c.after)); r.p.hands.watermark != c.want {
			t.Errorf("%s: watermark %d, want %d", c.what, r.p.hands.watermark, c.want)
		}
	}
	r.deliver(1, "a 2000")
	if r.checkpoint(); len(r.late) > 0 {
		t.Errorf("late: %q", r.late)
	}
	if r.p.tick(r.after(time.Hour + 1)); r.p.hands.watermark != 1e12+3_600_000-1 {
		t.Errorf("when it is idle again: watermark %d", r.p.hands.watermark)
	}
}

// E5: nor do other sources move the watermark past what has come since: the input holds it until it is read, or found idle again.
func TestIdleInputOfAnEarlierGenerationBesideOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(position{input: 1, loop: 1, clock: clock{
		watermark: 1000, rekeys: true, sources: []sourceClock{{0, byte(window.Idle), 900, -1}, {1, byte(window.Active), 1000, -1}},
	}})
	r.loop(1, nil, announcement{partition: 1, watermark: 9000}.header())
	key := keyOf(0, 2)
	r.deliver(1, key+" 2000")
	r.checkpoint()
	if len(r.late) > 0 || r.p.hands.watermark != 1999 {
		t.Errorf("late: %q, watermark %d", r.late, r.p.hands.watermark)
	}
	r.p.claim = &fakeClaim{end: 2}
	if r.p.tick(r.after(time.Hour + 1)); r.p.hands.watermark != 9000 {
		t.Errorf("idle again: watermark %d, want the other's 9000", r.p.hands.watermark)
	}
}

// An input that cannot be read is not silent, however long that takes, nor does the clock go on that drove the watermark before: producers
// keep what they could not send.
func TestInputThatCannotBeReadIsNotIdle(t *testing.T) {
	t.Parallel()
	for _, idle := range []bool{false, true} {
		r := newRig(t)
		r.config.Idle = IdleClock
		r.begin(fresh())
		r.deliver(0, "a 1000")
		r.p.claim = &fakeClaim{end: 1}
		start := time.Duration(0)
		if idle {
			start = time.Hour + 1
			r.p.tick(r.after(start))
		}
		before := r.p.hands.watermark
		r.p.trouble(r.after(start + 30*time.Minute))
		if r.p.tick(r.after(start + 90*time.Minute)); r.p.hands.watermark != before {
			t.Errorf("idle before %v: the watermark went from %d to %d", idle, before, r.p.hands.watermark)
		}
		if r.p.tick(r.after(start + 90*time.Minute + 1)); r.p.hands.watermark == before {
			t.Errorf("idle before %v: it stands for ever", idle)
		}
	}
}

// A silent input of which records are known that do not come is looked into, once a second: not while it is idle or speaks, is read to its end,
// or nobody knows how far it reaches.
func TestInputThatIsPuzzling(t *testing.T) {
	t.Parallel()
	silent := time.Hour + 1
	for _, c := range []struct {
		name  string
		claim sarama.ConsumerGroupClaim
		after time.Duration
		idle  bool
		since time.Duration // the last look; 0: never
		yes   bool
	}{
		{"silent", &fakeClaim{end: 3}, silent, false, 0, true},
		{"not for long enough", &fakeClaim{end: 3}, time.Hour, false, 0, false},
		{"one record is left", &fakeClaim{end: 2}, silent, false, 0, true},
		{"read to its end", &fakeClaim{end: 1}, silent, false, 0, false},
		{"no claim", nil, silent, false, 0, false},
		{"idle", &fakeClaim{end: 3}, silent, true, 0, false},
		{"looked into just now", &fakeClaim{end: 3}, silent, false, lookEvery - 1, false},
		{"looked into a second ago", &fakeClaim{end: 3}, silent, false, lookEvery, true},
	} {
		r := newRig(t)
		r.begin(fresh())
		r.deliver(0, "a 1000")
		r.p.claim, r.p.hands.idle = c.claim, c.idle
		if c.since > 0 {
			r.p.looked = r.after(c.after - c.since)
		}
		from, end, yes := r.p.puzzling(r.after(c.after))
		if yes != c.yes || yes && (from != 1 || end != c.claim.HighWaterMarkOffset() || !r.p.looked.Equal(r.after(c.after))) {
			t.Errorf("%s: puzzling %v from %d to %d", c.name, yes, from, end)
		}
	}
}

// What no consumer gets to see is passed over at the end of a silent input, where it was found and nowhere else; what cannot be read is looked
// into again.
func TestSilentInputIsLookedInto(t *testing.T) {
	t.Parallel()
	marker := &sarama.FetchResponse{Version: 7}
	marker.AddRecordBatch("in", 0, nil, sarama.StringEncoder("committed"), 1, 9, true)
	marker.GetBlock("in", 0).RecordsSet[0].RecordBatch.Control = true
	refused := &sarama.FetchResponse{Version: 7}
	refused.AddError("in", 0, sarama.ErrNotLeaderForPartition)
	for name, c := range map[string]struct {
		answer *sarama.FetchResponse
		behind int64
	}{"a marker": {marker, 0}, "a leader that has moved": {refused, 1}} {
		r, rig, s := changelog(t, nil)
		rig.begin(fresh())
		rig.deliver(0, "a 1000")
		rig.p.claim = &fakeClaim{end: 2}
		s.answer("FetchRequest", sarama.NewMockWrapper(c.answer))
		gen := &session[tick, tally]{partitions: []*partition[tick, tally]{rig.p}}
		r.look(gen, rig.after(time.Hour+1))
		if got := rig.p.behind(); got != c.behind || rig.p.readToEnd() != (c.behind == 0) {
			t.Errorf("%s: %d records are left", name, got)
		}
		rig.p.claim = &fakeClaim{end: 4}
		if rig.deliver(2, "a 2000"); rig.p.behind() != 1 {
			t.Errorf("%s: behind it %d records are left, want 1", name, rig.p.behind())
		}
	}
}

// The first record of a source counts that comes through the loop.
func TestFirstRecordThroughTheLoop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 2
	r.begin(fresh())
	for offset := range int64(3) {
		r.loop(offset, []byte(keyOf(0, 2)+" 1000"), source{1, offset}.header())
	}
	if got := r.p.outcomes; got.counted != 3 || got.fenced != 0 {
		t.Errorf("outcomes %+v of three events", got)
	}
}

// The first partition's announcements and events are heard by the others.
func TestAnnouncementOfTheFirstPartition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	p := newPartition[tick, tally](1, 2, &r.config, &r.topics, tickTopology{&r.settled}, r.p.metrics, func() {})
	p.begin(fresh())
	p.observe(9000)
	m := &sarama.ConsumerMessage{Topic: "loop", Headers: []*sarama.RecordHeader{announcement{partition: 0, watermark: 5000}.header()}}
	if err := p.process(&frame{records: []*sarama.ConsumerMessage{m}}, true); err != nil || p.hands.watermark != 5000 {
		t.Errorf("watermark %d, error %v, want the first partition's 5000", p.hands.watermark, err)
	}
	m = &sarama.ConsumerMessage{
		Topic: "loop", Offset: 1, Value: []byte(keyOf(1, 2) + " 6000"), Headers: []*sarama.RecordHeader{source{0, 5}.header()},
	}
	if err := p.process(&frame{records: []*sarama.ConsumerMessage{m}}, true); err != nil || p.outcomes.counted != 1 {
		t.Errorf("outcomes %+v, error %v, want the first partition's event counted", p.outcomes, err)
	}
}

// A late event's letter says whether its windows are closed or there were never any.
func TestLateDetail(t *testing.T) {
	t.Parallel()
	for watermark, want := range map[int64]string{codecs.NoTime: "no window holds it", 1000: "the watermark is at 1970-01-01T00:00:01"} {
		if got := lateDetail(0, watermark); !strings.Contains(got, want) {
			t.Errorf("watermark %d: %s", watermark, got)
		}
	}
}
