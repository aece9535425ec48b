package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// drama is a round that a test directs itself.
type drama struct {
	*testing.T
	*play
	broker *embedded
	crew   *team
}

func newDrama(t *testing.T, w Workload) *drama {
	t.Helper()
	w.Windows, w.Mode, w.Commit = []string{"tumbling:1h", "session:10m"}, Wide, 10*time.Millisecond
	w.reshape()
	w.Windows = []string{"tumbling:1h", "session:10m"}
	b := &Bench{Log: logger(t), Now: time.Now}
	stage, err := b.newHome(w)
	if err != nil {
		t.Fatal(err)
	}
	h := stage.(*home)
	d := &drama{
		T: t, broker: h.broker, crew: h.crew.(*team),
		play: &play{bench: b, stage: stage, round: Round{Workload: w}, report: &Report{}, source: newSource(w)},
	}
	t.Cleanup(func() {
		d.close()
		stage.Close()
		b.Wait()
	})
	h.slots = 0 // the test starts replicas
	d.must(d.prepare(t.Context()))
	return d
}

func (d *drama) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// publishes one event of each name at a minute of the first day.
func (d *drama) event(minute int, names ...string) {
	d.Helper()
	var records []record
	for _, n := range names {
		at := epoch.Add(12*time.Hour + time.Duration(minute)*time.Minute)
		records = append(records, record{d.source.homeOf(n), []byte(n), d.source.event(n, at, 1)})
	}
	d.must(d.publisher.publish(d.Context(), records))
}

// until waits for something, two minutes at most.
func (d *drama) until(what string, holds func() bool) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 2*time.Minute)
	defer cancel()
	if err := await(ctx, 5*time.Millisecond, func() (bool, error) { return holds(), nil }); err != nil {
		d.Fatalf("wait until %s: %v", what, err)
	}
}

// committed waits until the group has committed all there is.
func (d *drama) committed() {
	d.Helper()
	d.until("everything is committed", func() bool {
		_, all, err := d.reader.progress(d.Context(), &d.round.Workload)
		return err == nil && all
	})
}

// outwait waits until a new owner does not expect writes of the old one any more.
func (d *drama) outwait() {
	d.Helper()
	over := time.Now().Add(sessionTimeout + 500*time.Millisecond)
	d.until("the guard is gone", func() bool { return time.Now().After(over) })
}

// tableEnd is the end of partition 0 of the group table.
func (d *drama) tableEnd() int64 { return d.end(d.round.Workload.table()) }

// end is the end of partition 0 of a topic.
func (d *drama) end(topic string) int64 {
	return d.broker.cluster.PartitionInfo(topic, 0).HighWatermark
}

// exact ends the round: flush, truth, comparison.
func (d *drama) exact() {
	d.Helper()
	d.must(d.publisher.publish(d.Context(), d.source.flush()))
	d.must(d.readTruth(d.Context()))
	wrong, err := d.settle(d.Context())
	d.must(err)
	for i, v := range wrong {
		if i < 5 {
			d.Error(v)
		}
	}
}

// E7: a replica is cut off in the middle of writing its states. Its partition becomes another's, which counts on. Then the
// network delivers what the old owner had written: stale states, behind newer ones. The table is compacted, everybody is
// killed and starts from what compaction left.
func TestZombieAndCompaction(t *testing.T) {
	for _, late := range []struct {
		name  string
		guard bool // the stale write arrives while the new owner still watches its changelog
	}{{"within the guard", true}, {"long after", false}} {
		t.Run(late.name, func(t *testing.T) {
			t.Parallel()
			d := newDrama(t, Workload{Seed: 1, Partitions: 1, Brokers: 1, Keys: 1})
			names := []string{"ZA", "ZB", "ZC"}
			d.must(d.crew.start(0))
			d.event(0, names...)
			d.committed()

			held := d.broker.wire.add(&rule{
				client: d.crew.client(0), keys: []int16{int16(kmsg.Produce), int16(kmsg.Heartbeat), int16(kmsg.OffsetCommit)},
				side: before, left: -1, hold: time.Hour,
			})
			d.event(1, names...)
			d.until("the old owner's write is held", func() bool { return d.broker.wire.struck(held) > 0 })
			d.must(d.crew.start(1))
			d.committed() // by the new owner, when the old one's session is over
			for minute := range 5 {
				d.event(2+minute, names...)
				d.committed()
			}
			if !late.guard {
				d.outwait()
			}

			end := d.tableEnd()
			d.broker.wire.isolate(d.crew.client(0)) // the old owner gets no answer and writes nothing more
			d.broker.wire.lift(held)
			d.until("the stale states are in the table", func() bool { return d.tableEnd() > end })
			d.event(10, "ZD") // the new owner goes on with another aircraft
			d.committed()
			end = d.tableEnd()
			d.until("the stale states are written over", func() bool {
				d.broker.cluster.Compact()
				return d.freshest(t, names)
			})
			d.crew.kill(0)
			d.crew.kill(1)
			d.broker.cluster.Compact()
			d.must(d.crew.start(2))
			d.event(11, names...)
			d.committed()
			d.exact()
			t.Logf("table ends at %d, %d before the zombie was overwritten", d.tableEnd(), end)
		})
	}
}

// A replica is cut off in the middle of writing its results. Its partition becomes another's, which counts on and closes the windows.
// Then the network delivers what the old owner had written: a stale result behind the final one. It does not stay the last word, also if the
// one who wrote the final one is dead by then.
func TestZombieResults(t *testing.T) {
	for _, late := range []struct {
		name  string
		guard bool // the stale write arrives right after the takeover
		dead  bool // when the new owner has died
		heir  bool // and another one has taken over
	}{
		{"within the guard", true, false, false},
		{"long after", false, false, false},
		{"after its successor's death", true, true, false},
		{"when its successor's successor is at work", true, true, true},
	} {
		t.Run(late.name, func(t *testing.T) {
			t.Parallel()
			d := newDrama(t, Workload{Seed: 1, Partitions: 1, Brokers: 1, Keys: 1})
			names := []string{"ZA", "ZB", "ZC"}
			d.must(d.crew.start(0))
			d.event(0, names...)
			d.committed()

			held := d.broker.wire.add(&rule{
				client: d.crew.client(0), keys: []int16{int16(kmsg.Produce)}, topic: d.round.Workload.output(), side: before, left: -1, hold: time.Hour,
			})
			silent := d.broker.wire.add(&rule{
				client: d.crew.client(0), keys: []int16{int16(kmsg.Heartbeat), int16(kmsg.OffsetCommit)}, side: before, left: -1, hold: time.Hour,
			})
			d.event(1, names...)
			d.until("the old owner's results are held", func() bool { return d.broker.wire.struck(held) > 0 })
			d.must(d.crew.start(1))
			d.committed() // by the new owner, when the old one's session is over
			d.event(2, names...)
			d.must(d.publisher.publish(d.Context(), d.source.flush())) // all windows are closed
			d.committed()
			if !late.guard {
				d.outwait()
			}

			end := d.end(d.round.Workload.output())
			if late.dead {
				d.crew.kill(1)
			}
			if late.heir {
				d.must(d.crew.start(2))
				d.event(4000, names...)
				d.committed()
				end = d.end(d.round.Workload.output())
			}
			d.broker.wire.isolate(d.crew.client(0)) // the old owner gets no answer and writes nothing more
			d.broker.wire.lift(held)
			d.broker.wire.lift(silent)
			if late.dead && !late.heir {
				d.until("the stale results are on the topic", func() bool { return d.end(d.round.Workload.output()) >= end+int64(len(names)) })
				d.must(d.crew.start(2))
			}
			d.until("the stale results are on the topic and repeated", func() bool { return d.end(d.round.Workload.output()) >= end+2*int64(len(names)) })
			d.exact()
		})
	}
}

// freshest reports whether the last record of each name in the table is not the zombie's.
func (d *drama) freshest(t *testing.T, names []string) bool {
	t.Helper()
	w := &d.round.Workload
	tl, err := newTail(connecting(d.stage.Addrs()), w.table())
	d.must(err)
	defer tl.close()
	ends, err := d.reader.ends(t.Context(), w.table())
	d.must(err)
	d.must(tl.to(t.Context(), ends))
	longest, last := map[string]int{}, map[string]int{}
	for _, r := range tl.records {
		longest[string(r.key)] = max(longest[string(r.key)], len(r.value))
		last[string(r.key)] = len(r.value)
	}
	for _, n := range names {
		if last[n] < longest[n] {
			return false
		}
	}
	return true
}
