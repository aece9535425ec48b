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

	"github.com/chromedp/chromedp"
)

// dev starts the real program with a replay of the made-up week, one line of which nobody can read, and returns the address
// of its page.
func dev(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, program := filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "klgstream")
	var lines strings.Builder
	for i, e := range demoEvents()[:3000] {
		fmt.Fprintf(&lines, `{"eventType":%q,"registrationNumber":%q,"timestamp":%q}`+"\n", e.kind, e.registration, e.at.Format("2006-01-02T15:04:05Z"))
		if i == 100 {
			lines.WriteString("this is {not JSON\n")
		}
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "klgstream.dev/cmd/klgstream")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	run := exec.CommandContext(t.Context(), program, "dev", "--file", file, "--rate", "600",
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
	read := bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		for read.Scan() {
		}
		_ = run.Wait()
	})
	for read.Scan() {
		if fields := strings.Fields(read.Text()); len(fields) == 2 && fields[0] == "open" {
			go func() {
				for read.Scan() {
				}
			}()
			return fields[1]
		}
	}
	t.Fatalf("the program ended without an address: %v", read.Err())
	return ""
}

// TestBrowserDev is the page on the real program: counts grow during the replay without a reload, the event nobody could
// read is there with its bytes, and an aircraft that is created is in the registry and stays.
func TestBrowserDev(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the program")
	}
	chromium(t)
	url := dev(t)
	b := &browser{t: t, url: url, hosts: map[string]bool{}}
	b.open(1280, 900)

	b.until(counted + ` >= 100`)
	b.eval(`window.marker = 'not reloaded'`)
	before, _ := b.eval(counted).(float64)
	b.until(fmt.Sprintf(counted+` > %v`, before))
	b.run(
		chromedp.SendKeys("#create-registration", "ra-12345", chromedp.ByQuery),
		chromedp.SendKeys("#create-type", "SU95", chromedp.ByQuery),
		chromedp.Click("#create-button", chromedp.ByQuery),
	)
	b.until(`document.querySelector('#registry-table tr[data-id="RA-12345"]') !== null`)
	b.until(`document.querySelector('#replay').classList.contains('done')`)
	b.until(`document.querySelectorAll('#busiest [data-key]').length >= 10 && document.querySelectorAll('#timeline rect.window').length >= 3`)
	b.until(`document.querySelectorAll('#heat .hot').length >= 24`)

	b.run(chromedp.Click("#tab-dead", chromedp.ByQuery))
	b.until(`document.querySelectorAll('#letter-list details').length === 1`)
	b.run(chromedp.Click("#letter-list details summary", chromedp.ByQuery))
	if got := b.text("#letter-list details pre"); got != "this is {not JSON" {
		t.Errorf("bytes are shown as %q", got)
	}
	if got := b.eval(`window.marker`); got != "not reloaded" {
		t.Error("the page was loaded again")
	}
	b.screenshot("dev")

	b.run(chromedp.Reload())
	b.until(`document.querySelector('#registry-table tr[data-id="RA-12345"] .type')?.textContent === 'SU95'`)
	b.clean()
}
