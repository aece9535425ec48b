package checks

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"mvdan.cc/sh/v3/syntax"
)

func stages(path string) ([]instructions.Stage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		return nil, err
	}
	if len(parsed.Warnings) > 0 {
		return nil, fmt.Errorf("%s: %s", path, parsed.Warnings[0].Short)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	return stages, err
}

// imageBuild is the "go build" that makes the image's binary, as arguments.
func imageBuild(path string) ([]string, error) {
	stages, err := stages(path)
	if err != nil {
		return nil, err
	}
	for _, c := range stages[0].Commands {
		run, ok := c.(*instructions.RunCommand)
		if !ok {
			continue
		}
		for _, call := range calls(strings.Join(run.CmdLine, " ")) {
			if len(call) > 2 && call[0] == "go" && call[1] == "build" {
				return call, nil
			}
		}
	}
	return nil, fmt.Errorf("%s: no \"go build\"", path)
}

// calls are the commands of a shell script with their arguments; variables are empty.
func calls(script string) (all [][]string) {
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		return nil
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok {
			all = append(all, words(call.Args))
		}
		return true
	})
	return all
}

func words(args []*syntax.Word) []string {
	var all []string
	for _, w := range args {
		all = append(all, literal(w.Parts))
	}
	return all
}

func literal(parts []syntax.WordPart) string {
	var text strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			text.WriteString(p.Value)
		case *syntax.SglQuoted:
			text.WriteString(p.Value)
		case *syntax.DblQuoted:
			text.WriteString(literal(p.Parts))
		}
	}
	return text.String()
}

func TestImage(t *testing.T) {
	stages, err := stages(deployed("Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	last := stages[len(stages)-1]
	if last.BaseName != "scratch" {
		t.Errorf("the image stands on %q, want scratch", last.BaseName)
	}
	var user, entry string
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			entry = strings.Join(c.CmdLine, " ")
		case *instructions.CmdCommand:
			if _, err := klgstream(t, nil, c.CmdLine...); err != nil {
				t.Errorf("CMD %q: %v", c.CmdLine, err)
			}
		case *instructions.RunCommand:
			t.Errorf("%s: nothing can run in an empty image", c)
		}
	}
	if user != "65532:65532" || entry != "/klgstream" {
		t.Errorf("user %q, entry point %q", user, entry)
	}
}

// The image is its binary and 250 kB of certificates.
func TestImageSize(t *testing.T) {
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if mb := float64(info.Size()) / 1e6; mb > 39.7 {
		t.Errorf("the binary has %.2f MB, the image, which has 0.3 more, must stay below 40", mb)
	}
}

// The binary is static, knows its modules and its release.
func TestImageBinary(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", "-json", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info debug.BuildInfo
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range info.Settings {
		got[s.Key] = s.Value
	}
	if got["CGO_ENABLED"] != "0" || got["-trimpath"] != "true" || !strings.Contains(got["-tags"], "timetzdata") {
		t.Errorf("built with %v", got)
	}
	for _, path := range []string{"github.com/lovoo/goka", "github.com/IBM/sarama", "github.com/jackc/pgx/v5"} {
		if !slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path }) {
			t.Errorf("module %s is not among its %d", path, len(info.Deps))
		}
	}
	// The image has no files of time zones.
	if _, err := klgstream(t, []string{"ZONEINFO=/nowhere"}, "config", "processor", "--window=tumbling:1d@America/New_York", "--zone=Europe/Paris"); err != nil {
		t.Error(err)
	}
}

// What the build needs is in its context.
func TestImageContext(t *testing.T) {
	ignore := strings.Split(read(t, deployed("Dockerfile.dockerignore")), "\n")
	for _, dir := range []string{"cmd", "codecs", "processors", "views", "deploy", "go.mod", "go.sum"} {
		if !slices.Contains(ignore, "!"+dir) {
			t.Errorf("%s does not reach the build", dir)
		}
	}
}
