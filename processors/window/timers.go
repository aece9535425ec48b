package window

import "math"

// Timers is a queue of keys by the watermark at which they are due. Not for concurrent use; the zero value is ready.
//
// Keys due within about a second share a bucket, so that scheduling and firing a key cost the same whether ten or a million are
// due at once. A key has one pending entry, told by its Alarm: scheduling it for later than it is pending does nothing, and the caller
// schedules again when it fires.
type Timers[K comparable] struct {
	buckets map[int64]*bucket[K] // by due without its low bits
	times   heap[int64]          // of buckets
	near    heap[entry[K]]       // of buckets that are due in part
	ready   []entry[K]
	spare   []*bucket[K]
}

type bucket[K comparable] struct {
	entries []entry[K]
	last    int64 // the greatest due
}

type entry[K comparable] struct {
	due int64
	key K
}

// Alarm is what a key remembers of its entry in Timers; the zero value is none. Keep one beside the key's state.
type Alarm struct{ due Mark }

// Ring reports whether an entry that fired is the key's pending one, and clears it; false is an entry that an earlier one has overtaken.
func (a *Alarm) Ring(due int64) bool {
	if a.due == 0 || a.due != MarkAt(due) {
		return false
	}
	a.due = 0
	return true
}

// bucketBits are the low bits of a due time that a bucket does not tell apart: 1,024 ms.
const bucketBits = 10

// Schedule makes the key fire at the first Advance whose watermark is due or later, unless it will fire earlier. Never is not scheduled.
func (t *Timers[K]) Schedule(key K, a *Alarm, due int64) {
	due = max(due, math.MinInt64+1)
	if due == Never || a.due != 0 && a.due <= MarkAt(due) {
		return
	}
	a.due = MarkAt(due)
	at := due >> bucketBits
	b := t.buckets[at]
	if b == nil {
		b = t.begin(at)
	}
	b.entries = append(b.entries, entry[K]{due, key})
	b.last = max(b.last, due)
}

// Move makes the key fire at the first Advance whose watermark is due or later, and no earlier; Never: not at all.
func (t *Timers[K]) Move(key K, a *Alarm, due int64) {
	if due = max(due, math.MinInt64+1); a.due == MarkAt(due) {
		return
	}
	a.due = 0 // what is pending is overtaken
	t.Schedule(key, a, due)
}

// begin adds a bucket.
func (t *Timers[K]) begin(at int64) *bucket[K] {
	if t.buckets == nil {
		t.buckets = make(map[int64]*bucket[K])
	}
	b := new(bucket[K])
	if n := len(t.spare); n > 0 {
		b, t.spare = t.spare[n-1], t.spare[:n-1]
	}
	b.last = math.MinInt64
	t.buckets[at] = b
	t.times.push(at, lessTime)
	return b
}

// Advance fires all entries due at the watermark, about in the order of due. What yield schedules waits for the next Advance.
func (t *Timers[K]) Advance(watermark int64, yield func(key K, due int64)) {
	t.drain(watermark)
	for len(t.times.items) > 0 && t.times.items[0] <= watermark>>bucketBits {
		t.end(t.times.pop(lessTime), watermark)
	}
	t.drain(watermark)
	ready := t.ready
	t.ready = nil
	for _, e := range ready {
		yield(e.key, e.due)
	}
	clear(ready)
	t.ready = ready[:0]
}

// drain takes what is due from the buckets that were taken apart.
func (t *Timers[K]) drain(watermark int64) {
	for len(t.near.items) > 0 && t.near.items[0].due <= watermark {
		t.ready = append(t.ready, t.near.pop(lessEntry))
	}
}

// maxSpare bounds the memory that emptied buckets keep.
const maxSpare = 4

// end takes a bucket apart whose time has come.
func (t *Timers[K]) end(at, watermark int64) {
	b := t.buckets[at]
	delete(t.buckets, at)
	if b.last <= watermark {
		t.ready = append(t.ready, b.entries...)
	} else {
		for _, e := range b.entries {
			t.near.push(e, lessEntry)
		}
	}
	clear(b.entries)
	b.entries = b.entries[:0]
	if len(t.spare) < maxSpare {
		t.spare = append(t.spare, b)
	}
}

func lessTime(a, b int64) bool { return a < b }

func lessEntry[K comparable](a, b entry[K]) bool { return a.due < b.due }
