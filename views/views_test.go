package views

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"klgstream.dev/codecs"
)

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const sampleFile = `-- What it is,
-- in two lines.
--
-- columns:
--   name text: who
--   size integer?: how much: in kg
--   at timestamp: when
--   flag boolean: whether
--   ratio number?: how
--   extra json?: what else
-- key: name, at
-- order: -size, name
-- materialized

SELECT name, size, -- a comment; with a semicolon
       at, flag, ratio, extra
FROM windows WHERE name <> ';';
`

func sample(t testing.TB) View {
	t.Helper()
	v, err := ParseView("sample", sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParseView(t *testing.T) {
	v := sample(t)
	check(t, "view", v, View{
		Name: "sample", Description: "What it is, in two lines.", Materialized: true,
		Columns: []Column{
			{Name: "name", Type: Text, Description: "who"},
			{Name: "size", Type: Integer, Nullable: true, Description: "how much: in kg"},
			{Name: "at", Type: Timestamp, Description: "when"},
			{Name: "flag", Type: Boolean, Description: "whether"},
			{Name: "ratio", Type: Number, Nullable: true, Description: "how"},
			{Name: "extra", Type: JSON, Nullable: true, Description: "what else"},
		},
		Key: []string{"name", "at"}, Order: []Order{{Column: "size", Desc: true}, {Column: "name"}},
		SQL: "SELECT name, size, -- a comment; with a semicolon\n       at, flag, ratio, extra\nFROM windows WHERE name <> ';'",
	})
	_, there := v.Column("none")
	check(t, "column that is not there", there, false)
}

func TestParseViewTellsAllFaults(t *testing.T) {
	_, err := ParseView("Bad Name", `-- columns:
--   a text: fine
--   a text: again
--   b colour: what
--   c text
--   limit integer: hides a parameter
--   d json: key
-- key: d, e
-- order: f
DELETE FROM windows; SELECT 1`)
	for _, part := range []string{
		`"Bad Name"`, "no description", `"a": described twice`, `"colour": want one of text`, `"c text": want`, `"limit": want`,
		`key column "d"`, `key column "e"`, `order column "f"`, "want one SELECT", "semicolon inside",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}
	if _, err := ParseView("empty", ""); err == nil || !strings.Contains(err.Error(), "no key") || !strings.Contains(err.Error(), "no columns") {
		t.Errorf("empty file: %v", err)
	}
}

func TestReadViewsTellsFaultsOfAllFiles(t *testing.T) {
	list, err := ReadViews(fstest.MapFS{
		"good.sql": {Data: []byte(sampleFile)}, "one.sql": {}, "two.sql": {}, "readme.md": {Data: []byte("no view")},
	})
	check(t, "good ones", len(list), 1)
	for _, part := range []string{`read view "one"`, `read view "two"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}
	none, err := ReadViews(nil)
	check(t, "no directory", []any{len(none), err}, []any{0, nil})
}

func TestMergeLetsTheLaterOneStay(t *testing.T) {
	a, b := View{Name: "a", SQL: "1"}, View{Name: "b", SQL: "1"}
	mine := View{Name: "a", SQL: "2"}
	check(t, "merged", Merge([]View{b, a}, nil, []View{mine}), []View{mine, b})
	_, err := Find([]View{a, b}, "c")
	if !errors.Is(err, ErrUnknownView) || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("find: %v", err)
	}
}

func TestSharedViewsAreSound(t *testing.T) {
	for _, v := range Shared() {
		if v.Description == "" || !strings.Contains(v.SQL, "FROM") {
			t.Errorf("view %q: %+v", v.Name, v)
		}
	}
}

func TestCompareColumns(t *testing.T) {
	v := sample(t)
	if err := CompareColumns(v, v.columnNames()); err != nil {
		t.Error(err)
	}
	err := CompareColumns(v, append(v.columnNames()[1:], "more"))
	for _, part := range []string{`"name" is described`, `"more" is selected`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}
}

func TestParseQuery(t *testing.T) {
	v := sample(t)
	values, err := url.ParseQuery("name=N1&size.gt=5&size.le=9&at.ge=2013-01-01T05:00:00%2B01:00&name.in=a,b&extra.null=false&order=-at,name&limit=7")
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuery(v, values)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "query", q, Query{
		View: "sample", Limit: 7, Order: []Order{{Column: "at", Desc: true}, {Column: "name"}},
		Filters: []Filter{
			{"at", GreaterOrEqual, "2013-01-01T05:00:00+01:00"},
			{"extra", Null, "false"},
			{"name", Equal, "N1"},
			{"name", In, "a,b"},
			{"size", Greater, "5"},
			{"size", LessOrEqual, "9"},
		},
	})
}

func TestParseQueryTellsAllFaults(t *testing.T) {
	values, err := url.ParseQuery("limit=0&limit=1&order=none,name,name,extra&other=1&name.like=x&size=many&at=2013-13-01&flag=maybe&ratio=NaN&extra=1&size.prefix=1&name.eq=%00&name.null=what&cursor=a&cursor=b&at.lt=99999999999999999")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseQuery(sample(t), values)
	fault, ok := errors.AsType[*QueryError](err)
	if !ok || Retryable(err) {
		t.Fatalf("want a query error, got %v", err)
	}
	for _, part := range []string{
		`limit "0 1": given 2 times; give it once`, `cursor "a b": given 2 times`, `order "none": view "sample" has no such column; use some of name, size`,
		`order "name": named twice`, `order "extra": json has no order`, `column "other"`, `name "like": no such comparison; use one of eq, ne`,
		`size "many"`, `at "2013-13-01"`, `flag "maybe"`, `ratio "NaN"`, `extra "1": does not fit eq of type json`, `size "1": does not fit prefix`,
		`name "\x00"`, `name "what"`, `at "99999999999999999"`,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}
	check(t, "faults", len(fault.Faults), 16)
	if _, err := ParseQuery(sample(t), url.Values{"limit": {"10001"}}); err == nil || !strings.Contains(err.Error(), `limit "10001": must be 1 to 10000`) {
		t.Errorf("limit: %v", err)
	}
}

func TestQueryIsBounded(t *testing.T) {
	v := sample(t)
	for name, q := range map[string]Query{
		"filters": {Filters: slices.Repeat([]Filter{{"name", Equal, "x"}}, MaxFilters+1)},
		"values":  {Filters: []Filter{{"name", In, strings.Repeat(",", MaxInValues)}}},
		"bytes":   {Filters: []Filter{{"name", Equal, strings.Repeat("x", MaxValueBytes+1)}}},
		"cursor":  {Cursor: strings.Repeat("x", MaxCursorBytes+1)},
	} {
		err := q.Validate(v)
		if fault, ok := errors.AsType[*QueryError](err); !ok || len(fault.Faults) != 1 {
			t.Errorf("%s: want one fault, got %v", name, err)
		} else if len(err.Error()) > 600 {
			t.Errorf("%s: error of %d bytes", name, len(err.Error()))
		}
	}
}

var plain = Dialect{Placeholder: func(n int, _ Type) string { return "$" + strconv.Itoa(n) }}

func TestSelect(t *testing.T) {
	v := sample(t)
	text, args, err := v.Select(Query{
		Filters: []Filter{{"name", Prefix, "N1"}, {"size", NotEqual, "3"}, {"flag", Equal, "true"}, {"extra", Null, "false"}, {"at", In, "0,1"}},
		Order:   []Order{{Column: "size", Desc: true}},
		Cursor:  encodeCursor("sample", []Order{{Column: "size", Desc: true}, {Column: "name"}, {Column: "at"}}, []any{int64(4), "N10", time.UnixMilli(0)}),
	}, plain)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "statement", text, `SELECT "name", "size", "at", "flag", "ratio", "extra" FROM "sample" WHERE "name" >= $1 AND "name" < $2`+
		` AND ("size" <> $3 OR "size" IS NULL) AND "flag" = $4 AND "extra" IS NOT NULL AND "at" IN ($5, $6)`+
		` AND ((("size" < $7 OR "size" IS NULL)) OR ("size" = $8 AND "name" > $9) OR ("size" = $10 AND "name" = $11 AND "at" > $12))`+
		` ORDER BY "size" DESC NULLS LAST, "name", "at" LIMIT 101`)
	zero, one := time.UnixMilli(0).UTC(), time.UnixMilli(1).UTC()
	check(t, "arguments", args, []any{"N1", "N2", int64(3), true, zero, one, int64(4), int64(4), "N10", int64(4), "N10", zero})
}

// TestSelectHoldsNothingFromOutside has any query either refused or made of the view's own names and placeholders.
func TestSelectHoldsNothingFromOutside(t *testing.T) {
	v := sample(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"name", "size", "at", "eq", "in", `"; DROP TABLE windows; --`, "1", "'"}))
		q := Query{Limit: rapid.IntRange(-1, 20).Draw(t, "limit"), Cursor: rapid.OneOf(rapid.Just(""), text).Draw(t, "cursor")}
		for range rapid.IntRange(0, 3).Draw(t, "filters") {
			q.Filters = append(q.Filters, Filter{text.Draw(t, "column"), Op(text.Draw(t, "op")), text.Draw(t, "value")})
		}
		for range rapid.IntRange(0, 2).Draw(t, "order") {
			q.Order = append(q.Order, Order{text.Draw(t, "order"), rapid.Bool().Draw(t, "desc")})
		}
		statement, _, err := v.Select(q, plain)
		if err != nil {
			if _, ok := errors.AsType[*QueryError](err); !ok {
				t.Fatalf("%v is no query error", err)
			}
			return
		}
		if rest := strings.Trim(allowed.Replace(statement), "$0123456789(), "); rest != "" {
			t.Fatalf("%q holds %q", statement, rest)
		}
	})
}

var allowed = strings.NewReplacer(`"name"`, "", `"size"`, "", `"at"`, "", `"flag"`, "", `"ratio"`, "", `"extra"`, "", `"sample"`, "",
	"SELECT", "", "FROM", "", "WHERE", "", "AND", "", "ORDER", "", "OR", "", "BY", "", "LIMIT", "", "IS", "", "NOT", "", "NULLS", "", "NULL", "",
	"LAST", "", "DESC", "", "IN", "", "=", "", "<", "", ">", "", "(", "", ")", "", ",", "", "$", "", " ", "")

func TestSuccessorBoundsAPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a": "b", "N1": "N2", "a\U0010FFFF": "b", "\U0010FFFF": "", "\uD7FF": "\uE000", "é": "ê", "a\x7f": "a\u0080"} {
		check(t, fmt.Sprintf("successor of %q", prefix), successor(prefix), want)
	}
	rapid.Check(t, func(t *rapid.T) {
		prefix, text := rapid.String().Draw(t, "prefix"), rapid.String().Draw(t, "text")
		if rapid.Bool().Draw(t, "starts with it") {
			text = prefix + text
		}
		end := successor(prefix)
		if !utf8.ValidString(end) {
			t.Fatalf("%q is no text", end)
		}
		if within := text >= prefix && (end == "" || text < end); within != strings.HasPrefix(text, prefix) {
			t.Fatalf("%q in [%q, %q) is %v", text, prefix, end, within)
		}
	})
}

func TestCursorRoundTrip(t *testing.T) {
	v := sample(t)
	order := []Order{{Column: "ratio"}, {Column: "size", Desc: true}, {Column: "flag"}, {Column: "name"}, {Column: "at"}}
	var sorted []sortColumn
	for _, o := range order {
		c, _ := v.Column(o.Column)
		sorted = append(sorted, sortColumn{Column: c, desc: o.Desc})
	}
	rapid.Check(t, func(t *rapid.T) {
		var ratio, size any
		if rapid.Bool().Draw(t, "has ratio") {
			ratio = rapid.Float64Range(-1e300, 1e300).Draw(t, "ratio")
		}
		if rapid.Bool().Draw(t, "has size") {
			size = rapid.Int64().Draw(t, "size")
		}
		name := strings.ReplaceAll(rapid.String().Draw(t, "name"), "\x00", "")
		at := time.UnixMicro(rapid.Int64Range(MinTime*1000, MaxTime*1000).Draw(t, "at")).UTC()
		key := []any{ratio, size, rapid.Bool().Draw(t, "flag"), name, at}
		got, err := decodeCursor("sample", sorted, encodeCursor("sample", order, key))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(key, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeCursor(f *testing.F) {
	f.Add(encodeCursor("sample", []Order{{Column: "name"}, {Column: "at"}}, []any{"N1", time.UnixMilli(5)}))
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"v":"sample","o":"name,at","k":[null,"x"]}`)))
	f.Add("%%%")
	v := sample(f)
	f.Fuzz(func(t *testing.T, text string) {
		q := Query{View: "sample", Order: []Order{{Column: "name"}, {Column: "at"}}, Cursor: text}
		statement, args, err := v.Select(q, plain)
		if err == nil && text != "" && (len(args) != 4 || strings.Count(statement, "$") != 4) {
			t.Errorf("cursor %q gives %q with %v", text, statement, args)
		}
	})
}

func FuzzParseView(f *testing.F) {
	f.Add("sample", sampleFile)
	f.Add("", "-- columns:\n--   a text: b\n-- key: a\nSELECT 1 AS a")
	f.Fuzz(func(t *testing.T, name, text string) {
		v, err := ParseView(name, text)
		if err != nil {
			return
		}
		if !nameForm.MatchString(v.Name) || len(v.Key) == 0 || v.Description == "" {
			t.Errorf("accepted %+v", v)
		}
		if _, _, err := v.Select(Query{}, plain); err != nil {
			t.Errorf("accepted a view that cannot be asked: %v", err)
		}
	})
}

func FuzzParseQuery(f *testing.F) {
	f.Add("name=N1&size.gt=5&order=-at&limit=3")
	f.Add("at.in=1,2&cursor=x")
	v := sample(f)
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if q, err := ParseQuery(v, values); err == nil {
			if _, _, err := v.Select(q, plain); err != nil {
				t.Errorf("ParseQuery took %q, Select did not: %v", text, err)
			}
		} else if _, ok := errors.AsType[*QueryError](err); !ok {
			t.Errorf("%q: %v is no query error", text, err)
		}
	})
}

func TestPageReadsDriverValues(t *testing.T) {
	v := sample(t)
	moment := time.Date(2013, 1, 1, 5, 0, 0, 0, time.FixedZone("", 3600))
	r, err := v.Page(Query{Limit: 1}, [][]any{
		{[]byte("N1"), int32(3), moment, int64(1), float32(0.5), []byte(`{"a":1}`)},
		{"N2", nil, int64(5), true, int64(2), "null"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := `"rows":[{"name":"N1","size":3,"at":"2013-01-01T04:00:00.000Z","flag":true,"ratio":0.5,"extra":{"a":1}}],"next":"`; !strings.Contains(string(text), want) {
		t.Errorf("want %s in %s", want, text)
	}
	if r.Next == "" {
		t.Error("no cursor, but there is another row")
	}
	r, err = v.Page(Query{Limit: 1}, [][]any{{"N2", nil, int64(5), true, math.NaN(), nil}})
	check(t, "one row", []any{r.Rows, r.Next, err}, []any{[][]any{{"N2", nil, time.UnixMilli(5).UTC(), true, nil, nil}}, "", nil})
	for i, wrong := range []any{5, "x", "x", "x", "x", 7} {
		row := []any{"N", int64(1), int64(1), true, 1.0, "{}"}
		row[i] = wrong
		if _, err := v.Page(Query{}, [][]any{row}); err == nil || !strings.Contains(err.Error(), v.Columns[i].Name) {
			t.Errorf("%T as %s: %v", wrong, v.Columns[i].Type, err)
		}
	}
}

func TestTypesHaveNames(t *testing.T) {
	for _, want := range []Type{Text, Integer, Number, Boolean, Timestamp, JSON} {
		text, _ := want.MarshalText()
		var got Type
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s became %s: %v", want, got, err)
		}
	}
	check(t, "unknown type", Type(99).String(), "Type(99)")
}

func TestLatest(t *testing.T) {
	w := func(registration string, revision int64) codecs.Window {
		return codecs.Window{Registration: registration, Definition: "d", Revision: revision}
	}
	rapid.Check(t, func(t *rapid.T) {
		var b Batch
		best := map[string]int64{}
		for range rapid.IntRange(0, 30).Draw(t, "rows") {
			row := w(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "registration"), rapid.Int64Range(0, 5).Draw(t, "revision"))
			b.Windows = append(b.Windows, row)
			best[row.Registration] = max(best[row.Registration], row.Revision)
		}
		got := b.Latest().Windows
		if len(got) != len(best) || !slices.IsSortedFunc(got, func(a, b codecs.Window) int { return strings.Compare(a.Registration, b.Registration) }) {
			t.Fatalf("%v of %v", got, b.Windows)
		}
		for _, row := range got {
			if row.Revision != best[row.Registration] {
				t.Fatalf("%s has revision %d, want %d", row.Registration, row.Revision, best[row.Registration])
			}
		}
	})
	letters := Batch{Late: []codecs.Letter{{Topic: "t", Offset: 2}, {Topic: "t", Offset: 1, Reason: "old"}, {Topic: "t", Offset: 1, Reason: "new"}}}
	check(t, "letters", letters.Latest().Late, []codecs.Letter{{Topic: "t", Offset: 1, Reason: "new"}, {Topic: "t", Offset: 2}})
}

func TestRetryable(t *testing.T) {
	base := errors.New("disk is full")
	permanent := fmt.Errorf("write: %w", Permanent(fmt.Errorf("upsert: %w", base)))
	check(t, "nil", Retryable(nil), false)
	check(t, "unknown", Retryable(base), true)
	check(t, "permanent", Retryable(permanent), false)
	check(t, "wrapped", errors.Is(permanent, base), true)
	check(t, "text", permanent.Error(), "write: upsert: disk is full")
	check(t, "permanent nil", Permanent(nil), nil)
	check(t, "query", Retryable(&QueryError{}), false)
}

func TestEventTypesAreJSON(t *testing.T) {
	got := AppendEventTypes(nil, []codecs.TypeCount{{Type: "a\"\\\n\x00\x7fé\xff", Count: 1}, {Type: "b", Count: math.MaxInt64}})
	check(t, "event types", string(got), `{"a\"\\\u000a`+"\uFFFD"+`\u007fé`+"\uFFFD"+`":1,"b":9223372036854775807}`)
	check(t, "none", string(AppendEventTypes(nil, nil)), "{}")
}
