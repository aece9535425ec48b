package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// helpers is what the mutated code calls. A mutant is chosen by its number.
const helpers = `package %s

import (
	"os"
	"strconv"
)

var mutantNow, _ = strconv.Atoi(os.Getenv("MUTANT"))

func mutantOn(ids ...int) bool {
	if mutantNow == 0 {
		return false
	}
	for _, id := range ids {
		if id == mutantNow {
			return true
		}
	}
	return false
}

type mutantInt interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

type mutantNumber interface{ mutantInt | ~float32 | ~float64 }

func mutantAdd[T mutantNumber](a, b T, ids ...int) T { if mutantOn(ids...) { return a - b }; return a + b }
func mutantSub[T mutantNumber](a, b T, ids ...int) T { if mutantOn(ids...) { return a + b }; return a - b }
func mutantMul[T mutantNumber](a, b T, ids ...int) T { if mutantOn(ids...) { return a / b }; return a * b }
func mutantQuo[T mutantNumber](a, b T, ids ...int) T { if mutantOn(ids...) { return a * b }; return a / b }
func mutantRem[T mutantInt](a, b T, ids ...int) T { if mutantOn(ids...) { return a * b }; return a %% b }
func mutantNeg[T mutantNumber](a T, ids ...int) T { if mutantOn(ids...) { return +a }; return -a }
func mutantInc[T mutantNumber](a *T, ids ...int) { if mutantOn(ids...) { *a--; return }; *a++ }
func mutantDec[T mutantNumber](a *T, ids ...int) { if mutantOn(ids...) { *a++; return }; *a-- }
`

// build makes one test binary of all mutants; those that do not fit into it are built alone.
func (s *suite) build(all []*mutant) error {
	out := map[*mutant]bool{}
	binary := filepath.Join(s.work, "all.test")
	for {
		in := slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool { return out[m] })
		files, left, err := s.rewrite(in)
		if err != nil {
			return err
		}
		for _, m := range left {
			out[m] = true
		}
		text, err := s.compile(binary, files)
		if err == nil {
			break
		}
		if !s.blame(text, files, in, out) {
			return fmt.Errorf("build mutants of %s: %w: %s", s.dir, err, text)
		}
	}
	for _, m := range all {
		if m.alone = out[m]; !m.alone {
			m.binary = binary
		}
	}
	return nil
}

// blame takes out the mutants on the lines that the compiler complains about.
func (s *suite) blame(text string, files map[string]string, in []*mutant, out map[*mutant]bool) bool {
	found := false
	for _, at := range regexp.MustCompile(`(?m)([a-z_0-9]+\.go):(\d+):\d+: `).FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(at[2])
		lines := strings.Split(files[at[1]], "\n")
		if n < 1 || n > len(lines) {
			continue
		}
		for _, id := range regexp.MustCompile(`/\*(\d+)\*/`).FindAllStringSubmatch(lines[n-1], -1) {
			for _, m := range in {
				if strconv.Itoa(m.id) == id[1] && !out[m] {
					out[m], found = true, true
				}
			}
		}
	}
	return found
}

// compile builds the tests with other text in some files.
func (s *suite) compile(binary string, files map[string]string) (string, error) {
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return "", err
	}
	work := binary + ".d"
	if err := os.MkdirAll(work, 0o700); err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range files {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(dir, name)] = path
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay", path, "-o", binary, s.dir).CombinedOutput()
	return string(out), err
}

var mutated = map[string]map[string]string{
	"CONDITIONALS_BOUNDARY": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
	"CONDITIONALS_NEGATION": {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="},
	"ARITHMETIC_BASE":       {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"},
	"INVERT_NEGATIVES":      {"-": "+"},
	"INCREMENT_DECREMENT":   {"++": "--", "--": "++"},
}

// buildOne makes the test binary of one mutant, if there can be one.
func (s *suite) buildOne(m *mutant) error {
	text, err := os.ReadFile(filepath.Join(s.dir, m.File))
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	line := lines[m.Line-1]
	rest := line[m.Column-1:]
	for n := 2; n > 0; n-- {
		if to, ok := mutated[m.Type][rest[:n]]; ok {
			lines[m.Line-1] = line[:m.Column-1] + to + rest[n:]
			binary := filepath.Join(s.work, fmt.Sprintf("%d.test", m.id))
			if _, err := s.compile(binary, map[string]string{m.File: strings.Join(lines, "")}); err == nil {
				m.binary = binary
			}
			return nil
		}
	}
	return fmt.Errorf("mutant %v: no operator of its kind there: %q", m, rest)
}

// rewrite is the package's files with all mutants in them, and the mutants that found no place.
func (s *suite) rewrite(all []*mutant) (files map[string]string, left []*mutant, err error) {
	files = map[string]string{}
	at := map[string]map[[2]int][]*mutant{}
	for _, m := range all {
		if at[m.File] == nil {
			at[m.File] = map[[2]int][]*mutant{}
		}
		place := [2]int{m.Line, m.Column}
		at[m.File][place] = append(at[m.File][place], m)
	}
	for name, places := range at {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return nil, nil, err
		}
		w := &rewriter{set: token.NewFileSet(), text: string(text), places: places, done: map[*mutant]bool{}}
		file, err := parser.ParseFile(w.set, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		w.collect(file)
		files[name] = w.render(0, len(text), nil)
		files["zz_mutants.go"] = fmt.Sprintf(helpers, file.Name.Name)
		for _, ms := range places {
			for _, m := range ms {
				if !w.done[m] {
					left = append(left, m)
				}
			}
		}
	}
	return files, left, nil
}

// rewriter puts the mutants of one file into its text.
type rewriter struct {
	set    *token.FileSet
	text   string
	places map[[2]int][]*mutant
	nodes  []ast.Node // that have mutants, outer before inner
	done   map[*mutant]bool
}

func (w *rewriter) offset(p token.Pos) int { return w.set.Position(p).Offset }

func (w *rewriter) mutants(p token.Pos) []*mutant {
	at := w.set.Position(p)
	return w.places[[2]int{at.Line, at.Column}]
}

func (w *rewriter) collect(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			return n.Tok != token.CONST
		case *ast.ArrayType:
			return false
		case *ast.BinaryExpr:
			if len(w.mutants(n.OpPos)) > 0 {
				w.nodes = append(w.nodes, n)
			}
		case *ast.UnaryExpr:
			if len(w.mutants(n.OpPos)) > 0 {
				w.nodes = append(w.nodes, n)
			}
		case *ast.IncDecStmt:
			if len(w.mutants(n.TokPos)) > 0 {
				w.nodes = append(w.nodes, n)
			}
		}
		return true
	})
}

// render is the text from lo to hi with the mutants of the nodes in it, but not of the one it is the text of.
func (w *rewriter) render(lo, hi int, self ast.Node) string {
	var b strings.Builder
	for _, n := range w.nodes {
		from, to := w.offset(n.Pos()), w.offset(n.End())
		if n == self || from < lo || to > hi {
			continue
		}
		b.WriteString(w.text[lo:from])
		b.WriteString(w.mutate(n))
		lo = to
	}
	b.WriteString(w.text[lo:hi])
	return b.String()
}

func (w *rewriter) part(n ast.Node) string {
	return w.render(w.offset(n.Pos()), w.offset(n.End()), nil)
}

// mutate is the text of a node that becomes another when one of its mutants is on.
func (w *rewriter) mutate(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IncDecStmt:
		name := map[token.Token]string{token.INC: "mutantInc", token.DEC: "mutantDec"}[n.Tok]
		return name + "(&" + w.part(n.X) + w.ids(w.mutants(n.TokPos)) + ")"
	case *ast.UnaryExpr:
		return "mutantNeg(" + w.part(n.X) + w.ids(w.mutants(n.OpPos)) + ")"
	case *ast.BinaryExpr:
		ms := w.mutants(n.OpPos)
		name := map[token.Token]string{
			token.ADD: "mutantAdd", token.SUB: "mutantSub", token.MUL: "mutantMul", token.QUO: "mutantQuo", token.REM: "mutantRem",
		}[n.Op]
		if name != "" {
			return name + "(" + w.part(n.X) + ", " + w.part(n.Y) + w.ids(ms) + ")"
		}
		return w.compare(n, ms)
	}
	return ""
}

// compare is a comparison with its mutants. What is equal is told apart without knowing types.
func (w *rewriter) compare(n *ast.BinaryExpr, ms []*mutant) string {
	x, y := w.part(n.X), w.part(n.Y)
	text := "(" + x + ") " + n.Op.String() + " (" + y + ")"
	for _, m := range ms {
		other := mutated[m.Type][n.Op.String()]
		id := strings.TrimPrefix(w.ids([]*mutant{m}), ", ")
		switch m.Type {
		case "CONDITIONALS_NEGATION":
			text = "((" + text + ") != mutantOn(" + id + "))"
		case "CONDITIONALS_BOUNDARY":
			text = "(mutantOn(" + id + ") && ((" + x + ") " + other + " (" + y + ")) || !mutantOn(" + id + ") && (" + text + "))"
		}
	}
	return text
}

func (w *rewriter) ids(ms []*mutant) string {
	var b strings.Builder
	for _, m := range ms {
		w.done[m] = true
		fmt.Fprintf(&b, ", %d/*%d*/", m.id, m.id)
	}
	return b.String()
}
