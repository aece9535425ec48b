package window

// desk is what putting windows together needs, reused.
type desk[A any] struct {
	result Result[A]
	parts  []part
	acc    A
}

// part is one slice on the desk: the ends of the first and the last window that count it.
type part struct {
	first, last int64
	chosen      bool
}

// revision is W5.
func revision(count int64, last bool) int64 {
	if last {
		return 2*count + 1
	}
	return 2 * count
}

// Collect yields what has changed since the last Collect: on update, open windows; on close, those that have fired and are still
// open; and withdrawals. After Touch it yields everything that is not settled. Windows that the watermark closes are left to Advance.
func (o *Operator[E, A]) Collect(s *State[A], watermark int64, yield func(*Result[A])) {
	if !s.dirty {
		return
	}
	if !s.awake {
		o.wake(s)
	}
	d := o.desks.Get().(*desk[A])
	touched, purged, fired, settled := s.touched, s.Purged.Watermark(), s.fired.Watermark(), s.settled.Watermark()
	o.tellWithdrawn(s, d, yield)
	chosen := func(sl *Slice[A]) bool { return touched || sl.dirty }
	o.each(s, d, settled, chosen, func(w candidate) verdict {
		switch {
		case w.closes <= purged:
			return verdict{tell: touched && w.closes > settled, final: true}
		case w.closes <= watermark:
			return verdict{}
		case o.onClose:
			return verdict{tell: w.closes-o.lateness <= fired}
		}
		return verdict{tell: true}
	}, yield)
	for i := range s.Slices {
		s.Slices[i].dirty = false
	}
	s.dirty, s.touched = false, false
	o.desks.Put(d)
	if s.Withdrawn != nil {
		o.reschedule(s)
	}
}

// Advance yields what the watermark closes, each window once and with everything it counts, and on close with an allowed lateness also
// what it fires before closing. Closed windows stay until Settle.
func (o *Operator[E, A]) Advance(s *State[A], watermark int64, yield func(*Result[A])) {
	if watermark < o.Due(s) {
		return
	}
	d := o.desks.Get().(*desk[A])
	fired := s.fired.Watermark()
	s.Purged, s.fired = max(s.Purged, MarkAt(watermark)), max(s.fired, MarkAt(watermark))
	purged := s.Purged.Watermark()
	o.tellWithdrawn(s, d, yield)
	o.each(s, d, fired, func(*Slice[A]) bool { return true }, func(w candidate) verdict {
		fires := w.closes - o.lateness
		switch {
		case w.closes > fired && w.closes <= watermark:
			return verdict{tell: true, final: true}
		case o.onClose && fires > fired && fires <= watermark:
			return verdict{tell: true, final: w.closes <= purged}
		}
		return verdict{stop: fires > watermark}
	}, yield)
	for i := range s.Slices {
		sl := &s.Slices[i]
		sl.Closed = sl.Closed || o.lastClosing(sl) <= watermark
	}
	o.desks.Put(d)
	o.reschedule(s)
}

func (o *Operator[E, A]) tellWithdrawn(s *State[A], d *desk[A], yield func(*Result[A])) {
	for i := range s.Withdrawn {
		w := &s.Withdrawn[i]
		if w.told {
			continue
		}
		w.told = true
		var none A
		d.result = Result[A]{Span: w.Span, Acc: &none, Count: w.Revision / 2, Revision: w.Revision, Withdrawn: true}
		yield(&d.result)
	}
}

// candidate is a window that might be yielded.
type candidate struct{ end, closes int64 }

// verdict says whether to yield a candidate, and how; stop, that no later one will be.
type verdict struct{ tell, final, stop bool }

// each puts the windows that count a chosen slice and close after the watermark `after` before judge, by ascending end, and yields those it tells.
func (o *Operator[E, A]) each(s *State[A], d *desk[A], after int64, chosen func(*Slice[A]) bool, judge func(candidate) verdict, yield func(*Result[A])) {
	for i := range s.Slices {
		sl := &s.Slices[i]
		d.parts = append(d.parts, part{o.firstEnd(sl), o.lastEnd(sl), chosen(sl)})
	}
	end := int64(earliest)
	for {
		next := Never
		for i := range d.parts {
			if p := &d.parts[i]; p.chosen && p.last >= end {
				next = min(next, max(p.first, end))
			}
		}
		if next == Never {
			break
		}
		end = next
		v := judge(candidate{end, o.closing(end)})
		if v.stop {
			break
		}
		if v.tell {
			o.tell(s, d, end, v.final, yield)
		}
		if o.single {
			end++
		} else {
			end += o.grid.step
		}
	}
	d.parts = d.parts[:0]
}

// tell puts one window together and yields it.
func (o *Operator[E, A]) tell(s *State[A], d *desk[A], end int64, final bool, yield func(*Result[A])) {
	var members int
	d.result = Result[A]{Final: final}
	for i := range d.parts {
		if end < d.parts[i].first || end > d.parts[i].last {
			continue
		}
		sl := &s.Slices[i]
		sl.Fresh = false
		switch members++; members {
		case 1:
			d.result.Acc = &sl.Acc
			if o.single {
				d.result.Span = sl.Span
			}
		case 2:
			o.fold.Reset(&d.acc)
			o.fold.Merge(&d.acc, d.result.Acc)
			d.result.Acc = &d.acc
			fallthrough
		default:
			o.fold.Merge(&d.acc, &sl.Acc)
		}
		d.result.Count += sl.Count
	}
	if o.definition.Kind != Session {
		d.result.Span = o.grid.span(end)
	}
	d.result.Revision = revision(d.result.Count, final)
	yield(&d.result)
}
