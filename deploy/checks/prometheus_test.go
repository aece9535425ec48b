package checks

import (
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	dto "github.com/prometheus/client_model/go"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// ruleFile is a file of Prometheus rules.
type ruleFile struct {
	Groups []struct {
		Name     string `json:"name"`
		Interval string `json:"interval,omitempty"`
		Rules    []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Record      string            `json:"record,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file ruleFile
	if err := yaml.UnmarshalStrict([]byte(read(t, deployed("prometheus", "rules.yaml"))), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func alerts(t *testing.T) (all []rule) {
	t.Helper()
	for _, r := range rules(t) {
		if r.Alert != "" {
			all = append(all, r)
		}
	}
	return all
}

// promtool runs Prometheus' own tool. The tag leaves out what finds targets in clouds.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "-tags=remove_all_sd", "github.com/prometheus/prometheus/cmd/promtool"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func TestPromtool(t *testing.T) {
	promtool(t, "check", "config", "--lint=all", "--lint-fatal", deployed("prometheus", "prometheus.yaml"))
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", deployed("prometheus", "rules.yaml"))
	promtool(t, "test", "rules", deployed("prometheus", "rules_test.yaml"))
}

// Each alert is tested firing and quiet, says what to do, and is as grave as one of two words.
func TestAlerts(t *testing.T) {
	tested := read(t, deployed("prometheus", "rules_test.yaml"))
	headings := anchors(read(t, deployed("docs", "runbook.md")))
	for _, r := range alerts(t) {
		for _, what := range []string{"fires", "is quiet"} {
			if !strings.Contains(tested, "name: "+r.Alert+" "+what+"\n") {
				t.Errorf("%s: no test that it %s", r.Alert, what)
			}
		}
		file, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if file != "deploy/docs/runbook.md" || anchor != strings.ToLower(r.Alert) || !headings[anchor] {
			t.Errorf("%s: runbook %q does not exist", r.Alert, r.Annotations["runbook_url"])
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: says nothing", r.Alert)
		}
	}
}

// A section of the runbook has what one in trouble looks for, and there is none for an alert that is no more.
func TestRunbook(t *testing.T) {
	sections := strings.Split(read(t, deployed("docs", "runbook.md")), "\n## ")[1:]
	known := map[string]bool{}
	for _, r := range alerts(t) {
		known[r.Alert] = true
	}
	for _, s := range sections {
		name, body, _ := strings.Cut(s, "\n")
		if !known[name] {
			t.Errorf("there is no alert %q", name)
		}
		for _, part := range []string{"**Means**", "**First look**", "**Mend**"} {
			if !strings.Contains(body, part) {
				t.Errorf("%s: no %s", name, part)
			}
		}
		delete(known, name)
	}
	if len(known) > 0 {
		t.Errorf("no sections for %v", slices.Sorted(maps.Keys(known)))
	}
}

// anchors are the links to the headings of a document, as forges make them.
func anchors(markdown string) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(markdown) {
		if heading := strings.TrimLeft(line, "#"); heading != line && strings.HasPrefix(heading, " ") {
			found[anchor(strings.TrimSpace(heading))] = true
		}
	}
	return found
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

func anchor(heading string) string {
	return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// queried are the metrics of a query; it must parse.
func queried(t *testing.T, where, query string) (names []string) {
	t.Helper()
	expr, err := parser.ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %q: %v", where, query, err)
		return nil
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			names = append(names, v.Name)
		}
		return nil
	})
	return names
}

// known are the names a query may use: what is shown, and what rules record.
func known(t *testing.T) map[string]bool {
	t.Helper()
	names := series(shown(t))
	for _, r := range rules(t) {
		if r.Record != "" {
			names[r.Record] = true
		}
	}
	return names
}

// Rules use metrics that exist, and labels of them that exist.
func TestRulesUseWhatExists(t *testing.T) {
	names := known(t)
	for _, r := range rules(t) {
		for _, name := range queried(t, r.Alert+r.Record, r.Expr) {
			if !names[name] {
				t.Errorf("%s: there is no metric %q", r.Alert+r.Record, name)
			}
		}
	}
	checkMatchers(t)
}

// elsewhere are label values that dev, in which all tests look, does not show.
var elsewhere = map[string]bool{"klgstream_ready part store": true}

// checkMatchers holds the labels and values that rules pick out against what is shown, or named in a metric's help.
func checkMatchers(t *testing.T) {
	t.Helper()
	families := shown(t)
	for _, r := range rules(t) {
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			continue // told already
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			v, ok := n.(*parser.VectorSelector)
			if !ok || !strings.HasPrefix(v.Name, "klgstream_") {
				return nil
			}
			base := strings.TrimSuffix(strings.TrimSuffix(v.Name, "_bucket"), "_count")
			for _, m := range v.LabelMatchers {
				if m.Name != "__name__" && m.Name != "job" && !picks(families[base], m) && !elsewhere[base+" "+m.Name+" "+m.Value] {
					t.Errorf("%s: %s{%s} can pick nothing", r.Alert+r.Record, base, m)
				}
			}
			return nil
		})
	}
}

// picks tells whether a matcher takes a series that is there, or a value that the help names.
func picks(f *dto.MetricFamily, m *promlabels.Matcher) bool {
	for _, metric := range f.GetMetric() {
		for _, l := range metric.GetLabel() {
			if l.GetName() == m.Name && (m.Type != promlabels.MatchEqual || l.GetValue() == m.Value) {
				return true
			}
		}
	}
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(m.Value) + `\b`).MatchString(f.GetHelp())
}

// Alerts can be read: their templates expand.
func TestAlertTexts(t *testing.T) {
	text := func(any) string { return "1" }
	funcs := template.FuncMap{"humanize": text, "humanizeDuration": text, "humanizePercentage": text, "humanize1024": text}
	for _, r := range alerts(t) {
		for _, a := range r.Annotations {
			tmpl, err := template.New("").Funcs(funcs).Parse("{{$labels := .Labels}}{{$value := .Value}}" + a)
			if err == nil {
				err = tmpl.Execute(&strings.Builder{}, map[string]any{"Labels": map[string]string{}, "Value": 1.5})
			}
			if err != nil {
				t.Errorf("%s: %q: %v", r.Alert, a, err)
			}
		}
	}
}

// The operator's object holds the same rules.
func TestRulesOfTheOperator(t *testing.T) {
	source := read(t, deployed("prometheus", "rules.yaml"))
	body := source[strings.Index(source, "groups:"):]
	want := "# Made from deploy/prometheus/rules.yaml: go test -run TestRulesOfTheOperator -update, in deploy/checks.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: klgstream\nspec:\n"
	for line := range strings.Lines(body) {
		if strings.TrimSpace(line) != "" {
			line = "  " + line
		}
		want += line
	}
	same(t, deployed("kubernetes", "components", "monitoring", "prometheusrule.yaml"), want)
}
