package checks

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

// compose loads the file as docker compose does, with the schema's strictness.
func compose(t *testing.T, env types.Mapping) *types.Project {
	t.Helper()
	path, err := filepath.Abs(deployed("compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: filepath.Dir(path), ConfigFiles: []types.ConfigFile{{Filename: path}}, Environment: env,
	})
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// ours are the services that run klgstream.
func ours(p *types.Project) map[string]types.ServiceConfig {
	services := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		if strings.HasPrefix(s.Image, "klgstream:") {
			services[name] = s
		}
	}
	return services
}

func environment(s types.ServiceConfig) (env []string) {
	for name, value := range s.Environment {
		if value != nil {
			env = append(env, name+"="+*value)
		}
	}
	return env
}

func TestComposeHasEverything(t *testing.T) {
	want := []string{"api", "console", "grafana", "processor-1", "processor-2", "prometheus", "redpanda", "risingwave", "sink", "topics"}
	if got := compose(t, nil).ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services %q, want %q", got, want)
	}
}

func TestComposeCommandLines(t *testing.T) {
	for _, env := range []types.Mapping{nil, {"PARTITIONS": "12", "REDPANDA_CLIENT_ID": "another", "KLGSTREAM_VERSION": "v1.2.3"}} {
		services, instances := ours(compose(t, env)), map[string]string{}
		if len(services) != 5 {
			t.Errorf("%d services run klgstream, want 5", len(services))
		}
		for name, s := range services {
			settings := effective(t, name, environment(s), s.Command...)
			if settings["brokers"] != "[redpanda:9092]" {
				t.Errorf("%s reads from %s", name, settings["brokers"])
			}
			if id := settings["instance-id"]; id != "" && id != `""` {
				instances[id] = name
			}
		}
		if len(instances) != 2 {
			t.Errorf("processors are called %v, want two different names", instances)
		}
	}
}

func TestComposeIsSafe(t *testing.T) {
	p, seen := compose(t, nil), map[string]string{}
	for name, s := range p.Services {
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to everybody", name, port.Published)
			}
			if other := seen[port.Published]; other != "" {
				t.Errorf("%s and %s both take port %s", name, other, port.Published)
			}
			seen[port.Published] = name
		}
		if tag := s.Image[strings.LastIndex(s.Image, ":")+1:]; tag == "latest" || strings.Contains(tag, "/") {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
	}
	for name, s := range ours(p) {
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: root is read-only %t, capabilities dropped %q, %q", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		if s.MemLimit == 0 || s.Build == nil || s.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("%s: memory limit %d, build %+v", name, s.MemLimit, s.Build)
		}
	}
}

func TestComposeMounts(t *testing.T) {
	for name, s := range compose(t, nil).Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s: mount %s read-only %t: %v", name, v.Source, v.ReadOnly, err)
			}
		}
	}
}

// listener finds the port in a setting that is a listener's address or URL.
var listener = regexp.MustCompile(`0\.0\.0\.0:(\d+)`)

// Prometheus scrapes every role, under the name the rules use, where the role listens.
func TestComposeIsScraped(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			JobName       string `json:"job_name"`
			StaticConfigs []struct {
				Targets []string `json:"targets"`
			} `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, deployed("prometheus", "prometheus.yaml"))), &config); err != nil {
		t.Fatal(err)
	}
	services := compose(t, nil).Services
	scraped := map[string]int{}
	for _, job := range config.ScrapeConfigs {
		for _, target := range job.StaticConfigs[0].Targets {
			host, port, err := net.SplitHostPort(target)
			s, ok := services[host]
			if err != nil || !ok {
				t.Errorf("target %q is no service: %v", target, err)
				continue
			}
			if text := strings.Join(s.Command, " "); strings.HasPrefix(s.Image, "klgstream:") || host == "risingwave" {
				if !slices.ContainsFunc(listener.FindAllStringSubmatch(text, -1), func(m []string) bool { return m[1] == port }) {
					t.Errorf("%s does not listen on port %s: %s", host, port, text)
				}
			}
			if _, ok := ours(&types.Project{Services: types.Services{host: s}})[host]; ok && s.Command[0] != job.JobName {
				t.Errorf("job %q scrapes %s, which is a %s", job.JobName, host, s.Command[0])
			}
			scraped[host]++
		}
	}
	for name, s := range ours(compose(t, nil)) {
		if want := map[bool]int{true: 0, false: 1}[s.Command[0] == "topics"]; scraped[name] != want {
			t.Errorf("%s is scraped %d times, want %d", name, scraped[name], want)
		}
	}
}

// A fault in the file is seen: the checks above would be worth nothing otherwise.
func TestComposeIsStrict(t *testing.T) {
	for _, text := range []string{"services: {a: {image: x, comand: [y]}}", "services: {a: {image: x, depends_on: [b]}}", "services: {a: {ports: [x]}}"} {
		_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
			WorkingDir: t.TempDir(), ConfigFiles: []types.ConfigFile{{Filename: "c.yaml", Content: []byte("name: n\n" + text)}},
		})
		if err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// effective checks a command line with the binary and returns its settings.
func effective(t *testing.T, where string, env []string, args ...string) map[string]string {
	t.Helper()
	out, err := klgstream(t, env, append([]string{"config"}, args...)...)
	if err != nil {
		t.Errorf("%s: klgstream %s: %v", where, strings.Join(args, " "), err)
		return nil
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(out), &values); err != nil {
		t.Errorf("%s: settings of %q: %v", where, args, err)
	}
	settings := map[string]string{}
	for name, value := range values {
		settings[name] = fmt.Sprint(value)
	}
	return settings
}
