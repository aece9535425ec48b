package window

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDefinition(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	const day, h, m = 24 * time.Hour, time.Hour, time.Minute
	tests := []struct {
		text, canonical string
		want            Definition
	}{
		{"tumbling:1h", "", Definition{Size: h}},
		{"tumbling:1d+5h", "", Definition{Size: day, Offset: 5 * h}},
		{"tumbling:24h", "tumbling:1d", Definition{Size: day}},
		{"tumbling:25h", "", Definition{Size: 25 * h}},
		{"tumbling:90m", "tumbling:1h30m", Definition{Size: 90 * m}},
		{"tumbling:1d@America/New_York", "", Definition{Size: day, Zone: newYork}},
		{"tumbling:1d+6h@America/New_York", "", Definition{Size: day, Offset: 6 * h, Zone: newYork}},
		{"tumbling:1h@UTC", "tumbling:1h", Definition{Size: h}},
		{"tumbling:10m-4m", "tumbling:10m+6m", Definition{Size: 10 * m, Offset: 6 * m}},
		{"tumbling:10m+16m", "tumbling:10m+6m", Definition{Size: 10 * m, Offset: 6 * m}},
		{"tumbling:10m-16m", "tumbling:10m+4m", Definition{Size: 10 * m, Offset: 4 * m}},
		{"tumbling:10m+10m", "tumbling:10m", Definition{Size: 10 * m}},
		{"hopping:24h/1h", "", Definition{Kind: Hopping, Size: day, Slide: h}},
		{"hopping:1d/1h", "hopping:24h/1h", Definition{Kind: Hopping, Size: day, Slide: h}},
		{"hopping:7d/1d", "", Definition{Kind: Hopping, Size: 7 * day, Slide: day}},
		{"hopping:25h/1d", "hopping:25h/24h", Definition{Kind: Hopping, Size: 25 * h, Slide: day}},
		{"hopping:1h/5m-1m", "hopping:1h/5m+4m", Definition{Kind: Hopping, Size: h, Slide: 5 * m, Offset: 4 * m}},
		{"hopping:5s/10s", "", Definition{Kind: Hopping, Size: 5 * time.Second, Slide: 10 * time.Second}},
		{"hopping:2d/1d@America/New_York", "", Definition{Kind: Hopping, Size: 2 * day, Slide: day, Zone: newYork}},
		{"cumulating:1h/1d", "", Definition{Kind: Cumulating, Size: day, Slide: h}},
		{"cumulating:1h/1d+26h@America/New_York", "cumulating:1h/1d+2h@America/New_York", Definition{Kind: Cumulating, Size: day, Slide: h, Offset: 2 * h, Zone: newYork}},
		{"session:30m", "", Definition{Kind: Session, Gap: 30 * m}},
		{"session:1d2h3m4s5ms", "session:26h3m4s5ms", Definition{Kind: Session, Gap: 26*h + 3*m + 4*time.Second + 5*time.Millisecond}},
		{"tumbling:106751d", "", Definition{Size: 106_751 * day}},
		{"hopping:100000ms/1ms", "hopping:1m40s/1ms", Definition{Kind: Hopping, Size: 100 * time.Second, Slide: time.Millisecond}},
	}
	for _, test := range tests {
		got, err := ParseDefinition(test.text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		zone := got.Zone
		if zone != nil && test.want.Zone != nil && zone.String() == test.want.Zone.String() {
			got.Zone = test.want.Zone
		}
		if got != test.want {
			t.Errorf("%q is %#v, want %#v", test.text, got, test.want)
		}
		canonical := test.canonical
		if canonical == "" {
			canonical = test.text
		}
		if got.String() != canonical {
			t.Errorf("%q is canonically %q, want %q", test.text, got, canonical)
		}
		if again, err := ParseDefinition(got.String()); err != nil || again.String() != canonical {
			t.Errorf("%q reads back as %q, %v", got, again, err)
		}
	}
}

func TestParseDefinitionRefuses(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", `kind "" is none of tumbling, hopping, cumulating, session`},
		{"tumbling", "size: duration is empty"},
		{"tumbling:", "size: duration is empty"},
		{"Tumbling:1h", `kind "Tumbling" is none of`},
		{"tumbling:0h", "size 0s must be greater than 0"},
		{"tumbling:h", `duration "h" is not a whole number and a unit`},
		{"tumbling:1.5h", `unit "" is none of d, h, m, s, ms`},
		{"tumbling:1", `unit "" is none of`},
		{"tumbling:1H", `unit "" is none of`},
		{"tumbling:1w", `unit "w" is none of`},
		{"tumbling:1m1h", `unit "h" is none of d, h, m, s, ms, or out of order`},
		{"tumbling:1h1h", `unit "h" is none of`},
		{"tumbling:1h/5m", `duration "1h/5m" is not a whole number`},
		{"tumbling:106752d", `duration "106752d" is longer than 106751 days`},
		{"tumbling:106751d24h", "is longer than 106751 days"},
		{"tumbling:9223372036854775807d", "is longer than 106751 days"},
		{"tumbling:9223372036854775808d", "is not a whole number and a unit"},
		{"tumbling:1h+", "offset: duration is empty"},
		{"tumbling:1h+x", `offset: duration "x" is not`},
		{"tumbling:1h@", `zone "" must be a name of the IANA database`},
		{"tumbling:1h@Local", `zone "Local" must be a name of the IANA database`},
		{"tumbling:1h@Mars/Olympus", `zone "Mars/Olympus": unknown time zone`},
		{"hopping:1h", `"1h" lacks a slash between size and slide`},
		{"hopping:1h/0s", "slide 0s must be greater than 0"},
		{"hopping:x/y", "size: duration \"x\" is not a whole number and a unit\nslide: duration \"y\" is not"},
		{"hopping:100001ms/1ms", "size 1m40.001s is 100001 times the slide 1ms: at most 100000"},
		{"hopping:1d/23h@Europe/Berlin", "slide 23h0m0s must be at least 24h0m0s in zone Europe/Berlin"},
		{"cumulating:1h", `"1h" lacks a slash between step and size`},
		{"cumulating:7h/1d", "size 24h0m0s must be a multiple of the step 7h0m0s"},
		{"cumulating:1d/1h", "size 1h0m0s must be a multiple of the step 24h0m0s"},
		{"session:0s", "gap 0s must be greater than 0"},
		{"session:1h+1m", "a session takes no offset, but it is 1m0s"},
		{"session:1h@Europe/Berlin", "a session takes no zone, but it is Europe/Berlin"},
		{"session:1h@UTC", ""},
		{strings.Repeat("x", 100), strings.Repeat("x", 64) + "…"},
	}
	for _, test := range tests {
		got, err := ParseDefinition(test.text)
		if test.want == "" {
			if err != nil {
				t.Errorf("%v", err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q is %#v, want an error", test.text, got)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "parse window definition ") {
			t.Errorf("%q: error %q, want %q", test.text, err, test.want)
		}
		if got != (Definition{}) {
			t.Errorf("%q: %#v beside an error", test.text, got)
		}
	}
}

func TestValidateTellsAll(t *testing.T) {
	tests := []struct {
		d    Definition
		want string
	}{
		{
			Definition{Kind: 9, Size: 2, Offset: 1, Zone: time.Local},
			"kind 9 is unknown\noffset 1ns must be whole milliseconds\nsize 2ns must be whole milliseconds\n" +
				"zone Local must be one of the IANA database, so that its name tells which\nslide 0s must be greater than 0",
		},
		{Definition{Size: time.Hour, Zone: time.FixedZone("UTC", 3600)}, "zone UTC must be one of the IANA database, so that its name tells which"},
		{
			Definition{Kind: Hopping, Size: -time.Hour, Slide: 1500 * time.Microsecond},
			"size -1h0m0s must be greater than 0\nslide 1.5ms must be whole milliseconds",
		},
		{
			Definition{Kind: Session, Gap: -1, Offset: time.Hour, Zone: time.Local},
			"gap -1ns must be greater than 0\ngap -1ns must be whole milliseconds\na session takes no offset, but it is 1h0m0s\na session takes no zone, but it is Local",
		},
	}
	for _, test := range tests {
		if err := test.d.Validate(); err == nil || err.Error() != test.want {
			t.Errorf("%#v: %v, want\n%s", test.d, err, test.want)
		}
	}
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{Tumbling: "tumbling", Hopping: "hopping", Cumulating: "cumulating", Session: "session", 4: "kind(4)"} {
		if k.String() != want {
			t.Errorf("kind %d is %q, want %q", k, k, want)
		}
	}
	for v, want := range map[Verdict]string{Counted: "counted", Late: "late", Unassigned: "unassigned"} {
		if v.String() != want {
			t.Errorf("verdict %d is %q, want %q", v, v, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Definition{Size: -1}, Options{AllowedLateness: -1, Emit: 7}, Fold[event, bag]{})
	want := "make window operator \"tumbling:0s\": size -1ns must be greater than 0\nsize -1ns must be whole milliseconds\n" +
		"allowed lateness -1ns must not be negative\nallowed lateness -1ns must be whole milliseconds\nemit 7 is unknown\nfold lacks Add, Merge or Reset"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want\n%s", err, want)
	}
	full := bagFold()
	for i, f := range []Fold[event, bag]{{Merge: full.Merge, Reset: full.Reset}, {Add: full.Add, Reset: full.Reset}, {Add: full.Add, Merge: full.Merge}} {
		if _, err := New(Definition{Size: time.Hour}, Options{}, f); err == nil {
			t.Errorf("fold %d is accepted", i)
		}
	}
	op, err := New(Definition{Size: time.Hour, Offset: -time.Minute, Zone: time.UTC}, Options{}, full)
	if err != nil {
		t.Fatal(err)
	}
	if got := op.Definition().String(); got != "tumbling:1h+59m" {
		t.Errorf("definition %q", got)
	}
}

func TestDurationRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, math.MaxInt64/int64(time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		text := string(appendDuration(nil, d, rapid.Bool().Draw(t, "days")))
		if got, err := parseDuration(text); err != nil || got != d {
			t.Fatalf("%q is %v, %v; want %v", text, got, err, d)
		}
	})
	if got := string(appendDuration(nil, -time.Hour, true)); got != "0s" {
		t.Errorf("a negative duration is written %q", got)
	}
}

// FuzzParseDefinition: what is read is valid, says so in a canonical text, and that text means the same.
func FuzzParseDefinition(f *testing.F) {
	for _, text := range []string{
		"tumbling:1h", "tumbling:1d+5h", "tumbling:1d-5h@America/New_York", "hopping:24h/1h", "hopping:7s/10s", "cumulating:1h/1d+3h", "session:30m",
		"session:1d2h3m4s5ms", "tumbling:106751d", "tumbling:1h@", "hopping:/", "cumulating:1h/1h/1h", "tumbling:9999999999999999999d", "tumbling:1h@../../etc/passwd",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDefinition(text)
		if err != nil {
			if errors.Unwrap(err) == nil {
				t.Errorf("%q: error %v wraps nothing", text, err)
			}
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("%q is read but not valid: %v", text, err)
		}
		canonical := d.String()
		again, err := ParseDefinition(canonical)
		if err != nil || again.String() != canonical {
			t.Fatalf("%q: %q reads back as %q, %v", text, canonical, again, err)
		}
		if again.Zone, d.Zone = nil, nil; again != d {
			t.Fatalf("%q is %#v, but %q is %#v", text, d, canonical, again)
		}
		if strings.ContainsAny(canonical, "| \n") {
			t.Fatalf("%q: canonical %q cannot be part of a key", text, canonical)
		}
	})
}
