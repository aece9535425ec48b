package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
)

// scaleOut is what deploy/measured/scale-out.json holds: what the same events cost when more processes share them.
type scaleOut struct {
	Time       time.Time       `json:"time"`
	Go         string          `json:"go"`
	System     string          `json:"system"`
	CPUs       int             `json:"cpus"`
	Events     int             `json:"events"`
	Aircraft   int             `json:"aircraft"`
	Partitions int             `json:"partitions"`
	Runs       []scaleOutCosts `json:"runs"`
}

type scaleOutCosts struct {
	Processes int       `json:"processes"`
	CPU       []float64 `json:"cpu_seconds"` // of each process, from its start to everything counted
	Seconds   float64   `json:"seconds"`
	Written   float64   `json:"written_records"` // states and results
	Windows   int       `json:"windows"`         // all as they must be
}

// TestScaleOut has the same backlog counted by 1, 2 and 4 processes that share a topic. Each time every window must be right. With
// KLGSTREAM_SCALE_OUT=FILE there are many events, and what they cost is written there; the figures are no test: the broker and
// the reader of the results share the machine, so only what each process used itself can be compared.
func TestScaleOut(t *testing.T) {
	t.Parallel()
	file, events := os.Getenv("KLGSTREAM_SCALE_OUT"), 20_000
	if file != "" {
		events = 8_000_000
	}
	paths, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	report := scaleOut{Time: time.Now().UTC(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Events: events, Aircraft: 5000, Partitions: 8}
	for _, n := range []int{1, 2, 4} {
		costs := countTogether(t, paths[0], b.Addrs(), n, &report)
		report.Runs = append(report.Runs, costs)
		total := 0.0
		for _, cpu := range costs.CPU {
			total += cpu
		}
		t.Logf("%d processes: %.2f CPU s per million events, %.2f records written for each, %.1f s", n, 1e6*total/float64(events), costs.Written/float64(events), costs.Seconds)
	}
	if file == "" {
		return
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil { //nolint:gosec // it is a document
		t.Fatal(err)
	}
}

// countTogether has n processes count the report's events.
func countTogether(t *testing.T, path string, brokers []string, n int, o *scaleOut) scaleOutCosts {
	t.Helper()
	k := Kafka{Brokers: brokers, ClientID: "test"}
	names := []string{fmt.Sprintf("--group=by-%d", n), fmt.Sprintf("--input-topic=events-%d", n), fmt.Sprintf("--output-topic=windows-%d", n), "--registry-group=none"}
	topics := append([]string{"topics", "--brokers=" + strings.Join(brokers, ","), fmt.Sprintf("--partitions=%d", o.Partitions)}, names...)
	if code := launch(t, topics...).wait(); code != exitOK {
		t.Fatalf("topics: exit code %d", code)
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(fmt.Sprintf("windows-%d", n)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	truth := publishMany(t, c, fmt.Sprintf("events-%d", n), o)
	began := time.Now()
	replicas := make([]*replica, n)
	for i := range replicas {
		replicas[i] = launchReplica(t, path, fmt.Sprintf("%d-of-%d", i, n), k, names...)
	}
	costs := scaleOutCosts{Processes: n, Windows: len(truth)}
	all := &results{client: c, counts: map[string]int64{}, times: map[int32][]time.Time{}}
	all.await(t, truth)
	costs.Seconds = time.Since(began).Seconds()
	for _, r := range replicas {
		m := r.metrics(t)
		costs.CPU = append(costs.CPU, m["process_cpu_seconds_total"])
		costs.Written += m[`klgstream_written_records_total{kind="table"}`] + m[`klgstream_written_records_total{kind="output"}`]
	}
	for _, r := range replicas {
		r.stop(t)
	}
	return costs
}

// publishMany publishes events keyed by registration, two windows of each aircraft, and returns what they add up to.
func publishMany(t *testing.T, c *kgo.Client, topic string, o *scaleOut) map[string]int64 {
	t.Helper()
	truth := map[string]int64{}
	failed := make(chan error, 1)
	for i := range o.Events {
		w := codecs.Window{Registration: "N" + strconv.Itoa(i*7919%o.Aircraft), Definition: "tumbling:1h", Start: time.Date(2026, 2, 8, 10+2*i/o.Events, 0, 0, 0, time.UTC).UnixMilli()}
		at := time.UnixMilli(w.Start).UTC().Add(time.Duration(i%3600) * time.Second)
		truth[string(w.AppendKey(nil))]++
		c.Produce(t.Context(), &kgo.Record{Topic: topic, Key: []byte(w.Registration), Value: fmt.Appendf(nil, `{"event_type":"departed","registration_number":"%s","aircraft_id":%d,"timestamp":"%s"}`, w.Registration, i%o.Aircraft, at.Format(time.RFC3339))}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	return truth
}

// metrics are the sums of what a replica shows, by name; of what it wrote also by kind.
func (r *replica) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	_, body := fetch(t, http.MethodGet, r.ops+"/metrics", "")
	sums := map[string]float64{}
	for line := range strings.Lines(body) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			continue
		}
		name, labels, _ := strings.Cut(name, "{")
		sums[name] += v
		if _, kind, ok := strings.Cut(labels, `kind="`); ok {
			kind, _, _ = strings.Cut(kind, `"`)
			sums[name+`{kind="`+kind+`"}`] += v
		}
	}
	return sums
}
