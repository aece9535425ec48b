package window

import "sort"

// addSession counts an event in the open session that it lies in or touches, joins the two that it lies between, or begins one.
//
// An event whose own [ts, ts+gap) is closed is late unless an open session already spans it. Apache Flink would also let such an event
// move an open session's start back; here it does not, because that start may belong to a session that was final (W8). Where Flink
// fails because a merged session is late, nothing can happen here: a closed session is never merged.
func (o *Operator[E, A]) addSession(s *State[A], mark, ts int64, e *E) Verdict {
	if int(s.hot) < len(s.Slices) {
		next := int(s.hot) + 1
		sl := &s.Slices[s.hot]
		if sl.Start <= ts && ts <= sl.End && mark < sl.closes && (next == len(s.Slices) || s.Slices[next].Start > ts+o.gap) {
			o.extend(s, sl, ts, e)
			return Counted
		}
	}
	end := ts + o.gap
	late := mark >= o.closing(end)
	left, right, n := o.touching(s, mark, ts)
	switch {
	case n == 0 && late, n == 1 && late && ts < s.Slices[left].Start:
		return Late
	case n == 0:
		left, _ = s.find(Span{ts, end})
		o.open(s, left, Span{ts, end})
	case n == 2:
		o.absorb(s, left, right)
	}
	s.hot = int32(left)
	o.extend(s, &s.Slices[left], ts, e)
	return Counted
}

// touching finds the open sessions that touch [ts, ts+gap): none, one (left), or two with the event between them.
func (o *Operator[E, A]) touching(s *State[A], mark, ts int64) (left, right, n int) {
	end := ts + o.gap
	i := sort.Search(len(s.Slices), func(i int) bool { return s.Slices[i].Start > end })
	for i--; i >= 0; i-- {
		if sl := &s.Slices[i]; mark >= sl.closes || sl.End < ts {
			break // and so are all before it: later starts mean later ends
		}
		left, right = i, left
		n++
	}
	return left, right, n
}

// extend counts an event in a session that it touches.
func (o *Operator[E, A]) extend(s *State[A], sl *Slice[A], ts int64, e *E) {
	if ts < sl.Start {
		s.withdraw(sl)
		sl.Start, sl.Fresh = ts, true
	}
	if end := ts + o.gap; end > sl.End {
		first := s.due >= sl.closes-o.lateness // else another slice is due before this one
		sl.End, sl.closes = end, o.closing(end)
		if first {
			o.reschedule(s)
		}
	}
	o.count(s, sl, e)
}

// absorb merges the session at right into the one at left.
func (o *Operator[E, A]) absorb(s *State[A], left, right int) {
	l, r := &s.Slices[left], &s.Slices[right]
	s.withdraw(r)
	o.fold.Merge(&l.Acc, &r.Acc)
	l.Count += r.Count
	l.End, l.closes = r.End, r.closes
	s.remove(right, o.fold.Reset)
	o.reschedule(s)
}
