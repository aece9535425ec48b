package checks

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit is one unit file: values by section and key.
type unit map[string][]string

func parseUnit(t *testing.T, path string) unit {
	t.Helper()
	u, section := unit{}, ""
	for line := range strings.Lines(read(t, path)) {
		line = strings.TrimSpace(line)
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case ok:
			u[section+"."+key] = append(u[section+"."+key], value)
		default:
			t.Errorf("%s: %q is no setting", path, line)
		}
	}
	return u
}

// specifiers are what systemd puts in.
var specifiers = strings.NewReplacer("%H", "host-1", "%i", "8084", "%%", "%")

func TestSystemdCommandLines(t *testing.T) {
	config, err := filepath.Abs(deployed("systemd", "klgstream.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]bool{}
	for _, path := range glob(t, "systemd", "*.service") {
		u := parseUnit(t, path)
		args := strings.Fields(specifiers.Replace(strings.ReplaceAll(u["Service.ExecStart"][0], "/etc/klgstream/klgstream.yaml", config)))
		if args[0] != "/usr/local/bin/klgstream" {
			t.Errorf("%s starts %q", path, args[0])
		}
		settings := effective(t, path, u["Service.Environment"], args[1:]...)
		if settings["brokers"] != "[localhost:19092]" {
			t.Errorf("%s does not read its file: brokers %s", path, settings["brokers"])
		}
		if args[1] == "processor" && (settings["instance-id"] != "host-1-8084" || settings["ops-url"] != "http://localhost:8084") {
			t.Errorf("%s: instance %q listens on %q", path, settings["instance-id"], settings["ops-url"])
		}
		roles[args[1]] = true
	}
	for _, role := range []string{"topics", "processor", "sink", "api"} {
		if !roles[role] {
			t.Errorf("no unit runs the %s", role)
		}
	}
}

func TestSystemdHardening(t *testing.T) {
	for _, path := range glob(t, "systemd", "*.service") {
		u := parseUnit(t, path)
		for key, want := range map[string]string{
			"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "yes",
		} {
			if got := u["Service."+key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", path, key, got, want)
			}
		}
		if u["Install.WantedBy"] == nil || u["Unit.After"] == nil {
			t.Errorf("%s: cannot be enabled, or comes too early", path)
		}
	}
}

// systemd itself, where there is one, knows every setting.
func TestSystemdVerify(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	for _, path := range glob(t, "systemd", "*.service") {
		path = strings.Replace(path, "@.service", "@8081.service", 1)
		out, _ := exec.CommandContext(t.Context(), verify, "verify", "--man=no", path).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "klgstream") && !strings.Contains(line, "is not executable") {
				t.Errorf("%s: %s", path, line)
			}
		}
	}
}
