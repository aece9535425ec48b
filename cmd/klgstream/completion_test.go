package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completed are the words that may follow a command line, which ends where the cursor is.
func completed(t *testing.T, line string) (words []string) {
	t.Helper()
	o := newOutside()
	args := append([]string{"__complete", "--"}, strings.Split(line, " ")...)
	if code := run(t.Context(), args, o.environment); code != exitOK {
		t.Fatalf("%q: exit code %d: %s", line, code, o.errs.String())
	}
	for l := range strings.Lines(o.out.String()) {
		word, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
		words = append(words, word)
	}
	return words
}

func TestComplete(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"pro":                             {"processor"},
		"state ":                          {"inspect", "export", "import"},
		"state ex":                        {"export"},
		"config pro":                      {"processor"},
		"config processor --emi":          {"--emit="},
		"processor --log-f":               {"--log-format="},
		"processor --emit=":               {"--emit=update", "--emit=close"},
		"processor --emit cl":             {"close"},
		"processor --emit close --id":     {"--idle=", "--idle-timeout="},
		"processor --no-r":                {"--no-rekey"},
		"processor --config=/e":           {"//files"},
		"processor --hot-standby --idle=": {"--idle=clock", "--idle=hold"},
		"replay ":                         {"//files"},
		"state import ":                   {"//files"},
		"state import x ":                 nil,
		"completion z":                    {"zsh"},
		"nothing ":                        nil,
		"processor --nothing=":            nil,
	} {
		if got := completed(t, line); line != "nothing " && !slices.Equal(got, want) {
			t.Errorf("%q is completed by %q, want %q", line, got, want)
		}
	}
	if got := completed(t, ""); !slices.Contains(got, "doctor") || slices.Contains(got, "__complete") {
		t.Errorf("commands %q", got)
	}
}

// What is offered is taken, and what takes one of few words offers them.
func TestCompleteChoices(t *testing.T) {
	t.Parallel()
	for flag, words := range choices {
		for _, word := range words {
			args := []string{"processor", "--" + flag + "=" + word}
			if flag == "shell" {
				args = []string{"completion", word}
			}
			if _, err := load(args, newOutside().environment); err != nil {
				t.Errorf("%q: %v", args, err)
			}
		}
	}
}

// shell is a shell's path; without it the test is skipped, unless all shells must be there.
func shell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("KLGSTREAM_REQUIRE_SHELLS") == "1" {
		t.Fatalf("there is no %s: apt-get install bash zsh fish mandoc", name)
	} else if err != nil {
		t.Skipf("NO %s HERE, so this is not tested (apt-get install %s, or KLGSTREAM_REQUIRE_SHELLS=1 to fail)", name, name)
	}
	return path
}

// onPath is a directory with this program as "klgstream".
func onPath(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nIFS='\n'\n%s=\"$*\" exec %q\n", childArgs, self)
	if err := os.WriteFile(filepath.Join(dir, "klgstream"), []byte(script), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	return dir
}

// The scripts, in the shells they are for.
func TestCompletionShells(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ask, want string }{
		"bash": {`source "$0"; ask() { COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=(${1//=/ = }); [[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _klgstream; echo "${COMPREPLY[@]}"; }
			ask "klgstream proc"; ask "klgstream state "; ask "klgstream processor --log-fo"; ask "klgstream processor --emit=cl"; cd /; ask "klgstream replay et"`, "processor\ninspect export import\n--log-format=\nclose\netc\n"},
		"zsh": {`compdef() { :; }; compset() { :; }; _files() { echo files }; _describe() { print -rl -- ${(P)3} }; source "$0"
			ask() { words=("$@"); CURRENT=${#words}; _klgstream }
			ask klgstream proc; ask klgstream state ""; ask klgstream processor --emit=cl; ask klgstream replay et`, "processor:Count events in windows\ninspect:Show what is known of one aircraft, or how much state each partition has\nexport:Write the state of a stopped group, with its positions, as JSON lines\nimport:Give an exported state to a new group, whose topics may have more partitions\\: the next processor goes on exactly\n--emit=close:\nfiles\n"},
		"fish": {
			`source $argv[1]; complete -C "klgstream proc"; complete -C "klgstream processor --log-fo"; complete -C "klgstream processor --emit=cl"; cd /; complete -C "klgstream replay et"`,
			"processor\tCount events in windows\n--log-format=\ttext for people, json for machines, auto: text on a terminal\n--emit=close\netc/\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, dir := shell(t, name), onPath(t)
			o := newOutside()
			if code := run(t.Context(), []string{"completion", name}, o.environment); code != exitOK {
				t.Fatalf("exit code %d: %s", code, o.errs.String())
			}
			file := write(t, "script", o.out.String())
			cmd := exec.CommandContext(t.Context(), path, "-c", c.ask, file)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if got := string(out); err != nil || strings.ReplaceAll(got, `\:`, ":") != strings.ReplaceAll(c.want, `\:`, ":") {
				t.Errorf("%v, shows\n%s\nwant\n%s", err, got, c.want)
			}
		})
	}
}
