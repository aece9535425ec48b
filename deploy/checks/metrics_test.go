package checks

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// shown are the metric families of the running flow: of every role, since dev runs all of them.
func shown(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	f := everything(t)
	text, err := f.get(t.Context(), "http://"+f.ops+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series are the names that can stand in a query.
func series(families map[string]*dto.MetricFamily) map[string]bool {
	names := map[string]bool{"up": true, "ALERTS": true}
	for name, f := range families {
		switch f.GetType() {
		case dto.MetricType_HISTOGRAM:
			names[name+"_bucket"], names[name+"_sum"], names[name+"_count"] = true, true, true
		case dto.MetricType_SUMMARY:
			names[name], names[name+"_sum"], names[name+"_count"] = true, true, true
		default:
			names[name] = true
		}
	}
	return names
}

// labels are the label names of a family.
func labels(f *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			names[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// The table of metrics is what the roles show, no more and no less.
func TestMetricsTable(t *testing.T) {
	families := shown(t)
	table := "| metric | type | labels | meaning |\n|---|---|---|---|\n"
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		if !strings.HasPrefix(name, "klgstream_") {
			continue
		}
		names := labels(f)
		for i := range names {
			names[i] = "`" + names[i] + "`"
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), cmp.Or(strings.Join(names, " "), "–"), f.GetHelp())
	}
	sameSection(t, deployed("docs", "metrics.md"), "metrics", table)
}

// sameSection compares what stands between two marks of a document, or writes it.
func sameSection(t *testing.T, path, name, want string) {
	t.Helper()
	text := read(t, path)
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	head, rest, ok := strings.Cut(text, begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no section %q", path, name)
	}
	same(t, path, head+begin+want+end+tail)
}

// metricName finds metrics that are named in one piece in the sources.
var metricName = regexp.MustCompile(`"(klgstream_[a-z_]+)"`)

// No metric is made anywhere that the running flow does not show: it would be missing in the table.
func TestMetricsOfTheSources(t *testing.T) {
	families := shown(t)
	for _, dir := range []string{"cmd", "processors", "views"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			if !strings.Contains(string(data), "client_golang/prometheus\"") {
				return err
			}
			for _, m := range metricName.FindAllStringSubmatch(string(data), -1) {
				if families[m[1]] == nil {
					t.Errorf("%s: %s is not shown by dev", path, m[1])
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Metrics are named as Prometheus wants them, and every histogram is a native one beside its classic buckets.
func TestMetricsForm(t *testing.T) {
	f := everything(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.ops+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var families []*dto.MetricFamily
	for d := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header)); ; {
		var family dto.MetricFamily
		if err := d.Decode(&family); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		families = append(families, &family)
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil && (h.Schema == nil || len(h.GetBucket()) == 0) {
				t.Errorf("%s is native: %t, with %d classic buckets", family.GetName(), h.Schema != nil, len(h.GetBucket()))
			}
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 || len(families) < 40 {
		t.Errorf("of %d families: %v, error %v", len(families), problems, err)
	}
}

// What is labelled with something a sender can choose grows without bound.
func TestMetricsAreBounded(t *testing.T) {
	for name, f := range shown(t) {
		for _, l := range labels(f) {
			if strings.Contains(l, "registration") || strings.Contains(l, "aircraft") || l == "key" || l == "client" || l == "path" {
				t.Errorf("%s has the label %q", name, l)
			}
		}
		if n := len(f.GetMetric()); n > 200 {
			t.Errorf("%s has %d series", name, n)
		}
	}
}
