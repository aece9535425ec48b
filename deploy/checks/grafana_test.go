package checks

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// dashboard is a Grafana dashboard, as far as it is checked.
type dashboard struct {
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Tags       []string
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct{ Name, Type string } `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []query `json:"list"`
	} `json:"annotations"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []query `json:"targets"`
}

type query struct {
	Expr       string `json:"expr"`
	Datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	} `json:"datasource"`
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	all := map[string]dashboard{}
	for _, path := range glob(t, "grafana", "dashboards", "*.json") {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, path)), &d); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".json")] = d
	}
	return all
}

// interpolate puts in what Grafana does.
func interpolate(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$__interval", "15s", "$__range", "1h", "$group", "aircraft-activity").Replace(expr)
}

func TestDashboards(t *testing.T) {
	all := dashboards(t)
	for _, name := range []string{"overview", "processor", "sink", "store", "api"} {
		d, ok := all[name]
		if !ok || d.UID != "klgstream-"+name || !slices.Contains(d.Tags, "klgstream") {
			t.Errorf("%s: there %t, uid %q, tags %q", name, ok, d.UID, d.Tags)
		}
		if len(d.Templating.List) == 0 || d.Templating.List[0].Name != "datasource" {
			t.Errorf("%s: variables %v", name, d.Templating.List)
		}
		checkPanels(t, name, d.Panels)
	}
}

// checkPanels wants panels that can be told apart, read, and do not cover each other.
func checkPanels(t *testing.T, board string, panels []panel) {
	t.Helper()
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "") {
			t.Errorf("%s: panel %d %q: no title, description, unit or query, or its id is taken", board, p.ID, p.Title)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: %q lies outside of the page: %+v", board, p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s: %q covers %q", board, p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// Every query parses, and what it asks for exists.
func TestDashboardsUseWhatExists(t *testing.T) {
	names := known(t)
	for name, d := range dashboards(t) {
		queries := slices.Clone(d.Annotations.List)
		for _, p := range d.Panels {
			queries = append(queries, p.Targets...)
		}
		for _, q := range queries {
			if q.Datasource.UID != "${datasource}" || q.Datasource.Type != "prometheus" {
				t.Errorf("%s: %q asks %+v", name, q.Expr, q.Datasource)
			}
			for _, metric := range queried(t, name, interpolate(q.Expr)) {
				if !names[metric] {
					t.Errorf("%s: %q: there is no metric %q", name, q.Expr, metric)
				}
			}
			checkRates(t, name, interpolate(q.Expr))
			if strings.Contains(q.Expr, "$group") && len(d.Templating.List) < 2 {
				t.Errorf("%s: %q needs a variable that is not there", name, q.Expr)
			}
		}
	}
}

// checkRates wants rates of counters, and of nothing else.
func checkRates(t *testing.T, where, expr string) {
	t.Helper()
	tree, err := parser.ParseExpr(expr)
	if err != nil {
		return // told already
	}
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		call, ok := n.(*parser.Call)
		if !ok || call.Func.Name != "rate" && call.Func.Name != "increase" {
			return nil
		}
		of := call.Args[0].(*parser.MatrixSelector).VectorSelector.(*parser.VectorSelector).Name
		if !slices.ContainsFunc([]string{"_total", "_count", "_sum", "_bucket"}, func(end string) bool { return strings.HasSuffix(of, end) }) {
			t.Errorf("%s: %s of %s, which is no counter", where, call.Func.Name, of)
		}
		return nil
	})
}

// Every metric of ours can be seen: on a dashboard or by an alert.
func TestDashboardsShowEverything(t *testing.T) {
	used := map[string]bool{}
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				for _, metric := range queried(t, name, interpolate(q.Expr)) {
					used[metric] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		for _, metric := range queried(t, r.Alert+r.Record, r.Expr) {
			used[metric] = true
		}
	}
	for name := range shown(t) {
		if strings.HasPrefix(name, "klgstream_") && !used[name] && !used[name+"_bucket"] && !used[name+"_count"] && !used[name+"_sum"] {
			t.Errorf("%s is on no dashboard and in no rule", name)
		}
	}
}

// Grafana is given the data source and the directory that are there.
func TestGrafanaProvisioning(t *testing.T) {
	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	var boards struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	for path, into := range map[string]any{"datasources/prometheus.yaml": &sources, "dashboards/klgstream.yaml": &boards} {
		if err := yaml.Unmarshal([]byte(read(t, deployed("grafana", "provisioning", path))), into); err != nil {
			t.Fatal(err)
		}
	}
	p := compose(t, nil)
	if s := sources.Datasources[0]; s.UID != "prometheus" || s.URL != fmt.Sprintf("http://prometheus:%d", p.Services["prometheus"].Ports[0].Target) {
		t.Errorf("data source %+v", s)
	}
	mounted := false
	for _, v := range p.Services["grafana"].Volumes {
		mounted = mounted || v.Target == boards.Providers[0].Options.Path
	}
	if home := p.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]; !mounted || *home != boards.Providers[0].Options.Path+"/overview.json" {
		t.Errorf("dashboards are mounted %t, the first is %q", mounted, *home)
	}
}
