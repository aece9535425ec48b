package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The page has every command, flag, variable and exit code, and mandoc finds nothing wrong with it.
func TestMan(t *testing.T) {
	t.Parallel()
	o := newOutside()
	if code := run(t.Context(), []string{"man"}, o.environment); code != exitOK {
		t.Fatalf("exit code %d: %s", code, o.errs.String())
	}
	page := o.out.String()
	a := &app{environment: o.environment}
	model, l, err := a.model()
	if err != nil {
		t.Fatal(err)
	}
	commands := leaves(model.Node)
	for _, c := range commands {
		if !strings.Contains(page, `.SS "`+escape(c.FullPath())) {
			t.Errorf("%s is not in the manual", c.FullPath())
		}
		for _, group := range c.AllFlags(true) {
			for _, f := range group {
				for _, env := range l.names[f.Name] {
					if !strings.Contains(page, "$"+escape(env)) {
						t.Errorf("$%s of %s is not in the manual", env, c.FullPath())
					}
				}
			}
		}
	}
	if len(commands) < 20 {
		t.Errorf("only %d commands were looked for", len(commands))
	}
	for _, e := range exitMeanings {
		if !strings.Contains(page, escape(e.meaning)) {
			t.Errorf("exit code %d is not in the manual", e.code)
		}
	}
	cmd := exec.CommandContext(t.Context(), shell(t, "mandoc"), "-T", "lint", "-W", "warning")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
}
