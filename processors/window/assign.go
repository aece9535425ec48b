package window

import "time"

// Span is a stretch of event time, in ms since the epoch, half-open (W1).
type Span struct{ Start, End int64 }

// before orders spans by start, then end.
func (s Span) before(t Span) bool { return s.Start < t.Start || s.Start == t.Start && s.End < t.End }

// floor is the last multiple of width, shifted by offset, at or before ts.
func floor(ts, offset, width int64) int64 {
	r := (ts - offset) % width
	if r < 0 {
		r += width
	}
	return ts - r
}

// The instants that can be counted: a margin of 2^46 ms (2,229 years) to either end of int64 leaves room for every sum of a
// time, a few durations (at most 2^44 ms each) and a zone offset, so that nothing in this package overflows.
const (
	earliest = -1<<63 + 1<<46
	latest   = 1<<63 - 1 - 1<<46
)

// clamp brings a watermark so near to the instants that can be counted that sums with it do not overflow, and no nearer.
func clamp(watermark int64) int64 { return min(max(watermark, earliest-1<<45), latest+1<<45) }

// grid lays slices and windows of the aligned kinds over time; all times are local if there is a zone.
//
// The ends of all windows lie on one lattice, and a slice lies between two neighbouring starts or ends, so that it is wholly inside or
// outside of each window. The windows that hold a slice are those that end on the lattice from first(slice) to last(slice).
type grid struct {
	kind   Kind
	size   int64
	step   int64 // distance between ends
	offset int64
	rest   int64 // size modulo step: where, after a start, an end lies
	zone   *zone
}

func newGrid(d Definition) grid {
	g := grid{kind: d.Kind, size: d.Size.Milliseconds(), step: d.Slide.Milliseconds(), offset: d.Offset.Milliseconds(), zone: newZone(d.Zone)}
	if d.Kind == Tumbling {
		g.step = g.size
	}
	if d.Kind != Session {
		g.rest = g.size % g.step
	}
	return g
}

// local is the time that the grid is laid over, for an instant.
func (g *grid) local(instant int64) int64 {
	if g.zone != nil {
		return g.zone.local(instant)
	}
	return instant
}

// slice is the slice that holds t; false if no window does, which is only between hopping windows that slide by more than their size.
func (g *grid) slice(t int64) (Span, bool) {
	base := floor(t, g.offset, g.step)
	switch cut := base + g.rest; {
	case g.rest == 0:
		return Span{base, base + g.step}, true
	case t < cut:
		return Span{base, cut}, true
	default:
		return Span{cut, base + g.step}, g.size > g.step
	}
}

// holds is true if a slice can have this span: a stretch between borders, or one whose events missed some windows.
func (g *grid) holds(s Span) bool {
	slice, ok := g.slice(s.Start)
	late := s.End > g.first(slice) && s.End <= g.last(slice) && s.End == floor(s.End, g.offset+g.rest, g.step)
	return ok && slice.Start == s.Start && (s.End == slice.End || late)
}

// first is the end of the first window that holds the slice.
func (g *grid) first(slice Span) int64 {
	if g.rest == 0 {
		return slice.End // starts are ends
	}
	return floor(slice.End-1, g.offset+g.rest, g.step) + g.step
}

// last is the end of the last window that holds the slice.
func (g *grid) last(slice Span) int64 {
	switch {
	case g.kind == Cumulating:
		return floor(slice.Start, g.offset, g.size) + g.size
	case g.rest == 0:
		return slice.Start + g.size
	}
	return floor(slice.Start, g.offset, g.step) + g.size
}

// start is the start of the window that ends at end.
func (g *grid) start(end int64) int64 {
	if g.kind == Cumulating {
		return floor(end-1, g.offset, g.size)
	}
	return end - g.size
}

// span is the window that ends at end, in instants.
func (g *grid) span(end int64) Span {
	start := g.start(end)
	if g.zone != nil {
		return Span{g.zone.first(start), g.zone.after(end)}
	}
	return Span{start, end}
}

// repeats is true if the window that ends at end is, in instants, the one before it: their ends lie in a gap of the clocks.
func (g *grid) repeats(end int64) bool {
	return g.zone != nil && g.kind == Cumulating && g.span(end) == g.span(end-g.step)
}

// instant is the end of a window that ends at end, as an instant.
func (g *grid) instant(end int64) int64 {
	if g.zone != nil {
		return g.zone.after(end)
	}
	return end
}

// next is the first end on the lattice whose instant is later than the given one.
func (g *grid) next(instant int64) int64 {
	if g.zone != nil {
		instant = g.zone.least(instant)
	}
	return floor(instant, g.offset+g.rest, g.step) + g.step
}

// millis is a duration in ms; Validate has seen to it that nothing is cut off.
func millis(d time.Duration) int64 { return d.Milliseconds() }
