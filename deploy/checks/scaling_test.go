package checks

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// measured is a file of klgstream bench.
type measured struct {
	Environment struct {
		Time   time.Time `json:"time"`
		Broker string    `json:"broker"`
		Go     string    `json:"go"`
		System string    `json:"system"`
		CPUs   int       `json:"cpus"`
	} `json:"environment"`
	Shape struct {
		Events, Keys, Partitions int
	} `json:"shape"`
	Product struct {
		Commit  time.Duration
		Windows []string
	} `json:"product"`
	Measurements []measurement `json:"measurements"`
}

type measurement struct {
	Mode      string  `json:"mode"`
	Events    float64 `json:"events"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_seconds"`
	RSS       float64 `json:"peak_rss_bytes"`
	Changelog float64 `json:"changelog_records"`
	Verdict   struct {
		Windows int     `json:"windows"`
		Wrong   int     `json:"wrong"`
		Records float64 `json:"records"`
	} `json:"verdict"`
}

// sizes are bytes: of the heap with so many aircraft in it, and of records without overhead, before compression.
type sizes struct {
	Source   string  `json:"source"`
	Aircraft float64 `json:"aircraft"`
	Heap     float64 `json:"heap_bytes"`
	Event    float64 `json:"event_bytes"`
	State    float64 `json:"state_bytes"`
	Result   float64 `json:"result_bytes"`
}

func load[T any](t *testing.T, name string) (file T) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, deployed("measured", name))), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// of is the measurement of a mode; medians are the bench's affair.
func (m *measured) of(t *testing.T, mode string) measurement {
	t.Helper()
	for _, x := range m.Measurements {
		if x.Mode == mode {
			return x
		}
	}
	t.Fatalf("mode %q was not measured", mode)
	return measurement{}
}

// written is records of the changelog and of the results for each event, on average of the two.
func (x *measurement) written() float64 { return (x.Changelog + x.Verdict.Records) / 2 / x.Events }

// costs is what carries over from the measurements.
type costs struct {
	fold, write float64 // CPU seconds of a million events, and of a million states and results
	sizes       sizes
}

func costsOf(t *testing.T, few, many *measured, s sizes) costs {
	t.Helper()
	a, b := few.of(t, "klgstream"), many.of(t, "klgstream")
	perA, perB := 1e6*a.CPU/a.Events, 1e6*b.CPU/b.Events
	write := (perB - perA) / (b.written() - a.written())
	return costs{fold: perA - write*a.written(), write: write, sizes: s}
}

// load is events a second and aircraft.
type scenario struct{ rate, keys float64 }

// need is what a load takes.
type need struct{ written, cores, memory, in, out, disk float64 }

// utilisation is how busy cores may be, headroom how far the collector lets the heap grow, replicas are the broker's copies.
const (
	utilisation = 0.6
	headroom    = 2
	replicas    = 3
)

func (c *costs) need(s scenario, checkpoint time.Duration) need {
	each := s.rate * checkpoint.Seconds()
	w := s.keys / each * (1 - math.Exp(-each/s.keys))
	in := s.rate*c.sizes.Event + w*s.rate*(c.sizes.State+c.sizes.Result)
	return need{
		written: w,
		cores:   s.rate / 1e6 * (c.fold + c.write*w) / utilisation,
		memory:  s.keys * c.sizes.Heap / c.sizes.Aircraft * headroom,
		in:      in, disk: in * replicas, out: s.rate*c.sizes.Event + w*s.rate*c.sizes.Result,
	}
}

// The paper's tables are computed from the measurements.
func TestScaling(t *testing.T) {
	few, many := load[measured](t, "few-keys.json"), load[measured](t, "many-keys.json")
	s := load[sizes](t, "state.json")
	c := costsOf(t, &few, &many, s)
	if c.fold <= 0 || c.write <= 0 || s.Heap <= 0 {
		t.Errorf("costs %+v make no sense: measure again, on a quiet machine", c)
	}
	paper := deployed("SCALING.md")
	sameSection(t, paper, "measured", measuredTable(t, &c, &few, &many))
	sameSection(t, paper, "scaled", scaledTable(&c))
	out := load[together](t, "scale-out.json")
	sameSection(t, paper, "together", out.table(t))
}

// together is the same events counted by more and more processes.
type together struct {
	Time       time.Time `json:"time"`
	Go         string    `json:"go"`
	System     string    `json:"system"`
	CPUs       int       `json:"cpus"`
	Events     float64   `json:"events"`
	Aircraft   float64   `json:"aircraft"`
	Partitions int       `json:"partitions"`
	Runs       []struct {
		Processes int       `json:"processes"`
		CPU       []float64 `json:"cpu_seconds"`
		Written   float64   `json:"written_records"`
		Windows   float64   `json:"windows"`
	} `json:"runs"`
}

// table has the throughput per CPU second beside that of one process, which is what scaling out may cost at most.
func (o *together) table(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %d CPUs, %s, %s events of %s aircraft in %d partitions, embedded broker, %s.\n\n", o.System, o.CPUs, o.Go, count(o.Events),
		count(o.Aircraft), o.Partitions, o.Time.Format("2 January 2006"))
	text.WriteString("| processes | windows right | records written for each event | CPU s per million events | events per CPU second, of one process's |\n|---:|---:|---:|---:|---:|\n")
	var alone float64
	for _, r := range o.Runs {
		sum := 0.0
		for _, cpu := range r.CPU {
			sum += cpu
		}
		if r.Processes == 1 {
			alone = sum
		}
		if len(r.CPU) != r.Processes || alone == 0 {
			t.Fatalf("run of %d processes: %v", r.Processes, r.CPU)
		}
		fmt.Fprintf(&text, "| %d | all %s | %.2f | %.2f | %.0f %% |\n", r.Processes, count(r.Windows), r.Written/o.Events, 1e6*sum/o.Events, 100*alone/sum)
	}
	return text.String()
}

func measuredTable(t *testing.T, c *costs, runs ...*measured) string {
	t.Helper()
	var text strings.Builder
	e := runs[0].Environment
	fmt.Fprintf(&text, "%s, %d CPUs, %s, broker %s, checkpoint every %s, %s, %s.\n\n", e.System, e.CPUs, e.Go, e.Broker,
		runs[0].Product.Commit, strings.Join(runs[0].Product.Windows, ", "), e.Time.Format("2 January 2006"))
	text.WriteString("| aircraft | events | windows right | CPU s per million events | bare consumers alone | records written for each event | peak memory |\n|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, m := range runs {
		x, raw := m.of(t, "klgstream"), m.of(t, "raw")
		if x.Verdict.Wrong != 0 || x.Verdict.Windows == 0 {
			t.Errorf("%d of %d windows are wrong: this is no measurement", x.Verdict.Wrong, x.Verdict.Windows)
		}
		fmt.Fprintf(&text, "| %s | %s | all %s | %.2f | %.2f | %.2f | %s |\n", count(float64(m.Shape.Keys)), count(x.Events), count(float64(x.Verdict.Windows)),
			1e6*x.CPU/x.Events, 1e6*raw.CPU/raw.Events, x.written(), bytesOf(x.RSS))
	}
	fmt.Fprintf(&text, "\nSo *a* = %.2f CPU seconds for a million events, and *b* = %.2f for a million states and results.\n\n", c.fold, c.write)
	fmt.Fprintf(&text, "An aircraft takes %s of heap. Records have %s (event), %s (state), %s (result) before compression. (%s.)\n",
		bytesOf(c.sizes.Heap/c.sizes.Aircraft), bytesOf(c.sizes.Event), bytesOf(c.sizes.State), bytesOf(c.sizes.Result), c.sizes.Source)
	return text.String()
}

func scaledTable(c *costs) string {
	var text strings.Builder
	text.WriteString("| events/s | aircraft | checkpoint | *w* | cores | memory | broker in | on disks | broker out |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range []struct {
		scenario
		checkpoint time.Duration
	}{
		{scenario{20e3, 5e3}, 100 * time.Millisecond},
		{scenario{100e3, 1e6}, 100 * time.Millisecond},
		{scenario{1e6, 1e6}, 100 * time.Millisecond},
		{scenario{1e6, 10e6}, 100 * time.Millisecond},
		{scenario{1e6, 100e6}, 100 * time.Millisecond},
		{scenario{1e6, 1e6}, time.Second},
		{scenario{1e6, 100e6}, time.Second},
	} {
		n := c.need(row.scenario, row.checkpoint)
		fmt.Fprintf(&text, "| %s | %s | %s | %.2f | %.1f | %s | %s/s | %s/s | %s/s |\n", count(row.rate), count(row.keys), row.checkpoint, n.written,
			n.cores, bytesOf(n.memory), bytesOf(n.in), bytesOf(n.disk), bytesOf(n.out))
	}
	return text.String()
}

func count(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func bytesOf(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for ; n >= 1000 && i < len(units)-1; i++ {
		n /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.3g %s", n, units[i])
}

// The model at its ends, where it can be checked by hand.
func TestScalingModel(t *testing.T) {
	c := costs{fold: 1, write: 10, sizes: sizes{Aircraft: 1, Heap: 1000, Event: 100, State: 200, Result: 300}}
	one := c.need(scenario{rate: 1e6, keys: 1}, time.Second) // one aircraft: one record a checkpoint
	if one.written > 1.1e-6 || math.Abs(one.cores-1/utilisation) > 0.01 || math.Abs(one.in-100e6) > 1e4 {
		t.Errorf("one aircraft: %+v", one)
	}
	all := c.need(scenario{rate: 1e6, keys: 1e15}, time.Second) // each event another aircraft's
	if math.Abs(all.written-1) > 0.01 || math.Abs(all.cores-11/utilisation) > 0.1 || math.Abs(all.in-600e6) > 1e7 || math.Abs(all.out-400e6) > 1e7 || all.memory != 2e18 {
		t.Errorf("all different: %+v", all)
	}
	if got := count(1234567) + " " + bytesOf(1536) + " " + bytesOf(12) + " " + bytesOf(2.5e12); got != "1,234,567 1.54 kB 12 B 2.5 TB" {
		t.Errorf("written as %s", got)
	}
}
