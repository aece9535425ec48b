package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"klgstream.dev/processors/engine"
)

// Hostile producers, all at once: one partition's clock is years ahead, one is flooded with registrations nobody has seen, one
// has a single aircraft with all the traffic, and every one begins in the year 1. What may be counted is counted exactly, the rest
// is kept with its reason, and no partition keeps more aircraft than it may.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	w := Workload{Seed: 3, Partitions: 3, Brokers: 1, Keys: 1, MaxKeys: 40, Skew: 24 * time.Hour}
	d := newDrama(t, w)
	d.must(d.crew.start(0))
	d.must(d.crew.start(1))
	put := func(p int32, name string, at time.Time) record {
		return record{p, []byte(name), d.source.event(name, at, 1)}
	}
	day := epoch.Add(12 * time.Hour)
	var first []record
	for p, name := range d.source.settlers {
		first = append(first, put(int32(p), name, time.Date(1, 1, 1, 0, 30, p, 0, time.UTC)))
	}
	d.must(d.publisher.publish(t.Context(), first))
	for round := range 3 {
		var records []record
		for i := range 400 {
			records = append(records,
				put(0, d.source.settlers[0], day.Add(time.Duration(i)*time.Second)),
				put(1, d.source.settlers[1], []time.Time{day, day.AddDate(10, 0, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}[i%3]),
				put(2, d.source.find(fmt.Sprintf("H%d-%d", round, i), func(home int32) bool { return home == 2 }), day))
		}
		d.must(d.publisher.publish(t.Context(), records))
		if round == 1 {
			d.crew.kill(0) // what is kept, and what is not, must be the same after a takeover
		}
	}
	d.must(d.publisher.publish(t.Context(), d.source.flush()))
	d.must(d.readTruth(t.Context()))
	d.truth.condemn(d.definitions, w.MaxKeys)
	if n := len(d.truth.dead); n != 3*266+3*400-(w.MaxKeys-1) { // of the clock, and of the flood
		t.Fatalf("%d events are to be dead letters", n)
	}
	wrong, err := d.settle(t.Context())
	d.must(err)
	for _, v := range wrong[:min(5, len(wrong))] {
		t.Error(v)
	}
	tl, err := newTail(connecting(d.stage.Addrs()), d.round.Workload.table())
	d.must(err)
	defer tl.close()
	ends, err := d.reader.ends(t.Context(), d.round.Workload.table())
	d.must(err)
	d.must(tl.to(t.Context(), ends))
	kept := make(map[string]bool)
	for _, r := range tl.records {
		kept[string(r.key)] = true
	}
	if len(kept) != 2+w.MaxKeys {
		t.Errorf("the table holds %d aircraft, want %d", len(kept), 2+w.MaxKeys)
	}
}

// condemn makes dead letters of the events that lie ahead of today and of those of keys beyond so many in a partition, in the order of the log.
func (t *Truth) condemn(definitions []definition, maxKeys int) {
	keys := make(map[int32]map[string]bool)
	t.events = slices.DeleteFunc(t.events, func(e event) bool {
		own := keys[e.at.partition]
		if own == nil {
			own = make(map[string]bool)
			keys[e.at.partition] = own
		}
		switch {
		case e.time > epoch.AddDate(5, 0, 0).UnixMilli():
			t.dead[e.at] = engine.ReasonFuture
		case !own[e.registration] && len(own) >= maxKeys:
			t.dead[e.at] = engine.ReasonKeys
		default:
			own[e.registration] = true
			return false
		}
		return true
	})
	t.windows = tallies(t.events, definitions)
}
