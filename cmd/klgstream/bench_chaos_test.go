package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A few faults in this process, and a few on processes of their own; the larger runs are `make chaos`.
func TestBenchChaos(t *testing.T) {
	t.Parallel()
	out := measured(t, "bench", "chaos", "--faults=3", "--per-round=3", "--seed=42")
	for _, want := range []string{"--seed=42", ": exact", "| **all** | | **3** | **1** | **0** |", "0 lost, 0 doubled"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestBenchChaosOfProcesses(t *testing.T) {
	out := measured(t, "bench", "chaos", "--processes", "--faults=3", "--per-round=3", "--seed=42")
	if !strings.Contains(out, "0 lost, 0 doubled") {
		t.Error("not exact")
	}
}

func TestBenchChaosTakesASchedule(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "schedule")
	if err := os.WriteFile(file, []byte("0 compact\n1 kill\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := measured(t, "bench", "chaos", "--schedule="+file, "--seed=7"); !strings.Contains(out, "seed 7 ") || !strings.Contains(out, "2 faults") {
		t.Error("the schedule was not played")
	}
}

func TestBenchChaosChecksItsArguments(t *testing.T) {
	for _, args := range [][]string{
		{"--faults=0"}, {"--per-round=0"}, {"--shrink=-1"}, {"--patience=1ms"}, {"--processes", "--schedule=x"}, {"--schedule=/nowhere/at/all"},
	} {
		o := newOutside()
		if code := run(t.Context(), append([]string{"bench", "chaos"}, args...), o.environment); code == exitOK {
			t.Errorf("%v: accepted", args)
		}
	}
}
