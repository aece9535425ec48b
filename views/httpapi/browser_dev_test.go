package httpapi

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// program is the real program, running all its roles in one process.
type program struct {
	t            *testing.T
	path         string
	page, broker string // addresses
}

func startProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, path: filepath.Join(t.TempDir(), "klgstream")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, "klgstream.dev/cmd/klgstream")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	run := exec.CommandContext(t.Context(), p.path, "dev", "--file", "none",
		"--http-addr", "127.0.0.1:0", "--broker-addr", "127.0.0.1:0", "--ops-url", "http://127.0.0.1:0")
	run.Stderr = t.Output()
	run.Cancel = func() error { return run.Process.Signal(syscall.SIGTERM) }
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		_ = run.Wait()
	})
	for (p.page == "" || p.broker == "") && lines.Scan() {
		p.hear(strings.Fields(lines.Text()))
	}
	if p.page == "" || p.broker == "" {
		t.Fatalf("the program ended without addresses: %v", lines.Err())
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return p
}

// hear takes the addresses from what the program prints.
func (p *program) hear(words []string) {
	switch {
	case len(words) < 2:
	case words[0] == "open":
		p.page = words[1]
	case words[0] == "broker":
		p.broker = words[1]
	}
}

// replay publishes lines as a producer without keys does, and returns when the broker has them.
func (p *program) replay(lines ...string) {
	p.t.Helper()
	run := exec.CommandContext(p.t.Context(), p.path, "replay", "--brokers", p.broker, "-")
	run.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := run.CombinedOutput(); err != nil {
		p.t.Fatalf("replay: %v: %s", err, out)
	}
}

// TestBrowserDev is the page on the real program: counts grow during a replay without a reload, an event nobody can read
// is there with its bytes, and an aircraft that is created is in the registry and stays.
func TestBrowserDev(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the program")
	}
	chromium(t)
	var lines []string
	for _, e := range demoEvents()[:3000] {
		lines = append(lines, fmt.Sprintf(`{"eventType":%q,"registrationNumber":%q,"timestamp":%q}`, e.kind, e.registration, e.at.Format(time.RFC3339)))
	}
	p := startProgram(t)
	b := &browser{t: t, url: p.page, hosts: map[string]bool{}}
	b.open(1280, 900)
	b.until(`document.querySelector('#link').dataset.state === 'up'`)
	b.eval(`window.marker = 'not reloaded'`)

	p.replay(lines[:1000]...)
	b.until(counted + ` === 1000`)
	p.replay(append(lines[1000:], "this is {not JSON")...)
	b.until(counted + ` === 3000`)
	b.until(`document.querySelectorAll('#busiest [data-key]').length >= 10 && document.querySelectorAll('#timeline rect.window').length >= 3`)
	b.until(`document.querySelectorAll('#heat .hot').length >= 24`)

	b.click("#tab-dead")
	b.until(`document.querySelectorAll('#letter-list details').length === 1`)
	b.click("#letter-list details summary")
	if got := b.text("#letter-list details pre"); got != "this is {not JSON" {
		t.Errorf("bytes are shown as %q", got)
	}
	b.focus("#letter-list details summary")
	p.replay("nor is {this")
	b.until(`document.querySelectorAll('#letter-list details').length === 2`)
	if kept := b.eval(`document.activeElement.closest('details[open]')?.querySelector('pre').textContent`); kept != "this is {not JSON" {
		t.Errorf("a letter that is read while another arrives: open and with the focus is %v", kept)
	}

	b.write("#create-registration", "ra-12345")
	b.write("#create-type", "SU95")
	b.click("#create-button")
	b.until(`document.querySelector('#registry-table tr[data-id="RA-12345"]') !== null`)
	if got := b.eval(`window.marker`); got != "not reloaded" {
		t.Error("the page was loaded again")
	}
	b.screenshot("dev")
	b.run(chromedp.Reload())
	b.until(`document.querySelector('#registry-table tr[data-id="RA-12345"] .type')?.textContent === 'SU95'`)
	b.clean()
}
