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
	late        bool // the first window is not the one that the order of parts lets expect: summed apart
}

type sum[A any] struct {
	acc   A
	count int64
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
	for i := d.gone; i < len(d.parts); i++ {
		p := &d.parts[i]
		if best == end || p.slice.Start >= best {
			break
		}
		if p.chosen {
			best = min(best, max(p.first, end))
		}
	}
	return best, best != Never
}

// sum is the fold and the count of the window that ends at end, which must be later than those before.
func (d *desk[A]) sum(end int64, merge func(dst, src *A), reset func(*A)) (*A, int64) {
	d.slide(end, merge, reset)
	acc, count := &d.newer.acc, d.newer.count
	join := func(other *A, n int64) {
		switch {
		case n == 0:
			return
		case count == 0:
			acc = other
		default:
			if acc != &d.acc {
				reset(&d.acc)
				merge(&d.acc, acc)
				acc = &d.acc
			}
			merge(acc, other)
		}
		count += n
	}
	if d.gone < d.turn {
		older := &d.older[d.gone-d.base]
		join(&older.acc, older.count)
	}
	for i := d.gone; i < len(d.parts) && d.parts[i].slice.Start < end; i++ {
		if p := &d.parts[i]; p.late && p.first <= end {
			join(&p.slice.Acc, p.slice.Count)
		}
	}
	return acc, count
}

// slide lets go what the window that ends at end does not count any more, and takes in what it counts now.
func (d *desk[A]) slide(end int64, merge func(dst, src *A), reset func(*A)) {
	for d.gone < len(d.parts) && d.parts[d.gone].last < end {
		d.gone++
	}
	if d.gone > d.turn {
		d.flip(merge, reset)
	}
	if d.next == d.turn {
		reset(&d.newer.acc)
		d.newer.count = 0
	}
	for ; d.next < len(d.parts); d.next++ {
		p := &d.parts[d.next]
		if p.late {
			continue
		}
		if p.first > end {
			return
		}
		merge(&d.newer.acc, &p.slice.Acc)
		d.newer.count += p.slice.Count
	}
}

// flip makes the newer half the older one.
func (d *desk[A]) flip(merge func(dst, src *A), reset func(*A)) {
	d.base, d.turn = d.gone, max(d.next, d.gone)
	d.next = d.turn
	for len(d.older) < d.turn-d.base {
		d.older = append(d.older, sum[A]{})
	}
	for i := d.turn - 1; i >= d.gone; i-- {
		older := &d.older[i-d.base]
		reset(&older.acc)
		older.count = 0
		if i+1 < d.turn {
			after := &d.older[i+1-d.base]
			merge(&older.acc, &after.acc)
			older.count = after.count
		}
		if p := &d.parts[i]; !p.late {
			merge(&older.acc, &p.slice.Acc)
			older.count += p.slice.Count
		}
	}
}
