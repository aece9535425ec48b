package codecs

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// wire builds messages by hand, also such as this program would not write.
type wire []byte

func (w wire) varint(n protowire.Number, v uint64) wire {
	return protowire.AppendVarint(protowire.AppendTag(slices.Clip(w), n, protowire.VarintType), v)
}

func (w wire) signed(n protowire.Number, v int64) wire { return w.varint(n, protowire.EncodeZigZag(v)) }

func (w wire) bytes(n protowire.Number, b []byte) wire {
	return protowire.AppendBytes(protowire.AppendTag(slices.Clip(w), n, protowire.BytesType), b)
}
func (w wire) text(n protowire.Number, s string) wire { return w.bytes(n, []byte(s)) }
func (w wire) fixed(n protowire.Number) wire {
	return protowire.AppendFixed64(protowire.AppendTag(slices.Clip(w), n, protowire.Fixed64Type), 7)
}

func (w wire) group(n protowire.Number) wire {
	return protowire.AppendGroup(protowire.AppendTag(slices.Clip(w), n, protowire.StartGroupType), n, wire{}.fixed(1))
}

var v1 = wire{}.varint(1, 1)

// badEnvelopes are records to refuse.
var badEnvelopes = []struct {
	name   string
	data   []byte
	reason string
}{
	{"nothing", nil, ReasonBadRecord},
	{"no version", wire{}.text(5, "x"), ReasonBadRecord},
	{"version 0", wire{}.varint(1, 0), ReasonBadRecord},
	{"version 2", wire{}.varint(1, 2), ReasonUnknownVersion},
	{"version beyond 63 bits", wire{}.varint(1, math.MaxUint64), ReasonUnknownVersion},
	{"version as text", wire{}.text(1, "1"), ReasonBadRecord},
	{"JSON", []byte(`{"version":1}`), ReasonBadRecord},
	{"field number 0", append(slices.Clip(v1), 0), ReasonBadRecord},
	{"unfinished varint", append(slices.Clip(v1), 0x18, 0x80), ReasonBadRecord},
	{"length beyond the end", append(slices.Clip(v1), 0x2a, 0x05, 'x'), ReasonBadRecord},
	{"length beyond 63 bits", append(append(slices.Clip(v1), 0x2a), bytes.Repeat([]byte{0xff}, 9)...), ReasonBadRecord},
	{"end of no group", append(slices.Clip(v1), 0x7c), ReasonBadRecord},
	{"unfinished group", v1.group(9)[:5], ReasonBadRecord},
	{"source as a number", v1.varint(2, 1), ReasonBadRecord},
	{"source of text", v1.bytes(2, wire{}.text(1, "x")), ReasonBadRecord},
	{"offset of text", v1.bytes(2, wire{}.text(2, "x")), ReasonBadRecord},
	{"unfinished source", v1.bytes(2, []byte{8}), ReasonBadRecord},
	{"partition beyond 31 bits", v1.bytes(2, wire{}.varint(1, 1<<31)), ReasonBadRecord},
	{"negative partition", v1.bytes(4, wire{}.varint(1, math.MaxUint64)), ReasonBadRecord},
	{"partition twice", v1.bytes(2, wire{}.varint(1, 3)).bytes(2, wire{}.varint(1, 3)), ReasonBadRecord},
	{"partition twice, not in a row", v1.bytes(2, wire{}.varint(1, 3)).bytes(2, nil).bytes(2, wire{}.varint(1, 3)), ReasonBadRecord},
	{"watermark as text", v1.text(3, "x"), ReasonBadRecord},
	{"undecided as a number", v1.varint(4, 1), ReasonBadRecord},
	{"state as a number", v1.varint(5, 1), ReasonBadRecord},
	{"due as text", v1.text(6, "x"), ReasonBadRecord},
	{"too many sources", append(slices.Clip(v1), bytes.Repeat(wire{}.bytes(4, nil), maxSources+1)...), ReasonBadRecord},
}

func TestEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range badEnvelopes {
		if _, err := checkEnvelope(t, tt.data); reasonOf(t, err) != tt.reason {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.reason)
		}
	}
	if got := reasonOf(t, new(Envelope).Parse(make([]byte, MaxStateBytes+1))); got != ReasonTooLarge {
		t.Error(got)
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range []Envelope{
		{Purged: NoTime, Due: NoDue},
		{Purged: 0, Due: 0, State: []byte("state")},
		{
			Sources: []Source{{0, -1}, {1, 0}, {math.MaxInt32, math.MaxInt64}}, Purged: math.MaxInt64,
			Undecided: []Source{{7, 3}, {7, 2}, {0, 0}}, Due: math.MinInt64, State: []byte{0},
		},
		{Sources: []Source{{9, 1}, {3, 2}, {4, 3}}, Purged: -1, Due: 5},
	} {
		got, err := checkEnvelope(t, e.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, e, got)
	}
}

// C5: what a newer writer adds is skipped, whatever its kind; the last of a repeated scalar holds, as protobuf has it.
func TestEnvelopeSkipsTheUnknown(t *testing.T) {
	t.Parallel()
	source := wire{}.varint(2, 5).text(9, "newer").varint(1, 2).fixed(10)
	data := wire{}.group(15).text(100, "newer").text(5, "old").bytes(2, source).signed(3, 1).fixed(16).varint(1, 1).signed(3, -2).text(5, "state")
	got, err := checkEnvelope(t, data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, Envelope{Sources: []Source{{2, 5}}, Purged: -2, Due: NoDue, State: []byte("state")}, got)
}

func TestEnvelopeParseReusesMemory(t *testing.T) {
	var e Envelope
	data := goldenRecord()
	if n := testing.AllocsPerRun(100, func() {
		if err := e.Parse(data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// checkEnvelope holds a record to the rules: what we accept protobuf accepts and understands alike, and it is written
// and read back unchanged.
func checkEnvelope(t *testing.T, data []byte) (Envelope, error) {
	t.Helper()
	var e Envelope
	err := e.Parse(data)
	if reasonOf(t, err) != "" {
		return e, err
	}
	theirs, err := parseProto(t, "GroupTableRecord", data)
	if err != nil {
		t.Fatalf("protobuf refuses %x: %v", data, err)
	}
	equal(t, theirs.envelope(), e)
	var again Envelope
	if err := again.Parse(e.Append(nil)); err != nil {
		t.Fatal(err)
	}
	equal(t, e, again)
	return e, nil
}

func FuzzEnvelope(f *testing.F) {
	f.Add(goldenRecord())
	for _, tt := range badEnvelopes {
		if len(tt.data) < 1000 {
			f.Add(tt.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = checkEnvelope(t, data) })
}

// one builds a state around one slice's content.
func oneSlice(slice wire) wire { return wire{}.bytes(2, wire{}.text(1, "d").bytes(2, slice)) }

// oneAggregate builds a state around one aggregate's content.
func oneAggregate(a wire) wire { return wire{}.bytes(1, wire{}.varint(1, 1).bytes(2, a)) }

var (
	anHour   = wire{}.signed(1, 0).signed(2, 3600000)
	oneType  = wire{}.text(1, "a").varint(2, 1)
	oneEvent = wire{}.signed(1, 5).signed(2, 5).text(3, "a").bytes(5, oneType)
)

// badStates are states to refuse.
var badStates = []struct {
	name string
	data []byte
}{
	{"text", []byte("state")},
	{"unfinished", writeState(&state{total: 300})[:3]},
	{"summary as a number", wire{}.varint(1, 1)},
	{"summary twice", wire{}.bytes(1, nil).bytes(1, nil)},
	{"unfinished summary", wire{}.bytes(1, []byte{8})},
	{"negative total", wire{}.bytes(1, wire{}.varint(1, math.MaxUint64))},
	{"total as text", wire{}.bytes(1, wire{}.text(1, "x"))},
	{"summary's aggregate as a number", wire{}.bytes(1, wire{}.varint(2, 1))},
	{"summary's aggregate twice", wire{}.bytes(1, wire{}.bytes(2, oneEvent).bytes(2, oneEvent))},
	{"definition as a number", wire{}.varint(2, 1)},
	{"definition without a name", wire{}.bytes(2, wire{}.bytes(2, anHour))},
	{"definition with a long name", wire{}.bytes(2, wire{}.text(1, strings.Repeat("x", MaxDefinitionBytes+1)))},
	{"definition in bad UTF-8", wire{}.bytes(2, wire{}.text(1, "\xff"))},
	{"definition named by a number", wire{}.bytes(2, wire{}.varint(1, 1))},
	{"unfinished definition", wire{}.bytes(2, []byte{10})},
	{"slice as a number", wire{}.bytes(2, wire{}.text(1, "d").varint(2, 1))},
	{"unfinished slice", oneSlice(wire{8})},
	{"slice that ends before it starts", oneSlice(wire{}.signed(1, 5).signed(2, 4))},
	{"slice of no time", oneSlice(nil)},
	{"negative count", oneSlice(anHour.varint(3, math.MaxUint64))},
	{"start as text", oneSlice(anHour.text(1, "x"))},
	{"closed as text", oneSlice(anHour.text(5, "x"))},
	{"aggregate as a number", oneSlice(anHour.varint(4, 1))},
	{"aggregate twice", oneSlice(anHour.bytes(4, oneEvent).bytes(4, oneEvent))},
	{"bad aggregate of a slice", oneSlice(anHour.bytes(4, wire{8}))},
	{"withdrawal as a number", wire{}.bytes(2, wire{}.text(1, "d").varint(3, 1))},
	{"unfinished withdrawal", wire{}.bytes(2, wire{}.text(1, "d").bytes(3, []byte{8}))},
	{"withdrawal of no time", wire{}.bytes(2, wire{}.text(1, "d").bytes(3, nil))},
	{"withdrawal with a negative revision", wire{}.bytes(2, wire{}.text(1, "d").bytes(3, anHour.varint(3, math.MaxUint64)))},
	{"revision as text", wire{}.bytes(2, wire{}.text(1, "d").bytes(3, anHour.text(3, "x")))},
	{"unfinished aggregate", oneAggregate(wire{8})},
	{"aggregate without types", oneAggregate(wire{}.signed(1, 5).signed(2, 5).text(3, "a"))},
	{"aggregate without a last type", oneAggregate(wire{}.signed(1, 5).signed(2, 5).bytes(5, oneType))},
	{"last before first", oneAggregate(oneEvent.signed(2, 4))},
	{"first as text", oneAggregate(oneEvent.text(1, "x"))},
	{"last type as a number", oneAggregate(oneEvent.varint(3, 1))},
	{"last type in bad UTF-8", oneAggregate(oneEvent.text(3, "\xff"))},
	{"long last type", oneAggregate(oneEvent.text(3, strings.Repeat("x", 65)))},
	{"empty last type", oneAggregate(oneEvent.text(3, ""))},
	{"type counted 0 times", oneAggregate(oneEvent.bytes(5, wire{}.text(1, "b")))},
	{"type without a name", oneAggregate(oneEvent.bytes(5, wire{}.varint(2, 1)))},
	{"type counted by a text", oneAggregate(oneEvent.bytes(5, oneType.text(2, "x")))},
	{"type named by a number", oneAggregate(oneEvent.bytes(5, wire{}.varint(1, 1)))},
	{"type in bad UTF-8", oneAggregate(oneEvent.bytes(5, wire{}.text(1, "\xff").varint(2, 1)))},
	{"unfinished type", oneAggregate(oneEvent.bytes(5, wire{10}))},
	{"unfinished behind a type", oneAggregate(oneEvent.bytes(5, append(slices.Clip(oneType), 8)))},
	{"unfinished behind an aggregate", oneAggregate(append(slices.Clip(oneEvent), 8))},
	{"unfinished behind a slice", oneSlice(append(slices.Clip(anHour), 8))},
	{"unfinished behind a withdrawal", wire{}.bytes(2, wire{}.text(1, "d").bytes(3, append(slices.Clip(anHour), 8)))},
	{"unfinished behind a summary", wire{}.bytes(1, wire{}.varint(1, 1).varint(9, 1)[:3])},
}

func TestStateRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range badStates {
		if _, err := checkState(t, tt.data); reasonOf(t, err) != ReasonBadRecord {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A name refused once is not taken for a known one the next time.
func TestStateRefusesTwice(t *testing.T) {
	t.Parallel()
	var names Interner
	for range 2 {
		if err := ParseState(oneAggregate(oneEvent.text(3, "\xff")), &names, new(recorder)); reasonOf(t, err) != ReasonBadRecord {
			t.Error(err)
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	t.Parallel()
	var long Aggregate // longer than a one-byte length can tell, at every level
	for i := range 300 {
		long.Add(event(int64(i)-150, strings.Repeat("x", i%MaxTypeBytes+1), -1), nil)
	}
	for _, s := range []state{
		{},
		{total: 1, summary: goldenAggregate()},
		{total: math.MaxInt64, summary: long, definitions: []definitionState{
			{name: "empty"},
			{name: strings.Repeat("ü", MaxDefinitionBytes/2), slices: []sliceState{
				{Slice{Start: math.MinInt64, End: math.MaxInt64, Count: math.MaxInt64, Closed: true}, long},
				{Slice{Start: -1, End: 0}, Aggregate{}},
				{Slice{Start: 0, End: 1, Count: 1}, long},
			}, withdrawn: []Withdrawn{{-2, -1, 0}, {math.MinInt64, math.MaxInt64, math.MaxInt64}}},
		}},
	} {
		got, err := checkState(t, writeState(&s))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, s, got)
	}
}

// Lengths around the one that no longer fits a byte, at each level.
func TestStateOfEveryLength(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 200; n++ {
		s := state{total: 1, definitions: []definitionState{{name: strings.Repeat("x", n)}}}
		for i := range n / MaxTypeBytes {
			s.summary.Add(event(0, strings.Repeat("x", MaxTypeBytes-i), -1), nil)
		}
		s.summary.Add(event(0, strings.Repeat("y", n%MaxTypeBytes+1), -1), nil)
		s.definitions[0].slices = []sliceState{{Slice{Start: 0, End: 1}, s.summary}}
		got, err := checkState(t, writeState(&s))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, s, got)
		envelope := Envelope{State: make([]byte, n)}
		again, err := checkEnvelope(t, envelope.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, envelope, again)
	}
}

// C5: unknown fields are skipped at every level, and a definition's name may follow its slices.
func TestStateSkipsTheUnknown(t *testing.T) {
	t.Parallel()
	typ := oneType.fixed(9)
	aggregate := wire{}.group(9).bytes(5, typ).text(3, "a").signed(2, 5).signed(1, 5).text(10, "newer")
	slice := anHour.text(9, "newer").bytes(4, aggregate).varint(3, 1)
	definition := wire{}.varint(9, 1).bytes(2, slice).bytes(3, anHour.fixed(9)).text(1, "late name")
	data := wire{}.text(9, "newer").bytes(2, definition).bytes(1, wire{}.fixed(9).bytes(2, aggregate).varint(1, 1))
	a := Aggregate{First: 5, Last: 5, LastType: "a", Types: []TypeCount{{"a", 1}}}
	got, err := checkState(t, data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, state{total: 1, summary: a, definitions: []definitionState{{
		name: "late name", slices: []sliceState{{Slice{End: 3600000, Count: 1}, a}}, withdrawn: []Withdrawn{{0, 3600000, 0}},
	}}}, got)
}

// A visitor that wants nothing is spared the rest.
func TestStateVisitorMaySkip(t *testing.T) {
	t.Parallel()
	var e Envelope
	if err := e.Parse(goldenRecord()); err != nil {
		t.Fatal(err)
	}
	r := recorder{skip: true}
	if err := ParseState(e.State, nil, &r); err != nil {
		t.Fatal(err)
	}
	equal(t, state{total: 7, definitions: []definitionState{{name: "session:30m"}, {name: "tumbling:1h"}}}, r.state)
	// Without an interner the strings are just made.
	whole, err := parseState(e.State)
	if err != nil {
		t.Fatal(err)
	}
	r = recorder{}
	if err := ParseState(e.State, nil, &r); err != nil {
		t.Fatal(err)
	}
	equal(t, whole, r.state)
}

// No prefix of a record makes a parser panic, and none passes for the whole.
func TestTruncatedRecords(t *testing.T) {
	t.Parallel()
	whole := goldenRecord()
	var full Envelope
	if err := full.Parse(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if e, err := checkEnvelope(t, whole[:n]); err == nil && e.Due == full.Due {
			t.Errorf("%d of %d bytes pass for the whole", n, len(whole))
		}
	}
	for n := range full.State {
		_, _ = checkState(t, full.State[:n])
	}
}

// once is a visitor into memory that is there already, as a running processor has it.
type once struct {
	a Aggregate
	n int
}

func (o *once) Summary(int64) *Aggregate { o.n++; return &o.a }
func (o *once) Definition([]byte) bool   { o.n++; return true }
func (o *once) Slice(Slice) *Aggregate   { o.n++; return &o.a }
func (o *once) Withdrawn(Withdrawn)      { o.n++ }

func TestStateDoesNotAllocate(t *testing.T) {
	var e Envelope
	if err := e.Parse(goldenRecord()); err != nil {
		t.Fatal(err)
	}
	v, names := once{}, new(Interner)
	if n := testing.AllocsPerRun(100, func() {
		if err := ParseState(e.State, names, &v); err != nil {
			t.Fatal(err)
		}
	}); n != 0 || v.n == 0 {
		t.Errorf("parse: %v allocations, %d visits", n, v.n)
	}
	w, buf := StateWriter{}, make([]byte, 0, 4096)
	a := goldenAggregate()
	if n := testing.AllocsPerRun(100, func() {
		w.Reset(buf)
		appendTestState(&w, &a, 24)
	}); n != 0 {
		t.Errorf("append: %v allocations", n)
	}
}

// appendTestState writes a state of n slices.
func appendTestState(w *StateWriter, a *Aggregate, n int64) {
	w.Summary(7, a)
	w.BeginDefinition("hopping:24h/1h")
	for i := range n {
		w.Slice(Slice{Start: i * 3600000, End: (i + 1) * 3600000, Count: 4}, a)
	}
	w.EndDefinition()
}

// checkState holds a state to the rules: what we accept protobuf accepts and understands alike, and it is written and
// read back unchanged.
func checkState(t *testing.T, data []byte) (state, error) {
	t.Helper()
	s, err := parseState(data)
	if reasonOf(t, err) != "" {
		return s, err
	}
	theirs, err := parseProto(t, "ActivityState", data)
	if err != nil {
		t.Fatalf("protobuf refuses %x: %v", data, err)
	}
	equal(t, theirs.activity(), s)
	again, err := parseState(writeState(&s))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, s, again)
	return s, nil
}

func FuzzActivityState(f *testing.F) {
	var e Envelope
	if err := e.Parse(goldenRecord()); err != nil {
		f.Fatal(err)
	}
	f.Add(e.State)
	for _, tt := range badStates {
		f.Add(tt.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = checkState(t, data) })
}
