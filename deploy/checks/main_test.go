package checks

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// update writes what would otherwise be compared.
var update = flag.Bool("update", false, "write the files that are made of others")

// binary is klgstream, built as the image builds it.
var binary string

// root is the repository, as seen from here.
const root = "../.."

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withBinary(func() int {
		defer stopRunning()
		return m.Run()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withBinary builds the binary, with KLGSTREAM_BINARY it takes that one.
func withBinary(run func() int) (int, error) {
	if binary = os.Getenv("KLGSTREAM_BINARY"); binary != "" {
		return run(), nil
	}
	dir, err := os.MkdirTemp("", "klgstream-checks-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	args, err := imageBuild(deployed("Dockerfile"))
	if err != nil {
		return 1, err
	}
	binary = filepath.Join(dir, "klgstream")
	for i := range args {
		if args[i] == "-o" {
			args[i+1] = binary
		}
	}
	cmd := exec.Command("go", args[1:]...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go %q: %w\n%s", args[1:], err, out)
	}
	return run(), nil
}

// deployed is a path below deploy.
func deployed(parts ...string) string {
	return filepath.Join(append([]string{root, "deploy"}, parts...)...)
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// glob are the files that match, at least one.
func glob(t *testing.T, parts ...string) []string {
	t.Helper()
	files, err := filepath.Glob(deployed(parts...))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q matches %d files, error %v", parts, len(files), err)
	}
	return files
}

// klgstream runs the binary with just this environment and returns what it printed.
func klgstream(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", errors.Join(err, errors.New(strings.TrimSpace(errs.String())))
	}
	return out.String(), nil
}

// same compares a file with what it should be, or writes it.
func same(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := read(t, path); got != want {
		t.Errorf("%s is not up to date: run this test with -update; it differs at %s", path, firstDifference(got, want))
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d: %q, should be %q", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("its end: %d lines, should be %d", len(a), len(b))
}
