package engine

import (
	"math"
	"testing"
	"time"
)

// A key is forgotten a TTL after its last event, once the watermark that says so is committed; its tombstone goes to the table.
func TestForgottenKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.StateTTL = time.Second
	r.begin(fresh())
	r.deliver(0, "a 1000")
	r.checkpoint()
	if e := r.p.entries["a"]; e.live != nil || r.p.packed != len(e.raw) || r.p.lives != 0 {
		t.Fatalf("a key that is idle is decoded, or %d bytes are none of its %d", r.p.packed, len(e.raw))
	}
	r.deliver(1, "b 2000")
	r.checkpoint() // watermark 1999
	r.p.tick(r.config.Now())
	if r.p.entries["a"] == nil {
		t.Fatal("forgotten before its time, 2000")
	}
	r.deliver(2, "b 2001")
	if r.p.entries["a"] == nil {
		t.Fatal("forgotten before its watermark is committed: a restart would count on without it")
	}
	r.checkpoint()
	a := r.p.entries["a"]
	r.p.tick(r.config.Now())
	c := r.cut()
	if r.p.entries["a"] != nil || !a.gone || c.did.forgotten != 1 {
		t.Fatalf("not forgotten behind the commit, %d were", c.did.forgotten)
	}
	if rec := c.spools.table.records; len(rec) != 1 || string(rec[0].Key) != "a" || rec[0].Value != nil {
		t.Errorf("the table gets %d records, want a's tombstone", len(rec))
	}
	if e := r.p.entries["b"]; r.p.packed != len(e.raw) {
		t.Errorf("%d bytes of states, want those of b, %d", r.p.packed, len(e.raw))
	}
}

// A key that has something open, unwritten or decoded is not forgotten.
func TestKeyInUseIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.StateTTL = time.Second
	r.begin(fresh())
	for name, e := range map[string]*entry[tally]{"decoded": {live: newLive[tally]()}, "dirty": {dirty: true}, "open": {open: true}} {
		r.p.committed.clock.watermark = 1e12
		if r.p.forget(e) {
			t.Errorf("%s, and forgotten", name)
		}
	}
}

// The time of a key's end counts from its last event, or from the restart that does not know it.
func TestExpiry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(position{clock: clock{watermark: 5000}})
	for _, c := range []struct {
		ttl        time.Duration
		seen, want int64
	}{
		{0, 9000, math.MaxInt64},
		{time.Second, 9000, 10_000},
		{time.Second, 4000, 6000},
		{time.Second, math.MinInt64, 6000},
		{time.Second, math.MaxInt64 - 999, math.MaxInt64},
		{time.Second, math.MaxInt64, math.MaxInt64},
	} {
		r.config.StateTTL = c.ttl
		if got := r.p.expiry(&entry[tally]{seen: c.seen}); got != c.want {
			t.Errorf("TTL %v, last event at %d: ends at %d, want %d", c.ttl, c.seen, got, c.want)
		}
	}
}
