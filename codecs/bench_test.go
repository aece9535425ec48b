package codecs

import (
	"encoding/json"
	"testing"
	"time"
)

var benchEvents = []struct{ name, data string }{
	{"snake", `{"event_type":"departed","aircraft_id":1881,"registration_number":"N619AA","timestamp":"2013-01-01T10:42:09.061000","flight":"AA1141"}`},
	{"camel", `{"eventType":"departed","aircraftId":178,"registrationNumber":"N14228","timestamp":"2013-01-01T10:17:10.984Z","flight":"UA1545"}`},
	{"python", `{"event_type": "departed", "aircraft_id": 1881, "registration_number": "N619AA", "timestamp": "2013-01-01T10:42:09.061000"}`},
	{"epoch", `{"eventType":"departed","aircraftId":178,"registrationNumber":"N14228","timestamp":1357035430984}`},
	{"payload", `{"event_type":"position","aircraft_id":1881,"registration_number":"N619AA","timestamp":"2013-01-01T10:42:09.061Z","position":{"lat":40.6413,"lon":-73.7781,"alt":[35000,"ft"],"ok":true},"note":"über dem Atlantik","crew":["A. B.","C. \"D\" E."]}`},
}

func BenchmarkDecode(b *testing.B) {
	for _, bb := range benchEvents {
		b.Run(bb.name, func(b *testing.B) {
			var d Decoder
			var e Event
			data := []byte(bb.data)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(&e, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecodeStandard is the measure of the one above: the same event by encoding/json.
func BenchmarkDecodeStandard(b *testing.B) {
	data := []byte(benchEvents[1].data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var e struct {
			Type         string    `json:"eventType"`
			AircraftID   int64     `json:"aircraftId"`
			Registration string    `json:"registrationNumber"`
			Time         time.Time `json:"timestamp"`
		}
		if err := json.Unmarshal(data, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEventAppendJSON(b *testing.B) {
	var e Event
	data := []byte(benchEvents[1].data)
	if err := new(Decoder).Decode(&e, data); err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.SetBytes(int64(len(e.AppendJSON(nil, nil))))
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0], nil)
	}
}

func BenchmarkAggregateAdd(b *testing.B) {
	for _, types := range []int{1, 3, MaxTypes} {
		b.Run(string(appendInt(nil, int64(types)))+"types", func(b *testing.B) {
			var a Aggregate
			var names Interner
			events := make([]*Event, types)
			for i := range events {
				events[i] = event(int64(i), "type-"+string(appendInt(nil, int64(i))), 1)
				a.Add(events[i], &names)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				a.Add(events[i], &names)
				if i++; i == types {
					i = 0
				}
			}
		})
	}
}

func BenchmarkAggregateMerge(b *testing.B) {
	x, y := goldenAggregate(), goldenAggregate()
	b.ReportAllocs()
	for b.Loop() {
		x.Merge(&y)
	}
}

func BenchmarkWindowAppend(b *testing.B) {
	w := goldenWindow()
	var key, value []byte
	b.SetBytes(int64(len(w.AppendJSON(nil))))
	b.ReportAllocs()
	for b.Loop() {
		key, value = w.AppendKey(key[:0]), w.AppendJSON(value[:0])
	}
}

func BenchmarkWindowParse(b *testing.B) {
	g := goldenWindow()
	data := g.AppendJSON(nil)
	var w Window
	var names Interner
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Parse(data, &names); err != nil {
			b.Fatal(err)
		}
	}
}

var benchStates = []struct {
	name   string
	slices int64
}{{"tumbling", 1}, {"hopping24", 24}}

func BenchmarkStateAppend(b *testing.B) {
	for _, bb := range benchStates {
		b.Run(bb.name, func(b *testing.B) {
			a := goldenAggregate()
			var w StateWriter
			var state, record []byte
			sources := []Source{{Partition: 3, Offset: 1842}}
			b.ReportAllocs()
			for b.Loop() {
				w.Reset(state[:0])
				appendTestState(&w, &a, bb.slices)
				state = w.Bytes()
				e := Envelope{Sources: sources, Purged: 1357034399999, Due: 1357038000000, State: state}
				record = e.Append(record[:0])
			}
			b.SetBytes(int64(len(record)))
		})
	}
}

func BenchmarkStateParse(b *testing.B) {
	for _, bb := range benchStates {
		b.Run(bb.name, func(b *testing.B) {
			a := goldenAggregate()
			var w StateWriter
			appendTestState(&w, &a, bb.slices)
			in := Envelope{Sources: []Source{{3, 1842}}, Purged: 1357034399999, Due: 1357038000000, State: w.Bytes()}
			data := in.Append(nil)
			var e Envelope
			var names Interner
			var v once
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Parse(data); err != nil {
					b.Fatal(err)
				}
				if err := ParseState(e.State, &names, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
