package window

import (
	"fmt"
	"testing"
	"time"
)

// flightLog is an accumulator about as large as a real one: bounds, the last type, counts per type.
type flightLog struct {
	first, last int64
	lastType    string
	types       []typeCount
}

type typeCount struct {
	name  string
	count int64
}

type typed struct {
	ts   int64
	name string
}

var typeNames = [...]string{"departed", "landed", "cancelled"}

func (l *flightLog) add(ts int64, name string, n int64) {
	if len(l.types) == 0 || ts < l.first {
		l.first = ts
	}
	if len(l.types) == 0 || ts > l.last {
		l.last, l.lastType = ts, name
	}
	for i := range l.types {
		if l.types[i].name == name {
			l.types[i].count += n
			return
		}
	}
	l.types = append(l.types, typeCount{name, n})
}

func logFold() Fold[typed, flightLog] {
	return Fold[typed, flightLog]{
		Add: func(l *flightLog, e *typed) { l.add(e.ts, e.name, 1) },
		Merge: func(dst, src *flightLog) {
			for i := range src.types {
				dst.add(src.last, src.types[i].name, src.types[i].count)
			}
			dst.first = min(dst.first, src.first)
		},
		Reset: func(l *flightLog) { *l = flightLog{types: l.types[:0]} },
	}
}

// stream feeds keys in turn, each every so many ms of event time, and does with each what an engine does.
type stream struct {
	op     *Operator[typed, flightLog]
	keys   []benchKey
	timers Timers[*benchKey]
	marks  *Watermarks
	every  int64 // ms between two events of a key
	n      int64
	event  typed
	yields int64
	fire   func(*benchKey, int64)
	take   func(*Result[flightLog])
}

type benchKey struct {
	state State[flightLog]
	alarm Alarm
}

func newStream(b *testing.B, definition string, emit Emit, keys int, every time.Duration) *stream {
	op, err := New(mustParse(b, definition), Options{Emit: emit}, logFold())
	if err != nil {
		b.Fatal(err)
	}
	s := &stream{op: op, keys: make([]benchKey, keys), marks: NewWatermarks(time.Minute), every: every.Milliseconds()}
	s.take = func(*Result[flightLog]) { s.yields++ }
	s.fire = func(k *benchKey, due int64) {
		if k.alarm.Ring(due) {
			op.Advance(&k.state, s.marks.Current(), s.take)
			op.Settle(&k.state, s.marks.Current())
			s.timers.Schedule(k, &k.alarm, op.Due(&k.state))
		}
	}
	return s
}

func (s *stream) step() {
	k := &s.keys[s.n%int64(len(s.keys))]
	ts := s.n * s.every / int64(len(s.keys))
	s.event = typed{ts, typeNames[s.n%3]}
	s.n++
	if s.op.Add(&k.state, s.marks.Current(), ts, &s.event) == Counted {
		s.timers.Schedule(k, &k.alarm, s.op.Due(&k.state))
	}
	s.marks.Observe(0, ts)
	s.timers.Advance(s.marks.Current(), s.fire)
}

// BenchmarkStream is the cost of an event with all that follows from it, results on close, for ten events per key and hour.
func BenchmarkStream(b *testing.B) {
	for _, definition := range []string{"tumbling:1h", "hopping:24h/1h", "cumulating:1h/1d", "session:30m", "tumbling:1h@America/New_York"} {
		for _, keys := range []int{1, 5_000, 200_000} {
			b.Run(fmt.Sprintf("%s/keys=%d", definition, keys), func(b *testing.B) {
				s := newStream(b, definition, OnClose, keys, 6*time.Minute)
				for range 250 * min(keys, 5_000) {
					s.step()
				}
				b.ReportAllocs()
				yields := s.yields
				for b.Loop() {
					s.step()
				}
				b.ReportMetric(float64(s.yields-yields)/float64(b.N), "results/op")
			})
		}
	}
}

// BenchmarkAdd is the cost of an event alone, into a slice that is there.
func BenchmarkAdd(b *testing.B) {
	for _, definition := range []string{"tumbling:1h", "hopping:24h/1h", "cumulating:1h/1d", "session:30m", "tumbling:1d@America/New_York"} {
		b.Run(definition, func(b *testing.B) {
			op, err := New(mustParse(b, definition), Options{}, countFold())
			if err != nil {
				b.Fatal(err)
			}
			var s State[int64]
			var f flight
			ts := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				op.Add(&s, none, ts&0xFFFFF, &f)
				ts += 1_000
			}
		})
	}
}

// BenchmarkCollect is the cost of a checkpoint of one key, on update.
func BenchmarkCollect(b *testing.B) {
	for _, definition := range []string{"tumbling:1h", "hopping:24h/1h", "cumulating:1h/1d", "session:30m"} {
		b.Run(definition, func(b *testing.B) {
			s := newStream(b, definition, OnUpdate, 1, 6*time.Minute)
			for range 300 {
				s.step()
			}
			k := &s.keys[0]
			e := typed{s.n * s.every, typeNames[0]}
			s.op.Collect(&k.state, s.marks.Current(), s.take)
			b.ReportAllocs()
			for b.Loop() {
				s.op.Add(&k.state, s.marks.Current(), e.ts, &e)
				s.op.Collect(&k.state, s.marks.Current(), s.take)
			}
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, sources := range []int32{1, 64} {
		b.Run(fmt.Sprintf("sources=%d", sources), func(b *testing.B) {
			w := NewWatermarks(time.Minute)
			for i := range sources {
				w.Observe(i, 0)
			}
			ts := int64(0)
			for b.Loop() {
				ts++
				w.Observe(int32(ts)&(sources-1), ts)
			}
		})
	}
}

// BenchmarkTimers is the cost of one key's entry, from Schedule to firing.
func BenchmarkTimers(b *testing.B) {
	for _, spread := range []int64{1, 3_600_000} {
		b.Run(fmt.Sprintf("spread=%dms", spread), func(b *testing.B) {
			var t Timers[*Alarm]
			alarms := make([]Alarm, 100_000)
			at, i, watermark := int64(0), 0, int64(0)
			fire := func(a *Alarm, due int64) { a.Ring(due) }
			b.ReportAllocs()
			for b.Loop() {
				at = at*6364136223846793005 + 1442695040888963407
				t.Schedule(&alarms[i], &alarms[i], watermark+1+int64(uint64(at)>>1)%spread)
				if i++; i == len(alarms) {
					i, watermark = 0, watermark+spread
					t.Advance(watermark, fire)
				}
			}
		})
	}
}
