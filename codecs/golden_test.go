package codecs

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

var rewrite = flag.Bool("rewrite", false, "accept what the codecs write now as the golden files")

// golden compares what was written with testdata/name, or makes it so.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -rewrite accepts)", err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s changed on the wire (go test -rewrite accepts):\n want %s\n  got %s", name, want, got)
	}
}

// fixture is a golden file that is only read.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b, []byte("\n"))
}

// goldenWindow is a window with everything in it.
func goldenWindow() Window {
	return Window{
		Registration: "N14228", Definition: "tumbling:1h", Kind: "tumbling",
		Start: 1357034400000, End: 1357038000000, Count: 4,
		Aggregate: goldenAggregate(), Revision: 9, Final: true,
	}
}

func goldenAggregate() Aggregate {
	return Aggregate{
		First: 1357035430984, Last: 1357037999999, LastType: "landed", AircraftID: 178, HasAircraftID: true,
		Types: []TypeCount{{"cancelled", 1}, {"departed", 2}, {"landed", 1}},
	}
}

func TestGoldenEvents(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, name := range []string{"event_snake_case.json", "event_camel_case.json"} {
		data := fixture(t, name)
		var e Event
		if err := new(Decoder).Decode(&e, data); err != nil {
			t.Fatal(err)
		}
		payload, err := Payload(data)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(e.AppendJSON(nil, payload), '\n'))
	}
	golden(t, "event_canonical.jsonl", out.Bytes())
}

func TestGoldenWindow(t *testing.T) {
	t.Parallel()
	final := goldenWindow()
	withdrawn := Window{
		Registration: "RA-12345", Definition: "session:30m", Kind: "session", Start: -1800000, Revision: 3, Withdrawn: true,
	}
	var keys, values []byte
	for _, w := range []*Window{&final, &withdrawn} {
		keys = append(w.AppendKey(keys), '\n')
		values = append(w.AppendJSON(values), '\n')
	}
	golden(t, "window_key.txt", keys)
	golden(t, "window.jsonl", values)
}

// goldenRecord is a group-table record with everything in it.
func goldenRecord() []byte {
	a := goldenAggregate()
	e := Envelope{
		Sources:   []Source{{0, 1842}, {3, 0}},
		Purged:    1357034399999,
		Undecided: []Source{{3, 17}},
		Due:       1357038000000,
		State: writeState(&state{
			total: 7, summary: a,
			definitions: []definitionState{
				{
					name:      "session:30m",
					slices:    []sliceState{{Slice{Start: 1357035430984, End: 1357039799999, Count: 4}, a}},
					withdrawn: []Withdrawn{{1357035430984, 1357037230984, 3}},
				},
				{name: "tumbling:1h", slices: []sliceState{
					{Slice{Start: -3600000, End: 0, Count: 1, Closed: true}, Aggregate{First: -1, Last: -1, LastType: "other", Types: []TypeCount{{"other", 1}}}},
					{Slice{Start: 1357034400000, End: 1357038000000, Count: 4}, a},
				}},
			},
		}),
	}
	return e.Append(nil)
}

func TestGoldenState(t *testing.T) {
	t.Parallel()
	record := goldenRecord()
	golden(t, "state.hex", hexLines(record))
	msg := dynamicpb.NewMessage(message(t, "ActivityRecord"))
	if err := proto.Unmarshal(record, msg); err != nil {
		t.Fatal(err)
	}
	if *rewrite {
		// prototext varies its blanks on purpose; one form is kept.
		out, err := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "state.prototext", []byte(strings.ReplaceAll(string(out), ":  ", ": ")))
	}
	want := dynamicpb.NewMessage(msg.Descriptor())
	if err := prototext.Unmarshal(fixture(t, "state.prototext"), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(want, msg) {
		t.Errorf("state.prototext says\n%v\nthe record\n%v", want, msg)
	}
}

// hexLines prints bytes as hex, 32 to a line.
func hexLines(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := min(32, len(b))
		out = append(hex.AppendEncode(out, b[:n]), '\n')
		b = b[n:]
	}
	return out
}

func TestGoldenLetter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, l := range []Letter{
		{
			Reason: "late", Detail: "the watermark was 2013-01-01T12:00:00.000Z", Topic: "aircraft-events", Partition: 3, Offset: 1842,
			EventTime: 1357035430984, Registration: "N14228", Key: []byte("N14228"), Value: []byte(`{"event_type":"departed"}`),
		},
		{
			Reason: ReasonInvalidUTF8, Detail: "not \xff UTF-8", Topic: "aircraft-events", Partition: 0, Offset: 0,
			EventTime: NoTime, Value: []byte("{\"event_type\":\"\xff\"}"),
		},
	} {
		for _, h := range l.Headers() {
			fmt.Fprintf(&out, "%s: %s\n", h.Key, h.Value)
		}
		fmt.Fprintf(&out, "key %q\nvalue %q\n\n", l.Key, l.Value)
	}
	golden(t, "letter.txt", out.Bytes())
}
