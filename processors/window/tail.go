package window

// tailFrom is the number of slices from which on a state keeps a tail.
const tailFrom = 4

// tail is what one closed window leaves for the next: the sum of the newer half of its slices. The next window shares them, adds what is
// new, and looks again only at the older half, until the tail itself grows old.
//
// Nothing in it can change, for what a closed window counts is final: later events of those spans are in slices of their own (W3).
type tail[A any] struct {
	from, to int64 // the sum is of the slices that start here, in order ones only
	sum      sum[A]
}

// extend adds up the closed window [start, end), which the last seek has found, and makes the tail reach to its end; a tail that is too
// old, or none yet, is made anew from `from` on.
func (l *tail[A]) extend(d *desk[A], start, from, end int64, t *total[A]) {
	if l.from < start || l.to > end || l.from >= l.to {
		l.from, l.to = from, from
		l.sum.clear(t.fold)
	}
	older := 0
	for i := d.gone; i < len(d.parts) && d.parts[i].slice.Start < end; i++ {
		p := &d.parts[i]
		switch {
		case p.late:
		case p.slice.Start < l.from:
			older++
		case p.slice.Start >= l.to:
			l.sum.add(&p.slice.Acc, p.slice.Count, t.fold)
		}
	}
	l.to = end
	t.add(&l.sum.acc, l.sum.count)
	for i := d.gone; older > 0; i++ {
		if p := &d.parts[i]; !p.late {
			t.add(&p.slice.Acc, p.slice.Count)
			older--
		}
	}
	d.sumLate(end, t)
}
