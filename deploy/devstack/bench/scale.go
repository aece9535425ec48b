package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// Scale says along which axes to measure. On each axis all else is as in the base. The zero value of a field is its
// documented default; an axis that is empty but not nil is left out.
type Scale struct {
	Base       Throughput
	Partitions []int // default 1, 4, 16, 64
	Keys       []int // default 1,000, 5,000, 50,000, 200,000, 2,000,000
	Windows    []int // definitions counted at once, out of four; default 1, 2, 4
	Open       []int // hourly windows open per key; default 1, 4, 16
	Hopping    bool  // compare hopping 24 h / 1 h on close with tumbling 1 h on close
}

// definitions are those that the axis of windows takes the first of.
var definitions = []string{"tumbling:1h", "hopping:24h/1h", "cumulating:1h/24h", "session:30m"}

func (s Scale) withDefaults() Scale {
	s.Base = s.Base.withDefaults()
	s.Base.Modes = []string{"raw", "klgstream"}
	for _, axis := range []struct {
		values *[]int
		usual  []int
	}{
		{&s.Partitions, []int{1, 4, 16, 64}},
		{&s.Keys, []int{1000, 5000, 50_000, 200_000, 2_000_000}},
		{&s.Windows, []int{1, 2, 4}},
		{&s.Open, []int{1, 4, 16}},
	} {
		if *axis.values == nil {
			*axis.values = axis.usual
		}
	}
	return s
}

// Point is one measurement on an axis.
type Point struct {
	Axis  string  `json:"axis"`
	At    float64 `json:"at"`
	Label string  `json:"label"`
	Run   Result  `json:"run"`
}

// of is a figure of the point's median.
func (p Point) of(figure func(Measurement) float64) float64 {
	m, _ := p.Run.Median("klgstream")
	return figure(m)
}

// ScaleResult is how cost grows.
type ScaleResult struct {
	Environment Environment `json:"environment"`
	Points      []Point     `json:"points"`
}

// The axes.
const (
	axisPartitions = "partitions"
	axisKeys       = "keys"
	axisWindows    = "window definitions"
	axisOpen       = "open windows per key"
	axisKind       = "kind of window, on close"
)

// points are what is to be measured.
func (s Scale) points() (all []Point, runs []Throughput) {
	add := func(axis string, at float64, label string, change func(t *Throughput)) {
		t := s.Base
		change(&t)
		all, runs = append(all, Point{Axis: axis, At: at, Label: label}), append(runs, t)
	}
	each := func(axis string, values []int, change func(t *Throughput, n int)) {
		for _, n := range values {
			add(axis, float64(n), strconv.Itoa(n), func(t *Throughput) { change(t, n) })
		}
	}
	each(axisPartitions, s.Partitions, func(t *Throughput, n int) { t.Shape.Partitions = n })
	each(axisKeys, s.Keys, func(t *Throughput, n int) { t.Shape.Keys = n })
	each(axisWindows, s.Windows, func(t *Throughput, n int) { t.Product.Windows, t.OnClose = definitions[:n], true })
	each(axisOpen, s.Open, func(t *Throughput, n int) {
		// Events pass the hours quickly and the watermark follows n hours behind.
		t.Span, t.Bound = time.Duration(3*n)*time.Hour, max(time.Duration(n-1)*time.Hour, t.Disorder)
	})
	if s.Hopping {
		for i, kind := range []string{"tumbling:1h", "hopping:24h/1h"} {
			add(axisKind, float64(i), kind, func(t *Throughput) { t.Product.Windows, t.OnClose, t.Span = []string{kind}, true, 48*time.Hour })
		}
	}
	return all, runs
}

// Validate returns all faults at once.
func (s Scale) Validate() error {
	s = s.withDefaults()
	for _, n := range s.Windows {
		if n < 1 || n > len(definitions) {
			return fmt.Errorf("window definitions %d must be 1 to %d", n, len(definitions))
		}
	}
	var faults []error
	points, runs := s.points()
	for i, p := range points {
		if err := runs[i].Validate(); err != nil {
			faults = append(faults, fmt.Errorf("%s %s: %w", p.Axis, p.Label, err))
		}
	}
	return errors.Join(faults...)
}

// Measure measures every point.
func (s Scale) Measure(ctx context.Context, progress io.Writer) (ScaleResult, error) {
	if err := s.Validate(); err != nil {
		return ScaleResult{}, fmt.Errorf("configure scale: %w", err)
	}
	s = s.withDefaults()
	r := ScaleResult{Environment: Here(s.Base.Brokers)}
	points, runs := s.points()
	for i, p := range points {
		_, _ = fmt.Fprintf(progress, "%s: %s\n", p.Axis, p.Label)
		var err error
		if p.Run, err = runs[i].Measure(ctx, progress); err != nil {
			return r, fmt.Errorf("%s %s: %w", p.Axis, p.Label, err)
		}
		r.Points = append(r.Points, p)
	}
	return r, nil
}

// Err is nil if every window of every run was right.
func (r ScaleResult) Err() error {
	var faults []error
	for _, p := range r.Points {
		if err := p.Run.Err(); err != nil {
			faults = append(faults, fmt.Errorf("%s %s: %w", p.Axis, p.Label, err))
		}
	}
	return errors.Join(faults...)
}

// axes are the names of the axes in order.
func (r ScaleResult) axes() []string {
	var out []string
	for _, p := range r.Points {
		if !slices.Contains(out, p.Axis) {
			out = append(out, p.Axis)
		}
	}
	return out
}

// on are the points of an axis.
func (r ScaleResult) on(axis string) []Point {
	return slices.DeleteFunc(slices.Clone(r.Points), func(p Point) bool { return p.Axis != axis })
}

// Table writes a line per point; cost is against the axis' least.
func (r ScaleResult) Table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "axis\tat\tevents/s\t÷ raw\tCPU s/M\t× least\tpeak RSS MB\tallocs/event\twindows right")
	for _, axis := range r.axes() {
		points := r.on(axis)
		least := slices.MinFunc(points, func(a, b Point) int {
			return cmp.Compare(a.of(Measurement.CPUPerMillion), b.of(Measurement.CPUPerMillion))
		}).of(Measurement.CPUPerMillion)
		for _, p := range points {
			m, _ := p.Run.Median("klgstream")
			_, _ = fmt.Fprintf(tw, "%s\t%s\t%.0f\t%s\t%.2f\t%.2f\t%d\t%.2f\t%d of %d\n", axis, p.Label, m.Rate(), number(p.Run.Ratio("klgstream", "raw", Measurement.Rate)),
				m.CPUPerMillion(), m.CPUPerMillion()/least, m.PeakRSS>>20, m.MallocsPerEvent(), m.Verdict.Windows-m.Verdict.Wrong, m.Verdict.Windows)
		}
	}
	return tw.Flush()
}

// Plot writes two plots per axis of numbers into a directory: events per second, and CPU time per event.
func (r ScaleResult) Plot(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory for plots: %w", err)
	}
	for _, axis := range r.axes() {
		if axis == axisKind {
			continue
		}
		for _, f := range []struct {
			name, label string
			of          func(Measurement) float64
		}{
			{"rate", "durable events per second", Measurement.Rate},
			{"cpu", "CPU µs per event", Measurement.CPUPerMillion},
		} {
			if err := r.plot(axis, f.label, f.of, filepath.Join(dir, fileName(axis)+"-"+f.name+".svg")); err != nil {
				return fmt.Errorf("plot %s against %s: %w", f.label, axis, err)
			}
		}
	}
	return nil
}

// fileName is an axis' name in a file's.
func fileName(axis string) string {
	return map[string]string{axisPartitions: "partitions", axisKeys: "keys", axisWindows: "definitions", axisOpen: "open"}[axis]
}
