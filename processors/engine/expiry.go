package engine

import "math"

// expiry is the watermark at which a key that stays as it is may be forgotten; math.MaxInt64 without a state TTL.
func (p *partition[E, S]) expiry(e *entry[S]) int64 {
	ttl := p.config.StateTTL.Milliseconds()
	if ttl == 0 || e.seen > math.MaxInt64-ttl {
		return math.MaxInt64
	}
	return max(e.seen, p.hands.start) + ttl
}

// forget drops an idle key and writes its tombstone. Its fences go with it, which is safe once the position behind its last
// event and the watermark that purged it are committed: no replay reaches that event again, repeats through the loop are told
// by the partition's fences, and a restart cannot judge by an earlier watermark. Until then it stays.
func (p *partition[E, S]) forget(e *entry[S]) bool {
	if e.live != nil || e.dirty || e.open {
		return false
	}
	if p.committed.clock.watermark < p.expiry(e) {
		p.timers.Schedule(e, &e.alarm, p.hands.watermark)
		return true
	}
	p.packed -= len(e.raw)
	delete(p.entries, e.key)
	e.gone = true
	p.open.table.add([]byte(e.key), nil)
	p.pending += recordSize([]byte(e.key), nil, nil)
	p.outcomes.forgotten++
	return true
}
