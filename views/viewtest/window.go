package viewtest

import (
	"math/rand/v2"

	"klgstream.dev/codecs"
)

// AnyWindow is a revision of one of a few windows of the registrations, with contents that owe nothing to those before: for stores that
// keep totals, which any revision has to leave right.
func AnyWindow(r *rand.Rand, registrations, lastTypes []string) codecs.Window {
	definition := []struct {
		name, kind  string
		slide, size int64 // minutes
	}{
		{"tumbling:1h", "tumbling", 60, 60},
		{"tumbling:15m", "tumbling", 15, 15},
		{"tumbling:1d", "tumbling", 1440, 1440},
		{"session:30m", "session", 10, 40},
		{"hopping:2h/1h", "hopping", 60, 120},
		{"tumbling:25h", "tumbling", 1500, 1500},
	}[r.IntN(6)]
	w := codecs.Window{
		Registration: registrations[r.IntN(len(registrations))], Definition: definition.name, Kind: definition.kind,
		Start: (r.Int64N(3*1440/definition.slide) - 1440/definition.slide) * definition.slide * 60_000, Revision: r.Int64N(50),
		Withdrawn: r.IntN(5) == 0, Final: r.IntN(2) == 0,
	}
	w.End = w.Start + definition.size*60_000
	if w.Count = r.Int64N(4); w.Count > 0 {
		w.First = w.Start + r.Int64N(5)
		w.Last = w.First + r.Int64N(5)
		w.Types = []codecs.TypeCount{{Type: "landed", Count: w.Count}}
		w.LastType, w.HasAircraftID, w.AircraftID = lastTypes[r.IntN(len(lastTypes))], r.IntN(2) == 0, r.Int64N(3)
	}
	return w
}
