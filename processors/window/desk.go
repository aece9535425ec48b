package window

// desk is where results are put together; it is reused.
//
// The windows of one pass come by ascending start and end, so the slices that they count come and go in order, as in a queue. The sum
// over the queue is kept in two halves: the sums of the older slices with all that follow in that half, and one sum of the newer ones. A
// slice that leaves costs nothing, one that comes is merged once, and when the older half is used up the newer takes its place. So a
// pass merges each slice about three times, however many windows count it.
type desk[A any] struct {
	rule
	result Result[A]
	acc    A // of the result, if it is no one's else

	parts []part[A]
	gone  int      // parts before this one are in no further window
	older []sum[A] // of parts[i:turn], at i-base
	base  int
	turn  int
	newer sum[A] // of parts[turn:next]
	next  int
}

// part is a slice on the desk: the ends of the first and the last window that count it.
type part[A any] struct {
	slice       *Slice[A]
	first, last int64
	chosen      bool
	late        bool // its events missed the first windows, so it does not come in order: it is summed apart
}

// sum is an accumulator of its own.
type sum[A any] struct {
	acc   A
	count int64
}

// merger is the part of a Fold that knows no events.
type merger[A any] struct {
	merge func(dst, src *A)
	reset func(*A)
}

func (f *Fold[E, A]) half() merger[A] { return merger[A]{f.Merge, f.Reset} }

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

func (s *sum[A]) clear(fold merger[A]) {
	fold.reset(&s.acc)
	s.count = 0
}

func (s *sum[A]) add(acc *A, count int64, fold merger[A]) {
	fold.merge(&s.acc, acc)
	s.count += count
}

// clear leaves only what can be reused.
func (d *desk[A]) clear() {
	clear(d.parts)
	d.parts, d.gone, d.turn, d.next = d.parts[:0], 0, 0, 0
}

// seek is the first end, from the given one on, of a window that counts a chosen part.
func (d *desk[A]) seek(end int64) (int64, bool) {
	for d.gone < len(d.parts) && d.parts[d.gone].last < end {
		d.gone++
	}
	best := Never
	for i := d.gone; i < len(d.parts) && best > end && d.parts[i].slice.Start < best; i++ {
		if p := &d.parts[i]; p.chosen {
			best = min(best, max(p.first, end))
		}
	}
	for d.gone < len(d.parts) && d.parts[d.gone].last < best {
		d.gone++
	}
	return best, best != Never
}

// sum adds up the window that ends at end, which the last seek has found.
func (d *desk[A]) sum(end int64, t *total[A]) {
	d.slide(end, t.fold)
	t.add(&d.newer.acc, d.newer.count)
	if d.gone < d.turn {
		older := &d.older[d.gone-d.base]
		t.add(&older.acc, older.count)
	}
	d.sumLate(end, t)
}

// sumLate adds the parts that are summed apart.
func (d *desk[A]) sumLate(end int64, t *total[A]) {
	for i := d.gone; i < len(d.parts) && d.parts[i].slice.Start < end; i++ {
		if p := &d.parts[i]; p.late && p.first <= end {
			t.add(&p.slice.Acc, p.slice.Count)
		}
	}
}

// slide lets go what the window that ends at end does not count any more, and takes in what it counts now.
func (d *desk[A]) slide(end int64, fold merger[A]) {
	if d.gone > d.turn {
		d.flip(fold)
	}
	if d.next == d.turn {
		d.newer.clear(fold)
	}
	for ; d.next < len(d.parts) && d.parts[d.next].slice.Start < end; d.next++ {
		if p := &d.parts[d.next]; !p.late {
			d.newer.add(&p.slice.Acc, p.slice.Count, fold)
		}
	}
}

// flip makes the newer half the older one.
func (d *desk[A]) flip(fold merger[A]) {
	d.base, d.turn = d.gone, max(d.next, d.gone)
	d.next = d.turn
	for len(d.older) < d.turn-d.base {
		d.older = append(d.older, sum[A]{})
	}
	for i := d.turn - 1; i >= d.base; i-- {
		older := &d.older[i-d.base]
		older.clear(fold)
		if i+1 < d.turn {
			after := &d.older[i+1-d.base]
			older.add(&after.acc, after.count, fold)
		}
		if p := &d.parts[i]; !p.late {
			older.add(&p.slice.Acc, p.slice.Count, fold)
		}
	}
}
