package checks

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kgo"
)

// process is a real klgstream with what it says of its addresses.
type process struct {
	t       *testing.T
	job     string
	cmd     *exec.Cmd
	ops     string // operations listener
	web     string // of dev and api
	broker  string // of dev
	said    strings.Builder
	drained chan struct{}
}

// addresses finds them in what dev prints and in what roles log.
var addresses = regexp.MustCompile(`(?m)(?:^  (open|broker) +|(operations|"address":|"operations":)[ "]*)(?:http://)?(127\.0\.0\.1:\d+)`)

// launch starts klgstream on ports of the system's choice and waits until it has said which.
func launch(t *testing.T, job string, env []string, args ...string) *process {
	t.Helper()
	free := map[string][]string{
		"processor": {"--ops-url=http://127.0.0.1:0"}, "sink": {"--sink-ops-addr=127.0.0.1:0"},
		"api": {"--api-ops-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"},
		"dev": {"--ops-url=http://127.0.0.1:0", "--http-addr=127.0.0.1:0", "--broker-addr=127.0.0.1:0"},
	}
	p := &process{t: t, job: job, drained: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), binary, append(args, free[args[0]]...)...)
	p.cmd.Env = append(os.Environ(), env...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for (p.ops == "" || args[0] == "dev" && p.broker == "" || args[0] == "api" && p.web == "") && lines.Scan() {
		p.hear(lines.Text())
	}
	go func() { // it ends with the process
		defer close(p.drained)
		for lines.Scan() {
			p.said.WriteString(lines.Text() + "\n")
		}
	}()
	t.Cleanup(func() {
		if p.kill(); t.Failed() {
			text := p.said.String()
			t.Logf("%s said: %s", job, text[max(0, len(text)-2000):])
		}
	})
	return p
}

// hear takes the addresses of a line.
func (p *process) hear(line string) {
	p.said.WriteString(line + "\n")
	for _, m := range addresses.FindAllStringSubmatch(line, -1) {
		switch strings.Trim(m[1]+m[2], `":`) {
		case "operations":
			p.ops = m[3]
		case "open", "address":
			p.web = m[3]
		case "broker":
			p.broker = m[3]
		}
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.drained
	_ = p.cmd.Wait()
}

// nowhere is an address at which nobody answers: a privileged port of the discard protocol.
const nowhere = "127.0.0.1:9"

// samples are values by series, as Prometheus would store them.
type samples map[string]float64

// scrape is what Prometheus sees of a process; one that does not answer is down.
func (p *process) scrape() samples {
	s := samples{}
	up := fmt.Sprintf(`up{instance="%s",job="%s"}`, p.ops, p.job)
	text, err := (&flow{}).get(p.t.Context(), "http://"+p.ops+"/metrics")
	if s[up] = 1; err != nil {
		return samples{up: 0}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	for name, f := range families {
		if strings.HasPrefix(name, "klgstream_") || strings.HasPrefix(name, "process_resident") || strings.HasPrefix(name, "go_gc_gomemlimit") {
			p.take(s, name, f)
		}
	}
	return s
}

// take adds a family; of histograms the rules use count and classic buckets.
func (p *process) take(s samples, name string, f *dto.MetricFamily) {
	for _, m := range f.GetMetric() {
		pairs := []string{fmt.Sprintf("instance=%q", p.ops), fmt.Sprintf("job=%q", p.job)}
		for _, l := range m.GetLabel() {
			pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		labels := "{" + strings.Join(pairs, ",") + "}"
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			s[name+labels] = m.GetCounter().GetValue()
		case dto.MetricType_GAUGE:
			s[name+labels] = m.GetGauge().GetValue()
		case dto.MetricType_HISTOGRAM:
			s[name+"_count"+labels] = float64(m.GetHistogram().GetSampleCount())
			for _, b := range m.GetHistogram().GetBucket() {
				le := strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
				s[name+"_bucket"+strings.TrimSuffix(labels, "}")+fmt.Sprintf(",le=%q}", le)] = float64(b.GetCumulativeCount())
			}
		}
	}
}

// await scrapes until a series is as wanted.
func (p *process) await(what string, ok func(float64) bool) samples {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s := p.scrape()
		for name, value := range s {
			if hasAll(name, what) && ok(value) {
				return s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("%s: %s never became what it should", p.job, what)
		}
	}
}

// seriesOf is the series with the metric and the labels of what.
func seriesOf(s samples, what string) string {
	for name := range s {
		if hasAll(name, what) {
			return name
		}
	}
	return ""
}

// hasAll tells whether a series has the metric and the labels of what, in any order.
func hasAll(series, what string) bool {
	name, labels, _ := strings.Cut(strings.TrimSuffix(what, "}"), "{")
	if !strings.HasPrefix(series, name+"{") {
		return false
	}
	for l := range strings.SplitSeq(labels, ",") {
		if !strings.Contains(series, l) {
			return false
		}
	}
	return true
}

func positive(v float64) bool { return v > 0 }
func zero(v float64) bool     { return v == 0 }

// moving are the series that go on as they went during the fault: counters, and gauges of which a rule asks how they move.
var moving = []string{"_total{", "_count{", "_bucket{", "klgstream_input_lag_records{", "klgstream_watermark_seconds{"}

// episode is what was seen before and after a fault, and which alerts must come of it.
type episode struct {
	before, after samples
	alerts        []string
}

// unitTest makes promtool's test of it: forty quiet minutes, and then an hour in which the fault lasts. What has moved goes on moving at
// the same pace.
func (e *episode) unitTest(name string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "  - name: %s\n    interval: 1m\n    input_series:\n", name)
	for _, series := range sortedKeys(e.after) {
		after, step := e.after[series], 0.0
		before, known := e.before[series]
		if e.before != nil && slices.ContainsFunc(moving, func(kind string) bool { return strings.Contains(series, kind) }) {
			step = after - before
		}
		values := "_x40 " + steps(after, step)
		if known {
			values = strings.Replace(steps(before, 0), "x60", "x39", 1) + " " + steps(after, step)
		}
		fmt.Fprintf(&text, "      - {series: '%s', values: '%s'}\n", series, values)
	}
	for _, job := range []string{"processor", "sink", "api"} { // somebody else is well
		if slices.Contains(e.alerts, "KlgstreamRoleDown") && job == "processor" {
			continue
		}
		fmt.Fprintf(&text, "      - {series: 'up{instance=\"other\",job=%q}', values: '1x100'}\n", job)
	}
	text.WriteString("    promql_expr_test:\n")
	for _, alert := range e.alerts {
		expr := fmt.Sprintf("group by (alertname) (ALERTS{alertname=%q, alertstate=\"firing\"})", alert)
		fmt.Fprintf(&text, "      - expr: '%s'\n        eval_time: 38m\n        exp_samples: []\n", expr)
		fmt.Fprintf(&text, "      - expr: '%s'\n        eval_time: 90m\n        exp_samples: [{labels: '{alertname=%q}', value: 1}]\n", expr, alert)
	}
	return text.String()
}

func steps(from, step float64) string { return fmt.Sprintf("%f+%fx60", from, step) }

func sortedKeys(s samples) []string {
	keys := make([]string, 0, len(s))
	for k := range s {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Faults of real processes make every alert fire, through what they show Prometheus.
func TestFaultsFireAlerts(t *testing.T) {
	rulesFile, err := filepath.Abs(deployed("prometheus", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := "rule_files: [" + rulesFile + "]\nevaluation_interval: 1m\ntests:\n"
	fired := map[string]bool{}
	for name, make := range map[string]func(*testing.T) []episode{
		"garbage and late events": garbage, "no broker, no memory": noBroker, "killed": killed, "broker dies": brokerDies,
		"broker dies under the API": apiAlone, "no store": noStore, "a broker that stops": frozen, "more than can be counted": overrun,
		"another writes the changelog": intruder, "old times only": stalled, "members come and go": storm, "results that are none, and old ones": results,
	} {
		t.Run(name, func(t *testing.T) {
			for i, e := range make(t) {
				text += e.unitTest(fmt.Sprintf("%s (%d)", name, i+1))
				for _, alert := range e.alerts {
					fired[alert] = true
				}
			}
		})
	}
	for _, r := range alerts(t) {
		if !fired[r.Alert] {
			t.Errorf("no fault makes %s fire", r.Alert)
		}
	}
	file := filepath.Join(t.TempDir(), "faults.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", file)
}

// dev is a whole flow of one's own.
func dev(t *testing.T, file string) *process {
	t.Helper()
	p := launch(t, "processor", nil, "dev", "--file="+file)
	p.await(`klgstream_ready{part="processor"}`, positive)
	p.await(`klgstream_ready{part="sink"}`, positive)
	return p
}

// garbage sends what cannot be read, and what comes too late.
func garbage(t *testing.T) []episode {
	p := dev(t, "")
	p.await(`klgstream_events_total{group="aircraft-activity",outcome="counted"}`, func(v float64) bool { return v > 2000 })
	before := p.await(`klgstream_sink_lag_records{topic="aircraft-windows"}`, func(float64) bool { return true })
	send(t, "{\"event_type\":\"inspected\"}\nnonsense\n", p.broker)
	for range 3 {
		if status := post(t, p.web, `{"event_type":"x","registration_number":"N1","timestamp":"2012-01-01T00:00:00Z"}`); status != http.StatusAccepted {
			t.Errorf("a late event was answered with %d", status)
		}
	}
	p.await(`klgstream_events_total{group="aircraft-activity",outcome="late"}`, positive)
	after := p.await(`klgstream_events_total{group="aircraft-activity",outcome="dead"}`, positive)
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamDeadLetters", "KlgstreamLateRateHigh"}}}
}

// noBroker starts a processor that has neither broker nor memory.
func noBroker(t *testing.T) []episode {
	p := launch(t, "processor", []string{"GOMEMLIMIT=1MiB"}, "processor", "--brokers="+nowhere)
	after := p.await(`klgstream_ready{part="processor"}`, zero)
	return []episode{{after: after, alerts: []string{"KlgstreamNotReady", "KlgstreamMemoryHigh"}}}
}

// killed is a processor that was there and is not.
func killed(t *testing.T) []episode {
	p := launch(t, "processor", nil, "processor", "--brokers="+nowhere)
	before := p.await(`klgstream_build_info`, positive)
	p.kill()
	return []episode{{before: before, after: p.scrape(), alerts: []string{"KlgstreamInstanceDown", "KlgstreamRoleDown"}}}
}

// brokerDies takes the broker from under a processor.
func brokerDies(t *testing.T) []episode {
	flow := dev(t, "none")
	p := another(t, flow, "another", "--session-timeout=1s")
	before := p.scrape()
	flow.kill()
	after := p.await(`klgstream_run_failures_total{group="another"}`, positive)
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamRunRestarts", "KlgstreamNotReady"}}}
}

// apiAlone takes the broker from under an API that is asked to publish.
func apiAlone(t *testing.T) []episode {
	flow := dev(t, "none")
	p := launch(t, "api", nil, "api", "--brokers="+flow.broker, "--store-url=sqlite:"+filepath.Join(t.TempDir(), "a.db"))
	before := p.await(`klgstream_http_events_total{outcome="failed"}`, zero)
	flow.kill()
	if status := post(t, p.web, `{"event_type":"x","registration_number":"N1","timestamp":"2012-01-01T00:00:00Z"}`); status < 500 {
		t.Errorf("an event that nobody takes was answered with %d", status)
	}
	after := p.await(`klgstream_http_events_total{outcome="failed"}`, positive)
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamEventsNotAccepted", "KlgstreamAPIErrors"}}}
}

// noStore is a sink whose database does not answer.
func noStore(t *testing.T) []episode {
	flow := dev(t, "none")
	p := launch(t, "sink", nil, "sink", "--brokers="+flow.broker, "--sink-group=another", "--store-url=postgresql://nobody@"+nowhere+"/dev")
	before := p.await(`klgstream_sink_retries_total`, positive)
	after := p.await(`klgstream_sink_retries_total`, func(v float64) bool { return v > 3 })
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamStoreUnreachable", "KlgstreamSinkRetrying"}}}
}

// another starts a processor with a group and a topic of results of its own on a flow's broker.
func another(t *testing.T, flow *process, group string, more ...string) *process {
	t.Helper()
	p := launch(t, "processor", nil, append([]string{"processor", "--brokers=" + flow.broker}, append(namesOf(t, flow, group), more...)...)...)
	p.await(`klgstream_ready{part="processor"}`, positive)
	return p
}

// namesOf are the settings of such a group, whose topics are made.
func namesOf(t *testing.T, flow *process, group string) []string {
	t.Helper()
	names := []string{"--group=" + group, "--registry-group=none", "--output-topic=" + group + "-windows"}
	if out, err := klgstream(t, nil, append([]string{"topics", "--brokers=" + flow.broker}, names...)...); err != nil {
		t.Fatal(out, err)
	}
	return names
}

// of is an event of an aircraft.
func of(registration string, at time.Time) string {
	return fmt.Sprintf("{\"event_type\":\"x\",\"aircraft_id\":1,\"registration_number\":%q,\"timestamp\":%q}\n", registration, at.UTC().Format(time.RFC3339))
}

// counted is how many events a group has counted.
func counted(group string) string {
	return fmt.Sprintf("klgstream_events_total{group=%q,outcome=\"counted\"}", group)
}

// frozen stops a broker where it stands for longer than a checkpoint, or an answer of the API, should take, while events come.
func frozen(t *testing.T) []episode {
	flow := dev(t, "none")
	p := another(t, flow, "frozen")
	api := launch(t, "api", nil, "api", "--brokers="+flow.broker, "--store-url=sqlite:"+filepath.Join(t.TempDir(), "a.db"))
	api.await(`klgstream_http_events_total{outcome="accepted"}`, zero)
	e := []episode{{before: p.scrape(), alerts: []string{"KlgstreamCheckpointSlow"}}, {before: api.scrape(), alerts: []string{"KlgstreamAPISlow"}}}
	slow := func() bool {
		e[0].after, e[1].after = p.scrape(), api.scrape()
		return beyond(e[0].after, "klgstream_checkpoint_duration_seconds", "2.048") > 0 && beyond(e[1].after, "klgstream_http_request_duration_seconds", "2.048") > 0
	}
	for !slow() {
		send(t, of("N1", time.Now())+of("N2", time.Now())+of("N3", time.Now()), flow.broker)
		freeze(t, flow, 2500*time.Millisecond, func() { post(t, api.web, of("N4", time.Now())) })
	}
	return e
}

// freeze stops a process for so long, and does something meanwhile.
func freeze(t *testing.T, p *process, long time.Duration, do func()) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw := time.AfterFunc(long, func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
	defer thaw.Stop()
	do()
}

// beyond is how many observations of a histogram were above a bound.
func beyond(s samples, name, bound string) (n float64) {
	for series, value := range s {
		switch {
		case strings.HasPrefix(series, name+"_count{"):
			n += value
		case strings.HasPrefix(series, name+"_bucket{") && strings.Contains(series, fmt.Sprintf("le=%q", bound)):
			n -= value
		}
	}
	return n
}

// overrun gives a processor that writes after each event more than it can count, and then takes its broker away.
func overrun(t *testing.T) []episode {
	flow := dev(t, "none")
	p := another(t, flow, "overrun", "--max-dirty=1", "--session-timeout=1s")
	before := p.await(`klgstream_input_lag_records{group="overrun"}`, zero)
	send(t, strings.Repeat(of("N1", time.Now()), 60_000), flow.broker, "--key=registration")
	behind := p.await(`klgstream_input_lag_records{group="overrun"}`, func(v float64) bool { return v > 10_000 })
	flow.kill()
	over := p.await(`klgstream_ready{part="processor"}`, zero) // it is stuck
	return []episode{
		{before: before, after: behind, alerts: []string{"KlgstreamInputLagGrowing"}},
		{after: over, alerts: []string{"KlgstreamCheckpointsStopped"}},
	}
}

// intruder writes to the changelog of a processor that has just got its partitions, as a former owner that wakes up does.
func intruder(t *testing.T) []episode {
	flow := dev(t, "none")
	p := another(t, flow, "intruder", "--session-timeout=1m")
	send(t, of("N1", time.Now()), flow.broker)
	before := p.await(counted("intruder"), positive)
	send(t, of("N1", time.Now()), flow.broker, "--input-topic=intruder-table", "--key=registration")
	send(t, of("N1", time.Now()), flow.broker)
	after := p.await(`klgstream_foreign_table_records_total{group="intruder"}`, positive)
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamForeignTableRecords"}}}
}

// stalled sends events that are older than one before, and not late.
func stalled(t *testing.T) []episode {
	flow, now := dev(t, "none"), time.Now()
	p := another(t, flow, "stalled", "--idle=hold", "--bound=1h")
	send(t, of("N1", now), flow.broker)
	before := p.await(counted("stalled"), positive)
	send(t, of("N1", now.Add(-time.Minute)), flow.broker)
	after := p.await(counted("stalled"), func(v float64) bool { return v > 1 })
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamWatermarkStalled"}}}
}

// storm is a group in which a member comes.
func storm(t *testing.T) []episode {
	flow := dev(t, "none")
	p := another(t, flow, "storm", "--session-timeout=1s")
	before := p.scrape()
	another(t, flow, "storm", "--session-timeout=1s")
	after := p.await(`klgstream_rebalances_total{group="storm"}`, func(v float64) bool { return v > 1 })
	return []episode{{before: before, after: after, alerts: []string{"KlgstreamRebalanceStorm"}}}
}

// results are one that is none, and one that waited two minutes for the sink.
func results(t *testing.T) []episode {
	flow := dev(t, "none")
	p := launch(t, "sink", nil, "sink", "--brokers="+flow.broker, "--sink-group=another", "--store-url=sqlite:"+filepath.Join(t.TempDir(), "s.db"))
	send(t, of("N1", time.Now()), flow.broker)
	before := p.await(`klgstream_sink_rows_total{table="windows"}`, positive)
	send(t, of("N1", time.Now()), flow.broker, "--input-topic=aircraft-windows")
	refused := p.await(`klgstream_sink_refused_records_total{fate="dead_lettered"}`, positive)
	again(t, flow.broker, "aircraft-windows", time.Now().Add(-2*time.Minute))
	loaded := refused[seriesOf(refused, `klgstream_sink_row_delay_seconds_count{topic="aircraft-windows"}`)]
	late := p.await(`klgstream_sink_row_delay_seconds_count{topic="aircraft-windows"}`, func(v float64) bool { return v > loaded })
	return []episode{
		{before: before, after: refused, alerts: []string{"KlgstreamSinkRefusing"}},
		{before: refused, after: late, alerts: []string{"KlgstreamSinkBehind"}},
	}
}

// again publishes the first record of a topic once more, as if it were of another time.
func again(t *testing.T, broker, topic string, at time.Time) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var first *kgo.Record
	for first == nil {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		if records := fetches.Records(); len(records) > 0 {
			first = records[0]
		}
	}
	first.Timestamp = at
	if err := cl.ProduceSync(t.Context(), first).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// send publishes lines as they are.
func send(t *testing.T, lines, broker string, more ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"replay", "-", "--brokers=" + broker}, more...)...)
	cmd.Stdin = bufio.NewReader(strings.NewReader(lines))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("replay: %v: %s", err, out)
	}
}

func post(t *testing.T, api, event string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+api+"/api/v1/streaming/events", strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}
