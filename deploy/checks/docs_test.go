package checks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mvdan.cc/sh/v3/syntax"
)

// documents are all that people read below deploy.
func documents(t *testing.T) []string {
	t.Helper()
	return append(glob(t, "docs", "*.md"), glob(t, "*.md")...)
}

// block is a fenced block of a document.
type block struct {
	language, text string
	line           int
}

func blocks(markdown string) (all []block) {
	var open *block
	number := 0
	for line := range strings.Lines(markdown) {
		number++
		fence, ok := strings.CutPrefix(line, "```")
		switch {
		case ok && open == nil:
			open = &block{language: strings.TrimSpace(fence), line: number + 1}
		case ok:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line
		}
	}
	return all
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// outsideBlocks is a document without its fenced blocks.
func outsideBlocks(markdown string) string {
	for _, b := range blocks(markdown) {
		markdown = strings.Replace(markdown, "```"+b.language+"\n"+b.text+"```", "", 1)
	}
	return markdown
}

// Links lead somewhere.
func TestDocumentsLink(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, path := range documents(t) {
		text := outsideBlocks(read(t, path))
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
				continue
			}
			if fragment != "" && !anchors(read(t, file))[fragment] {
				t.Errorf("%s: %s has no heading for #%s", path, file, fragment)
			}
		}
	}
}

// Each command line can be run: klgstream's is parsed by klgstream, others name files, targets and units that exist.
func TestDocumentsCommandLines(t *testing.T) {
	for _, path := range documents(t) {
		text, lines := read(t, path), 0
		for _, b := range blocks(text) {
			if b.language == "" {
				t.Errorf("%s:%d: a block without a language", path, b.line)
			}
			if b.language != "sh" {
				continue
			}
			if _, err := syntax.NewParser().Parse(strings.NewReader(b.text), ""); err != nil {
				t.Errorf("%s:%d: %v", path, b.line, err)
			}
			for _, call := range calls(b.text) {
				checkCall(t, fmt.Sprintf("%s:%d", path, b.line), call)
				lines++
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(outsideBlocks(text), -1) {
			for _, call := range calls(m[1]) {
				if len(call) > 1 {
					checkCall(t, path, call)
				}
			}
		}
	}
}

// checkCall looks at one command with its arguments.
func checkCall(t *testing.T, where string, call []string) {
	t.Helper()
	if len(call) == 0 {
		return
	}
	args := call[1:]
	switch filepath.Base(call[0]) {
	case "klgstream":
		checkOurs(t, where, args)
	case "make":
		if !strings.Contains(read(t, filepath.Join(root, "Makefile")), "\n"+args[0]+":") {
			t.Errorf("%s: make has no target %q", where, args[0])
		}
	case "systemctl", "docker", "kubectl", "promtool", "cp", "install":
		for _, a := range args {
			if strings.HasPrefix(a, "deploy/") {
				if _, err := os.Stat(filepath.Join(root, a)); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
			if name, instance, ok := strings.Cut(a, "@"); ok && strings.HasPrefix(a, "klgstream-") && instance != "" {
				a = name + "@"
			}
			if strings.HasPrefix(a, "klgstream-") && call[0] == "systemctl" {
				if _, err := os.Stat(deployed("systemd", strings.TrimSuffix(a, ".service")+".service")); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
		}
	}
}

// checkOurs lets the binary parse a command line; what only asks something is run.
func checkOurs(t *testing.T, where string, args []string) {
	t.Helper()
	switch {
	case len(args) == 0, args[0] == "…":
	case len(args) == 1 && !slices.Contains([]string{"config", "version", "--version"}, args[0]): // named, perhaps a group of commands
		if _, err := klgstream(t, nil, args[0], "--help"); err != nil {
			t.Errorf("%s: klgstream %q: %v", where, args, err)
		}
	case slices.Contains(commandNames(t), strings.Join(args, " ")) && len(args) > 1: // named, without its arguments
	case args[0] == "config", args[0] == "version", slices.Contains(args, "--help"), slices.Contains(args, "--version"):
		if _, err := klgstream(t, nil, existing(args)...); err != nil {
			t.Errorf("%s: klgstream %q: %v", where, args, err)
		}
	default:
		effective(t, where, nil, existing(args)...)
	}
}

// existing puts the configuration file of this repository where a document has the installed one.
func existing(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		args[i] = strings.Replace(a, "/etc/klgstream/klgstream.yaml", deployed("systemd", "klgstream.yaml"), 1)
	}
	return args
}

// Settings that documents name exist.
func TestDocumentsFlags(t *testing.T) {
	flags := map[string]bool{"--help": true, "--version": true}
	for _, s := range allSettings(t) {
		flags["--"+s.flag] = true
		if s.negatable {
			flags["--no-"+s.flag] = true
		}
	}
	flag := regexp.MustCompile(`^--[a-z][a-z-]*`)
	for _, path := range documents(t) {
		for _, m := range codeSpan.FindAllStringSubmatch(outsideBlocks(read(t, path)), -1) {
			if f := flag.FindString(m[1]); f != "" && !flags[f] {
				t.Errorf("%s: there is no setting %s", path, f)
			}
		}
	}
}

// Metrics that documents name exist.
func TestDocumentsMetrics(t *testing.T) {
	names := known(t)
	metric := regexp.MustCompile(`klgstream_[a-z_]+`)
	for _, path := range documents(t) {
		for _, name := range metric.FindAllString(read(t, path), -1) {
			if !names[name] && !names[name+"_count"] {
				t.Errorf("%s: there is no metric %s", path, name)
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(outsideBlocks(read(t, path)), -1) {
			if strings.Contains(m[1], "klgstream_") && strings.Contains(m[1], "(") {
				queried(t, path, m[1])
			}
		}
	}
}

// Topics that documents name are those of the default settings.
func TestDocumentsTopics(t *testing.T) {
	topics := effective(t, "processor", nil, "processor")
	names := map[string]bool{}
	for key, value := range topics {
		if strings.HasSuffix(key, "-topic") || strings.HasSuffix(key, "group") {
			names[value], names[value+"-table"], names[value+"-loop"] = true, true, true
		}
	}
	for _, path := range documents(t) {
		for _, m := range codeSpan.FindAllStringSubmatch(outsideBlocks(read(t, path)), -1) {
			if strings.HasPrefix(m[1], "aircraft-") && !strings.ContainsAny(m[1], " /") && !names[m[1]] {
				t.Errorf("%s: there is no topic or group %q", path, m[1])
			}
		}
	}
}

// TestTutorial does what the tutorial says, in its order, and compares what it shows.
func TestTutorial(t *testing.T) {
	r := &reader{dir: t.TempDir(), addresses: map[string]string{}}
	t.Cleanup(r.stop)
	all := blocks(read(t, deployed("docs", "tutorial.md")))
	for i, b := range all {
		if b.language != "sh" {
			continue
		}
		want := ""
		if i+1 < len(all) && all[i+1].language == "text" {
			want = all[i+1].text
		}
		if err := r.follow(t.Context(), b.text, want); err != nil {
			t.Fatalf("tutorial.md:%d: %v", b.line, err)
		}
	}
}

// reader is somebody who follows the tutorial.
type reader struct {
	dir       string
	dev       *exec.Cmd
	addresses map[string]string // where things are, by where the tutorial has them
}

// follow does one block, line by line, and looks for what the tutorial shows: results come "a moment later".
func (r *reader) follow(ctx context.Context, script, want string) error {
	script = strings.ReplaceAll(script, "\\\n", "")
	for line := range strings.Lines(script) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "go build"):
			if err := os.Symlink(binary, filepath.Join(r.dir, "klgstream")); err != nil {
				return err
			}
		case strings.HasPrefix(line, "pkill -9"):
			r.stop()
		case strings.HasPrefix(line, "./klgstream dev"):
			r.stop()
			if err := r.start(ctx, line, want); err != nil {
				return err
			}
		default:
			if err := r.await(ctx, line, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) stop() {
	if r.dev != nil {
		_ = r.dev.Process.Kill()
		_ = r.dev.Wait()
		r.dev = nil
	}
}

// start runs dev on free ports until the replay is through, and remembers where everything is.
func (r *reader) start(ctx context.Context, line, want string) error {
	r.dev = exec.CommandContext(context.WithoutCancel(ctx), "./"+strings.Fields(line)[0][2:], strings.Fields(line)[1:]...)
	r.dev.Dir = r.dir
	r.dev.Env = append(os.Environ(), "KLGSTREAM_BROKER_ADDR=127.0.0.1:0", "KLGSTREAM_HTTP_ADDR=127.0.0.1:0", "FLINK_REST_URL=http://127.0.0.1:0")
	out, err := r.dev.StdoutPipe()
	if err != nil {
		return err
	}
	if err := r.dev.Start(); err != nil {
		return err
	}
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(said, "all through"); {
		said += lines.Text() + "\n"
		if strings.Contains(said, "all through") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // it ends with the process
	for _, m := range banner.FindAllStringSubmatch(said, -1) {
		r.addresses[map[string]string{"open": "127.0.0.1:8080", "operations": "127.0.0.1:8081", "broker": "127.0.0.1:19092"}[m[1]]] = m[2]
	}
	for tutorial, actual := range r.addresses {
		said = strings.ReplaceAll(said, actual, tutorial)
	}
	if want == "" && strings.Contains(said, "all through") {
		return nil
	}
	return shows(said, want)
}

// await runs a line until it shows what the tutorial does. What sends something shows it at once, and so is run once.
func (r *reader) await(ctx context.Context, line, want string) error {
	for tutorial, actual := range r.addresses {
		line = strings.ReplaceAll(line, tutorial, actual)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
		cmd.Dir = r.dir
		out, err := cmd.CombinedOutput()
		if err == nil {
			err = shows(string(out), want)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = fmt.Errorf("%w\n%s", err, out)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", line, last)
		}
	}
}

// shows compares output with what a document shows; … stands for anything.
func shows(got, want string) error {
	got = strings.ReplaceAll(got, "\r\n", "\n") // CSV
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*")
	if want == "" || regexp.MustCompile("(?s)^"+pattern+"$").MatchString(strings.TrimSpace(got)) {
		return nil
	}
	return fmt.Errorf("shows\n%s\nthe document says\n%s", got, want)
}
