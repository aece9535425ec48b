package window

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// flight is one event of the sample flights, which come as two producers spell them.
type flight struct {
	registration string
	ts           int64
}

func readGzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("open %q: %v", path, err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("read %q: %v", path, err)
	}
	return data
}

func readFlights(t testing.TB) (flights []flight) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(string(readGzip(t, "../../deploy/devstack/flights-2013-w1.jsonl.gz"))))
	for lines.Scan() {
		var e struct {
			Camel     string `json:"registrationNumber"`
			Snake     string `json:"registration_number"`
			Timestamp string `json:"timestamp"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("flight %q: %v", lines.Text(), err)
		}
		at, err := time.Parse(time.RFC3339, strings.TrimSuffix(e.Timestamp, "Z")+"Z")
		if err != nil {
			t.Fatalf("flight %q: %v", lines.Text(), err)
		}
		flights = append(flights, flight{e.Camel + e.Snake, at.UnixMilli()})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return flights
}

func countFold() Fold[flight, int64] {
	return Fold[flight, int64]{
		Add:   func(n *int64, _ *flight) { *n++ },
		Merge: func(dst, src *int64) { *dst += *src },
		Reset: func(n *int64) { *n = 0 },
	}
}

// TestFlink compares byte by byte with what Apache Flink 2.2 counts over a week of real flights, whatever the bound and the way to emit.
func TestFlink(t *testing.T) {
	const never = 24 * time.Hour // nothing in the file is later
	tests := []struct {
		file, definition string
		bound, lateness  time.Duration
	}{
		{"tumbling_1h", "tumbling:1h", never, 0},
		{"hopping_24h_1h", "hopping:24h/1h", never, 0},
		{"session_30m", "session:30m", never, 0},
		{"cumulate_1h_1d", "cumulating:1h/1d", never, 0},
		{"tumbling_1d_new_york", "tumbling:1d@America/New_York", never, 0},
		{"late_bound5m_lateness0", "tumbling:1h", 5 * time.Minute, 0},
		{"late_bound5m_lateness10m", "tumbling:1h", 5 * time.Minute, 10 * time.Minute},
	}
	flights := readFlights(t)
	if len(flights) != 11_850 {
		t.Fatalf("%d flights", len(flights))
	}
	for _, test := range tests {
		for emit, how := range []string{"on update", "on close"} {
			t.Run(test.file+" "+how, func(t *testing.T) {
				t.Parallel()
				o := Options{AllowedLateness: test.lateness, Emit: Emit(emit)}
				rows, late := countFlights(t, mustParse(t, test.definition), o, test.bound, flights)
				compareLines(t, rows, readGzip(t, "testdata/expected-w1/"+test.file+".csv.gz"))
				if test.bound != never {
					compareLines(t, late, readGzip(t, "testdata/expected-w1/"+test.file+".events.csv.gz"))
				} else if len(late) > 1 {
					t.Errorf("%d late events", len(late)-1)
				}
			})
		}
	}
}

// countFlights is the final count of each window and the late events, both as CSV.
func countFlights(t *testing.T, d Definition, o Options, bound time.Duration, flights []flight) (rows, late []string) {
	op, err := New(d, o, countFold())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]*State[int64]{}
	marks := NewWatermarks(bound)
	rows, late = []string{"registration,window_start,window_end,count"}, []string{"line,registration,timestamp"}
	final := func(registration string) func(r *Result[int64]) {
		return func(r *Result[int64]) {
			if r.Final {
				rows = append(rows, fmt.Sprintf("%s,%d,%d,%d", registration, r.Start, r.End, *r.Acc))
			}
		}
	}
	for i, f := range flights {
		s := states[f.registration]
		if s == nil {
			s = new(State[int64])
			states[f.registration] = s
		}
		if op.Add(s, marks.Current(), f.ts, &f) != Counted {
			late = append(late, fmt.Sprintf("%d,%s,%d", i+1, f.registration, f.ts))
		}
		marks.Observe(0, f.ts)
		op.Advance(s, marks.Current(), final(f.registration))
		op.Collect(s, marks.Current(), final(f.registration))
		op.Settle(s, marks.Current())
	}
	for registration, s := range states {
		op.Advance(s, 1<<62, final(registration))
	}
	slices.Sort(rows[1:])
	return rows, late
}

func compareLines(t *testing.T, got []string, want []byte) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(string(want), "\n"), "\n")
	for i := range max(len(got), len(lines)) {
		switch {
		case i >= len(got):
			t.Fatalf("line %d: nothing, want %q", i+1, lines[i])
		case i >= len(lines):
			t.Fatalf("line %d: %q, want nothing", i+1, got[i])
		case got[i] != lines[i]:
			t.Fatalf("line %d: %q, want %q", i+1, got[i], lines[i])
		}
	}
}
