package window

// Collect yields what has changed since the last Collect: on update, open windows; on close, those that have fired and are still
// open; and withdrawals. After Touch it yields everything that is not settled. What the watermark fires or closes is left to Advance.
func (o *Operator[E, A]) Collect(s *State[A], watermark int64, yield func(*Result[A])) {
	if !s.dirty {
		return
	}
	if !s.awake {
		o.wake(s)
	}
	d := o.desk(s, yield)
	o.tellWithdrawn(s, d, true)
	n := news{
		touched: s.touched, onClose: o.onClose, lateness: o.lateness,
		watermark: watermark, purged: s.Purged.Watermark(), fired: s.fired.Watermark(), settled: s.settled.Watermark(),
	}
	if o.single {
		o.collectSingle(d, &n)
	} else {
		o.collectShared(d, &n)
	}
	o.release(d)
	for i := range s.Slices {
		s.Slices[i].dirty = false
	}
	s.dirty, s.touched = false, false
}

// news is what decides which windows Collect yields.
type news struct {
	touched, onClose                            bool
	lateness, watermark, purged, fired, settled int64
}

// worth says whether a window that has changed, or was touched, is to be yielded, and whether it is final.
func (n *news) worth(closes int64) (tell, final bool) {
	switch {
	case closes <= n.purged:
		return n.touched && closes > n.settled, true
	case closes <= n.watermark:
		return false, true
	}
	return !n.onClose || closes-n.lateness <= n.fired, false
}

// done is the latest watermark of which it is known without looking that no window closed by it is worth it.
func (n *news) done() int64 {
	if n.touched {
		return n.settled
	}
	return max(n.purged, n.watermark)
}

func (o *Operator[E, A]) collectSingle(d *desk[A], n *news) {
	for i := range d.slices {
		sl := &d.slices[i]
		if !sl.dirty && !n.touched {
			continue
		}
		if tell, final := n.worth(sl.closes); tell {
			o.tellSlice(d, sl, final)
		}
	}
}

func (o *Operator[E, A]) collectShared(d *desk[A], n *news) {
	end, ok := o.seek(d, o.grid.next(o.opening(n.done(), o.lateness)), !n.touched)
	for ; ok; end, ok = o.seek(d, end+o.grid.step, !n.touched) {
		tell, final := n.worth(o.closing(end))
		if n.onClose && !tell && !final {
			return // not fired yet, nor are later ones
		}
		if tell && !o.grid.repeats(end) {
			o.tellShared(d, end, o.queued(d, end), final)
		}
	}
}
