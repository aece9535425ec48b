package window

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// crashed is an engine as it uses this package, small: a log, a table of states with fences, checkpoints that write states before
// results and commit after both. It may die between any two writes.
type crashed struct {
	t    *rapid.T
	op   *Operator[event, bag]
	log  []keyed
	dies func() bool

	// What outlives a crash.
	table     map[string]record
	stores    map[string]*rig
	committed position

	// What does not.
	keys   map[string]*key
	timers Timers[*key]
	marks  *Watermarks
	dirty  map[string]*key
	out    []output
	flight *passage
	fires  func(*key, int64)
}

type keyed struct {
	key string
	event
}

type record struct {
	state State[bag]
	fence int
}

type position struct {
	offset    int
	watermark int64
	sources   []Source
}

type key struct {
	name  string
	state State[bag]
	fence int
	alarm Alarm
}

// output is a result as it waits to be published.
type output struct {
	key string
	Result[bag]
	ids []int
}

func (c *crashed) start(bound int64) {
	c.keys, c.dirty, c.out, c.flight, c.timers = map[string]*key{}, map[string]*key{}, nil, nil, Timers[*key]{}
	c.marks = NewWatermarks(ms(bound))
	c.marks.Restore(c.committed.watermark, c.committed.sources...)
	for _, name := range slices.Sorted(maps.Keys(c.table)) {
		k := c.key(name)
		k.state, k.fence = reload(c.t, &State[bag]{
			Slices: c.table[name].state.Slices, Withdrawn: c.table[name].state.Withdrawn, Purged: c.table[name].state.Purged,
		}), c.table[name].fence
		if err := c.op.Check(&k.state); err != nil {
			c.t.Fatalf("%v", err)
		}
		c.op.Settle(&k.state, c.committed.watermark)
		c.timers.Schedule(k, &k.alarm, c.op.Due(&k.state))
	}
	c.fires = func(k *key, due int64) {
		if k.alarm.Ring(due) {
			c.dirty[k.name] = k
			c.op.Advance(&k.state, c.marks.Current(), c.yield(k))
			c.timers.Schedule(k, &k.alarm, c.op.Due(&k.state))
		}
	}
}

func (c *crashed) key(name string) *key {
	k := c.keys[name]
	if k == nil {
		k = &key{name: name, fence: -1}
		c.keys[name] = k
	}
	return k
}

func (c *crashed) yield(k *key) func(*Result[bag]) {
	return func(r *Result[bag]) { c.out = append(c.out, output{k.name, *r, slices.Clone(r.Acc.IDs)}) }
}

// run reads the log from the committed position on; false if it died.
func (c *crashed) run() bool {
	for offset := c.committed.offset; offset < len(c.log); offset++ {
		e := c.log[offset]
		k := c.key(e.key)
		c.dirty[k.name] = k
		if offset <= k.fence {
			c.op.Touch(&k.state)
		} else {
			c.op.Add(&k.state, c.marks.Current(), e.TS, &e.event)
			k.fence = offset
			c.timers.Schedule(k, &k.alarm, c.op.Due(&k.state))
		}
		c.marks.Observe(0, e.TS)
		c.timers.Advance(c.marks.Current(), c.fires)
		if c.dies() || !c.checkpoint(offset+1) {
			return false
		}
	}
	c.marks.Rest(0)
	c.marks.Lift(1 << 40)
	c.timers.Advance(c.marks.Current(), c.fires)
	if c.flight != nil && !c.arrive() {
		return false
	}
	c.depart(len(c.log))
	return c.arrive()
}

// checkpoint begins or ends one now and then; false if the engine died.
func (c *crashed) checkpoint(offset int) bool {
	switch {
	case rapid.IntRange(0, 2).Draw(c.t, "checkpoint") > 0:
		return true
	case c.flight != nil:
		return c.arrive()
	}
	c.depart(offset)
	return true
}

// passage is a checkpoint on its way, while the engine goes on.
type passage struct {
	names   []string
	records map[string]record
	out     []output
	at      position
}

// depart begins the checkpoint of everything before an offset.
func (c *crashed) depart(offset int) {
	f := &passage{records: map[string]record{}, at: position{offset: offset, watermark: c.marks.Current()}}
	c.marks.Snapshot(func(s Source) { f.at.sources = append(f.at.sources, s) })
	f.names = slices.Sorted(maps.Keys(c.dirty))
	for _, name := range f.names {
		k := c.keys[name]
		c.op.Collect(&k.state, f.at.watermark, c.yield(k))
		c.timers.Schedule(k, &k.alarm, c.op.Due(&k.state))
		f.records[name] = record{reload(c.t, &k.state), k.fence}
	}
	clear(c.dirty)
	f.out, c.out = c.out, nil
	c.flight = f
}

// arrive makes the checkpoint on its way durable; false if the engine died.
func (c *crashed) arrive() bool {
	f := c.flight
	c.flight = nil
	for _, name := range f.names {
		if c.dies() {
			return false
		}
		c.table[name] = f.records[name]
	}
	for _, out := range f.out {
		if c.dies() {
			return false
		}
		r := c.stores[out.key]
		r.watermark = 1 << 41 // what was closed in an earlier life is final before the watermark is there again
		out.Acc = &bag{out.ids}
		r.take(&out.Result)
	}
	if c.dies() {
		return false
	}
	c.committed = f.at
	for _, name := range f.names {
		k := c.keys[name]
		c.op.Settle(&k.state, f.at.watermark)
		c.timers.Schedule(k, &k.alarm, c.op.Due(&k.state))
	}
	return true
}

// TestReplay kills the engine at random until it comes through; the store must show what one undisturbed run of the model says, and no
// result on the way may contradict an earlier one.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, o := anyDefinition(t), anyOptions(t)
		op, err := New(d, o, bagFold())
		if err != nil {
			t.Fatalf("%v", err)
		}
		bound := rapid.Int64Range(0, 15).Draw(t, "bound")
		lives := rapid.IntRange(0, 6).Draw(t, "crashes")
		c := &crashed{t: t, op: op, table: map[string]record{}, stores: map[string]*rig{}, committed: position{watermark: none}}
		c.dies = func() bool {
			if lives == 0 || rapid.IntRange(0, 9).Draw(t, "dies") > 0 {
				return false
			}
			lives--
			return true
		}
		models := map[string]*model{}
		marks := NewWatermarks(ms(bound))
		for i, e := range anyStream(t) {
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
			c.log = append(c.log, keyed{name, event{i, e.TS}})
			if models[name] == nil {
				models[name], c.stores[name] = newModel(d, o), newRig(t, op, o)
			}
			models[name].add(marks.Current(), e.event)
			marks.Observe(0, e.TS)
		}
		for c.start(bound); !c.run(); c.start(bound) {
		}
		for name, m := range models {
			if diff := cmp.Diff(m.rows(1<<40, o, d.Kind), c.stores[name].visible()); diff != "" {
				t.Fatalf("%s %s (−model +store):\n%s", d, name, diff)
			}
			if k := c.keys[name]; k != nil && (len(k.state.Slices) > 0 || op.Due(&k.state) != Never) {
				t.Fatalf("%s %s: left in the state: %+v", d, name, k.state)
			}
		}
	})
}
