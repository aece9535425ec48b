package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"klgstream.dev/codecs"
)

// What a release is told at build time, by -ldflags "-X main.release=v1.2.3"; other builds know it from their checkout.
var (
	release   string // the version
	revised   string // the commit
	revisedAt string // its time
)

// versionCmd says which build this is.
type versionCmd struct {
	JSON bool `help:"One JSON object instead of a line."`
}

func (*versionCmd) check() error { return nil }

// build is what a binary says of itself.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"` // of the commit
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	System   string `json:"system"`
	Tags     string `json:"tags,omitempty"`
	// Records is the version of state records it writes, and the newest it reads.
	Records int `json:"state_records"`
}

// Run prints one line.
func (c *versionCmd) Run(_ context.Context, a *app) error {
	b := thisBuild()
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(b)
	}
	from := ""
	if b.Commit != "" {
		from = fmt.Sprintf(" (commit %.12s of %s)", b.Commit, b.Time)
	}
	_, err := fmt.Fprintf(a.stdout, "klgstream %s%s %s %s, state records of version %d\n", b.Version, from, b.Go, b.System, b.Records)
	return err
}

func thisBuild() build {
	b := build{Version: version(), Commit: revised, Time: revisedAt, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Records: int(codecs.StateVersion)}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = cmp.Or(b.Commit, s.Value)
		case "vcs.time":
			b.Time = cmp.Or(b.Time, s.Value)
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "-tags":
			b.Tags = s.Value
		}
	}
	return b
}

// version is the release, else the module's version, else the commit it was built from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "dev" + revision(info)
}

func revision(info *debug.BuildInfo) string {
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = "-" + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return commit + dirty
}
