package window

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Fold says how events become an accumulator. Merge must be commutative and associative, and Add the same as merging an
// accumulator of one event, or results depend on the order of arrival. All three are required.
type Fold[E, A any] struct {
	// Add adds an event to acc, which is zero, or reset, or holds earlier events.
	Add func(acc *A, e *E)
	// Merge adds what src holds to dst and leaves src as it is; dst must not keep references to memory that src may reuse.
	Merge func(dst, src *A)
	// Reset makes acc as good as zero; it may keep capacity.
	Reset func(acc *A)
}

// Emit is when results are published.
type Emit uint8

// The ways to emit.
const (
	// OnUpdate yields a window at each Collect after it has changed, and finally when it closes.
	OnUpdate Emit = iota
	// OnClose yields a window when the watermark passes its last instant; with AllowedLateness again at each Collect after a late
	// event, and finally when it closes.
	OnClose
)

// Options are the choices that do not change which events a window holds, except for late ones. The zero value is the default.
type Options struct {
	// AllowedLateness keeps a window open past its end, in whole milliseconds. Default 0. A larger value costs state: about
	// AllowedLateness/Slide more slices per key.
	AllowedLateness time.Duration
	// Emit is when results are published. Default OnUpdate.
	Emit Emit
}

// Validate returns all that is wrong with the options.
func (o Options) Validate() error {
	var faults []error
	if o.AllowedLateness < 0 {
		faults = append(faults, fmt.Errorf("allowed lateness %v must not be negative", o.AllowedLateness))
	}
	if o.AllowedLateness%time.Millisecond != 0 {
		faults = append(faults, fmt.Errorf("allowed lateness %v must be whole milliseconds", o.AllowedLateness))
	}
	if o.Emit > OnClose {
		faults = append(faults, fmt.Errorf("emit %d is unknown", o.Emit))
	}
	return errors.Join(faults...)
}

// Verdict is what became of an event.
type Verdict uint8

// The verdicts.
const (
	// Counted is an event that at least one window took.
	Counted Verdict = iota
	// Late is an event whose windows were all closed.
	Late
	// Unassigned is an event that no window is laid over: it lies in the gap between hopping windows that slide by more than
	// their size, or within 2,229 years of either end of representable time.
	Unassigned
)

// String is the verdict as a word for labels and headers.
func (v Verdict) String() string {
	switch v {
	case Counted:
		return "counted"
	case Late:
		return "late"
	case Unassigned:
	}
	return "unassigned"
}

// Result is what is known of a window. It is valid only during the yield that brings it.
type Result[A any] struct {
	// Span is the window, in instants also if the definition has a zone.
	Span
	// Acc is the fold of its events, not to be changed; empty in a withdrawal.
	Acc *A
	// Count is the number of its events.
	Count int64
	// Revision grows as the window changes (W5).
	Revision int64
	// Final is true in the last word on the window.
	Final bool
	// Withdrawn is true if the window no longer exists because a session merged into another.
	Withdrawn bool
}

// Operator folds events into states under one definition. It is immutable: goroutines may share it, each with states of its own.
type Operator[E, A any] struct {
	definition Definition
	fold       Fold[E, A]
	grid       grid
	gap        int64
	lateness   int64
	onClose    bool
	single     bool // a slice is a window: tumbling and session
	desks      sync.Pool
}

// New is an operator, or all that is wrong with what it was given.
func New[E, A any](d Definition, o Options, f Fold[E, A]) (*Operator[E, A], error) {
	err := errors.Join(d.Validate(), o.Validate())
	if f.Add == nil || f.Merge == nil || f.Reset == nil {
		err = errors.Join(err, errors.New("fold lacks Add, Merge or Reset"))
	}
	if err != nil {
		return nil, fmt.Errorf("make window operator %q: %w", d, err)
	}
	d = d.canonical()
	op := &Operator[E, A]{
		definition: d, fold: f, grid: newGrid(d), gap: millis(d.Gap), lateness: millis(o.AllowedLateness),
		onClose: o.Emit == OnClose, single: d.Kind == Tumbling || d.Kind == Session,
	}
	op.desks.New = func() any { return new(desk[A]) }
	return op, nil
}

// Definition is the operator's definition, in canonical form.
func (o *Operator[E, A]) Definition() Definition { return o.definition }

// Add counts an event of time ts, in ms, in the windows that are open for it at the watermark before it (W3).
func (o *Operator[E, A]) Add(s *State[A], watermark, ts int64, e *E) Verdict {
	if ts < earliest || ts > latest {
		return Unassigned
	}
	if !s.awake {
		o.wake(s)
	}
	mark := max(watermark, s.Purged.Watermark())
	if o.definition.Kind == Session {
		return o.addSession(s, mark, ts, e)
	}
	t := o.grid.local(ts)
	if int(s.hot) < len(s.Slices) {
		if sl := &s.Slices[s.hot]; sl.Start <= t && t < sl.End && mark < sl.closes && sl.End-sl.Start <= o.grid.step {
			o.count(s, sl, e)
			return Counted
		}
	}
	return o.addAligned(s, mark, t, e)
}

// addAligned finds or makes the slice of an event that is not for the slice last updated.
func (o *Operator[E, A]) addAligned(s *State[A], mark, t int64, e *E) Verdict {
	span, ok := o.grid.slice(t)
	if !ok {
		return Unassigned
	}
	if mark >= o.closing(o.grid.last(span)) {
		return Late
	}
	if mark >= o.closing(o.grid.first(span)) {
		span.End = o.grid.next(o.opening(mark, o.lateness))
	}
	i, found := s.find(span)
	if !found {
		o.open(s, i, span)
	}
	s.hot = int32(i)
	o.count(s, &s.Slices[i], e)
	return Counted
}

// open makes a slice at i.
func (o *Operator[E, A]) open(s *State[A], i int, span Span) {
	sl := s.insert(i, span)
	s.mixed = s.mixed || o.isLate(sl)
	sl.closes = o.closing(o.firstEnd(sl))
	s.due = min(s.due, o.dueOf(s.Slices[i:i+1], s.fired.Watermark()))
}

// count folds an event into a slice. On close, Collect need look at it only if a window of it has fired.
func (o *Operator[E, A]) count(s *State[A], sl *Slice[A], e *E) {
	sl.Count++
	if !o.onClose || sl.closes-o.lateness <= s.fired.Watermark() {
		sl.dirty, s.dirty = true, true
	}
	o.fold.Add(&sl.Acc, e)
}

// closing is the least watermark that closes the window which ends at end, a time of the grid (W3).
func (o *Operator[E, A]) closing(end int64) int64 { return o.grid.instant(end) - 1 + o.lateness }

// opening is the inverse of closing: windows are open at the watermark whose end is a later instant.
func (o *Operator[E, A]) opening(watermark, lateness int64) int64 {
	return clamp(watermark) + 1 - lateness
}

// Touch marks everything that is not settled to be yielded by the next Collect: the caller has reason to believe that some of it
// was not published, as when an event is delivered again that the state holds already.
func (o *Operator[E, A]) Touch(s *State[A]) {
	s.dirty, s.touched = true, true
	for i := range s.Withdrawn {
		s.Withdrawn[i].told, s.Withdrawn[i].collected = false, false
	}
}

// Settle says that everything is acknowledged that was yielded for watermarks up to this one, and all withdrawals that were
// collected. It drops the slices and withdrawals that no later result needs and reports whether the state is empty.
//
// After a restart it is called with the committed watermark, before anything else. Between a Collect and the Settle that acknowledges
// it there must be no other Collect; Add, Touch and Advance may go on.
func (o *Operator[E, A]) Settle(s *State[A], watermark int64) (empty bool) {
	if !s.awake {
		o.wake(s)
	}
	s.settled = max(s.settled, min(MarkAt(watermark), s.Purged))
	s.fired = max(s.fired, s.settled)
	settled := s.settled.Watermark()
	for i := len(s.Slices) - 1; i >= 0; i-- {
		if sl := &s.Slices[i]; sl.Closed && o.lastClosing(sl) <= settled {
			s.remove(i, o.fold.Reset)
		}
	}
	if s.mixed {
		o.compact(s)
	}
	s.Withdrawn = slices.DeleteFunc(s.Withdrawn, func(w Withdrawn) bool { return w.collected || o.closing(w.End) <= watermark })
	o.reschedule(s)
	return len(s.Slices) == 0 && len(s.Withdrawn) == 0
}

// compact joins slices of one span once the windows that only some of them are in are settled.
func (o *Operator[E, A]) compact(s *State[A]) {
	s.mixed = false
	for i := len(s.Slices) - 1; i >= 0; i-- {
		sl := &s.Slices[i]
		s.mixed = s.mixed || o.isLate(sl)
		if i == 0 || s.Slices[i-1].Start != sl.Start || o.closing(o.firstEnd(sl)-o.grid.step) > s.settled.Watermark() {
			continue
		}
		before := &s.Slices[i-1]
		o.fold.Merge(&before.Acc, &sl.Acc)
		before.Count += sl.Count
		before.dirty = before.dirty || sl.dirty
		s.remove(i, o.fold.Reset)
		if s.tail != nil {
			s.tail.to = s.tail.from
		}
	}
}

// Due is the least watermark at which Advance has something to do; Never if nothing is open.
func (o *Operator[E, A]) Due(s *State[A]) int64 {
	if !s.awake {
		o.wake(s)
	}
	return s.due
}

// reschedule computes s.due anew.
func (o *Operator[E, A]) reschedule(s *State[A]) {
	s.due = o.dueOf(s.Slices, s.fired.Watermark())
	for i := range s.Withdrawn {
		if w := &s.Withdrawn[i]; !w.told {
			s.due = min(s.due, o.closing(w.End))
		}
	}
}

// dueOf is the least watermark, later than what has fired, at which a window of the slices closes, or fires on close.
func (o *Operator[E, A]) dueOf(slices []Slice[A], fired int64) int64 {
	due := o.dueAfter(slices, fired, o.lateness)
	if o.onClose && o.lateness > 0 {
		due = min(due, o.dueAfter(slices, fired, 0))
	}
	return due
}

// dueAfter is the least watermark, later than fired, that is the given lateness past the last instant of a window of the slices.
func (o *Operator[E, A]) dueAfter(slices []Slice[A], fired, lateness int64) int64 {
	best, after := Never, o.opening(fired, lateness)
	if o.single {
		for i := range slices {
			if at := slices[i].closes - o.lateness + lateness; at > fired {
				best = min(best, at)
			}
		}
		return best
	}
	next := o.grid.next(after)
	for i := 0; i < len(slices) && best > next; i++ {
		if sl := &slices[i]; o.lastEnd(sl) >= next {
			best = min(best, max(next, o.firstEnd(sl)))
		}
	}
	if best == Never {
		return Never
	}
	return o.grid.instant(best) - 1 + lateness
}

// isLate is true of a slice whose events missed the first windows of its span.
func (o *Operator[E, A]) isLate(sl *Slice[A]) bool { return !o.single && sl.End-sl.Start > o.grid.step }

// firstEnd is the end of the first window that counts the slice.
func (o *Operator[E, A]) firstEnd(sl *Slice[A]) int64 {
	if o.single {
		return sl.End
	}
	return o.grid.first(sl.Span)
}

// lastEnd is the end of the last window that counts the slice.
func (o *Operator[E, A]) lastEnd(sl *Slice[A]) int64 {
	if o.single {
		return sl.End
	}
	return o.grid.last(sl.Span)
}

func (o *Operator[E, A]) lastClosing(sl *Slice[A]) int64 { return o.closing(o.lastEnd(sl)) }

// mostRenewed is how many slices' memory Renew keeps.
const mostRenewed = 16

// Renew makes a state as good as the zero value, for another key; it keeps memory for a few slices.
func (o *Operator[E, A]) Renew(s *State[A]) {
	for i := range s.Slices {
		o.fold.Reset(&s.Slices[i].Acc)
	}
	all := s.Slices[:0]
	if cap(all) > mostRenewed {
		all = nil
	}
	*s = State[A]{Slices: all, Withdrawn: s.Withdrawn[:0], first: s.first}
}

// wake computes what is not stored, in a state that is new or restored.
func (o *Operator[E, A]) wake(s *State[A]) {
	s.awake = true
	for i := range s.Slices {
		sl := &s.Slices[i]
		sl.closes = o.closing(o.firstEnd(sl))
		s.mixed = s.mixed || o.isLate(sl)
		if sl.Closed {
			s.Purged = max(s.Purged, MarkAt(o.lastClosing(sl)))
		}
	}
	s.dirty = s.dirty || len(s.Withdrawn) > 0
	s.hot = int32(max(0, len(s.Slices)-1))
	o.reschedule(s)
}
