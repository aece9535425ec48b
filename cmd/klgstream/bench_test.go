package main

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"klgstream.dev/deploy/devstack/bench"
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
		{"throughput --modes=flink", "mode \"flink\" must be one of raw, empty, stock, klgstream"},
		{"throughput --brokers=nonsense", "--brokers"},
		{"throughput --emit=never", "--emit"},
		{"latency --warm-up=1h", "--warm-up"},
		{"latency --bench-store=mysql://x", "--store-url"},
		{"peers --peers=spark", "--peers"},
		{"throughput --zipf=0.2", "zipf exponent 0.2 must be above 1"},
	} {
		o := newOutside()
		if code := run(t.Context(), append([]string{"bench"}, strings.Fields(c.args)...), o.environment); code != exitUsage || !strings.Contains(o.errs.String(), c.want) {
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
