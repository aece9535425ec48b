package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack/bench"
	"klgstream.dev/views"
)

// init makes the test binary be klgstream when it is run again with klgstream's arguments: what is measured runs in
// processes of its own.
func init() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(run(ctx, os.Args[1:], process()))
	}
}

// measured runs a command to its end and returns what it printed.
func measured(t *testing.T, args ...string) string {
	t.Helper()
	o := newOutside()
	errs := &locked{to: t.Output()}
	o.stderr = errs
	if code := run(t.Context(), args, o.environment); code != exitOK {
		t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), code, errs.text)
	}
	t.Logf("\n%s", o.out.String())
	return o.out.String()
}

// tiny are events that are counted in no time.
var tiny = []string{"--events=5000", "--keys=50", "--partitions=2", "--span=3h"}

func TestBenchThroughput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "figures.json")
	out := measured(t, append([]string{"bench", "throughput", "--modes=raw,klgstream", "--rounds=2", "--window=tumbling:1h,hopping:2h/1h", "--json=" + file}, tiny...)...)
	if !strings.Contains(out, "klgstream") || !strings.Contains(out, "5000 events, 50 keys, 2 partitions; broker embedded") {
		t.Errorf("printed %s", out)
	}
	var r bench.Result
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil || len(r.Measurements) != 4 || len(r.Product.Windows) != 2 {
		t.Errorf("figures %+v, error %v", r, err)
	}
}

// Brokers that the environment names are production's: a benchmark does not fill them by mistake.
func TestBenchTakesBrokersFromTheCommandLineOnly(t *testing.T) {
	target := BenchTarget{Brokers: []string{"x:1"}}
	for source, want := range map[string]int{"flag": 1, "environment REDPANDA_BROKERS": 0, "f.yaml:1": 0, "default": 0} {
		if got := target.brokers(&app{settings: []setting{{name: "brokers", source: source}}}); len(got) != want {
			t.Errorf("%s: measured on %v", source, got)
		}
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"throughput --events=0", "--events: 0 must be at least 1"},
		{"throughput --profile=/no/such/place", `--profile: "/no/such/place" must be a directory`},
		{"throughput --modes=flink", "mode \"flink\" must be one of raw, empty, stock, klgstream"},
		{"throughput --brokers=nonsense", "--brokers"},
		{"throughput --emit=never", "--emit"},
		{"latency --warm-up=1h", "--warm-up"},
		{"latency --bench-store=mysql://x", "--store-url"},
		{"recovery --keys=0", "--keys"},
		{"memory --keys=5,0", "--keys"},
		{"sink --bench-store=mysql://x", "--store-url"},
		{"scale --axes=depth", "--axes"},
		{"scale --partitions=0,99999", "partitions 99999 must be 1 to 10,000"},
		{"peers --peers=spark", "--peers"},
		{"throughput --zipf=0.2", "zipf exponent 0.2 must be above 1"},
	} {
		o := newOutside()
		if code := run(t.Context(), append([]string{"bench"}, strings.Fields(c.args)...), o.environment); code != exitConfig || !strings.Contains(o.errs.String(), c.want) {
			t.Errorf("%s: exit code %d, said %q", c.args, code, o.errs.String())
		}
	}
}

// From sending to the output topic, to the store, to a client of the API: every place sees events.
func TestBenchLatency(t *testing.T) {
	file := filepath.Join(t.TempDir(), "figures.json")
	measured(t, "bench", "latency", "--commit-interval=20ms", "--rate=500", "--duration=3s", "--warm-up=500ms", "--keys=20", "--partitions=2", "--json="+file)
	var figures struct{ Delays []bench.Delays }
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &figures)
	}
	if err != nil || len(figures.Delays) != 3 {
		t.Fatalf("figures %s, error %v", data, err)
	}
	for _, d := range figures.Delays {
		if d.Events == 0 || d.P50 <= 0 || d.P99 < d.P50 || d.Max < d.P999 {
			t.Errorf("%+v", d)
		}
	}
	if got := figures.Delays[0].Events; got < 1250 || got >= 1500 { // sending begins a little after the warm-up does
		t.Errorf("%d events seen in the output topic, want 1250 of 1500 or a few more: all but those of the warm-up", got)
	}
}

// The comparison, with this program alone: it does the peers' job and is verified like them.
func TestBenchPeers(t *testing.T) {
	b, err := bench.StartBroker(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	out := measured(t, append([]string{"bench", "peers", "--peers=klgstream", "--brokers=" + b.Addrs[0]}, tiny...)...)
	if !regexp.MustCompile(`(?m)^klgstream +[0-9]+ .* ([0-9]+) of ([0-9]+)$`).MatchString(out) {
		t.Errorf("printed %s", out)
	}
}

// figuresOf runs a command and reads the figures it has saved.
func figuresOf(t *testing.T, into any, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "figures.json")
	measured(t, append(append([]string{"bench"}, args...), "--json="+file)...)
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("figures %s: %v", data, err)
	}
}

// What was counted before the restarts is in the windows that are closed after them.
func TestBenchRecovery(t *testing.T) {
	var f recoveryFigures
	figuresOf(t, &f, "recovery", "--keys=300", "--per-key=3", "--partitions=2", "--rounds=2")
	if len(f.Ready) != 2 || f.FirstResult <= 0 || f.Ready[0] <= 0 || f.Resident < 1<<20 || f.Verdict.Windows < 300 || f.Verdict.Err() != nil {
		t.Errorf("%+v", f)
	}
}

func TestBenchMemory(t *testing.T) {
	var f struct {
		PerKey []memoryFigures `json:"per_key"`
		Flat   flatFigures
	}
	figuresOf(t, &f, "memory", "--keys=10,2000", "--partitions=2", "--duration=2s", "--rate=500", "--churn=500ms", "--sample=100ms")
	if len(f.PerKey) != 2 || f.PerKey[1].Open <= f.PerKey[0].Open || f.PerKey[0].Peak < f.PerKey[0].Open {
		t.Errorf("per key: %+v", f.PerKey)
	}
	if f.Flat.Events != 1000 || f.Flat.Keys != 20_000 || len(f.Flat.Resident) < 4 {
		t.Errorf("flat: %+v", f.Flat)
	}
}

func TestDrift(t *testing.T) {
	for want, series := range map[float64][]int64{
		0:   {1, 5, 100, 100, 100, 100, 90, 110, 100, 100, 100, 100}, // what it takes to warm up does not count
		0.5: {1, 5, 100, 100, 100, 100, 110, 120, 130, 150, 150, 150},
	} {
		if got := drift(series); got != want {
			t.Errorf("drift %v of %v, want %v", got, series, want)
		}
	}
	if got := drift([]int64{1, 2}); !math.IsNaN(got) {
		t.Errorf("drift %v of almost nothing", got)
	}
}

func TestBenchSink(t *testing.T) {
	var f struct{ Rounds []sinkFigures }
	figuresOf(t, &f, "sink", "--events=3000", "--keys=30", "--partitions=2", "--batch-rows=100", "--rounds=2")
	for i, r := range f.Rounds {
		if r.SinkFirst != (i == 1) || r.BareCPU <= 0 || r.SinkCPU <= 0 {
			t.Errorf("round %d: %+v", i, r)
		}
		if r.Store != "sqlite" || r.Rows != 3000 || r.Wrong != 0 || r.Bare <= 0 || r.Bare > 1e7 || r.Sink <= 0 || r.Sink > 1e7 {
			t.Errorf("%+v", r)
		}
	}
	if len(f.Rounds) != 2 {
		t.Errorf("%d rounds", len(f.Rounds))
	}
}

// Rounds are added up by their time: a fast one counts for no more than a slow one.
func TestSinkTotal(t *testing.T) {
	got := totalOf([]sinkFigures{{Rows: 100, Bare: 100, Sink: 50, Wrong: 1}, {Rows: 300, Bare: 100, Sink: 300, Wrong: 2}})
	if got.Rows != 400 || got.Bare != 100 || got.Sink != 400.0/3 || got.Wrong != 3 || !slices.Equal(got.ratios, []float64{0.5, 3}) {
		t.Errorf("%+v", got)
	}
}

// Rows that are missing, too many or of another count are found.
func TestBenchSinkFindsWrongRows(t *testing.T) {
	store, err := openBench(t.Context(), "", filepath.Join(t.TempDir(), "windows.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rows := bench.Shape{Events: 40, Keys: 5, Partitions: 1}.WithDefaults().Results()
	if err := store.Write(t.Context(), views.Batch{Windows: rows}); err != nil {
		t.Fatal(err)
	}
	check := func(want int, what string, rows []codecs.Window) {
		t.Helper()
		if got, err := wrongRows(t.Context(), store, rows); err != nil || got != want {
			t.Errorf("%s: %d wrong rows, error %v; want %d", what, got, err, want)
		}
	}
	if err := empty(t.Context(), store); err == nil || !strings.Contains(err.Error(), "--bench-store") {
		t.Errorf("a store with rows is taken for an empty one: %v", err)
	}
	check(0, "what is right", rows)
	more := slices.Clone(rows)
	more[len(more)-1].Count += 7
	check(1, "another count", more)
	more[len(more)-1] = rows[len(rows)-1]
	more = append(more, codecs.Window{Registration: "RA-99999", Definition: rows[0].Definition, Count: 1})
	check(1, "a row that is missing", more)
	check(1, "a row too many", slices.DeleteFunc(slices.Clone(rows), func(w codecs.Window) bool {
		return w.Registration == rows[0].Registration && w.Start == rows[0].Start
	}))
}

func TestBenchScale(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plots")
	out := measured(t, "bench", "scale", "--events=3000", "--partitions=1,3", "--keys=10,40", "--open-windows=1,2", "--svg="+dir)
	if got := strings.Count(out, "\n"); got != 1+2+2+3+2+2 {
		t.Errorf("table of %d lines", got)
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(plots) != 8 {
		t.Fatalf("plots %v, error %v; want 8", plots, err)
	}
	for _, p := range plots {
		if data, err := os.ReadFile(p); err != nil || !strings.Contains(string(data), "klgstream") {
			t.Errorf("%s: error %v, or klgstream is not in it", p, err)
		}
	}
}
