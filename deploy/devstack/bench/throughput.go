package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/processors/window"
)

// Throughput says what to measure. The zero value of a field is its documented default.
type Throughput struct {
	Shape
	Product

	Brokers []string // default: a broker of its own in a child process
	Modes   []string // default raw, empty, klgstream
	Rounds  int      // how often each mode runs, in turn; default 1
	StockAt int      // events of the topic that stock goka reads, which is slow; default a twentieth
	Profile string   // directory for CPU and allocation profiles of every measurement; default none
}

func (t Throughput) withDefaults() Throughput {
	t.Shape = t.Shape.WithDefaults()
	if len(t.Modes) == 0 {
		t.Modes = []string{"raw", "empty", "klgstream"}
	}
	if len(t.Windows) == 0 {
		t.Windows = []string{tumblingHour}
	}
	set(&t.Rounds, 1)
	set(&t.StockAt, max(1, t.Events/20))
	set(&t.Bound, t.Disorder)
	return t
}

// Validate returns all faults at once.
func (t Throughput) Validate() error {
	t = t.withDefaults()
	faults := []error{t.Shape.Validate()}
	for _, m := range t.Modes {
		if modeOf(m) == nil {
			faults = append(faults, fmt.Errorf("mode %q must be one of %s", m, strings.Join(modes(), ", ")))
		}
	}
	if t.Rounds < 1 || t.StockAt < 1 || t.StockAt > t.Events {
		faults = append(faults, fmt.Errorf("rounds %d must be at least 1, stock goka's events %d 1 to %d", t.Rounds, t.StockAt, t.Events))
	}
	if t.Bound < t.Disorder {
		faults = append(faults, fmt.Errorf("bound %v must be at least the disorder %v: late events are not verified here", t.Bound, t.Disorder))
	}
	if t.Unkeyed && slices.Contains(t.Modes, "stock") {
		faults = append(faults, errors.New("stock goka cannot count events without a key"))
	}
	_, err := parseWindows(t.Windows, t.Bound)
	return errors.Join(append(faults, err)...)
}

// Environment is where figures were taken.
type Environment struct {
	Time   time.Time `json:"time"`
	Broker string    `json:"broker"` // "embedded", or its addresses
	Go     string    `json:"go"`
	System string    `json:"system"`
	CPUs   int       `json:"cpus"`
}

// Here is the environment of this process.
func Here(brokers []string) Environment {
	return Environment{time.Now().UTC().Truncate(time.Second), cmp.Or(strings.Join(brokers, ","), "embedded"), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, runtime.NumCPU()}
}

// Result is a throughput run.
type Result struct {
	Environment  Environment   `json:"environment"`
	Shape        Shape         `json:"shape"`
	Product      Product       `json:"product"`
	Measurements []Measurement `json:"measurements"`
}

// Measure fills topics and runs every mode on them, one process at a time.
func (t Throughput) Measure(ctx context.Context, progress io.Writer) (Result, error) {
	if err := t.Validate(); err != nil {
		return Result{}, fmt.Errorf("configure throughput: %w", err)
	}
	t = t.withDefaults()
	r := Result{Environment: Here(t.Brokers), Shape: t.Shape, Product: t.Product}
	err := WithBroker(ctx, t.Brokers, func(brokers []string) error {
		t.Brokers = brokers
		return t.rounds(ctx, progress, &r)
	})
	return r, err
}

// WithBroker calls do with the brokers, or with an embedded one in a process of its own if there are none.
func WithBroker(ctx context.Context, brokers []string, do func(brokers []string) error) error {
	if len(brokers) > 0 {
		return do(brokers)
	}
	b, err := StartBroker(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(b.Addrs), b.Close())
}

// runName is what the topics and groups of one run have in their names.
func runName() string { return fmt.Sprint(time.Now().UnixNano()) }

func (t Throughput) rounds(ctx context.Context, progress io.Writer, r *Result) error {
	run := runName()
	small := t.Shape
	small.Events = t.StockAt
	inputs := map[string]Shape{"bench-" + run: t.Shape}
	if slices.Contains(t.Modes, "stock") {
		inputs["bench-small-"+run] = small
	}
	for name, s := range inputs {
		if err := fillNew(ctx, t.Brokers, name, s, progress); err != nil {
			return err
		}
	}
	for round := range t.Rounds {
		for _, mode := range t.Modes {
			j := job{Brokers: t.Brokers, Input: "bench-" + run, Suffix: fmt.Sprintf("%s-%s-%d", mode, run, round), Shape: t.Shape, Product: t.Product}
			if mode == "stock" {
				j.Input, j.Shape = "bench-small-"+run, small
			}
			m, err := t.one(ctx, mode, j)
			if err != nil {
				return err
			}
			m.Round = round
			_, _ = fmt.Fprintf(progress, "%s: %.0f events/s, %.2f CPU s per million\n", mode, m.Rate(), m.CPUPerMillion())
			r.Measurements = append(r.Measurements, m)
		}
	}
	for name := range inputs {
		if err := DeleteTopics(ctx, t.Brokers, name); err != nil {
			return err
		}
	}
	return nil
}

// fillNew makes a topic and fills it.
func fillNew(ctx context.Context, brokers []string, topic string, s Shape, progress io.Writer) error {
	if err := CreateTopics(ctx, brokers, s.Partitions, topic); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(progress, "filling %s: %d events of %d keys on %d partitions\n", topic, s.Events, s.Keys, s.Partitions)
	return Fill(ctx, brokers, topic, s)
}

// plan is which topics a mode needs besides its input, and how its results are read. The output is the first topic, the
// changelog the second.
func (t Throughput) plan(mode string, j job) (topics, windows []string, parse func(*kgo.Record) (result, error)) {
	switch g := j.group(); mode {
	case "klgstream":
		return []string{g + "-out", g + "-table", g + "-loop", g + "-late", g + "-dead"}, t.Windows, windowRecord
	case "stock":
		return []string{"stock-out-" + j.Suffix, "stock-" + j.Suffix + "-table"}, []string{tumblingHour}, byWindow(hourRecord)
	}
	return nil, nil, nil
}

// one prepares a mode's topics, measures it and compares its results with the truth.
func (t Throughput) one(ctx context.Context, mode string, j job) (Measurement, error) {
	topics, windows, parse := t.plan(mode, j)
	if len(topics) > 0 {
		if err := CreateTopics(ctx, j.Brokers, j.Shape.Partitions, topics...); err != nil {
			return Measurement{}, err
		}
	}
	w := task{Mode: mode, Job: j}
	if t.Profile != "" {
		w.Profile = filepath.Join(t.Profile, j.Suffix)
	}
	m, err := measure(ctx, w)
	if err != nil || len(topics) == 0 {
		return m, err
	}
	definitions, err := parseWindows(windows, 0)
	if err != nil {
		return m, err
	}
	if err := m.judge(ctx, j, topics, definitions, parse); err != nil {
		return m, err
	}
	return m, DeleteTopics(ctx, j.Brokers, topics...)
}

// judge compares the results of a measurement with the truth.
func (m *Measurement) judge(ctx context.Context, j job, topics []string, definitions []window.Definition, parse func(*kgo.Record) (result, error)) error {
	v, err := verify(ctx, j.Brokers, topics[0], j.Shape, definitions, parse)
	if err != nil {
		return err
	}
	if m.Changelog, err = records(ctx, j.Brokers, topics[1]); err != nil {
		return err
	}
	if len(topics) == 5 {
		v.Late, err = records(ctx, j.Brokers, topics[3])
		if err == nil {
			v.Dead, err = records(ctx, j.Brokers, topics[4])
		}
	}
	m.Verdict = &v
	return err
}

// Of are the measurements of a mode.
func (r Result) Of(mode string) []Measurement {
	var all []Measurement
	for _, m := range r.Measurements {
		if m.Mode == mode {
			all = append(all, m)
		}
	}
	return all
}

// Median is the middle measurement of a mode by its duration, and whether there is any.
func (r Result) Median(mode string) (Measurement, bool) {
	all := r.Of(mode)
	if len(all) == 0 {
		return Measurement{}, false
	}
	slices.SortFunc(all, func(a, b Measurement) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return all[len(all)/2], true
}

// Ratio is the median over the rounds of a figure of one mode to that of another in the same round; NaN without both.
func (r Result) Ratio(mode, base string, of func(Measurement) float64) float64 {
	var ratios []float64
	for _, m := range r.Of(mode) {
		for _, b := range r.Of(base) {
			if m.Round == b.Round {
				ratios = append(ratios, of(m)/of(b))
			}
		}
	}
	if len(ratios) == 0 {
		return math.NaN()
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// Table writes the medians with their ratios.
func (r Result) Table(w io.Writer) error {
	s := r.Shape
	_, _ = fmt.Fprintf(w, "%d events, %d keys, %d partitions; broker %s; %s %s, %d CPUs\n", s.Events, s.Keys, s.Partitions, r.Environment.Broker, r.Environment.Go, r.Environment.System, r.Environment.CPUs)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "mode\tevents/s\t÷ raw\t÷ empty\tCPU s/M\t× raw\tpeak RSS MB\tallocs/event\tresults\tchangelog\twindows right")
	for _, mode := range modes() {
		m, ok := r.Median(mode)
		if !ok {
			continue
		}
		_, _ = fmt.Fprintf(tw, "%s\t%.0f\t%s\t%s\t%.2f\t%s\t%d\t%.2f\t%s\n", mode, m.Rate(), number(r.Ratio(mode, "raw", Measurement.Rate)), number(r.Ratio(mode, "empty", Measurement.Rate)),
			m.CPUPerMillion(), number(r.Ratio(mode, "raw", Measurement.CPUPerMillion)), m.PeakRSS>>20, m.MallocsPerEvent(), r.results(mode, m))
	}
	return tw.Flush()
}

// results is what a mode wrote, and how much of it was right in all rounds.
func (r Result) results(mode string, m Measurement) string {
	if m.Verdict == nil {
		return "-\t-\t-"
	}
	right, all := 0, 0
	for _, m := range r.Of(mode) {
		right, all = right+m.Verdict.Windows-m.Verdict.Wrong, all+m.Verdict.Windows
	}
	return fmt.Sprintf("%d\t%d\t%d of %d", m.Verdict.Records, m.Changelog, right, all)
}

func number(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.3f", v)
}

// Err is nil if every window of every round was right.
func (r Result) Err() error {
	var faults []error
	for _, m := range r.Measurements {
		if m.Verdict == nil {
			continue
		}
		if err := m.Verdict.Err(); err != nil {
			faults = append(faults, fmt.Errorf("%s, round %d: %w", m.Mode, m.Round+1, err))
		}
	}
	return errors.Join(faults...)
}
