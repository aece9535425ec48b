package window

// Timers is a queue of keys by the watermark at which they are due. Not for concurrent use; the zero value is ready.
//
// Keys due within about a second share a bucket, so that scheduling and firing cost the same whether ten keys or a million are
// due at once. A key has one pending entry, told by its Alarm: scheduling it for later than it is pending does nothing, and the caller
// schedules again when it fires.
type Timers[K comparable] struct {
	buckets map[int64][]entry[K]
	times   heap[int64]    // of buckets
	near    heap[entry[K]] // entries of buckets that were begun
	ready   []entry[K]
	spare   [][]entry[K]
	last    int64 // of lastBucket
}

type entry[K comparable] struct {
	due int64
	key K
}

// Alarm is what a key remembers of its entry in Timers; the zero value is none. Keep one beside the key's state.
type Alarm struct {
	due int64
	set bool
}

// Ring reports whether an entry that fired is the key's pending one, and clears it; false is an entry that an earlier one has overtaken.
func (a *Alarm) Ring(due int64) bool {
	if !a.set || a.due != due {
		return false
	}
	a.set = false
	return true
}

// bucketBits are the low bits of a due time that a bucket does not tell apart: 1,024 ms.
const bucketBits = 10

// Schedule makes the key fire at the first Advance whose watermark is due or later, unless it will fire earlier. Never is not scheduled.
func (t *Timers[K]) Schedule(key K, a *Alarm, due int64) {
	if due == Never || a.set && a.due <= due {
		return
	}
	a.due, a.set = due, true
	at := due >> bucketBits
	b, ok := t.buckets[at]
	if !ok {
		if t.buckets == nil {
			t.buckets = make(map[int64][]entry[K])
		}
		t.times.push(at, lessTime)
		if n := len(t.spare); n > 0 {
			b, t.spare = t.spare[n-1], t.spare[:n-1]
		}
	}
	t.buckets[at] = append(b, entry[K]{due, key})
}

// Advance fires all entries due at the watermark, in the order of due up to about a second; yield may schedule, and what it schedules waits for the next Advance.
func (t *Timers[K]) Advance(watermark int64, yield func(key K, due int64)) {
	at := watermark >> bucketBits
	for len(t.times.items) > 0 && t.times.items[0] <= at {
		b := t.times.pop(lessTime)
		entries := t.buckets[b]
		delete(t.buckets, b)
		for _, e := range entries {
			if b < at {
				t.ready = append(t.ready, e)
			} else {
				t.near.push(e, lessEntry)
			}
		}
		clear(entries)
		t.spare = append(t.spare, entries[:0])
	}
	for len(t.near.items) > 0 && t.near.items[0].due <= watermark {
		t.ready = append(t.ready, t.near.pop(lessEntry))
	}
	ready := t.ready
	t.ready = nil
	for _, e := range ready {
		yield(e.key, e.due)
	}
	clear(ready)
	t.ready = ready[:0]
}

func lessTime(a, b int64) bool { return a < b }

func lessEntry[K comparable](a, b entry[K]) bool { return a.due < b.due }
