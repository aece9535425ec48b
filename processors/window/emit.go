package window

// revision is W5.
func revision(count int64, last bool) int64 {
	if last {
		return 2*count + 1
	}
	return 2 * count
}

// tell yields a window.
func (d *desk[A]) tell(span Span, acc *A, count int64, final bool) {
	d.result = Result[A]{Span: span, Acc: acc, Count: count, Revision: revision(count, final), Final: final}
	d.yield(&d.result)
}

// tellSlice yields a window that is a slice, and as it is.
func (o *Operator[E, A]) tellSlice(d *desk[A], sl *Slice[A], final bool) {
	span := sl.Span
	if o.definition.Kind == Tumbling {
		span = o.grid.span(sl.End)
	}
	sl.Fresh, sl.dirty = false, false
	d.tell(span, &sl.Acc, sl.Count, final)
}

// tellShared yields a window that is put together from slices.
func (o *Operator[E, A]) tellShared(d *desk[A], end int64, sum total[A], final bool) {
	d.tell(o.grid.span(end), sum.acc, sum.count, final)
}

// tellWithdrawn yields the withdrawals that were not yielded yet.
func (o *Operator[E, A]) tellWithdrawn(s *State[A], d *desk[A], collected bool) {
	for i := range s.Withdrawn {
		if w := &s.Withdrawn[i]; !w.told {
			w.told, w.collected = true, collected
			o.fold.Reset(&d.acc)
			d.result = Result[A]{Span: w.Span, Acc: &d.acc, Count: w.Revision / 2, Revision: w.Revision, Withdrawn: true}
			d.yield(&d.result)
		}
	}
}

// desk lays out a pass over a state; release puts it back.
func (o *Operator[E, A]) desk(s *State[A], yield func(*Result[A])) *desk[A] {
	d := o.desks.Get().(*desk[A])
	d.slices, d.yield, d.fold = s.Slices, yield, merger[A]{o.fold.Merge, o.fold.Reset}
	return d
}

func (o *Operator[E, A]) release(d *desk[A]) {
	d.clear()
	o.desks.Put(d)
}

// seek is the first end, from the given one on, of a window that counts a slice: any, or one that has changed. From then on only
// windows that end there or later are asked for.
func (o *Operator[E, A]) seek(d *desk[A], end int64, changed bool) (int64, bool) {
	o.skip(d, end)
	best := Never
	for i := d.gone; i < len(d.slices) && best > end && d.slices[i].Start < best; i++ {
		if sl := &d.slices[i]; sl.dirty || !changed {
			best = min(best, max(o.firstEnd(sl), end))
		}
	}
	o.skip(d, best)
	return best, best != Never
}

// skip passes over the slices that no window counts that ends at end or later.
func (o *Operator[E, A]) skip(d *desk[A], end int64) {
	for d.gone < len(d.slices) && o.lastEnd(&d.slices[d.gone]) < end {
		d.gone++
	}
}
