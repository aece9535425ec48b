package codecs

import "testing"

var snake = []byte(`{"event_type":"departed","aircraft_id":1881,"registration_number":"N619AA","timestamp":"2013-01-01T10:42:09.061000","flight":"AA1141"}`)
var camel = []byte(`{"eventType":"departed","aircraftId":178,"registrationNumber":"N14228","timestamp":"2013-01-01T10:17:10.984Z","flight":"UA1545"}`)

func TestSmoke(t *testing.T) {
	var d Decoder
	var e Event
	for _, x := range [][]byte{snake, camel} {
		if err := d.Decode(&e, x); err != nil {
			t.Fatal(err)
		}
		p, err := Payload(x)
		t.Logf("%s %v", e.AppendJSON(nil, p), err)
		w := Window{Registration: string(e.Registration), Definition: "tumbling:1h", Kind: "tumbling", Start: 0, End: 3600000, Count: 1}
		w.Add(&e, nil)
		t.Logf("%s %s", w.AppendKey(nil), w.AppendJSON(nil))
		var v Window
		if err := v.UnmarshalJSON(w.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []string{"", "{", `{"event_type":3}`, `{"event_type":"a","eventType":"b"}`, `{"timestamp":"2013-13-01T10:42:09.061000"}`, "{\"a\":\"\xff\"}"} {
		t.Log(d.Decode(&e, []byte(x)))
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, x := range map[string][]byte{"snake": snake, "camel": camel} {
		b.Run(name, func(b *testing.B) {
			var d Decoder
			var e Event
			b.SetBytes(int64(len(x)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(&e, x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
