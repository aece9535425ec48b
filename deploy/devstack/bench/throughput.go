package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Throughput says what to measure. The zero value of a field is its documented default.
type Throughput struct {
	Shape
	Brokers []string      // default: a broker of its own in a child process
	Modes   []string      // default raw, empty, klgstream
	Rounds  int           // how often each mode runs, in turn; medians are reported; default 1
	Commit  time.Duration // the product's commit interval; default 200 ms
	Windows []string      // the product's window definitions; default tumbling:1h, the only ones that are verified
	StockAt int           // events of the topic that stock goka reads, which is slow; default a twentieth
}

// Result is a throughput run.
type Result struct {
	Shape        Shape         `json:"shape"`
	Measurements []Measurement `json:"measurements"`
}

// Measure fills topics and runs every mode on them, one process at a time.
func (t Throughput) Measure(ctx context.Context, progress io.Writer) (Result, error) {
	t.Shape = t.Shape.WithDefaults()
	if err := t.Validate(); err != nil {
		return Result{}, err
	}
	if len(t.Modes) == 0 {
		t.Modes = []string{"raw", "empty", "klgstream"}
	}
	set(&t.Rounds, 1)
	set(&t.Commit, 200*time.Millisecond)
	set(&t.StockAt, max(1, t.Events/20))
	run := fmt.Sprint(time.Now().UnixNano())
	fill := func(name string, s Shape) error {
		if err := CreateTopics(ctx, t.Brokers, s.Partitions, name); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(progress, "filling %s: %d events of %d keys on %d partitions\n", name, s.Events, s.Keys, s.Partitions)
		return Fill(ctx, t.Brokers, name, s)
	}
	input := "bench-" + run
	if err := fill(input, t.Shape); err != nil {
		return Result{}, err
	}
	small := t.Shape
	small.Events = t.StockAt
	r := Result{Shape: t.Shape}
	for round := range t.Rounds {
		for _, mode := range t.Modes {
			j := job{Brokers: t.Brokers, Input: input, Suffix: fmt.Sprintf("%s-%s-%d", mode, run, round), Shape: t.Shape, Commit: t.Commit, Windows: t.Windows}
			if mode == "stock" {
				j.Input, j.Shape = "bench-small-"+run, small
				if round == 0 {
					if err := fill(j.Input, small); err != nil {
						return r, err
					}
				}
			}
			m, err := t.one(ctx, mode, j)
			if err != nil {
				return r, err
			}
			_, _ = fmt.Fprintf(progress, "%s: %.0f events/s, %.2f CPU s per million\n", mode, m.Rate(), m.CPUPerMillion())
			r.Measurements = append(r.Measurements, m)
		}
	}
	return r, nil
}

// one prepares a mode's topics, measures it and compares its results with the truth.
func (t Throughput) one(ctx context.Context, mode string, j job) (Measurement, error) {
	g := "klg-" + j.Suffix
	var topics []string
	var parse func(*kgo.Record) (string, int64, int64, int64, error)
	output := ""
	switch mode {
	case "klgstream":
		output, parse = g+"-out", windowRecord
		topics = []string{output, g + "-late", g + "-dead", g + "-table", g + "-loop"}
	case "stock":
		output, parse = "stock-out-"+j.Suffix, stockRecord
		topics = []string{output, "stock-" + j.Suffix + "-table"}
	}
	if len(topics) > 0 {
		if err := CreateTopics(ctx, j.Brokers, j.Shape.Partitions, topics...); err != nil {
			return Measurement{}, err
		}
	}
	m, err := measure(ctx, task{mode, j})
	if err != nil || output == "" {
		return m, err
	}
	if mode == "stock" || len(t.Windows) == 0 {
		v, err := verify(ctx, j.Brokers, output, j.Shape, parse)
		if err != nil {
			return m, err
		}
		m.Verdict = &v
	}
	ends, err := endOffsets(ctx, j.Brokers, topics[len(topics)-1-boolInt(mode == "klgstream")])
	for _, end := range ends {
		m.Changelog += end
	}
	return m, err
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stockRecord reads the results of goka used the usual way; its counts only grow.
func stockRecord(r *kgo.Record) (string, int64, int64, int64, error) {
	var h stockHour
	err := json.Unmarshal(r.Value, &h)
	return h.Registration, h.Start, h.Count, h.Count, err
}

// Median is the middle measurement of a mode by CPU time, and whether there is any.
func (r Result) Median(mode string) (Measurement, bool) {
	var all []Measurement
	for _, m := range r.Measurements {
		if m.Mode == mode {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return Measurement{}, false
	}
	for i := range all {
		for k := i; k > 0 && all[k].Seconds < all[k-1].Seconds; k-- {
			all[k], all[k-1] = all[k-1], all[k]
		}
	}
	return all[len(all)/2], true
}

// Table writes the medians with their ratios to the bare consumers.
func (r Result) Table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "mode\tevents/s\t÷ raw\tCPU s/M\t× raw\tpeak RSS MB\tallocs/event\tresults\tchangelog\twindows verified")
	base, _ := r.Median("raw")
	for _, mode := range []string{"raw", "empty", "stock", "klgstream"} {
		m, ok := r.Median(mode)
		if !ok {
			continue
		}
		verdict, records := "", ""
		if v := m.Verdict; v != nil {
			verdict, records = fmt.Sprintf("%d of %d", v.Windows-v.Wrong, v.Windows), fmt.Sprint(v.Records)
		}
		_, _ = fmt.Fprintf(tw, "%s\t%.0f\t%.3f\t%.2f\t%.2f\t%d\t%.2f\t%s\t%d\t%s\n", mode, m.Rate(), ratio(m.Rate(), base, Measurement.Rate), m.CPUPerMillion(),
			ratio(m.CPUPerMillion(), base, Measurement.CPUPerMillion), m.PeakRSS>>20, float64(m.Mallocs)/float64(m.Events), records, m.Changelog, verdict)
	}
	return tw.Flush()
}

func ratio(v float64, base Measurement, of func(Measurement) float64) float64 {
	if base.Events == 0 {
		return 0
	}
	return v / of(base)
}

// Wrong is how many windows were wrong in all.
func (r Result) Wrong() int {
	n := 0
	for _, m := range r.Measurements {
		if m.Verdict != nil {
			n += m.Verdict.Wrong
		}
	}
	return n
}

// Modes are the names of all modes, in the table's order.
func Modes() string { return strings.Join([]string{"raw", "empty", "stock", "klgstream"}, ", ") }
