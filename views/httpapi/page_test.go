package httpapi

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestPageRoutes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for target, kind := range map[string]string{
		"/": "text/html", "/docs": "text/html", "/page/app.js": "text/javascript", "/page/app.css": "text/css",
		"/page/favicon.svg": "image/svg+xml", "/page/about.json": "application/json", "/openapi.json": "application/openapi+json",
	} {
		w := r.do("GET", target, "")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Body.Len() == 0 {
			t.Errorf("GET %s is answered %d %q with %d bytes", target, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		if head := r.do("HEAD", target, ""); head.Code != http.StatusOK {
			t.Errorf("HEAD %s is answered %d", target, head.Code)
		}
		if tag := w.Header().Get("ETag"); target != "/openapi.json" {
			if again := r.do("GET", target, "", "If-None-Match", tag); tag == "" || again.Code != http.StatusNotModified || again.Body.Len() != 0 {
				t.Errorf("GET %s with its tag %s is answered %d with %d bytes", target, tag, again.Code, again.Body.Len())
			}
		}
	}
	for _, absent := range []string{"/page/", "/page/index.html/x", "/index.html", "/page/../config.go", "/favicon.ico", "/docs/"} {
		if w := r.do("GET", absent, ""); w.Code == http.StatusOK {
			t.Errorf("GET %s is answered %d", absent, w.Code)
		}
	}
}

// TestPageFindsItsFiles: whatever a page or a module names is served.
func TestPageFindsItsFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	links := regexp.MustCompile(`(?:href|src)="(/[^"#]*)"|from '\./([a-z]+\.js)'`)
	entries, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range entries {
		raw, err := pageFiles.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllStringSubmatch(string(raw), -1) {
			target := m[1]
			if target == "" {
				target = "/page/" + m[2]
			}
			found++
			if w := r.do("GET", target, ""); w.Code != http.StatusOK {
				t.Errorf("%s names %s, which is answered %d", e.Name(), target, w.Code)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d names found", found)
	}
}

// TestPageElements: every element a module looks for by its id is in a page, or is made by a module.
func TestPageElements(t *testing.T) {
	t.Parallel()
	var pages, modules strings.Builder
	entries, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := pageFiles.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), ".html") {
			pages.Write(raw)
		} else if strings.HasSuffix(e.Name(), ".js") {
			modules.Write(raw)
		}
	}
	wanted := regexp.MustCompile(`\$\('([a-z-]+)'\)`).FindAllStringSubmatch(modules.String(), -1)
	for _, m := range wanted {
		if !strings.Contains(pages.String(), `id="`+m[1]+`"`) && !strings.Contains(modules.String(), `id: '`+m[1]+`'`) {
			t.Errorf("no element %q", m[1])
		}
	}
	if len(wanted) < 50 {
		t.Errorf("only %d elements wanted", len(wanted))
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, keyed, withRegistry(&registry), func(c *Config) { c.Pipeline = nil })
	about := want(t, r.do("GET", "/page/about.json", ""), http.StatusOK)
	for name, value := range map[string]any{"version": "1.2.3", "store": "fake", "keys": true, "pipeline": false, "registry": true, "live": false} {
		if about[name] != value {
			t.Errorf("%s is %v, want %v", name, about[name], value)
		}
	}
}

// TestServerHasEveryTimeout: none of the server's time-outs is left at "for ever", and an answer may take as long as
// everything it waits for.
func TestServerHasEveryTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Limits.PublishTimeout = time.Minute })
	s := r.api.Server()
	for name, d := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 {
			t.Errorf("%s time-out is %v", name, d)
		}
	}
	if s.WriteTimeout < r.api.limits.PublishTimeout+r.api.limits.ReadTimeout || s.MaxHeaderBytes != 16<<10 || s.ErrorLog == nil {
		t.Errorf("server is %+v", s)
	}
}

func TestLimitsDefaults(t *testing.T) {
	t.Parallel()
	zero := Limits{}
	got := zero.withDefaults()
	if got.BodyBytes != 8<<20 || got.BodiesInFlight != 256<<20 || got.BatchEvents != 10_000 || got.Rate != 0 || got.Burst != 1 || got.Interval != time.Second || got.QueryTimeout != 10*time.Second {
		t.Errorf("defaults are %+v", got)
	}
	some := Limits{BodyBytes: 1 << 30, Rate: 50, Interval: time.Minute}
	if got := some.withDefaults(); got.BodyBytes != 1<<30 || got.BodiesInFlight != 1<<30 || got.Burst != 50 || got.Interval != time.Minute {
		t.Errorf("with some set: %+v", got)
	}
}
