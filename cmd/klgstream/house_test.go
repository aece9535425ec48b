package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "klgstream.dev"

// The top level is fixed.
func TestHouseTopLevel(t *testing.T) {
	rooms := []string{"Makefile", "README.md", "cmd", "codecs", "deploy", "go.mod", "go.sum", "processors", "views"}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "klgstream" && e.Type().IsRegular() {
			continue // `go build ./cmd/klgstream` leaves it; git ignores it
		}
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(rooms, e.Name()) {
			t.Errorf("%s does not belong at the top level: %v and dotfiles do", e.Name(), rooms)
		}
	}
	for _, room := range rooms {
		if _, err := os.Stat(filepath.Join("..", "..", room)); err != nil {
			t.Error(err)
		}
	}
}

// door is who may import a package from outside.
type door struct {
	pkg   string   // the package and what is below it, unless it ends in $
	rooms []string // and what is below them
}

// doors is the second law: one door per dependency.
var doors = []door{
	{"github.com/jackc/pgx", []string{"views/risingwave"}},
	{"modernc.org/sqlite", []string{"views/sqlite"}},
	{"github.com/twmb/franz-go", []string{"deploy/devstack"}},
	{"github.com/lovoo/goka", []string{"processors/engine", "processors/activity", "processors/registry", "views/sink", "views/live", "cmd"}},
	{"github.com/IBM/sarama", []string{"processors/engine", "processors/activity", "processors/registry", "views/sink", "views/live", "cmd"}},
	{"os$", []string{"cmd", "deploy/devstack"}},
	{"os/exec", []string{"cmd", "deploy/devstack"}},
	{"flag$", []string{"cmd"}},
	{"github.com/alecthomas/kong", []string{"cmd"}},
}

// rigs are what processors are shaken and measured on. They have the doors of tests, but none to views.
var rigs = []string{"deploy/devstack/chaos", "deploy/devstack/bench"}

// breaches says which laws a package breaks by what it imports.
func breaches(pkg string, imports []string) []string {
	room := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
	if slices.ContainsFunc(rigs, func(r string) bool { return within(room, r) }) {
		imports = slices.DeleteFunc(slices.Clone(imports), func(i string) bool { return !within(i, module+"/views") })
	}
	var all []string
	for _, imported := range imports {
		if inner, ours := strings.CutPrefix(imported, module+"/"); ours {
			all = append(all, arrow(room, inner)...)
			continue
		}
		for _, d := range doors {
			name, exact := strings.CutSuffix(d.pkg, "$")
			if hit := imported == name || !exact && within(imported, name); hit && !slices.ContainsFunc(d.rooms, func(r string) bool { return within(room, r) }) {
				all = append(all, "law 2: "+room+" imports "+imported+", whose doors are in "+strings.Join(d.rooms, ", "))
			}
		}
		if within(room, "processors/window") && strings.Contains(strings.Split(imported, "/")[0], ".") {
			all = append(all, "law 2: "+room+" imports "+imported+", but needs nothing but the standard library")
		}
	}
	return all
}

// arrow is the first law: only cmd has doors to both processors and views, and codecs know neither.
func arrow(room, imported string) []string {
	for _, law := range []struct {
		room string
		not  []string
	}{
		{"codecs", []string{"processors", "views", "cmd", "deploy"}},
		{"processors", []string{"views", "cmd", "deploy"}},
		{"processors/window", []string{"codecs", "processors/engine", "processors/activity", "processors/registry"}},
		{"processors/engine", []string{"processors/activity", "processors/registry"}},
		{"views", []string{"processors", "cmd", "deploy"}},
		{"deploy", []string{"processors", "views", "codecs", "cmd"}},
	} {
		if within(room, law.room) && slices.ContainsFunc(law.not, func(r string) bool { return within(imported, r) }) {
			return []string{"law 1: " + room + " imports " + imported}
		}
	}
	return nil
}

func within(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

func TestHouseLaws(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v: %s", err, errs.String())
	}
	packages := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; packages++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, breach := range breaches(p.ImportPath, p.Imports) {
			t.Error(breach)
		}
	}
	if packages < 10 {
		t.Errorf("only %d packages were looked at", packages)
	}
}

// Each law, broken once.
func TestHouseLawsFire(t *testing.T) {
	for _, c := range []struct{ pkg, imports, law string }{
		{"codecs", module + "/processors/window", "law 1"},
		{"codecs", module + "/views", "law 1"},
		{"processors/activity", module + "/views/sink", "law 1"},
		{"processors/engine", module + "/processors/activity", "law 1"},
		{"processors/window", module + "/codecs", "law 1"},
		{"processors/window", "github.com/google/uuid", "law 2"},
		{"views/httpapi", module + "/processors/engine", "law 1"},
		{"views", module + "/cmd/klgstream", "law 1"},
		{"deploy/devstack", module + "/codecs", "law 1"},
		{"deploy/devstack/chaos", module + "/views", "law 1"},
		{"views/sqlite", "github.com/jackc/pgx/v5", "law 2"},
		{"views/risingwave", "modernc.org/sqlite/lib", "law 2"},
		{"processors/engine", "github.com/twmb/franz-go/pkg/kgo", "law 2"},
		{"views/httpapi", "github.com/IBM/sarama", "law 2"},
		{"codecs", "github.com/lovoo/goka", "law 2"},
		{"views/sink", "os", "law 2"},
		{"processors/engine", "flag", "law 2"},
		{"views/httpapi", "github.com/alecthomas/kong", "law 2"},
	} {
		if got := breaches(module+"/"+c.pkg, []string{c.imports}); len(got) != 1 || !strings.HasPrefix(got[0], c.law) {
			t.Errorf("%s imports %s: %v, want a breach of %s", c.pkg, c.imports, got, c.law)
		}
	}
	for _, c := range []struct{ pkg, imports string }{
		{"cmd/klgstream", module + "/views/sink"},
		{"cmd/klgstream", module + "/processors/engine"},
		{"processors/activity", module + "/processors/engine"},
		{"views/sqlite", "modernc.org/sqlite"},
		{"views/sink", "github.com/IBM/sarama"},
		{"deploy/devstack", "github.com/twmb/franz-go/pkg/kfake"},
		{"views/httpapi", "os/signal"},
		{"processors/window", "cmp"},
		{"deploy/devstack/bench", module + "/processors/engine"},
		{"deploy/devstack/bench", "github.com/lovoo/goka"},
	} {
		if got := breaches(module+"/"+c.pkg, []string{c.imports}); len(got) != 0 {
			t.Errorf("%s imports %s: %v, want no breach", c.pkg, c.imports, got)
		}
	}
}
