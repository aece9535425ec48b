package httpapi

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// everyKind is a page with a column of each type, and a row without values.
func everyKind() views.Result {
	r := views.Result{View: "kinds", Rows: [][]any{
		{"a,\"b\"\n<c>", int64(-5), 0.25, true, time.Date(2013, 1, 1, 10, 0, 0, 123_000_000, time.FixedZone("EST", -5*3600)), json.RawMessage(`{"x":1}`)},
		{nil, nil, nil, nil, nil, nil},
		{"-1+2", int64(1) << 60, 1e300, false, time.UnixMilli(0), json.RawMessage(`[]`)},
	}}
	for i, name := range []string{"text", "integer", "number", "boolean", "timestamp", "json"} {
		r.Columns = append(r.Columns, views.Column{Name: name, Type: views.Type(i), Nullable: true, Description: name})
	}
	return r
}

func TestEncodeCSVValues(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := encode(&out, formCSV, views.View{}, everyKind()); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range [][]string{
		{"text", "integer", "number", "boolean", "timestamp", "json"},
		{"a,\"b\"\n<c>", "-5", "0.25", "true", "2013-01-01T15:00:00.123Z", `{"x":1}`},
		{"", "", "", "", "", ""},
		{"'-1+2", "1152921504606846976", "1e+300", "false", "1970-01-01T00:00:00.000Z", "[]"},
	} {
		if !slices.Equal(lines[i], line) {
			t.Errorf("line %d is %q, want %q", i, lines[i], line)
		}
	}
}

// A record that could not be read is given as it came: its line ends are not made others.
func TestEncodeCSVKeepsLineEnds(t *testing.T) {
	t.Parallel()
	const payload = "a\r\nb\nc\rd"
	var out bytes.Buffer
	if err := encode(&out, formCSV, views.View{}, views.Result{Columns: []views.Column{{Name: "payload"}, {Name: "n"}}, Rows: [][]any{{payload, int64(1)}}}); err != nil {
		t.Fatal(err)
	}
	if want := "payload,n\r\n\"" + payload + "\",1\r\n"; out.String() != want {
		t.Errorf("written is %q, want %q", out.String(), want)
	}
}

// TestEncodeJSONForms: JSON and NDJSON say the same, and so do the rows of the stream.
func TestEncodeJSONForms(t *testing.T) {
	t.Parallel()
	page := everyKind()
	var whole, lines bytes.Buffer
	if err := encode(&whole, formJSON, views.View{}, page); err != nil {
		t.Fatal(err)
	}
	if err := encode(&lines, formNDJSON, views.View{}, page); err != nil {
		t.Fatal(err)
	}
	var document struct{ Rows []json.RawMessage }
	if err := json.Unmarshal(whole.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(lines.String(), "\n"), "\n")
	if len(rows) != 3 || len(document.Rows) != 3 {
		t.Fatalf("%d lines, %d rows", len(rows), len(document.Rows))
	}
	for i := range rows {
		_, streamed, err := encodeRow([]string{"text"}, page.Columns, page.Rows[i])
		if err != nil {
			t.Fatal(err)
		}
		if a, b, c := normal(t, rows[i]), normal(t, string(document.Rows[i])), normal(t, streamed); a != b || b != c {
			t.Errorf("row %d is %s, %s and %s", i, a, b, c)
		}
	}
}

// normal is a JSON document with its members in order and its numbers untouched.
func normal(t *testing.T, text string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for list, match := range map[string]bool{
		`"a"`: true, `W/"a"`: true, `"b", "a"`: true, `*`: true, ``: false, `"b"`: false, `a`: false, `"aa"`: false, `"b",W/"a" `: true,
	} {
		if got := matches(list, `"a"`); got != match {
			t.Errorf("%s: %v", list, got)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	if got := clip(strings.Repeat("ä", 10), 5); got != "ää�…" {
		t.Errorf("clipped to %q", got)
	}
	if got := clip("plain", 5); got != "plain" {
		t.Errorf("clipped to %q", got)
	}
}

func TestBareHosts(t *testing.T) {
	t.Parallel()
	for host, name := range map[string]string{"a:1": "a", "a": "a", "[::1]:80": "::1", "[::1]": "::1", "::1": "::1", "": ""} {
		if got := bare(host); got != name {
			t.Errorf("%q is %q, want %q", host, got, name)
		}
	}
}

// FuzzPostEvents: whatever the body, the answer is one of the described ones, 202 exactly if the decoder takes every
// event, and what is published are the very bytes.
func FuzzPostEvents(f *testing.F) {
	for _, seed := range []string{snake, camel, "[" + snake + "," + camel + "]", "[]", "", "{}", "[{}]", "null", "[null]", `{"event_type":1}`, `[1,"x"]`, "[" + snake + ",]", snake + snake, "\xff"} {
		f.Add([]byte(seed))
	}
	publisher := &fakePublisher{}
	api, err := New(Config{Store: sampleStore(), Publisher: publisher, Now: newClock().now})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		publisher.events = nil
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+eventsURL, bytes.NewReader(body)))
		parts, _, err := split(nil, body, 10_000)
		good := err == nil && len(parts) > 0
		var decoder codecs.Decoder
		var event codecs.Event
		for _, p := range parts {
			good = good && decoder.Decode(&event, p) == nil
		}
		published := publisher.published()
		switch {
		case good && (w.Code != http.StatusAccepted || len(published) != len(parts)):
			t.Fatalf("%q is answered %d, %d of %d events published", body, w.Code, len(published), len(parts))
		case !good && (len(published) > 0 || w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity):
			t.Fatalf("%q is answered %d, %d events published", body, w.Code, len(published))
		case !json.Valid(w.Body.Bytes()):
			t.Fatalf("%q is answered with %q", body, w.Body)
		}
		for i := range published {
			if !bytes.Equal(published[i].Value, parts[i]) || !bytes.Contains(body, published[i].Value) {
				t.Fatalf("%q: event %d is published as %q", body, i, published[i].Value)
			}
		}
		if n := api.flying.Load(); n != 0 || !api.bodies.TryAcquire(api.limits.BodiesInFlight) {
			t.Fatalf("%q: something is still held: %d in flight", body, n)
		}
		api.bodies.Release(api.limits.BodiesInFlight)
	})
}

// FuzzAccepted: no Accept header makes trouble, and what is chosen is a form there is.
func FuzzAccepted(f *testing.F) {
	for _, seed := range []string{"", "*/*", "text/csv;q=0.5, application/json", ";;,", "a;q,", "text/csv;q=1e999", "text/csv;q=NaN"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		switch accepted(header) {
		case "", formJSON, formNDJSON, formCSV:
		default:
			t.Fatalf("%q: %q", header, accepted(header))
		}
	})
}
