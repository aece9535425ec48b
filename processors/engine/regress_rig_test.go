package engine

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
)

// rig is one partition without a broker: the test plays goka, the outbox and the group. What it writes is kept per topic.
type rig struct {
	*testing.T
	config  Config
	count   int32 // partitions; the rig is partition 0
	topics  topics
	p       *partition[tick, tally]
	table   map[string][]byte // the group table as a compacted log has it
	settled int64             // watermark
	late    []string          // values of acknowledged late events
	out     []string
}

// tick is an event "key ms"; tally counts a key's ticks. It is late at or before the watermark.
type tick struct {
	key []byte
	at  int64
}

type tally struct {
	n    int64
	told bool
}

type tickTopology struct{ settled *int64 } // the latest watermark anything was settled to

func (tickTopology) Decode(dst *tick, r *Record) error {
	key, at, ok := strings.Cut(string(r.Value), " ")
	if !ok {
		return errors.New("no time")
	}
	var err error
	dst.key = []byte(key)
	dst.at, err = strconv.ParseInt(at, 10, 64)
	return err
}
func (tickTopology) Key(e *tick) []byte { return e.key }
func (tickTopology) Time(e *tick) int64 { return e.at }
func (tickTopology) Fold(s *tally, watermark int64, e *tick) bool {
	if e.at <= watermark {
		return false
	}
	s.n, s.told = s.n+1, false
	return true
}
func (tickTopology) Touch(s *tally) { s.told = false }
func (tickTopology) Collect(key string, s *tally, _ int64, emit Emit) {
	if !s.told {
		s.told = true
		emit([]byte(key), strconv.AppendInt(nil, s.n, 10))
	}
}
func (tickTopology) Advance(string, *tally, int64, Emit) {}
func (t tickTopology) Settle(_ *tally, watermark int64)  { *t.settled = max(*t.settled, watermark) }
func (tickTopology) Due(*tally) int64                    { return math.MaxInt64 }
func (tickTopology) Idle(*tally) bool                    { return true }
func (tickTopology) Append(dst []byte, s *tally) []byte  { return binary.AppendVarint(dst, s.n) }
func (tickTopology) Parse(s *tally, data []byte, _ int64) error {
	s.n, _ = binary.Varint(data)
	s.told = true // as with windows: only Touch has told again what may have been
	return nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, count: 1, table: make(map[string][]byte), topics: topics{"in", "loop", "table", "out", "late", "dead", 1, 1}}
	r.config = Config{
		Brokers: []string{"nowhere:1"}, Now: func() time.Time { return time.UnixMilli(1e12) }, Logger: slog.New(slog.DiscardHandler),
		MaxFutureSkew: -1, Idle: IdleHold, IdleTimeout: time.Hour,
	}.withDefaults()
	return r
}

// begin is a new run from a committed position: its table is recovered from what was acknowledged.
func (r *rig) begin(at position) {
	r.Helper()
	r.settled = math.MinInt64
	m := newMetrics(prometheus.NewRegistry())
	r.p = newPartition[tick, tally](0, r.count, &r.config, &r.topics, tickTopology{&r.settled}, m.partition(0), func() {})
	r.p.begin(at)
	s := store[tick, tally]{r.p, &frames{}, func(error) {}}
	for k, v := range r.table {
		recoverRecord(r, s, k, v)
	}
}

// recoverRecord hands a store one changelog record, as recovery does; nil is a tombstone.
func recoverRecord[E, S any](t testing.TB, s store[E, S], key string, value []byte) {
	t.Helper()
	fr := s.frames.fresh()
	fr.records = append(fr.records, &sarama.ConsumerMessage{Key: []byte(key), Value: value})
	if err := s.Set("", s.frames.message(fr).Value); err != nil {
		t.Fatal(err)
	}
}

// fresh is the position of a group that has committed nothing.
func fresh() position {
	return position{clock: clock{watermark: math.MinInt64}}
}

// deliver folds records of the input from an offset on.
func (r *rig) deliver(offset int64, values ...string) {
	r.Helper()
	fr := &frame{}
	for i, v := range values {
		fr.records = append(fr.records, &sarama.ConsumerMessage{Topic: "in", Offset: offset + int64(i), Value: []byte(v)})
	}
	if err := r.p.process(fr, false); err != nil {
		r.Fatal(err)
	}
}

// loop folds one record of the loop.
func (r *rig) loop(offset int64, value []byte, header *sarama.RecordHeader) {
	r.Helper()
	m := &sarama.ConsumerMessage{Topic: "loop", Offset: offset, Value: value, Headers: []*sarama.RecordHeader{header}}
	if err := r.p.process(&frame{records: []*sarama.ConsumerMessage{m}}, true); err != nil {
		r.Fatal(err)
	}
}

// told are the announcements of a cut to a partition.
func told(c cut[tick, tally], partition int32) []announcement {
	var out []announcement
	if s := c.spools.loop[partition]; s != nil {
		for i := range s.records {
			if _, a, err := parseLoop(&sarama.ConsumerMessage{Headers: s.records[i].Headers}); err == nil && a != nil {
				out = append(out, *a)
			}
		}
	}
	return out
}

// cut takes a cut; nothing is acknowledged yet.
func (r *rig) cut() cut[tick, tally] {
	r.Helper()
	c, ok := r.p.cut(r.config.Now())
	if !ok {
		r.Fatal("nothing to cut")
	}
	return c
}

// states acknowledges a cut's states, results its results and late events: what follows is a crash, or settle.
func (r *rig) states(c cut[tick, tally]) {
	for _, rec := range c.spools.table.records {
		r.table[string(rec.Key)] = append([]byte(nil), rec.Value...)
	}
}

func (r *rig) results(c cut[tick, tally]) {
	for _, rec := range c.spools.late.records {
		r.late = append(r.late, string(rec.Value))
	}
	for _, rec := range c.spools.out.records {
		r.out = append(r.out, string(rec.Key)+"="+string(rec.Value))
	}
}

// checkpoint is a whole one; it returns the position to commit.
func (r *rig) checkpoint() position {
	r.Helper()
	c := r.cut()
	r.states(c)
	r.results(c)
	at := c.at
	r.p.settle(c, true)
	return at
}
