package checks

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// taken adds the variables of the environment that a command line takes settings from.
func taken(t *testing.T, into map[string]bool, env []string, line ...string) {
	t.Helper()
	out, err := klgstream(t, env, append([]string{"config"}, line...)...)
	if err != nil {
		t.Error(err)
	}
	for text := range strings.Lines(out) {
		if _, name, ok := strings.Cut(text, "# environment "); ok {
			into[strings.TrimSpace(name)] = true
		}
	}
}

// A misspelt variable would be ignored in silence: every one is taken by a role that gets it.
func TestEnvironmentIsTaken(t *testing.T) {
	used, given := map[string]bool{}, map[string]bool{}
	give := func(env []string, line []string) {
		taken(t, used, env, line...)
		for _, e := range env {
			name, _, _ := strings.Cut(e, "=")
			given[name] = true
		}
	}
	for _, s := range ours(compose(t, nil)) {
		give(environment(s), s.Command)
	}
	objects := built(t, "production")
	for _, pod := range podsOf(objects) {
		line, env := args(t, objects, &pod.Spec.Containers[0])
		give(env, line)
	}
	for _, path := range glob(t, "systemd", "*.service") {
		for _, e := range parseUnit(t, path)["Service.Environment"] {
			name, _, _ := strings.Cut(e, "=")
			given[name] = true
		}
	}
	for name := range given {
		if name != "GOMEMLIMIT" && name != "POD_NAME" && !used[name] {
			t.Errorf("nobody takes %s", name)
		}
	}
}

// Both ways of giving an environment reach the command line: from a field and from a map.
func TestEnvironmentIsPutIn(t *testing.T) {
	c := corev1.Container{
		Args: []string{"processor", "--instance-id=$(POD_NAME)", "--group=$(GROUP)"},
		Env: []corev1.EnvVar{
			{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "GROUP", Value: "mine"},
		},
	}
	line, _ := args(t, nil, &c)
	if got := strings.Join(line, " "); got != "processor --instance-id=klgstream-processor-0 --group=mine" {
		t.Errorf("line %q", got)
	}
}
