package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is in a configuration file, it is read or refused, and a setting comes from exactly one line.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"bound: 5m\n", "window: [tumbling:1h, \"session:30m\"]\n", "bound: 1m\nbound: 2m\n", "a: &x [1]\nbound: *x\n", "bound:\n  - - 1\n", "- 1\n", "\x00", "bound: !!binary aGk=\n", "? [a]\n: b\n", "commit_interval: ~\n",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "k.yaml")
	known := map[string]bool{"bound": true, "window": true, "commit-interval": true}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, faults := readConfig(path, known)
		for name, e := range file.entries {
			if !known[name] || !strings.HasPrefix(e.where, path+":") {
				t.Errorf("setting %q from %q", name, e.where)
			}
		}
		for _, fault := range faults {
			if fault == nil || fault.Error() == "" {
				t.Errorf("fault %v says nothing", fault)
			}
		}
	})
}

// Plain text comes out line by line as it went in; a torn or hostile archive is an error, never a panic.
func FuzzEachLine(f *testing.F) {
	for _, seed := range []string{"a\nb\n", "a\r\n\n b", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd\x04", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got []string
		last := int64(0)
		err := eachLine(bytes.NewReader(data), func(n int64, line []byte) error {
			if n <= last || len(line) == 0 {
				t.Errorf("line %d after %d is %q", n, last, line)
			}
			last = n
			got = append(got, string(line))
			return nil
		})
		if bytes.HasPrefix(data, gzipMagic) || bytes.HasPrefix(data, zstdMagic) || err != nil {
			return
		}
		var want []string
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				want = append(want, string(line))
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("lines %q of %q, want %q", got, data, want)
		}
	})
}
