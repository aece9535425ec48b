package codecs

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		"":     `decode event: is null_value: must be a JSON object; the producer has to send it`,
		"nope": `decode event: "nope" at byte 0 is not_json: must be one JSON object; correct it at the producer and send the event again`,
		doc(`event_type="` + strings.Repeat("ü", 40) + `"`): `decode event: event_type "` + strings.Repeat("ü", 22) +
			`…" at byte 14 is too_long: must be at most 64 bytes; correct it at the producer and send the event again`,
		doc("registration_number"):      `decode event: registration_number is missing: must be present and not null; the producer has to send it`,
		doc(`aircraft_id="a\u0000"`):    `decode event: aircraft_id "a\x00" at byte 38 is wrong_type: must be an integer, or a string holding one; correct it at the producer and send the event again`,
		`{"timestamp":1,"timestamp":2}`: `decode event: timestamp "2}" at byte 27 is duplicate_field: must be given once; send it once, in one spelling`,
	} {
		if got := new(Decoder).Decode(new(Event), []byte(data)); got.Error() != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if err := new(Envelope).Parse(wire{}.varint(1, 2)); err.Error() != `decode state record: version "2" is unknown_version: must be at most 1; run a klgstream at least as new as the one that wrote it` {
		t.Error(err)
	}
	if err := new(Envelope).Parse(nil); err.Error() != `decode state record: version is bad_record: must be present; the bytes were not written by this program or were damaged: restore the topic or skip the record` {
		t.Error(err)
	}
}

// The words are labels of metrics and headers of letters: nobody may change them in passing.
func TestReasonsAreStable(t *testing.T) {
	t.Parallel()
	want := strings.Fields(`null_value too_large not_json invalid_utf8 too_deep wrong_type missing empty too_long bad_character
		duplicate_field out_of_range bad_timestamp bad_record unknown_version`)
	if !slices.Equal(want, Reasons()) {
		t.Errorf("reasons are %q", Reasons())
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for n := range 200 {
		in := strings.Repeat("x", n%3) + strings.Repeat("€", n)
		got := clip([]byte(in))
		if whole := len(in) <= maxShown; (whole && got != in) || len(got) > maxShown || !utf8.ValidString(got) ||
			(!whole && (len(got) < maxShown-4 || !strings.HasPrefix(in, strings.TrimSuffix(got, "…")))) {
			t.Fatalf("%d bytes clipped to %q", len(in), got)
		}
	}
	if got := clip([]byte(strings.Repeat("\x80", 100))); got != "…" {
		t.Errorf("%q", got)
	}
}
