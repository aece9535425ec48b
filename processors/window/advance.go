package window

// Advance yields what the watermark closes, each window once and with everything it counts, and on close with an allowed lateness also
// what it fires before closing. Closed windows stay until Settle.
func (o *Operator[E, A]) Advance(s *State[A], watermark int64, yield func(*Result[A])) {
	if watermark < o.Due(s) {
		return
	}
	s.Purged = max(s.Purged, MarkAt(watermark))
	d := o.desk(s, yield)
	o.tellWithdrawn(s, d, false)
	l := leap{onClose: o.onClose, lateness: o.lateness, from: s.fired.Watermark(), to: watermark, purged: s.Purged.Watermark()}
	if o.single {
		o.advanceSingle(d, &l)
	} else {
		o.advanceShared(s, d, &l)
	}
	o.release(d)
	s.fired = max(s.fired, MarkAt(watermark))
	for i := range s.Slices {
		sl := &s.Slices[i]
		if !sl.Closed && o.lastClosing(sl) > watermark {
			break // and so do later ones
		}
		sl.Closed = true
	}
	o.reschedule(s)
}

// leap is an advance of the watermark from what has fired.
type leap struct {
	onClose                    bool
	lateness, from, to, purged int64
}

// passes says whether the leap fires or closes a window, and whether it is final; over, that it does not and neither does it any later one.
func (l *leap) passes(closes int64) (tell, final, over bool) {
	fires := closes - l.lateness
	final = closes <= l.purged
	switch {
	case l.from < closes && closes <= l.to:
		return true, final, false
	case l.onClose && l.from < fires && fires <= l.to:
		return true, final, false
	}
	return false, final, fires > l.to
}

func (o *Operator[E, A]) advanceSingle(d *desk[A], l *leap) {
	for i := range d.slices {
		sl := &d.slices[i]
		tell, final, over := l.passes(sl.closes)
		if over {
			return
		}
		if tell {
			o.tellSlice(d, sl, final)
		}
	}
}

func (o *Operator[E, A]) advanceShared(s *State[A], d *desk[A], l *leap) {
	end, ok := o.seek(d, o.grid.next(o.opening(l.from, o.lateness)), false)
	for ; ok; end, ok = o.seek(d, end+o.grid.step, false) {
		tell, final, over := l.passes(o.closing(end))
		if over {
			return
		}
		if tell && !o.grid.repeats(end) {
			o.tellShared(d, end, o.summed(s, d, end, final), final)
		}
	}
}

// tailFrom is the number of slices from which on a state keeps a tail.
const tailFrom = 4

// tail is what one closed window leaves for the next: the sum of the newer half of its slices. The next window shares them, adds what is
// new, and looks again only at the older half, until the tail itself is the older half.
//
// Nothing in it changes, for what a closed window counts is final: later events of those spans are in slices of their own (W3).
type tail[A any] struct {
	from, to int64 // the slices in order that start here
	sum      sum[A]
}

// summed adds up the window that ends at end, which seek has found.
func (o *Operator[E, A]) summed(s *State[A], d *desk[A], end int64, final bool) total[A] {
	t := d.total()
	if !final || len(d.slices) < tailFrom {
		o.addUp(&t, d, d.gone, end, end)
		return t
	}
	start := o.grid.start(end)
	if s.tail == nil {
		s.tail = new(tail[A])
	}
	l := s.tail
	if l.from < start || l.to > end || l.from == l.to {
		l.from = start
		if o.definition.Kind == Hopping {
			l.from += o.grid.size / 2
		}
		l.to = l.from
		l.sum.clear(d.fold)
	}
	i, _ := s.find(Span{l.to, l.to})
	for ; i < len(d.slices) && d.slices[i].Start < end; i++ {
		if sl := &d.slices[i]; !o.isLate(sl) {
			l.sum.add(&sl.Acc, sl.Count, d.fold)
		}
	}
	l.to = end
	t.add(&l.sum.acc, l.sum.count)
	next := o.addUp(&t, d, d.gone, l.from, end)
	if s.mixed {
		o.addLate(&t, d, next, end)
	}
	return t
}

// addUp adds the slices from i on that start before `to` and count in the window that ends at end, and returns the place of the first that
// starts later.
func (o *Operator[E, A]) addUp(t *total[A], d *desk[A], i int, to, end int64) int {
	for ; i < len(d.slices) && d.slices[i].Start < to; i++ {
		if sl := &d.slices[i]; sl.End <= end {
			t.add(&sl.Acc, sl.Count)
		}
	}
	return i
}

// addLate adds the late slices from i on that count in the window that ends at end.
func (o *Operator[E, A]) addLate(t *total[A], d *desk[A], i int, end int64) {
	for ; i < len(d.slices) && d.slices[i].Start < end; i++ {
		if sl := &d.slices[i]; sl.End <= end && o.isLate(sl) {
			t.add(&sl.Acc, sl.Count)
		}
	}
}
