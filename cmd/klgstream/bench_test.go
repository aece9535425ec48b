package main

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
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
		{"throughput --zipf=0.2", "zipf exponent 0.2 must be above 1"},
	} {
		o := newOutside()
		if code := run(t.Context(), append([]string{"bench"}, strings.Fields(c.args)...), o.environment); code != exitUsage || !strings.Contains(o.errs.String(), c.want) {
			t.Errorf("%s: exit code %d, said %q", c.args, code, o.errs.String())
		}
	}
}
