// Mutate says how much of a package's code its tests would miss: it breaks the code in every way that gremlins knows, one at a
// time, and sees whether a test fails.
//
// Gremlins names the mutants. It would build and run the whole suite for each, which takes hours where tests have a broker; here all
// mutants of a package are built into one test binary (with -overlay: no file of the tree is touched) and a variable of the
// environment chooses one. Of the tests those run that cover its line: the quick ones together, then a few of the slow ones at a time until
// one fails. What a slow test fails it must fail again by itself, and a test that fails without a mutant is left out.
//
//	go run ./.ci/mutate [-files regexp] [-workers n] [-tests regexp] [-longest 1s] [-all] [-again report] ./processors/window
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// mutant is one way to break the code, as gremlins names it.
type mutant struct {
	File   string
	Type   string
	Line   int
	Column int

	id     int
	binary string // "" until it is built
	alone  bool   // it does not fit into the binary of all
	result result
}

type result struct {
	verdict string // killed, timed out, lived, not viable
	by      string // the test that failed
}

func (m *mutant) String() string { return fmt.Sprintf("%s:%d:%d %s", m.File, m.Line, m.Column, m.Type) }

// suite is the package's tests.
type suite struct {
	dir   string
	tests []test // the quickest first
	work  string // for what is built

	only    string        // the tests that are used
	longest time.Duration // a test that takes longer is left out
}

type test struct {
	name  string
	took  time.Duration
	lines map[string]bool // file:line it covers
}

const (
	gremlins = "github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0"

	slow     = 300 * time.Millisecond // a test that takes as long is run behind the others
	near     = 8                      // so many tests are run first of the quick ones: those that run least beside a mutant's line
	together = 8                      // so many slow ones at a time
	patient  = 5 * time.Second        // and five times what they usually take: that tests hang
	memory   = "6000000"              // KiB of address space of a test run: a mutant may grow without end
)

func main() {
	files := flag.String("files", "", "only mutants of files whose name matches")
	workers := flag.Int("workers", 2, "test runs at a time")
	verbose := flag.Bool("all", false, "print every mutant, not only the survivors")
	only := flag.String("tests", "", "only tests whose name matches")
	longest := flag.Duration("longest", time.Hour, "leave out tests that take longer")
	again := flag.String("again", "", "only the mutants that were not killed according to what this printed into a file before, of the same code")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: mutate [-files regexp] [-workers n] [-tests regexp] [-longest 1s] [-all] [-again report] ./package")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *files, *again, *only, *workers, *verbose, *longest); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, files, again, tests string, workers int, verbose bool, longest time.Duration) error {
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	only, err := regexp.Compile(files)
	if err != nil {
		return err
	}
	s := &suite{dir: dir, work: work, longest: longest, only: tests}
	all, err := s.mutants(only)
	if err == nil && again != "" {
		all, err = left(all, again)
	}
	if err != nil {
		return err
	}
	if err := s.measure(workers); err != nil {
		return err
	}
	if err := s.build(all); err != nil {
		return err
	}
	if err := s.sound(workers); err != nil {
		return err
	}
	var wg sync.WaitGroup
	queue := make(chan *mutant)
	for range workers {
		wg.Go(func() {
			for m := range queue {
				m.result = s.try(m)
				if verbose || m.result.verdict == "lived" {
					fmt.Printf("%-10s %v %s\n", m.result.verdict, m, m.result.by)
				}
			}
		})
	}
	for _, m := range all {
		queue <- m
	}
	close(queue)
	wg.Wait()
	report(all)
	return nil
}

// mutants asks gremlins for its list.
func (s *suite) mutants(only *regexp.Regexp) ([]*mutant, error) {
	list := filepath.Join(s.work, "mutants.json")
	cmd := exec.Command("go", "run", gremlins, "unleash", "--dry-run", "-s", "-o", list, s.dir)
	cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -run=^$") // it would run all tests first
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("list mutants of %s: %w: %s", s.dir, err, out)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var found struct {
		Files []struct {
			Name      string `json:"file_name"`
			Mutations []*mutant
		}
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("read mutants of %s: %w", s.dir, err)
	}
	var all []*mutant
	for _, f := range found.Files {
		for _, m := range f.Mutations {
			if m.File = f.Name; only.MatchString(f.Name) {
				all = append(all, m)
			}
		}
	}
	slices.SortFunc(all, func(a, b *mutant) int {
		return strings.Compare(fmt.Sprintf("%s %6d %4d %s", a.File, a.Line, a.Column, a.Type), fmt.Sprintf("%s %6d %4d %s", b.File, b.Line, b.Column, b.Type))
	})
	for i, m := range all {
		m.id = i + 1
	}
	return all, nil
}

// left are the mutants that an earlier report says were not killed.
func left(all []*mutant, report string) ([]*mutant, error) {
	text, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	lived := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^(?:lived|timed out) +(\S+ [A-Z_]+)`).FindAllStringSubmatch(string(text), -1) {
		lived[m[1]] = true
	}
	return slices.DeleteFunc(all, func(m *mutant) bool { return !lived[m.String()] }), nil
}

// measure runs every test once to learn what it covers and how long it takes.
func (s *suite) measure(workers int) error {
	binary := filepath.Join(s.work, "cover.test")
	if out, err := exec.Command("go", "test", "-c", "-cover", "-vet=off", "-o", binary, s.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("build tests of %s: %w: %s", s.dir, err, out)
	}
	list := exec.Command(binary, "-test.list", cmp.Or(s.only, "."))
	list.Dir = s.dir
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("list tests of %s: %w", s.dir, err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") {
			s.tests = append(s.tests, test{name: name})
		}
	}
	err = each(s.tests, workers, func(t *test) error { return s.measureOne(binary, t) })
	s.tests = slices.DeleteFunc(s.tests, func(t test) bool { return t.took > s.longest })
	slices.SortFunc(s.tests, func(a, b test) int { return cmp.Compare(a.took, b.took) })
	return err
}

func (s *suite) measureOne(binary string, t *test) error {
	profile := filepath.Join(s.work, t.name+".cover")
	cmd := exec.Command(binary, "-test.run", "^"+t.name+"$", "-test.coverprofile", profile)
	cmd.Dir = s.dir
	began := time.Now()
	if _, err := cmd.CombinedOutput(); err != nil {
		return nil // sound leaves it out
	}
	t.took, t.lines = time.Since(began), make(map[string]bool)
	text, err := os.ReadFile(profile)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var from, fromCol, to, toCol, statements, count int
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if n, _ := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &from, &fromCol, &to, &toCol, &statements, &count); n < 6 || count == 0 {
			continue
		}
		for l := from; l <= to; l++ {
			t.lines[fmt.Sprintf("%s:%d", filepath.Base(name), l)] = true
		}
	}
	return nil
}

// sound leaves out tests that fail in the mutants' binary when no mutant is on: of them a failure tells nothing.
func (s *suite) sound(workers int) error {
	none := &mutant{id: -1, binary: filepath.Join(s.work, "all.test")}
	err := each(s.tests, workers, func(t *test) error {
		if failed, by, _ := s.fails(none, []test{*t}, 4); failed {
			fmt.Printf("%-10s %s fails without a mutant: %s\n", "left out", t.name, by)
			t.lines = nil
		}
		return nil
	})
	s.tests = slices.DeleteFunc(s.tests, func(t test) bool { return t.lines == nil })
	return err
}

// each does something with all tests, a few at a time.
func each(tests []test, workers int, do func(*test) error) error {
	errs := make([]error, len(tests))
	limit := make(chan struct{}, workers)
	var wg sync.WaitGroup
	for i := range tests {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			errs[i] = do(&tests[i])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// try runs the tests that cover a mutant.
func (s *suite) try(m *mutant) result {
	if m.alone {
		if err := s.buildOne(m); err != nil {
			return result{"not viable", err.Error()}
		}
	}
	if m.binary == "" {
		return result{verdict: "not viable"}
	}
	at := fmt.Sprintf("%s:%d", m.File, m.Line)
	tests := slices.DeleteFunc(slices.Clone(s.tests), func(t test) bool { return !t.lines[at] })
	if len(tests) == 0 { // the condition of a case, or what is computed before a test begins: nothing says who runs it
		tests = s.tests
	}
	quick := slices.IndexFunc(tests, func(t test) bool { return t.took >= slow })
	if quick < 0 {
		quick = len(tests)
	}
	slices.SortStableFunc(tests[:quick], func(a, b test) int { return cmp.Compare(len(a.lines), len(b.lines)) })
	for _, some := range [][]test{tests[:min(near, quick)], tests[min(near, quick):quick]} {
		failed, by, hung := s.fails(m, some, 1)
		if hung { // the machine may have been busy
			failed, by, hung = s.fails(m, some, 2)
		}
		if failed {
			return verdict(by, hung)
		}
	}
	for slow := range slices.Chunk(tests[quick:], together) {
		if failed, by, hung := s.failsTwice(m, slow); failed {
			return verdict(by, hung)
		}
	}
	return result{verdict: "lived"}
}

// failsTwice runs slow tests together, and by itself the one that failed: it may have been too slow for the company it was in.
func (s *suite) failsTwice(m *mutant, slow []test) (failed bool, by string, hung bool) {
	if failed, by, _ = s.fails(m, slow, 1); !failed {
		return false, "", false
	}
	slices.SortStableFunc(slow, func(a, b test) int {
		return cmp.Compare(strings.Index(b.name, by), strings.Index(a.name, by))
	})
	for _, t := range slow {
		if failed, _, _ := s.fails(m, []test{t}, 1); failed {
			if failed, by, hung = s.fails(m, []test{t}, 4); failed {
				return true, by, hung
			}
		}
	}
	return false, "", false
}

func verdict(by string, hung bool) result {
	if hung {
		return result{"timed out", by}
	}
	return result{"killed", by}
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)|^panic: (.*)|^\t(Test\S+) \(`)

// fails runs tests with a mutant, and waits so many times as long as they may well take.
func (s *suite) fails(m *mutant, tests []test, times time.Duration) (failed bool, by string, hung bool) {
	if len(tests) == 0 {
		return false, "", false
	}
	names, limit := make([]string, len(tests)), patient
	for i, t := range tests {
		names[i] = t.name
		limit += 5 * t.took
	}
	limit *= times
	ctx, cancel := context.WithTimeout(context.Background(), limit+patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "ulimit -v "+memory+`; exec "$0" "$@"`, m.binary,
		"-test.run", "^("+strings.Join(names, "|")+")$", "-test.failfast", "-test.timeout", limit.String())
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), fmt.Sprintf("MUTANT=%d", m.id))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false, "", false
	}
	text := string(out)
	found := failure.FindStringSubmatch(text)
	if found == nil {
		found = make([]string, 4)
	}
	hung = ctx.Err() != nil || strings.Contains(text, "test timed out after") || strings.Contains(text, "out of memory")
	return true, found[1] + found[2] + found[3], hung && found[1] == "" // else one has failed before another hung
}

// report prints the score per file and in whole. A mutant whose tests hang is not counted as found, but told apart.
func report(all []*mutant) {
	type score struct{ killed, hung, lived, unviable int }
	scores := make(map[string]*score)
	var names []string
	add := func(name, verdict string) {
		c := scores[name]
		if c == nil {
			c = new(score)
			scores[name] = c
			names = append(names, name)
		}
		switch verdict {
		case "killed":
			c.killed++
		case "timed out":
			c.hung++
		case "lived":
			c.lived++
		default:
			c.unviable++
		}
	}
	for _, m := range all {
		add(m.File, m.result.verdict)
	}
	for _, m := range all {
		add("total", m.result.verdict)
	}
	fmt.Printf("%-20s %8s %10s %8s %11s %8s %14s\n", "file", "killed", "timed out", "lived", "not viable", "score", "with time-outs")
	for _, name := range names {
		c := scores[name]
		share := func(n int) float64 { return 100 * float64(n) / float64(max(1, c.killed+c.hung+c.lived)) }
		fmt.Printf("%-20s %8d %10d %8d %11d %7.1f%% %13.1f%%\n", name, c.killed, c.hung, c.lived, c.unviable, share(c.killed), share(c.killed+c.hung))
	}
}
