package window

// revision is W5.
func revision(count int64, last bool) int64 {
	if last {
		return 2*count + 1
	}
	return 2 * count
}

// Collect yields what has changed since the last Collect: on update, open windows; on close, those that have fired and are still
// open; and withdrawals. After Touch it yields everything that is not settled. What the watermark fires or closes is left to Advance.
func (o *Operator[E, A]) Collect(s *State[A], watermark int64, yield func(*Result[A])) {
	if !s.dirty {
		return
	}
	if !s.awake {
		o.wake(s)
	}
	d := o.desks.Get().(*desk[A])
	d.rule = o.rule(s, watermark)
	d.from = max(d.purged, watermark)
	if d.touched = s.touched; d.touched {
		d.from = d.settled
	}
	o.emit(s, d, yield)
	o.desks.Put(d)
	for i := range s.Slices {
		s.Slices[i].dirty = false
	}
	s.dirty, s.touched = false, false
}

// Advance yields what the watermark closes, each window once and with everything it counts, and on close with an allowed lateness also
// what it fires before closing. Closed windows stay until Settle.
func (o *Operator[E, A]) Advance(s *State[A], watermark int64, yield func(*Result[A])) {
	if watermark < o.Due(s) {
		return
	}
	s.Purged = max(s.Purged, MarkAt(watermark))
	d := o.desks.Get().(*desk[A])
	d.rule = o.rule(s, watermark)
	d.advance, d.from = true, d.fired
	s.fired = max(s.fired, MarkAt(watermark))
	o.emit(s, d, yield)
	o.desks.Put(d)
	for i := range s.Slices {
		sl := &s.Slices[i]
		if !sl.Closed && o.lastClosing(sl) > watermark {
			break // later slices close later
		}
		sl.Closed = true
	}
	o.reschedule(s)
}

// rule is what decides whether a window is yielded, and how.
type rule struct {
	advance   bool // in Advance, else in Collect
	touched   bool
	onClose   bool
	lateness  int64
	watermark int64
	purged    int64
	fired     int64
	settled   int64
	from      int64 // windows that close at or before this are not yielded
}

func (o *Operator[E, A]) rule(s *State[A], watermark int64) rule {
	return rule{
		onClose: o.onClose, lateness: o.lateness, watermark: watermark,
		purged: s.Purged.Watermark(), fired: s.fired.Watermark(), settled: s.settled.Watermark(),
	}
}

// chosen is true if the windows of a slice may have news.
func (r *rule) chosen(dirty bool) bool { return r.advance || r.touched || dirty }

// over is true if no window that closes at this watermark or later is yielded.
func (r *rule) over(closes int64) bool { return r.advance && closes-r.lateness > r.watermark }

// judge decides on the window that closes at the given watermark.
func (r *rule) judge(closes int64) (tell, final bool) {
	fires := closes - r.lateness
	final = closes <= r.purged
	switch {
	case closes <= r.from:
		return false, final
	case r.advance:
		return closes <= r.watermark || r.onClose && r.fired < fires && fires <= r.watermark, final
	case final:
		return true, final
	case closes <= r.watermark:
		return false, final
	}
	return !r.onClose || fires <= r.fired, final
}

// emit yields withdrawals, then the windows that the desk's rule picks, by ascending end.
func (o *Operator[E, A]) emit(s *State[A], d *desk[A], yield func(*Result[A])) {
	for i := range s.Withdrawn {
		if w := &s.Withdrawn[i]; !w.told {
			w.told = true
			o.fold.Reset(&d.acc)
			d.result = Result[A]{Span: w.Span, Acc: &d.acc, Count: w.Revision / 2, Revision: w.Revision, Withdrawn: true}
			yield(&d.result)
		}
	}
	if o.single {
		o.emitSingle(s, d, yield)
	} else {
		o.emitShared(s, d, yield)
	}
}

// emitSingle yields windows that are one slice each.
func (o *Operator[E, A]) emitSingle(s *State[A], d *desk[A], yield func(*Result[A])) {
	for i := range s.Slices {
		sl := &s.Slices[i]
		if d.over(sl.closes) {
			return
		}
		if !d.chosen(sl.dirty) {
			continue
		}
		if tell, final := d.judge(sl.closes); tell {
			sl.Fresh = false
			span := sl.Span
			if o.definition.Kind == Tumbling {
				span = o.grid.span(sl.End)
			}
			d.result = Result[A]{Span: span, Acc: &sl.Acc, Count: sl.Count, Revision: revision(sl.Count, final), Final: final}
			yield(&d.result)
		}
	}
}

// emitShared yields windows that are put together from slices.
func (o *Operator[E, A]) emitShared(s *State[A], d *desk[A], yield func(*Result[A])) {
	for i := range s.Slices {
		sl := &s.Slices[i]
		d.parts = append(d.parts, part[A]{
			slice: sl, first: o.firstEnd(sl), last: o.lastEnd(sl),
			chosen: d.chosen(sl.dirty), late: sl.End-sl.Start > o.grid.step,
		})
	}
	end := o.grid.next(o.opening(d.from, o.lateness))
	for {
		var ok bool
		if end, ok = d.seek(end); !ok {
			break
		}
		closes := o.closing(end)
		if d.over(closes) {
			break
		}
		if tell, final := d.judge(closes); tell && !o.grid.repeats(end) {
			sum := o.sum(s, d, end, final)
			d.result = Result[A]{Span: o.grid.span(end), Acc: sum.acc, Count: sum.count, Revision: revision(sum.count, final), Final: final}
			yield(&d.result)
		}
		end += o.grid.step
	}
	d.clear()
}

// sum folds the slices of the window that ends at end.
func (o *Operator[E, A]) sum(s *State[A], d *desk[A], end int64, final bool) (t total[A]) {
	t = total[A]{fold: o.fold.half(), spare: &d.acc}
	if !d.advance || !final || len(s.Slices) < tailFrom {
		d.sum(end, &t)
		return t
	}
	if s.tail == nil {
		s.tail = new(tail[A])
	}
	start := o.grid.start(end)
	from := start
	if o.definition.Kind == Hopping {
		from += o.grid.size / 2
	}
	s.tail.extend(d, start, from, end, &t)
	return t
}
