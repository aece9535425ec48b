package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// manCmd prints the manual page, made of what the commands say of themselves.
type manCmd struct{}

func (*manCmd) check() error { return nil }

// Run prints klgstream(1).
func (*manCmd) Run(_ context.Context, a *app) error {
	model, l, err := a.model()
	if err != nil {
		return err
	}
	m := &manual{loader: l}
	m.write(model)
	_, err = a.stdout.Write(m.Bytes())
	return err
}

// manual is a page in the macros of man(7).
type manual struct {
	bytes.Buffer

	loader *loader
}

func (m *manual) write(app *kong.Application) {
	b := thisBuild()
	day, _, _ := strings.Cut(b.Time, "T")
	m.line(`.TH KLGSTREAM 1 "%s" "klgstream %s" "User Commands"`, cmp.Or(day, "1970-01-01"), b.Version) // without a commit there is no date to tell
	m.section("NAME")
	m.text(`klgstream \- counts aircraft events in windows, exactly once`)
	m.section("SYNOPSIS")
	m.line(".B klgstream")
	m.line(`.I command`)
	m.text(`[\fIflag\fR ...] [\fIargument\fR ...]`)
	m.section("DESCRIPTION")
	m.paragraphs(app.Help)
	m.section("COMMANDS")
	for _, c := range leaves(app.Node) {
		m.command(c)
	}
	m.section("FLAGS OF EVERY COMMAND")
	m.flags(app.Flags)
	m.section("ENVIRONMENT")
	m.text(escape("Every flag has an environment variable, named behind it. A variable that is set to nothing is as one that is not set."))
	m.section("FILES")
	m.text(escape("--config names a YAML file of settings: a key is a flag's name without its dashes, a value what stands behind it."))
	m.section("EXIT STATUS")
	for _, e := range exitMeanings {
		name := fmt.Sprint(e.code)
		if e.name != "" {
			name += " (" + e.name + ")"
		}
		m.item(escape(name), escape(e.meaning))
	}
	m.section("EXAMPLES")
	for _, e := range examples {
		m.item(escape(e[0]), escape(e[1]))
	}
}

// examples are command lines worth knowing.
var examples = [][2]string{
	{"klgstream dev", "the whole flow in one process, with a page to look at"},
	{"klgstream config processor --window=session:30m", "what would be in effect, and where it came from"},
	{"klgstream doctor", "what is wrong, and what mends it"},
}

// leaves are the commands that do something, as the help lists them.
func leaves(n *kong.Node) (all []*kong.Node) {
	for _, c := range n.Children {
		switch {
		case c.Hidden:
		case len(c.Children) > 0:
			all = append(all, leaves(c)...)
		default:
			all = append(all, c)
		}
	}
	return all
}

func (m *manual) command(c *kong.Node) {
	line := []string{c.FullPath()}
	for _, p := range c.Positional {
		line = append(line, p.Summary())
	}
	m.line(`.SS "%s"`, strings.ReplaceAll(escape(strings.Join(line, " ")), `"`, `\(dq`))
	m.paragraphs(c.Help)
	for _, p := range c.Positional {
		m.item(`\fI`+escape(p.Summary())+`\fR`, escape(p.Help))
	}
	for n := c; n.Parent != nil; n = n.Parent { // the application's own are written once
		m.flags(n.Flags)
	}
}

func (m *manual) flags(flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "--" + f.Name
		if f.Tag.Negatable != "" {
			name = "--[no-]" + f.Name
		}
		term := `\fB` + escape(name) + `\fR`
		if !f.IsBool() {
			term += `=\fI` + escape(f.FormatPlaceHolder()) + `\fR`
		}
		m.item(term, escape(m.loader.describe(f.Value)))
	}
}

func (m *manual) section(name string) { m.line(".SH %s", name) }

func (m *manual) item(term, text string) {
	m.line(".TP")
	m.text(term)
	m.text(text)
}

func (m *manual) paragraphs(text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			m.line(".PP")
		}
		m.text(escape(p))
	}
}

func (m *manual) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

// text writes a line that is no request, whatever it begins with.
func (m *manual) text(text string) {
	text = strings.ReplaceAll(text, "\n", " ")
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	m.line("%s", text)
}

// escape makes text stand for itself.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(text)
}
