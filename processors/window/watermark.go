package window

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Status is whether a source holds the watermark back.
type Status uint8

// The statuses of a source.
const (
	// Active sources hold the watermark back to their own; one that has not spoken holds it altogether.
	Active Status = iota
	// Joining sources were idle and hold nothing back until they have reached the watermark.
	Joining
	// Idle sources have nothing new and hold nothing back.
	Idle
)

// Source is one source's part in a watermark.
type Source struct {
	// ID is the source's number: the input partition.
	ID int32
	// Status is whether it holds the watermark back.
	Status Status
	// Watermark is the source's own, in ms; math.MinInt64 until it has spoken.
	Watermark int64
}

// Watermarks is the watermark of one partition: the least over its active sources, never going back (W2). Not for concurrent use.
//
// The rules are those of Apache Flink's StatusWatermarkValve.
type Watermarks struct {
	lag     int64 // bound + 1
	current int64
	hot     int
	idle    bool
	sources []Source // by ID
}

// NewWatermarks is a tracker without sources, for events that come at most bound after later ones. A source's watermark is
// the largest event time seen − bound − 1 ms: an event that is exactly bound behind is not late.
func NewWatermarks(bound time.Duration) *Watermarks {
	return &Watermarks{lag: millis(max(bound, 0)) + 1, current: math.MinInt64, idle: true}
}

// Current is the watermark, in ms; math.MinInt64 as long as there is none.
func (w *Watermarks) Current() int64 { return w.current }

// Idle is true when no source is active or joining, as when there are none.
func (w *Watermarks) Idle() bool { return w.idle }

// Expect adds a source that has not spoken. It holds the watermark until it does or is declared idle; nothing happens if it is known.
func (w *Watermarks) Expect(source int32) { w.source(source) }

// Observe takes note of an event of time ts, in ms, from a source, after the event was judged by Current.
func (w *Watermarks) Observe(source int32, ts int64) {
	own := ts - w.lag
	if own > ts {
		own = math.MinInt64
	}
	i := w.hot
	if i >= len(w.sources) || w.sources[i].ID != source {
		i = w.source(source)
		w.hot = i
	}
	if s := &w.sources[i]; own > s.Watermark || s.Status == Idle {
		w.raise(i, own)
	}
}

// Announce takes note of the watermark that a source's owner tells, and whether the source is idle.
func (w *Watermarks) Announce(source int32, watermark int64, idle bool) {
	i := w.source(source)
	if idle {
		w.sources[i].Watermark = max(w.sources[i].Watermark, watermark)
		w.rest(i)
		return
	}
	w.raise(i, watermark)
}

// Rest declares a source idle: all that it had is read, and nothing new came for a while. It is active again with its next event.
func (w *Watermarks) Rest(source int32) { w.rest(w.source(source)) }

// Lift raises the watermark while all sources are idle, as when the clock goes on without events; otherwise it does nothing.
func (w *Watermarks) Lift(watermark int64) {
	if w.idle {
		w.current = max(w.current, watermark)
	}
}

// Snapshot yields all sources, ascending by ID. With Current they are the whole state.
func (w *Watermarks) Snapshot(yield func(Source)) {
	for _, s := range w.sources {
		yield(s)
	}
}

// Restore sets the watermark and the sources to what Current and Snapshot told.
func (w *Watermarks) Restore(current int64, sources ...Source) {
	w.current, w.hot, w.idle = current, 0, true
	w.sources = append(w.sources[:0], sources...)
	slices.SortStableFunc(w.sources, func(a, b Source) int { return cmp.Compare(a.ID, b.ID) })
	w.sources = slices.CompactFunc(w.sources, func(a, b Source) bool { return a.ID == b.ID })
	for _, s := range w.sources {
		w.idle = w.idle && s.Status == Idle
	}
}

// source is the place of a source, which it adds if need be.
func (w *Watermarks) source(id int32) int {
	i, found := slices.BinarySearchFunc(w.sources, id, func(s Source, id int32) int { return cmp.Compare(s.ID, id) })
	if !found {
		w.sources = slices.Insert(w.sources, i, Source{ID: id, Watermark: math.MinInt64})
		w.idle = false
	}
	return i
}

// raise sets a source's watermark, which does not go back, and makes it count.
func (w *Watermarks) raise(i int, watermark int64) {
	s := &w.sources[i]
	held, joins := s.Watermark, s.Status != Active
	s.Watermark = max(held, watermark)
	if joins {
		s.Status, w.idle = Joining, false
	}
	if joins && s.Watermark >= w.current {
		s.Status = Active
	}
	if s.Status == Active && (joins || held <= w.current) {
		w.settle()
	}
}

// rest makes a source idle. The last one to rest leaves the greatest watermark of all.
func (w *Watermarks) rest(i int) {
	w.sources[i].Status = Idle
	w.idle = true
	for k := range w.sources {
		w.idle = w.idle && w.sources[k].Status == Idle
	}
	if !w.idle {
		w.settle()
		return
	}
	for k := range w.sources {
		w.current = max(w.current, w.sources[k].Watermark)
	}
}

// settle raises the watermark to the least of the active sources.
func (w *Watermarks) settle() {
	least, active := int64(math.MaxInt64), false
	for i := range w.sources {
		if w.sources[i].Status == Active {
			least, active = min(least, w.sources[i].Watermark), true
		}
	}
	if active {
		w.current = max(w.current, least)
	}
}
