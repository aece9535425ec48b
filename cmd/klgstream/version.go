package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version given at build time by -ldflags "-X main.release=v1.2.3".
var release string

// versionCmd says which build this is.
type versionCmd struct{}

func (*versionCmd) check() error { return nil }

// Run prints one line.
func (*versionCmd) Run(_ context.Context, a *app) error {
	_, err := fmt.Fprintf(a.stdout, "klgstream %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
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
