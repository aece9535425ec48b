package engine

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// windows counts ticks in windows and emits "key start" with revision and count.
type windows struct {
	tickTopology
	op *window.Operator[tick, int64]
}

type windowState = window.State[int64]

func newWindows(t *testing.T, text string) windows {
	t.Helper()
	d, err := window.ParseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	op, err := window.New(d, window.Options{}, window.Fold[tick, int64]{
		Add: func(n *int64, _ *tick) { *n++ }, Merge: func(dst, src *int64) { *dst += *src }, Reset: func(n *int64) { *n = 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return windows{op: op}
}

func yield(key string, emit Emit) func(*window.Result[int64]) {
	return func(r *window.Result[int64]) {
		v := binary.BigEndian.AppendUint64(nil, uint64(r.Revision))
		v = binary.BigEndian.AppendUint64(v, uint64(r.Count))
		emit(fmt.Appendf(nil, "%s@%d", key, r.Start), v)
	}
}

func (w windows) Fold(s *windowState, watermark int64, e *tick) bool {
	return w.op.Add(s, watermark, e.at, e) != window.Late
}
func (w windows) Touch(s *windowState) { w.op.Touch(s) }
func (w windows) Collect(key string, s *windowState, watermark int64, emit Emit) {
	w.op.Collect(s, watermark, yield(key, emit))
}

func (w windows) Advance(key string, s *windowState, watermark int64, emit Emit) {
	w.op.Advance(s, watermark, yield(key, emit))
}
func (w windows) Settle(s *windowState, watermark int64) { w.op.Settle(s, watermark) }
func (w windows) Due(s *windowState) int64               { return w.op.Due(s) }
func (windows) Idle(s *windowState) bool                 { return len(s.Slices) == 0 }

func (windows) Append(dst []byte, s *windowState) []byte {
	for i := range s.Slices {
		sl := &s.Slices[i]
		closed := uint64(0)
		if sl.Closed {
			closed = 1
		}
		for _, v := range []uint64{uint64(sl.Start), uint64(sl.End), uint64(sl.Count), uint64(sl.Acc), closed} {
			dst = binary.BigEndian.AppendUint64(dst, v)
		}
	}
	return dst
}

func (w windows) Parse(s *windowState, data []byte, purged int64) error {
	w.op.Renew(s)
	for ; len(data) > 0; data = data[40:] {
		at := func(i int) int64 { return int64(binary.BigEndian.Uint64(data[8*i:])) }
		*s.Restore(window.Span{Start: at(0), End: at(1)}, at(2), at(4) == 1) = at(3)
	}
	s.Purged = window.MarkAt(purged)
	return nil
}

// life is a partition that folds windows, with its table and what it has published.
type life struct {
	*testing.T
	config    Config
	topology  windows
	table     map[string][]byte
	published map[string][2]int64 // revision and count, per window
	p         *partition[tick, windowState]
}

func (l *life) begin(at position) {
	l.Helper()
	t := &topics{"in", "loop", "table", "out", "late", "dead", 1, 1}
	l.p = newPartition[tick, windowState](0, 1, &l.config, t, l.topology, newMetrics(prometheus.NewRegistry()).partition(0), func() {})
	l.p.begin(at)
	for k, v := range l.table {
		if err := l.p.load(&frame{records: []*sarama.ConsumerMessage{{Key: []byte(k), Value: v}}}); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *life) deliver(log []string, from, to int) {
	l.Helper()
	fr := &frame{}
	for i := from; i < to; i++ {
		fr.records = append(fr.records, &sarama.ConsumerMessage{Topic: "in", Offset: int64(i), Value: []byte(log[i])})
	}
	if err := l.p.process(fr, false); err != nil {
		l.Fatal(err)
	}
}

// checkpoint writes states, results if they get so far, and commits if it does.
func (l *life) checkpoint(results, commit bool) position {
	l.Helper()
	c, ok := l.p.cut(l.config.Now())
	if !ok {
		l.Fatal("nothing to cut")
	}
	for _, rec := range c.spools.table.records {
		l.table[string(rec.Key)] = append([]byte(nil), rec.Value...)
	}
	for _, rec := range c.spools.out.records {
		if !results {
			break
		}
		revision, count := int64(binary.BigEndian.Uint64(rec.Value)), int64(binary.BigEndian.Uint64(rec.Value[8:]))
		old, ok := l.published[string(rec.Key)]
		if ok && (revision < old[0] || revision == old[0] && count != old[1]) {
			l.Errorf("%s: revision %d of %d events behind revision %d of %d", rec.Key, revision, count, old[0], old[1])
		}
		l.published[string(rec.Key)] = [2]int64{revision, count}
	}
	at := c.at
	if commit {
		l.p.settle(c, true)
	}
	return at
}

// E8: whatever crashes, wherever in a checkpoint, the revisions of a window only grow, one revision has one content, and the last word is the
// one that a run without a crash says.
func TestRevisionsOnlyGrowWhateverCrashes(t *testing.T) {
	t.Parallel()
	var log []string
	for i := range 24 {
		log = append(log, fmt.Sprintf("%c %d", 'a'+i%2, 100*(i+1)-150*(i%3%2)))
	}
	log = append(log, "z 9000", "z 9001") // closes what is open
	for _, text := range []string{"tumbling:500ms", "hopping:600ms/200ms"} {
		run := func(crash, stage int) map[string][2]int64 {
			l := &life{T: t, topology: newWindows(t, text), table: map[string][]byte{}, published: map[string][2]int64{}}
			l.config = Config{
				Brokers: []string{"nowhere:1"}, Now: func() time.Time { return time.UnixMilli(1e12) }, Logger: slog.New(slog.DiscardHandler),
				MaxFutureSkew: -1, Idle: IdleHold, IdleTimeout: time.Hour, Bound: 200 * time.Millisecond,
			}.withDefaults()
			at := position{clock: clock{watermark: math.MinInt64}}
			l.begin(at)
			for from := 0; from < len(log); from += 2 {
				l.deliver(log, from, from+2)
				if from == crash {
					l.checkpoint(stage > 0, false)
					l.begin(at)
					l.deliver(log, from, from+2)
				}
				at = l.checkpoint(true, true)
			}
			return l.published
		}
		want := run(-1, 0)
		finals := 0
		for _, r := range want {
			finals += int(r[0] & 1)
		}
		if finals < 10 {
			t.Fatalf("%s: %d windows are final, too few to tell anything", text, finals)
		}
		for crash := 0; crash < len(log); crash += 2 {
			for stage := range 2 {
				if got := run(crash, stage); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, crash at %d, stage %d: %v, without %v", text, crash, stage, got, want)
				}
			}
		}
	}
}

// E4: what closed a key's windows is in its record: after a crash they stay closed, though the partition's watermark comes from further back, at
// which another key's are open.
func TestPurgedWatermarkIsInTheRecord(t *testing.T) {
	t.Parallel()
	l := &life{T: t, topology: newWindows(t, "tumbling:1s"), table: map[string][]byte{}, published: map[string][2]int64{}}
	l.config = Config{
		Brokers: []string{"nowhere:1"}, Now: func() time.Time { return time.UnixMilli(1e12) }, Logger: slog.New(slog.DiscardHandler),
		MaxFutureSkew: -1, Idle: IdleHold, IdleTimeout: time.Hour,
	}.withDefaults()
	log := []string{"a 1000", "z 9000", "a 1100", "b 1100"}
	l.begin(position{clock: clock{watermark: math.MinInt64}})
	l.deliver(log, 0, 2)
	l.checkpoint(true, false) // crash
	var env codecs.Envelope
	if err := env.Parse(l.table["a"]); err != nil || env.Purged != 8999 {
		t.Errorf("a's record is purged to %d, %v, want 8999", env.Purged, err)
	}
	l.begin(position{input: 2, clock: clock{watermark: 1500}})
	l.deliver(log, 2, 4)
	if got := l.p.outcomes; got.late != 1 || got.counted != 1 {
		t.Errorf("outcomes %+v, want a late event of the purged key and one that counts", got)
	}
}
