package window

// desk is where results are put together; it is reused.
//
// The windows of one pass come by ascending start and end, so the slices that they count come and go in order, as in a queue. The sum
// over the queue is kept in two halves: the sums of the older slices with all that follow in that half, and one sum of the newer ones. A
// slice that leaves costs nothing, one that comes is merged once, and when the older half is used up the newer takes its place. So a
// pass merges each slice about three times, however many windows count it. Late slices do not come in order and are added to each window.
type desk[A any] struct {
	yield  func(*Result[A])
	fold   merger[A]
	result Result[A]
	acc    A // of the result, if it is no one's else

	slices []Slice[A]
	gone   int      // slices before this one are in no further window
	older  []sum[A] // of slices[i:turn], at i-base
	base   int
	turn   int
	newer  sum[A] // of slices[turn:next]
	next   int
}

// merger is the part of a Fold that knows no events.
type merger[A any] struct {
	merge func(dst, src *A)
	reset func(*A)
}

// sum is an accumulator of its own.
type sum[A any] struct {
	acc   A
	count int64
}

func (s *sum[A]) clear(fold merger[A]) {
	fold.reset(&s.acc)
	s.count = 0
}

func (s *sum[A]) add(acc *A, count int64, fold merger[A]) {
	fold.merge(&s.acc, acc)
	s.count += count
}

// total adds up accumulators and copies none as long as there is only one.
type total[A any] struct {
	fold  merger[A]
	spare *A
	acc   *A
	count int64
}

func (t *total[A]) add(acc *A, count int64) {
	switch {
	case count == 0:
		return
	case t.count == 0:
		t.acc = acc
	case t.acc != t.spare:
		t.fold.reset(t.spare)
		t.fold.merge(t.spare, t.acc)
		t.acc = t.spare
		fallthrough
	default:
		t.fold.merge(t.acc, acc)
	}
	t.count += count
}

// total is an empty one.
func (d *desk[A]) total() total[A] { return total[A]{fold: d.fold, spare: &d.acc} }

// clear leaves only what can be reused.
func (d *desk[A]) clear() {
	d.slices, d.yield, d.result.Acc = nil, nil, nil
	d.gone, d.turn, d.next = 0, 0, 0
}

// queued adds up the window that ends at end, which seek has found.
func (o *Operator[E, A]) queued(d *desk[A], end int64) total[A] {
	if d.gone > d.turn {
		o.flip(d)
	}
	if d.next == d.turn {
		d.newer.clear(d.fold)
	}
	for ; d.next < len(d.slices) && d.slices[d.next].Start < end; d.next++ {
		if sl := &d.slices[d.next]; !o.isLate(sl) {
			d.newer.add(&sl.Acc, sl.Count, d.fold)
		}
	}
	t := d.total()
	t.add(&d.newer.acc, d.newer.count)
	if d.gone < d.turn {
		older := &d.older[d.gone-d.base]
		t.add(&older.acc, older.count)
	}
	o.addLate(&t, d, d.gone, end)
	return t
}

// flip makes the newer half the older one.
func (o *Operator[E, A]) flip(d *desk[A]) {
	d.base, d.turn = d.gone, max(d.next, d.gone)
	d.next = d.turn
	for len(d.older) < d.turn-d.base {
		d.older = append(d.older, sum[A]{})
	}
	for i := d.turn - 1; i >= d.base; i-- {
		older := &d.older[i-d.base]
		older.clear(d.fold)
		if i+1 < d.turn {
			after := &d.older[i+1-d.base]
			older.add(&after.acc, after.count, d.fold)
		}
		if sl := &d.slices[i]; !o.isLate(sl) {
			older.add(&sl.Acc, sl.Count, d.fold)
		}
	}
}
