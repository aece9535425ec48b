package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
)

// Mode is what a round may expect of lateness.
type Mode uint8

// The modes.
const (
	// Wide has an out-of-orderness bound beyond all events: nothing closes before the flush, nothing is late.
	Wide Mode = iota
	// Ordered has events that keep within the bound of their partition: windows close all along, nothing is late.
	Ordered
	// Tight has events far beyond the bound: many are late, and how many depends on timing.
	Tight
)

// String is the mode as a word.
func (m Mode) String() string { return [...]string{"wide", "ordered", "tight"}[m] }

// Workload is what a round publishes and how it is counted. All of it follows from the seed.
type Workload struct {
	Seed       uint64
	Mode       Mode
	Partitions int32
	Brokers    int
	Replicas   int
	Static     bool // members with static ids
	Keys       int
	HotPercent int // share of the hottest key
	KeyPercent int // share of records that carry their key and lie in its partition
	BadPercent int // share of records that cannot be decoded
	Windows    []string
	OnClose    bool
	Lateness   time.Duration
	Bound      time.Duration
	Disorder   time.Duration
	RekeyOff   bool
	IdleClock  bool
	Commit     time.Duration
	MaxDirty   int  // keys; 0 is the engine's default
	Share      int  // keys; 0 is the engine's default
	Decoded    int  // keys; 0 is the engine's default
	Frame      int  // records; 0 is the engine's default
	Batch      int  // bytes; 0 is the engine's default
	Steps      int  // publishing steps; a fault belongs to one
	PerStep    int  // events a step
	DataDir    bool // the embedded broker keeps its log on disk and can be restarted
	// Suffix is added to the names of topics and group, so that rounds can share a broker. Default none.
	Suffix string
	// MaxKeys is the most keys a partition keeps, and Skew how far ahead of its arrival an event may lie. Default any.
	MaxKeys int
	Skew    time.Duration
	// Standby keeps a copy of every table in every replica. Default false.
	Standby bool
	// Sinks is how many sinks load the results into a store, on a stage that has some. Default none.
	Sinks int
	// Killable says that the brokers are processes, which may be killed. Default false.
	Killable bool
	// Session is the members' session timeout. Default 1 s.
	Session time.Duration
}

// lastStays is how many records retention leaves in a log.
func (w *Workload) lastStays() int64 {
	if w.Killable {
		return 1
	}
	return 0
}

// Names of the round's topics and group.
func (w *Workload) input() string  { return activity.Input + w.Suffix }
func (w *Workload) output() string { return activity.Output + w.Suffix }
func (w *Workload) late() string   { return activity.Late + w.Suffix }
func (w *Workload) dead() string   { return activity.Dead + w.Suffix }
func (w *Workload) group() string  { return activity.Group + w.Suffix }
func (w *Workload) sinks() string  { return "klgstream-sink" + w.Suffix }
func (w *Workload) table() string  { return w.group() + "-table" }
func (w *Workload) loop() string   { return w.group() + "-loop" }

// allWindows are definitions of every kind; short enough that windows close while events come.
var allWindows = []string{
	"tumbling:1m", "tumbling:7m+2m", "hopping:10m/2m", "cumulating:2m/10m", "session:3m", "session:45s",
}

// NewWorkload draws a workload for so many faults.
func NewWorkload(seed uint64, steps int) Workload {
	r := rand.New(rand.NewPCG(seed, 1))
	w := Workload{
		Seed: seed, Mode: Mode(r.IntN(3)), Partitions: pick(r, int32(1), 2, 3, 4, 6), Brokers: pick(r, 1, 3),
		Replicas: pick(r, 1, 2, 2, 3), Static: r.IntN(4) == 0, Keys: pick(r, 1, 5, 20, 60), HotPercent: pick(r, 0, 30, 90),
		KeyPercent: pick(r, 0, 50, 100), BadPercent: pick(r, 0, 3, 10), OnClose: r.IntN(3) == 0, Steps: steps, PerStep: pick(r, 20, 60, 150),
		Lateness: time.Duration(pick(r, 0, 0, 30, 90)) * time.Second,
	}
	w.Windows, w.IdleClock = allWindows[r.IntN(len(allWindows)):][:1], r.IntN(3) == 0
	w.reshape()
	w.Commit = time.Duration(pick(r, 5, 10, 20)) * time.Millisecond
	w.MaxDirty, w.Frame, w.Batch = pick(r, 0, 0, 3), pick(r, 0, 1, 7), pick(r, 0, 0, 2048)
	w.RekeyOff = r.IntN(6) == 0
	w.DataDir = w.Brokers == 1 && r.IntN(3) == 0
	w.Share, w.Decoded = pick(r, 0, 1, 4), pick(r, 0, 1, 10)
	w.Standby = seed >= firstWider && rand.New(rand.NewPCG(seed, 7)).IntN(3) == 0
	return w
}

// reshape sets what follows from the mode.
func (w *Workload) reshape() {
	switch w.Mode {
	case Wide:
		w.Bound, w.Disorder, w.Windows = 1000*time.Hour, 40*time.Minute, allWindows
	case Ordered:
		w.Bound, w.Disorder, w.Windows = 5*time.Minute, 5*time.Minute, allWindows
	case Tight:
		w.Bound, w.Disorder = 20*time.Second, 4*time.Minute
	}
	w.IdleClock = w.IdleClock && w.Mode == Tight
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// String says what matters of a workload on one line.
func (w Workload) String() string {
	return fmt.Sprintf("%s, %d partitions, %d brokers, %d replicas (static %v, standby %v), %d sinks, %d keys (hot %d%%), keyed %d%%, bad %d%%, %v on-close=%v lateness=%v bound=%v disorder=%v rekey-off=%v idle-clock=%v data-dir=%v commit=%v dirty=%d share=%d decoded=%d frame=%d batch=%d, %d steps of %d",
		w.Mode, w.Partitions, w.Brokers, w.Replicas, w.Static, w.Standby, w.Sinks, w.Keys, w.HotPercent, w.KeyPercent, w.BadPercent, w.Windows, w.OnClose,
		w.Lateness, w.Bound, w.Disorder, w.RekeyOff, w.IdleClock, w.DataDir, w.Commit, w.MaxDirty, w.Share, w.Decoded, w.Frame, w.Batch, w.Steps, w.PerStep)
}

// record is one input record before it is published.
type record struct {
	partition  int32
	key, value []byte
}

// source makes a workload's records, step by step.
type source struct {
	w        Workload
	r        *rand.Rand
	now      time.Time // event time
	home     map[string]int32
	names    []string
	strays   []string // per partition: a registration that lives elsewhere
	settlers []string // per partition: one that lives there
	sent     []record
}

// epoch is where event time starts: any day will do.
var epoch = time.Date(2026, 2, 8, 0, 0, 0, 0, time.UTC)

func newSource(w Workload) *source {
	s := &source{w: w, r: rand.New(rand.NewPCG(w.Seed, 2)), now: epoch.Add(12 * time.Hour), home: make(map[string]int32)}
	for i := range w.Keys {
		s.names = append(s.names, fmt.Sprintf("N%d%c", 100+i, 'A'+i%26))
	}
	s.strays, s.settlers = make([]string, w.Partitions), make([]string, w.Partitions)
	for p := range w.Partitions {
		s.strays[p] = s.find("S", func(home int32) bool { return home != p || w.Partitions == 1 })
		s.settlers[p] = s.find("F", func(home int32) bool { return home == p })
	}
	return s
}

// find is the first registration of a series whose home is right.
func (s *source) find(prefix string, right func(int32) bool) string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("%s-%d", prefix, i); right(s.homeOf(name)) {
			return name
		}
	}
}

func (s *source) homeOf(name string) int32 {
	h, ok := s.home[name]
	if !ok {
		h = engine.PartitionOf([]byte(name), s.w.Partitions)
		s.home[name] = h
	}
	return h
}

// opening is one event per partition that lives elsewhere: from then on every partition is known to re-key, and tells its
// watermark, before anything can close without it.
func (s *source) opening() []record {
	out := make([]record, 0, s.w.Partitions)
	for p := range s.w.Partitions {
		out = append(out, record{partition: p, value: s.event(s.strays[p], s.now, 0)})
	}
	return out
}

// step is the records of one step.
func (s *source) step() []record {
	out := make([]record, 0, s.w.PerStep)
	for range s.w.PerStep {
		s.now = s.now.Add(time.Duration(s.r.Int64N(int64(2 * time.Second))))
		out = append(out, s.next())
	}
	s.sent = append(s.sent, out...)
	return out
}

func (s *source) next() record {
	switch n := s.r.IntN(100); {
	case n < s.w.BadPercent:
		return record{partition: s.anywhere(), value: s.bad()}
	case n < s.w.BadPercent+5 && len(s.sent) > 0 && s.w.Mode != Ordered:
		return s.sent[s.r.IntN(len(s.sent))] // a producer's retry: the same bytes, an event of its own
	}
	name := s.names[0]
	if s.r.IntN(100) >= s.w.HotPercent {
		name = s.names[s.r.IntN(len(s.names))]
	}
	at := s.now.Add(-time.Duration(s.r.Int64N(int64(s.w.Disorder) + 1)))
	if s.w.Mode == Tight && s.r.IntN(10) == 0 {
		at = at.Add(-6 * time.Hour)
	}
	if s.r.IntN(4) == 0 {
		at = at.Truncate(time.Minute) // on the border of windows
	}
	if s.w.Mode == Ordered && s.now.Sub(at) > s.w.Bound {
		at = s.now.Add(-s.w.Bound)
	}
	value := s.event(name, at, s.r.IntN(4))
	if s.r.IntN(100) < s.w.KeyPercent {
		return record{s.homeOf(name), []byte(name), value}
	}
	return record{partition: s.anywhere(), value: value}
}

func (s *source) anywhere() int32 { return s.r.Int32N(s.w.Partitions) }

// event is one event in one of the spellings that producers use.
func (s *source) event(name string, at time.Time, spelling int) []byte {
	kinds := []string{"created", "updated", "departed", "landed", "maintenance"}
	kind := kinds[s.r.IntN(len(kinds))]
	id := 1 + s.r.IntN(9)
	var v any
	switch spelling {
	case 0:
		v = map[string]any{
			"event_type": kind, "aircraft_id": id, "registration_number": name,
			"timestamp": at.Format("2006-01-02T15:04:05.000000"), "note": "naïve",
		}
	case 1:
		v = map[string]any{"eventType": kind, "aircraftId": id, "registrationNumber": "  " + name + " ", "timestamp": at.Format("2006-01-02T15:04:05.000Z07:00")}
	case 2:
		v = map[string]any{"event_type": kind, "registration_number": name, "timestamp": at.In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339Nano)}
	default:
		v = map[string]any{"event_type": kind, "aircraft_id": nil, "registration_number": name, "timestamp": at.UnixMilli()}
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic("chaos: encode event: " + err.Error()) // maps of strings and numbers
	}
	return data
}

// bad is a record that no decoder accepts.
func (s *source) bad() []byte {
	return []byte(pick(s.r,
		``, `{`, `null`, `[]`, `not json at all`,
		`{"event_type":"created","registration_number":"N1","timestamp":"yesterday"}`,
		`{"event_type":"created","registration_number":"   ","timestamp":1770000000000}`,
		`{"event_type":"","registration_number":"N1","timestamp":1770000000000}`,
		`{"event_type":"created","timestamp":1770000000000}`,
		`{"event_type":"created","registration_number":"N1"}`,
		`{"event_type":"created","registration_number":"123456789012345678901234567890123","timestamp":1770000000000}`,
		`{"event_type":"created","registration_number":"N1","timestamp":1770000000000`,
		`{"event_type":7,"registration_number":"N1","timestamp":1770000000000}`,
	))
}

// flush is one event per partition, in its home, so late that its watermark closes every window there was.
func (s *source) flush() []record {
	at := s.flushTime()
	out := make([]record, 0, s.w.Partitions)
	for p := range s.w.Partitions {
		name := s.settlers[p]
		out = append(out, record{p, []byte(name), s.event(name, at, 1)})
	}
	return out
}

func (s *source) flushTime() time.Time {
	return s.now.Add(s.w.Bound + s.w.Lateness + 48*time.Hour).Truncate(time.Hour).Add(30 * time.Minute)
}

// flushed is the watermark after the flush, ms.
func (s *source) flushed() int64 {
	return s.flushTime().Add(-s.w.Bound).UnixMilli() - 1
}
