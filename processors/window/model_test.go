package window

import (
	"slices"
	"time"
)

// model says which windows an event is in by looking at each window there is, with the formulas of Apache Flink's assigners and
// nothing of the operator: no slices, no grid, no state to purge.
type model struct {
	d        Definition
	lateness int64
	windows  map[Span]*modelWindow // by span on the local time line
	known    map[Span]Span         // of instants
}

type modelWindow struct {
	local, span Span
	closes      int64
	ids         []int
}

func newModel(d Definition, o Options) *model {
	return &model{d: d, lateness: o.AllowedLateness.Milliseconds(), windows: map[Span]*modelWindow{}, known: map[Span]Span{}}
}

// startOf is Flink's TimeWindow.getWindowStartWithOffset.
func startOf(ts, offset, size int64) int64 {
	r := (ts - offset) % size
	if r < 0 {
		return ts - (r + size)
	}
	return ts - r
}

// spans are the windows that t, a local time, is in.
func (m *model) spans(t int64) (out []Span) {
	size, slide, offset := m.d.Size.Milliseconds(), m.d.Slide.Milliseconds(), m.d.Offset.Milliseconds()
	switch m.d.Kind {
	case Tumbling:
		s := startOf(t, offset, size)
		return []Span{{s, s + size}}
	case Hopping:
		for s := startOf(t, offset, slide); s > t-size; s -= slide {
			out = append(out, Span{s, s + size})
		}
	case Cumulating:
		e := startOf(t, offset, slide) + slide
		s := startOf(e-1, offset, size)
		for ; e <= s+size; e += slide {
			out = append(out, Span{s, e})
		}
	case Session:
	}
	return out
}

func (m *model) local(instant int64) int64 {
	if m.d.Zone == nil {
		return instant
	}
	_, seconds := time.UnixMilli(instant).In(m.d.Zone).Zone()
	return instant + int64(seconds)*1000
}

// quarter of an hour: clocks are set only when one begins.
const quarter = 15 * 60_000

// instants is a span of local time as the zone's clocks show it, found by looking at every quarter of an hour around it.
func (m *model) instants(s Span) Span {
	if m.d.Zone == nil {
		return s
	}
	if at, ok := m.known[s]; ok {
		return at
	}
	from := startOf(s.Start-26*4*quarter, 0, quarter)
	for m.local(from+quarter-1) < s.Start {
		from += quarter
	}
	to := startOf(s.End+26*4*quarter, 0, quarter)
	for m.local(to-quarter) >= s.End {
		to -= quarter
	}
	from += max(0, s.Start-m.local(from))
	to -= max(0, m.local(to-1)-s.End+1)
	if m.known != nil {
		m.known[s] = Span{from, to}
	}
	return Span{from, to}
}

func (m *model) add(watermark int64, e event) Verdict {
	if e.TS < earliest || e.TS > latest {
		return Unassigned
	}
	if m.d.Kind == Session {
		return m.addSession(watermark, e)
	}
	spans := m.spans(m.local(e.TS))
	if len(spans) == 0 {
		return Unassigned
	}
	verdict := Late
	for _, s := range spans {
		w := m.windows[s]
		if w == nil {
			at := m.instants(s)
			w = &modelWindow{local: s, span: at, closes: at.End - 1 + m.lateness}
		}
		if w.closes <= watermark {
			continue
		}
		w.ids = append(w.ids, e.ID)
		m.windows[s] = w
		verdict = Counted
	}
	return verdict
}

func (m *model) addSession(watermark int64, e event) Verdict {
	gap := m.d.Gap.Milliseconds()
	own := Span{e.TS, e.TS + gap}
	late := own.End-1+m.lateness <= watermark
	var touched []*modelWindow
	for _, w := range m.windows {
		if w.closes > watermark && w.span.Start <= own.End && w.span.End >= own.Start {
			touched = append(touched, w)
		}
	}
	spanned := len(touched) > 0
	merged := &modelWindow{span: own, ids: []int{e.ID}}
	for _, w := range touched {
		merged.span = Span{min(merged.span.Start, w.span.Start), max(merged.span.End, w.span.End)}
		merged.ids = append(merged.ids, w.ids...)
		spanned = spanned && w.span.Start <= e.TS
	}
	if late && !spanned {
		return Late
	}
	for _, w := range touched {
		delete(m.windows, w.span)
	}
	merged.local, merged.closes = merged.span, merged.span.End-1+m.lateness
	m.windows[merged.span] = merged
	return Counted
}

// rows are the windows as a store shows them after the watermark was advanced to and collected.
func (m *model) rows(watermark int64, o Options, kind Kind) map[Span]row {
	out := map[Span]row{}
	for _, w := range m.windows {
		if o.Emit == OnClose && w.span.End-1 > watermark {
			continue
		}
		r := row{Span: w.span, IDs: sorted(w.ids), Count: int64(len(w.ids)), Final: w.closes <= watermark}
		r.Revision = 2 * r.Count
		if r.Final {
			r.Revision++
		}
		id := w.span
		if kind == Session {
			id.End = id.Start
		}
		out[id] = r
	}
	return out
}

// due is the least watermark, later than fired, at which a window fires or closes.
func (m *model) due(fired int64, o Options) int64 {
	due := Never
	for _, w := range m.windows {
		if w.closes > fired {
			due = min(due, w.closes)
		}
		if fires := w.closes - m.lateness; fires > fired && o.Emit == OnClose {
			due = min(due, fires)
		}
	}
	return due
}

// byEnd is for messages.
func (m *model) byEnd() (out []modelWindow) {
	for _, w := range m.windows {
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b modelWindow) int { return int(a.span.End - b.span.End) })
	return out
}
