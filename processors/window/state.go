package window

import "sort"

// State is what one key has open under one definition. The zero value is ready: nothing is open.
//
// A state that has counted must not be copied. The exported fields are all there is to store; a state read back from them is as good as the one written. What is not stored is which
// results were yielded in this life, so a restored state yields again what is not settled (W7): call Settle with the committed watermark first.
type State[A any] struct {
	// Slices hold the counted events, sorted by Start, then End. Elements between its length and its capacity are zero or reset.
	Slices []Slice[A]
	// Withdrawn are the sessions that were merged into others and whose withdrawal may not be acknowledged.
	Withdrawn []Withdrawn
	// Purged is the watermark of the last Advance that closed or fired something: what it closed accepts no event, even
	// when after a restart the watermark comes from further back.
	Purged Mark

	tail *tail[A] // part of the next window's sum, or nil

	settled Mark  // what was due up to here is acknowledged; at most fired
	fired   Mark  // what was due up to here was yielded in this life; at most Purged
	due     int64 // what Due returns
	hot     int32 // the slice last updated
	awake   bool  // the unexported fields are in force
	dirty   bool  // a slice has changed, or a withdrawal was added, since the last Collect
	mixed   bool  // there may be late slices
	touched bool  // everything unsettled is to be yielded by the next Collect

	first [2]Slice[A] // memory of the first slices: with tumbling windows those of the open window and of the one before
}

// Slice is events that are always counted in the same windows: for tumbling and session one window, else the stretch between two
// neighbouring borders of windows.
type Slice[A any] struct {
	// Span tells the windows: those count the slice that contain its span. If the definition has a zone, it is in local time.
	//
	// Events that came after some of their windows had closed are in a slice of their own with the same Start, whose End is that of
	// the first window that took them.
	Span
	// Acc is the fold of the events.
	Acc A
	// Count is the number of events, at least 1.
	Count int64
	// Closed is true when the last window of the slice is closed: the slice takes no event and goes at Settle.
	Closed bool
	// Fresh is true while no result of this session can have been published under its start. A codec that does not store it leaves it
	// false: then a merge withdraws once too often, which does no harm.
	Fresh bool

	dirty  bool
	closes int64 // the least watermark that closes a window of the slice
}

// Withdrawn is a session that another has absorbed, or whose start has moved, after it may have been published.
type Withdrawn struct {
	// Span is the session as it was last.
	Span
	// Revision is that of the withdrawal: greater than any published for this start.
	Revision int64

	told      bool // yielded in this life
	collected bool // yielded by Collect: the next Settle acknowledges it
}

// find is the place of the slice with this span, and whether it is there.
func (s *State[A]) find(span Span) (int, bool) {
	i := sort.Search(len(s.Slices), func(i int) bool { return !s.Slices[i].before(span) })
	return i, i < len(s.Slices) && s.Slices[i].Span == span
}

// insert makes an empty slice at i, in the slot of a removed one if there is one.
func (s *State[A]) insert(i int, span Span) *Slice[A] {
	if n := len(s.Slices); n < cap(s.Slices) {
		s.Slices = s.Slices[:n+1]
	} else if n == 0 {
		s.Slices = s.first[:1]
	} else {
		s.Slices = append(s.Slices, Slice[A]{})
		s.first = [len(s.first)]Slice[A]{} // whose accumulators are those of the first now
	}
	spare := s.Slices[len(s.Slices)-1].Acc
	copy(s.Slices[i+1:], s.Slices[i:])
	s.Slices[i] = Slice[A]{Span: span, Acc: spare, Fresh: true}
	return &s.Slices[i]
}

// Restore appends a slice that was stored, behind those before it, and returns its accumulator, which is zero or reset.
func (s *State[A]) Restore(span Span, count int64, closed bool) *A {
	sl := s.insert(len(s.Slices), span)
	sl.Count, sl.Closed, sl.Fresh = count, closed, false
	return &sl.Acc
}

// remove takes out the slice at i and keeps its slot for the next.
func (s *State[A]) remove(i int, reset func(*A)) {
	spare := s.Slices[i].Acc
	last := len(s.Slices) - 1
	copy(s.Slices[i:], s.Slices[i+1:])
	s.Slices[last] = Slice[A]{Acc: spare}
	reset(&s.Slices[last].Acc)
	s.Slices = s.Slices[:last]
	s.hot = int32(max(0, last-1))
}

// withdraw notes that no session has sl's start any more, unless nobody can have seen it.
func (s *State[A]) withdraw(sl *Slice[A]) {
	if !sl.Fresh {
		s.Withdrawn = append(s.Withdrawn, Withdrawn{Span: sl.Span, Revision: revision(sl.Count, true)})
		s.dirty = true
	}
}
