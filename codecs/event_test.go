package codecs

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// doc is an event with one member replaced or added: the way the tables below name their inputs.
func doc(member string) string {
	members := map[string]string{
		"event_type": `"created"`, "aircraft_id": `123`, "registration_number": `"RA-12345"`, "timestamp": `"2026-02-08T14:18:31.123Z"`,
	}
	name, value, _ := strings.Cut(member, "=")
	if value == "" {
		delete(members, name)
	} else {
		members[name] = value
	}
	var out []string
	for _, name := range []string{"event_type", "aircraft_id", "registration_number", "timestamp", "extra"} {
		if v, ok := members[name]; ok {
			out = append(out, strconv.Quote(name)+":"+v)
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// badEvents are events to refuse, each with the field and the reason to name.
var badEvents = []struct{ name, data, field, reason string }{
	{"nothing", "", "", ReasonNullValue},
	{"blank", " \n", "", ReasonNotJSON},
	{"truncated", doc("")[:60], "", ReasonNotJSON},
	{"truncated behind a name", `{"event_type"`, "", ReasonNotJSON},
	{"truncated behind a colon", `{"event_type":`, "", ReasonNotJSON},
	{"truncated in a name", `{"event_ty`, "", ReasonNotJSON},
	{"truncated behind a value", `{"event_type":"a"`, "", ReasonNotJSON},
	{"truncated object", `{`, "", ReasonNotJSON},
	{"2 MiB", doc(`extra="` + strings.Repeat("x", 2<<20) + `"`), "", ReasonTooLarge},
	{"1 byte too much", doc(`extra="` + strings.Repeat("x", MaxEventBytes-len(doc(`extra=""`))+1) + `"`), "", ReasonTooLarge},
	{"deep nesting", doc(`extra=` + strings.Repeat("[", 100_000)), "", ReasonTooDeep},
	{"one level too deep", doc(`extra=` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)), "", ReasonTooDeep},
	{"deep objects", doc(`extra=` + strings.Repeat(`{"a":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth)), "", ReasonTooDeep},
	{"null", `null`, "", ReasonWrongType},
	{"array", ` [1, {"a": "b"}, true, false, null, -0.5e+7] `, "", ReasonWrongType},
	{"string", `"event"`, "", ReasonWrongType},
	{"broken array", `[1,]`, "", ReasonNotJSON},
	{"two documents", `{} {}`, "", ReasonNotJSON},
	{"two numbers", `1 2`, "", ReasonNotJSON},
	{"trailing text", doc("") + "x", "", ReasonNotJSON},
	{"trailing comma", `{"event_type":"a",}`, "", ReasonNotJSON},
	{"no comma", `{"a":1 "b":2}`, "", ReasonNotJSON},
	{"no colon", `{"a" 1}`, "", ReasonNotJSON},
	{"name without quotes", `{event_type:"a"}`, "", ReasonNotJSON},
	{"single quotes", `{'event_type':'a'}`, "", ReasonNotJSON},
	{"byte order mark", "\xef\xbb\xbf" + doc(""), "", ReasonNotJSON},
	{"NaN", doc(`extra=NaN`), "", ReasonNotJSON},
	{"NaN as an id", doc(`aircraft_id=NaN`), "", ReasonNotJSON},
	{"infinity as a time", doc(`timestamp=-Infinity`), "", ReasonNotJSON},
	{"leading zero", doc(`aircraft_id=0123`), "", ReasonNotJSON},
	{"plus", doc(`aircraft_id=+1`), "", ReasonNotJSON},
	{"hexadecimal", doc(`aircraft_id=0x1F`), "", ReasonNotJSON},
	{"point without digits", doc(`extra=1.`), "", ReasonNotJSON},
	{"exponent without digits", doc(`extra=1e+`), "", ReasonNotJSON},
	{"minus without digits", doc(`extra=-`), "", ReasonNotJSON},
	{"misspelt literal", doc(`extra=nul`), "", ReasonNotJSON},
	{"literal with a tail", doc(`event_type=nulls`), "", ReasonNotJSON},
	{"raw control character", doc("extra=\"a\tb\""), "", ReasonNotJSON},
	{"raw NUL", doc("event_type=\"a\x00b\""), "", ReasonNotJSON},
	{"unknown escape", doc(`extra="\x41"`), "", ReasonNotJSON},
	{"short escape", doc(`event_type="\u12"`), "", ReasonNotJSON},
	{"escape with a letter", doc(`extra="\u12G4"`), "", ReasonNotJSON},
	{"lone backslash", `{"event_type":"\`, "", ReasonNotJSON},
	{"invalid UTF-8 in a type", doc("event_type=\"a\xff\""), "", ReasonInvalidUTF8},
	{"invalid UTF-8 in a name", "{\"\xc0\xaf\":1}", "", ReasonInvalidUTF8},
	{"invalid UTF-8 in passing", doc("extra=[\"\xed\xa0\x80\"]"), "", ReasonInvalidUTF8},
	{"invalid UTF-8 outside strings", doc("extra=\xff"), "", ReasonNotJSON},
	{"truncated UTF-8", "{\"event_type\":\"\xe2\x82", "", ReasonInvalidUTF8},

	{"no type", doc("event_type"), "event_type", ReasonMissing},
	{"null type", doc("event_type=null"), "event_type", ReasonMissing},
	{"empty type", doc(`event_type=""`), "event_type", ReasonEmpty},
	{"number as type", doc("event_type=7"), "event_type", ReasonWrongType},
	{"bad number as type", doc("event_type=7."), "", ReasonNotJSON},
	{"object as type", doc(`event_type={"a":1}`), "event_type", ReasonWrongType},
	{"type of 65 bytes", doc(`event_type="` + strings.Repeat("x", 65) + `"`), "event_type", ReasonTooLong},
	{"type of 33 runes of 2 bytes", doc(`event_type="` + strings.Repeat("ü", 33) + `"`), "event_type", ReasonTooLong},
	{"NUL in a type", doc(`event_type="a\u0000b"`), "event_type", ReasonBadCharacter},
	{"line end in a type", doc(`event_type="a\nb"`), "event_type", ReasonBadCharacter},

	{"no registration", doc("registration_number"), "registration_number", ReasonMissing},
	{"null registration", doc("registration_number=null"), "registration_number", ReasonMissing},
	{"empty registration", doc(`registration_number=""`), "registration_number", ReasonEmpty},
	{"blank registration", doc(`registration_number="  "`), "registration_number", ReasonEmpty},
	{"blank registration, escaped", doc(`registration_number="\t\u00a0\u2003"`), "registration_number", ReasonEmpty},
	{"boolean as registration", doc("registration_number=true"), "registration_number", ReasonWrongType},
	{"array as registration", doc(`registration_number=["N1"]`), "registration_number", ReasonWrongType},
	{"registration of 33 bytes", doc(`registration_number="` + strings.Repeat("N", 33) + `"`), "registration_number", ReasonTooLong},
	{"registration too long in upper case", doc(`registration_number="` + strings.Repeat("ɐ", 16) + `"`), "registration_number", ReasonTooLong},
	{"NUL in a registration", doc(`registration_number="N\u0000"`), "registration_number", ReasonBadCharacter},

	{"no time", doc("timestamp"), "timestamp", ReasonMissing},
	{"null time", doc("timestamp=null"), "timestamp", ReasonMissing},
	{"empty time", doc(`timestamp=""`), "timestamp", ReasonBadTimestamp},
	{"boolean as time", doc(`timestamp=false`), "timestamp", ReasonWrongType},
	{"object as time", doc(`timestamp={}`), "timestamp", ReasonWrongType},
	{"fractional epoch", doc(`timestamp=1770560311.123`), "timestamp", ReasonBadTimestamp},
	{"epoch with an exponent", doc(`timestamp=1e9`), "timestamp", ReasonBadTimestamp},
	{"epoch beyond 64 bits", doc(`timestamp=99999999999999999999`), "timestamp", ReasonBadTimestamp},
	{"epoch before year 1", doc(`timestamp=-99999999999`), "timestamp", ReasonBadTimestamp},
	{"year 0", doc(`timestamp="0000-12-31T23:59:59Z"`), "timestamp", ReasonBadTimestamp},
	{"year 10000 by its offset", doc(`timestamp="9999-12-31T23:59:59-00:01"`), "timestamp", ReasonBadTimestamp},
	{"year 0 by its offset", doc(`timestamp="0001-01-01T00:00:00+00:01"`), "timestamp", ReasonBadTimestamp},

	{"id beyond 64 bits", doc(`aircraft_id=9223372036854775808`), "aircraft_id", ReasonOutOfRange},
	{"id far beyond 64 bits", doc(`aircraft_id=-123456789012345678901234567890`), "aircraft_id", ReasonOutOfRange},
	{"quoted id beyond 64 bits", doc(`aircraft_id="-9223372036854775809"`), "aircraft_id", ReasonOutOfRange},
	{"fractional id", doc(`aircraft_id=1.0`), "aircraft_id", ReasonWrongType},
	{"id with an exponent", doc(`aircraft_id=1E3`), "aircraft_id", ReasonWrongType},
	{"word as id", doc(`aircraft_id="A320"`), "aircraft_id", ReasonWrongType},
	{"empty id", doc(`aircraft_id=""`), "aircraft_id", ReasonWrongType},
	{"minus as id", doc(`aircraft_id="-"`), "aircraft_id", ReasonWrongType},
	{"boolean as id", doc(`aircraft_id=true`), "aircraft_id", ReasonWrongType},

	{"type twice", `{"event_type":"a","event_type":"a"}`, "event_type", ReasonDuplicateField},
	{"type in both spellings", `{"event_type":"a","eventType":"a"}`, "event_type", ReasonDuplicateField},
	{"id in both spellings, null", `{"aircraft_id":null,"aircraftId":null}`, "aircraft_id", ReasonDuplicateField},
	{"registration in both spellings", `{"registrationNumber":"N1","registration_number":"N1"}`, "registration_number", ReasonDuplicateField},
	{"time twice, once escaped", `{"timestamp":1,"\u0074imestamp":1}`, "timestamp", ReasonDuplicateField},
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range badEvents {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var e Event
			err := new(Decoder).Decode(&e, []byte(tt.data))
			if got := reasonOf(t, err); got != tt.reason {
				t.Fatalf("reason %q, want %q: %v", got, tt.reason, err)
			}
			var f *FieldError
			if errors.As(err, &f); f.Field != tt.field {
				t.Errorf("field %q, want %q", f.Field, tt.field)
			}
			if _, sound := oracle([]byte(tt.data)); sound {
				t.Error("the model accepts it")
			}
		})
	}
}

func TestDecodeNil(t *testing.T) {
	t.Parallel()
	if got := reasonOf(t, new(Decoder).Decode(new(Event), nil)); got != ReasonNullValue {
		t.Errorf("reason %q", got)
	}
}

// goodEvents are events to accept that are odd in one way or another.
var goodEvents = []struct {
	name, data string
	want       Event
}{
	{"plain", doc(""), Event{}},
	{"white space all over", "\r\n\t { \"event_type\" :\n\"created\" , \"aircraft_id\":\t123 ,\"registration_number\" : \"RA-12345\",\"timestamp\" : \"2026-02-08T14:18:31.123Z\" } \n", Event{}},
	{"lower case", doc(`registration_number="ra-12345"`), Event{}},
	{"blanks", doc(`registration_number=" RA-12345\t\n"`), Event{}},
	{"blank before", doc(`registration_number=" N1"`), Event{Registration: []byte("N1")}},
	{"blank behind", doc(`registration_number="N1 "`), Event{Registration: []byte("N1")}},
	{"blank inside", doc(`registration_number="N 1"`), Event{Registration: []byte("N 1")}},
	{"one letter", doc(`registration_number="n"`), Event{Registration: []byte("N")}},
	{"Unicode blanks", doc("registration_number=\"\u00a0\u2003ra-12345\u3000\""), Event{}},
	{"escaped", doc(`registration_number="\u0052A\u002d12345"`), Event{}},
	{"beyond ASCII", doc(`registration_number="ñ-1"`), Event{Registration: []byte("Ñ-1")}},
	{"longest", doc(`registration_number="  ` + strings.Repeat("n", 32) + `  "`), Event{Registration: bytes.Repeat([]byte("N"), 32)}},
	{"longest type", doc(`event_type="` + strings.Repeat("x", 64) + `"`), Event{Type: bytes.Repeat([]byte("x"), 64)}},
	{"escaped type", doc(`event_type="a\/b\"c\\d\u20ac\ud83d\ude00"`), Event{Type: []byte(`a/b"c\d€😀`)}},
	{"type kept as it is", doc(`event_type=" Created "`), Event{Type: []byte(" Created ")}},
	{"half of a pair", doc(`event_type="\ud83d-"`), Event{Type: []byte("\uFFFD-")}},
	{"halves of pairs", doc(`event_type="\ud83d\ud83d\ude00\ude00"`), Event{Type: []byte("\uFFFD😀\uFFFD")}},
	{"half of a pair before an escape", doc(`event_type="\ud83d\u0041"`), Event{Type: []byte("\uFFFDA")}},
	{"half of a pair before a text like the other", doc(`event_type="\ud83dxude00"`), Event{Type: []byte("\uFFFDxude00")}},
	{"half of a pair before another escape", doc(`event_type="\ud83d\\de00"`), Event{Type: []byte("\uFFFD\\de00")}},
	{"escaped in all ways", doc(`extra="\b\f\n\r\t\u00e9\u00E9"`), Event{}},
	{"escaped in capitals", doc(`event_type="\u00AF\u00Fa"`), Event{Type: []byte("\u00af\u00fa")}},
	{"id as a string", doc(`aircraft_id="0123"`), Event{}},
	{"negative id", doc(`aircraft_id=-9223372036854775808`), Event{AircraftID: -1 << 63}},
	{"greatest id", doc(`aircraft_id=9223372036854775807`), Event{AircraftID: 1<<63 - 1}},
	{"id of 18 digits", doc(`aircraft_id=999999999999999999`), Event{AircraftID: 999999999999999999}},
	{"minus zero", doc(`aircraft_id=-0`), Event{AircraftID: -0}},
	{"zero", doc(`aircraft_id=0`), Event{}},
	{"epoch", doc(`timestamp=1770560311`), Event{Time: 1770560311000}},
	{"unknown members twice", doc(`extra=1,"extra":{"extra":[]},"":{}`), Event{}},
	{"deepest", doc(`extra=` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)), Event{}},
	{"largest", doc(`extra="` + strings.Repeat("x", MaxEventBytes-len(doc(`extra=""`))) + `"`), Event{}},
	{"long name with escapes", doc(`extra=1,"\u0074` + strings.Repeat("x", 8000) + `":1`), Event{}},
	{"names that begin like ours", doc(`extra=1,"timestamps":1,"event_types":2,"aircraft":3,"registration":4,"eventTyp":5,"timestam\u0070x":6`), Event{}},
	{"names in another case", doc(`extra=1,"EVENT_TYPE":1,"Timestamp":2,"AIRCRAFTID":3`), Event{}},
}

func TestDecodeAccepts(t *testing.T) {
	t.Parallel()
	for _, tt := range goodEvents {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var e Event
			if err := new(Decoder).Decode(&e, []byte(tt.data)); err != nil {
				t.Fatal(err)
			}
			if want := tt.want.Registration; want != nil && string(want) != string(e.Registration) {
				t.Errorf("registration %q, want %q", e.Registration, want)
			}
			if want := tt.want.Type; want != nil && string(want) != string(e.Type) {
				t.Errorf("type %q, want %q", e.Type, want)
			}
			if want := tt.want.AircraftID; want != 0 && want != e.AircraftID {
				t.Errorf("id %d, want %d", e.AircraftID, want)
			}
			if want := tt.want.Time; want != 0 && want != e.Time {
				t.Errorf("time %d, want %d", e.Time, want)
			}
			checkDecode(t, []byte(tt.data))
		})
	}
}

func TestDecodeWithoutID(t *testing.T) {
	t.Parallel()
	for _, data := range []string{doc("aircraft_id"), doc("aircraft_id=null")} {
		e := Event{AircraftID: 7, HasAircraftID: true}
		if err := new(Decoder).Decode(&e, []byte(data)); err != nil || e.HasAircraftID || e.AircraftID != 0 {
			t.Errorf("%s: id %d %v, %v", data, e.AircraftID, e.HasAircraftID, err)
		}
	}
}

// A part of an event is no event, and no cut is misread.
func TestDecodePrefixes(t *testing.T) {
	t.Parallel()
	for _, whole := range []string{
		string(fixture(t, "event_snake_case.json")), string(fixture(t, "event_camel_case.json")),
		doc(`extra=[-1.5e+7,true,false,null,{"a":{},"b":[]},"\u00e9ü",0]`), `{"timestamp":-1`, `[1e+2]`, `-0.5E-1 `,
	} {
		for n := range whole {
			if _, sound := oracle([]byte(whole[:n])); sound {
				t.Fatalf("%q is an event", whole[:n])
			}
			checkDecode(t, []byte(whole[:n]))
		}
	}
}

// A hostile event must not leave its memory behind (C1), and what follows must not see it.
func TestDecodeLetsScratchGo(t *testing.T) {
	t.Parallel()
	var e Event
	var d Decoder
	hostile := doc(`registration_number="\t` + strings.Repeat(" ", 1<<19) + `n1"`)
	if err := d.Decode(&e, []byte(hostile)); err != nil || string(e.Registration) != "N1" {
		t.Fatal(err, e.Registration)
	}
	if err := d.Decode(&e, []byte(doc(`registration_number="n2"`))); err != nil || string(e.Registration) != "N2" {
		t.Fatal(err, e.Registration)
	}
	if cap(e.scratch) > keptScratch {
		t.Errorf("%d bytes of scratch are kept", cap(e.scratch))
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	var d Decoder
	var e Event
	for _, data := range [][]byte{
		fixture(t, "event_snake_case.json"), fixture(t, "event_camel_case.json"),
		[]byte(doc(`registration_number="ra\u002d1"`)), []byte(doc("timestamp=1770560311")),
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := d.Decode(&e, data); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations for %s", n, data)
		}
	}
}

// Upper case is reached in one step: what is normal stays as it is.
func TestUpperCaseIsStable(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if up := unicode.ToUpper(r); unicode.ToUpper(up) != up {
			t.Errorf("%U becomes %U and then %U", r, up, unicode.ToUpper(up))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, tt := range badEvents {
		f.Add([]byte(tt.data))
	}
	for _, tt := range goodEvents {
		f.Add([]byte(tt.data))
	}
	for _, tt := range timestamps {
		f.Add([]byte(doc("timestamp=" + tt.in)))
	}
	for _, name := range []string{"event_snake_case.json", "event_camel_case.json"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkDecode(t, data) })
}

// checkDecode holds Decode, AppendJSON and Payload to the model for one document.
func checkDecode(t *testing.T, data []byte) {
	t.Helper()
	want, sound := oracle(data)
	var e Event
	err := new(Decoder).Decode(&e, data)
	reasonOf(t, err)
	if sound != (err == nil) {
		t.Fatalf("the model says %v: %v\n%q", sound, err, data)
	}
	if err != nil {
		return
	}
	same(t, &want, &e)
	payload, err := Payload(data)
	if err != nil {
		t.Fatal(err)
	}
	checkPayload(t, data, payload)
	canonical := e.AppendJSON(nil, payload)
	if len(canonical) > MaxEventBytes {
		return // an escape or two more than the original had
	}
	var again Event
	if err := new(Decoder).Decode(&again, canonical); err != nil {
		t.Fatalf("cannot read %s: %v", canonical, err)
	}
	same(t, &e, &again)
	if twice := again.AppendJSON(nil, payload); !bytes.Equal(canonical, twice) {
		t.Errorf("written %s\n then %s", canonical, twice)
	}
}

// same compares what two events say.
func same(t *testing.T, want, got *Event) {
	t.Helper()
	if string(want.Registration) != string(got.Registration) || string(want.Type) != string(got.Type) ||
		want.Time != got.Time || want.AircraftID != got.AircraftID || want.HasAircraftID != got.HasAircraftID {
		t.Errorf("want %q %q %d %d %v\n got %q %q %d %d %v",
			want.Registration, want.Type, want.Time, want.AircraftID, want.HasAircraftID,
			got.Registration, got.Type, got.Time, got.AircraftID, got.HasAircraftID)
	}
}

// checkPayload compares a payload with the unknown members the model finds.
func checkPayload(t *testing.T, data, payload []byte) {
	t.Helper()
	var want []member
	for _, m := range membersOf(data) {
		if knownAs(m.name) == unknown {
			want = append(want, m)
		}
	}
	if len(want) == 0 {
		if payload != nil {
			t.Errorf("payload of nothing: %s", payload)
		}
		return
	}
	if !json.Valid(payload) {
		t.Fatalf("payload is no JSON: %s", payload)
	}
	equal(t, want, membersOf(payload))
}

// The model: the same rules, written with encoding/json, regexp, time and math/big.

type member struct {
	name  string
	value []byte
}

// membersOf lists an object's members in order, repeated ones too; nil if data is not one object.
func membersOf(data []byte) (out []member) {
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil
		}
		out = append(out, member{name.(string), value})
	}
	return out
}

// depthOf is how deep a valid document nests.
func depthOf(data []byte) (deepest int) {
	d := json.NewDecoder(bytes.NewReader(data))
	for depth := 0; ; deepest = max(deepest, depth) {
		switch token, err := d.Token(); {
		case err != nil:
			return deepest
		case token == json.Delim('{') || token == json.Delim('['):
			depth++
		case token == json.Delim('}') || token == json.Delim(']'):
			depth--
		}
	}
}

func knownAs(name string) field {
	switch name {
	case "event_type", "eventType":
		return fieldType
	case "aircraft_id", "aircraftId":
		return fieldAircraft
	case "registration_number", "registrationNumber":
		return fieldRegistration
	case "timestamp":
		return fieldTime
	}
	return unknown
}

func oracle(data []byte) (e Event, sound bool) {
	if len(data) > MaxEventBytes || !json.Valid(data) || !utf8.Valid(data) || depthOf(data) > MaxDepth ||
		bytes.TrimLeft(data, " \t\r\n")[0] != '{' {
		return e, false
	}
	seen := map[field]bool{}
	for _, m := range membersOf(data) {
		f := knownAs(m.name)
		if f != unknown && seen[f] {
			return e, false
		}
		seen[f] = true
		if f != unknown && string(m.value) != "null" && !oracleField(&e, f, m.value) {
			return e, false
		}
	}
	return e, e.timed && e.Type != nil && e.Registration != nil
}

func oracleField(e *Event, f field, value []byte) (ok bool) {
	var s string
	quoted := json.Unmarshal(value, &s) == nil
	switch f {
	case fieldType:
		e.Type = []byte(s)
		return quoted && oracleName(s, 64)
	case fieldRegistration:
		s = strings.ToUpper(strings.TrimSpace(s))
		e.Registration = []byte(s)
		return quoted && oracleName(s, 32)
	case fieldTime:
		e.timed = true
		if quoted {
			e.Time, ok = oracleTime(s, time.UTC)
			return ok
		}
		e.Time, ok = oracleEpoch(string(value))
		return ok
	case fieldAircraft, unknown:
	}
	if quoted {
		value = []byte(s)
	}
	if !regexp.MustCompile(`^-?[0-9]+$`).Match(value) {
		return false
	}
	n, _ := new(big.Int).SetString(string(value), 10)
	e.AircraftID, e.HasAircraftID = n.Int64(), true
	return n.IsInt64()
}

func oracleName(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' })
}

func oracleEpoch(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, false
	}
	b, abs := big.NewInt(n), new(big.Int).Abs(big.NewInt(n))
	below := func(limit int64) bool { return abs.Cmp(big.NewInt(limit)) < 0 }
	ms := new(big.Int)
	switch { // Div of math/big rounds towards minus infinity when the divisor is positive
	case below(1e11):
		ms.Mul(b, big.NewInt(1000))
	case below(1e14):
		ms.Set(b)
	case below(1e17):
		ms.Div(b, big.NewInt(1000))
	default:
		ms.Div(b, big.NewInt(1000000))
	}
	return ms.Int64(), ms.Int64() >= MinTime && ms.Int64() <= MaxTime
}

var civil = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2}(?:\.\d+)?)([zZ]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?$`)

func oracleTime(s string, zone *time.Location) (int64, bool) {
	m := civil.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	var at time.Time
	var err error
	if m[3] == "" {
		at, err = time.ParseInLocation("2006-01-02T15:04:05", m[1]+"T"+m[2], zone)
	} else {
		at, err = time.Parse(time.RFC3339, m[1]+"T"+m[2]+strings.ToUpper(m[3]))
	}
	return at.UnixMilli(), err == nil && at.UnixMilli() >= MinTime && at.UnixMilli() <= MaxTime
}
