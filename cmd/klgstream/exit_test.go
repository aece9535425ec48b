package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
	"klgstream.dev/processors/engine"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, missing := os.Open(filepath.Join(t.TempDir(), "no", "file"))
	_, unread := os.ReadFile(t.TempDir())
	for name, c := range map[string]struct {
		ctx  context.Context //nolint:containedctx // it is what the case is about
		err  error
		want int
	}{
		"none":            {nil, nil, exitOK},
		"any":             {nil, errors.New("no"), exitFailed},
		"signal":          {ended, fmt.Errorf("read: %w", context.Canceled), exitInterrupted},
		"canceled itself": {nil, context.Canceled, exitFailed},
		"refusal":         {nil, fmt.Errorf("start: %w", &engine.RefusalError{}), exitConfig},
		"no file":         {nil, fmt.Errorf("open: %w", missing), exitNoInput},
		"a directory":     {nil, unread, exitNoInput},
		"cannot make":     {nil, &createError{missing}, exitNoOutput},
		"a taken place":   {nil, fmt.Errorf("start: %w", devstack.ErrDataDirInUse), exitUnavailable},
		"denied":          {nil, &createError{&os.PathError{Op: "open", Path: "x", Err: os.ErrPermission}}, exitNoPerm},
		"broker denies":   {nil, sarama.Wrap(sarama.ErrOutOfBrokers, sarama.ErrSASLAuthenticationFailed), exitNoPerm},
		"no broker":       {nil, fmt.Errorf("connect: %w", sarama.ErrOutOfBrokers), exitUnavailable},
		"no database":     {nil, &net.OpError{Op: "dial", Err: errors.New("refused")}, exitUnavailable},
		"too slow":        {nil, context.DeadlineExceeded, exitUnavailable},
		"an event":        {nil, fmt.Errorf("line 2: %w", &codecs.FieldError{}), exitData},
		"an export":       {nil, fmt.Errorf("import: %w", &dataError{errors.New("cut off")}), exitData},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		if got := exitCode(ctx, c.err); got != c.want {
			t.Errorf("%s: exit code %d, want %d", name, got, c.want)
		}
	}
}

// The table in the documents is the program's.
func TestExitDocuments(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "| exit code | sysexits.h | when |\n|---:|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var want strings.Builder
	for _, e := range exitMeanings {
		fmt.Fprintf(&want, "| %d | %s | %s |\n", e.code, e.name, e.meaning)
	}
	if table+"\n" != want.String() {
		t.Errorf("operations.md has the exit codes\n%s\nthey are\n%s", table, want.String())
	}
}

// What SQLite will not say of a file that cannot be is said, and is no fault of the program.
func TestStoreThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "is a directory", filepath.Join(dir, "no", "x.db"): "no such file or directory"} {
		_, err := (&Store{StoreURL: "sqlite:" + path}).open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "--store-url") || !strings.Contains(err.Error(), want) || exitCode(t.Context(), err) != exitNoOutput {
			t.Errorf("%v, exit code %d, want %q", err, exitCode(t.Context(), err), want)
		}
	}
}
