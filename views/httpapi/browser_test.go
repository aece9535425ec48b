package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"klgstream.dev/codecs"
)

// The environment of these tests: KLGSTREAM_REQUIRE_BROWSER=1 makes a missing Chromium a failure, KLGSTREAM_SCREENSHOTS
// names a directory to leave screenshots in.

// browser is a Chromium tab on the page of a demo, and what went wrong in it.
type browser struct {
	*demo
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp's handle of the tab is a context
	url string

	mu     sync.Mutex
	faults []string
	hosts  map[string]bool
}

func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("KLGSTREAM_REQUIRE_BROWSER") == "1" {
		t.Fatal("no Chromium found: install it, or leave KLGSTREAM_REQUIRE_BROWSER out")
	}
	t.Skip("no Chromium found: install it to run this test")
	return ""
}

type lockedLive struct {
	mu *sync.Mutex
	demoLive
}

func (l lockedLive) AsOf() time.Time { return (*l.d).clock.now() }

func (l lockedLive) Windows(_ context.Context, registration string) ([]codecs.Window, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.windows(registration), nil
}

func newBrowser(t *testing.T, width, height int64, change ...func(*Config)) *browser {
	t.Helper()
	chromium(t)
	b := &browser{t: t, hosts: map[string]bool{}}
	var registry *fakeRegistry
	changes := append([]func(*Config){withRegistry(&registry), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		c.Limits.Interval = 50 * time.Millisecond
		c.Live = lockedLive{&b.mu, demoLive{&b.demo}}
	}}, change...)
	b.demo = newDemo(newRig(t, changes...), registry)
	b.serve()
	b.open(width, height)
	return b
}

// open starts a Chromium and loads the page.
func (b *browser) open(width, height int64) {
	b.t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(b.t)), chromedp.NoSandbox, chromedp.WindowSize(int(width), int(height)),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("lang", "en-GB"))
	allocator, cancel := chromedp.NewExecAllocator(b.t.Context(), options...)
	b.t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	b.t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 10*time.Minute)
	b.t.Cleanup(cancel)
	b.ctx = ctx
	chromedp.ListenTarget(ctx, b.hear)
	b.run(network.Enable(), emulation.SetDeviceMetricsOverride(width, height, 1, width < 600), chromedp.Navigate(b.url+"/"))
}

// serve starts the server and the stream.
func (b *browser) serve() {
	server := httptest.NewUnstartedServer(b.api)
	server.Config = b.api.Server()
	server.Start()
	b.t.Cleanup(server.Close)
	b.url = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.api.Run(ctx) }()
	go func() { // the API's clock runs, ten times as fast as ours
		for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			b.clock.move(200 * time.Millisecond)
		}
	}()
	b.t.Cleanup(func() { cancel(); <-ended })
}

// hear collects what the page complains about and whom it talks to.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, "exception: "+e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
			b.faults = append(b.faults, fmt.Sprintf("console: %s", e.Args[0].Value))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			b.faults = append(b.faults, "log: "+e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, "data:") {
			b.hosts[strings.Join(strings.SplitN(e.Request.URL, "/", 4)[:3], "/")] = true
		}
	}
}

func (b *browser) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.t.Fatalf("%v; faults of the page: %q", err, b.faults)
	}
}

// act waits for an element that can be seen and does one thing to it, until that is true, in one turn of the page's own thread: between finding
// and touching it nothing is drawn again and nothing moves.
func (b *browser) act(selector, do string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(e => e && e.checkVisibility() && %s)(document.querySelector(%q))`, do, selector))
}

// click clicks what is on top in the middle of an element: nothing, if something else covers it.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.act(selector, `(e.scrollIntoView({block: 'center', behavior: 'instant'}),
		(top => top && (top.click(), true))((r => document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))(e.getBoundingClientRect())))`)
}

func (b *browser) focus(selector string) {
	b.t.Helper()
	b.act(selector, `(e.focus(), document.activeElement === e)`)
}

// write types text, letter by letter, where the focus has been put.
func (b *browser) write(selector, text string) {
	b.t.Helper()
	b.focus(selector)
	b.run(chromedp.KeyEvent(text))
}

// until waits for a condition in the page.
func (b *browser) until(condition string) {
	b.t.Helper()
	poll := chromedp.Poll(condition, nil, chromedp.WithPollingTimeout(2*time.Minute), chromedp.WithPollingInterval(30*time.Millisecond))
	err := chromedp.Run(b.ctx, poll)
	if err != nil && strings.Contains(err.Error(), "context") { // the page was loaded anew meanwhile
		err = chromedp.Run(b.ctx, poll)
	}
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.t.Fatalf("wait for %s: %v; faults of the page: %q", condition, err, b.faults)
	}
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	out, ok := b.eval(fmt.Sprintf(`document.querySelector(%q)?.innerText`, selector)).(string)
	if !ok {
		b.t.Fatalf("no element %s", selector)
	}
	return out
}

func (b *browser) eval(script string) any {
	b.t.Helper()
	var out any
	b.run(chromedp.Evaluate(script, &out))
	return out
}

// more lets further events arrive while the page is open.
func (b *browser) more(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step(n)
}

// screenshot keeps a picture of the whole page, if a directory is named.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("KLGSTREAM_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	b.eval(`window.scrollTo(0, 0)`)
	b.run(chromedp.FullScreenshot(&png, 100))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// clean fails the test if the page complained, or talked to anybody but its server.
func (b *browser) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		b.t.Errorf("the page complains: %q", b.faults)
	}
	for host := range b.hosts {
		if host != b.url {
			b.t.Errorf("the page talks to %s", host)
		}
	}
}

const counted = `Number(document.querySelector('#figure-counted .value')?.textContent.replaceAll(',', ''))`

// TestBrowserCountsGrow: counts grow during a replay without a reload, in every part of the page.
func TestBrowserCountsGrow(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.eval(`window.marker = 'not reloaded'`)
	b.more(500)
	b.until(counted + ` >= 490`)
	b.until(`document.querySelectorAll('#busiest [data-key]').length >= 10`)
	before, _ := b.eval(counted).(float64)
	for range 10 {
		b.more(200)
	}
	b.until(fmt.Sprintf(counted+` > %v + 1500`, before))
	b.until(`document.querySelector('#latest tbody').rows.length >= 20`)
	b.until(`document.querySelectorAll('#heat .hot').length >= 24`)
	b.until(`document.querySelectorAll('#timeline rect.window').length >= 3`)
	b.until(`document.querySelector('#timeline rect.window.open') !== null`)
	if got := b.eval(`window.marker`); got != "not reloaded" {
		t.Error("the page was loaded again")
	}
	if text := b.text("#replay-text"); !strings.Contains(text, "flights-2013-w1") {
		t.Errorf("replay is shown as %q", text)
	}
	b.more(len(b.events))
	b.until(`document.querySelector('#replay').classList.contains('done')`)
	b.until(`document.querySelectorAll('#heat tbody tr').length >= 7`)
	b.screenshot("page-desktop")
	b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	b.screenshot("page-desktop-dark")
	b.clean()
}

// oldLive is what is left of the processor's state when the broker went away an hour ago.
type oldLive struct{ lockedLive }

func (l oldLive) AsOf() time.Time { return l.lockedLive.AsOf().Add(-time.Hour) }

// TestBrowserOldWindows: open windows that are old are shown, and said to be old.
func TestBrowserOldWindows(t *testing.T) {
	b := newBrowser(t, 1280, 900, func(c *Config) { c.Live = oldLive{c.Live.(lockedLive)} })
	b.more(500)
	b.until(`document.querySelector('#timeline rect.window.open') !== null`)
	if text := b.text("#timeline .fault"); !strings.Contains(text, "as they were 1 h") {
		t.Errorf("the page says %q", text)
	}
	b.clean()
}

// TestBrowserNarrow: at 360 px nothing is wider than the screen.
func TestBrowserNarrow(t *testing.T) {
	b := newBrowser(t, 360, 740)
	b.until(`document.querySelectorAll('#timeline rect.window').length >= 1`) // it must grow, although no message has room for 3,000 rows
	b.more(3000)
	b.until(`document.querySelectorAll('#heat .hot').length >= 24 && document.querySelectorAll('#busiest [data-key]').length >= 10 && document.querySelector('#latest tbody').rows.length >= 20`)
	b.until(`document.querySelectorAll('#timeline rect.window').length >= 3 && document.querySelectorAll('#registry-table tr').length > 20`)
	if wide := b.eval(`document.documentElement.scrollWidth`); wide != 360.0 {
		t.Errorf("the page is %v px wide: %v", wide, b.eval(`[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 361).slice(0, 5).map(e => e.outerHTML.slice(0, 90))`))
	}
	b.screenshot("page-360")
	b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	b.screenshot("page-360-dark")
	b.clean()
}

// TestBrowserCreatesAircraft: the form's aircraft appears, a taken one is refused with words.
func TestBrowserCreatesAircraft(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.until(`document.querySelectorAll('#registry-table tbody tr').length >= 20`)
	b.write("#create-registration", "ra-12345")
	b.write("#create-type", "SU95")
	b.click("#create-button")
	b.until(`document.querySelector('#registry-table tr[data-id="RA-12345"]') !== null`)
	if got := b.text("#create-fault"); !strings.Contains(got, "RA-12345 is in the registry") {
		t.Errorf("the form says %q", got)
	}
	if got := b.text(`tr[data-id="RA-12345"] .type`); got != "SU95" {
		t.Errorf("type is shown as %q", got)
	}
	b.clean()
	b.write("#create-registration", "RA-12345\r")
	b.until(`document.querySelector('#create-fault').textContent.includes('taken')`)
	b.click(`tr[data-id="RA-12345"] button.small`)
	b.write(`tr[data-id="RA-12345"] input`, "B738\r")
	b.until(`document.querySelector('tr[data-id="RA-12345"] .type')?.textContent === 'B738'`)
}

// TestBrowserTellsCumulatingApart: windows that share their start are all shown, in the list of the latest and on the time line.
func TestBrowserTellsCumulatingApart(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	start := instant("2013-01-02T00:00:00Z")
	var rows [][]any
	for i := range 3 {
		end := start.Add(time.Duration(i+1) * time.Hour)
		rows = append(rows, []any{"N1", "cumulating:1h/1d", "cumulating", start, end, int64(i + 1), `{"landed":1}`, start, start, "landed", true, int64(3)})
	}
	b.store.set("aircraft_windows", rows...)
	b.store.set("aircraft_stats", []any{"N1", int64(3), start, start})
	b.until(`document.querySelector('#latest tbody').rows.length === 3`)
	b.click(`#latest [data-aircraft="N1"]`) // the page itself chooses an aircraft once, whichever comes first
	b.until(`document.querySelectorAll('#timeline rect.window').length === 3`)
	b.clean()
}

// TestBrowserShowsEveryDay: the heat map leaves no day out on the way back, also when days have hours without events.
func TestBrowserShowsEveryDay(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	const days = 80
	begin := instant("2013-01-01T00:00:00Z")
	var rows [][]any
	for day := range days {
		for hour := range 20 {
			rows = append(rows, []any{begin.AddDate(0, 0, day).Add(time.Duration(hour+4) * time.Hour), int64(day + 1), int64(1)})
		}
	}
	b.store.set("busiest_hours", rows...)
	b.store.set("aircraft_stats", []any{"N1", int64(1), begin, begin}) // which the stream tells, so that the hours are asked for again
	b.eval(`window.shown = () => [...document.querySelectorAll('#heat tbody tr')].map((tr) => [tr.querySelector('th').innerText.slice(-5), tr.querySelector('.sum').innerText])`)
	seen := map[string]string{}
	for last := begin.AddDate(0, 0, days-1); ; {
		b.until(fmt.Sprintf(`shown().at(-1)?.[0] === %q`, last.Format("01-02")))
		list, _ := b.eval(`shown()`).([]any)
		for _, entry := range list {
			pair, _ := entry.([]any)
			day, _ := pair[0].(string)
			if _, twice := seen[day]; twice {
				t.Errorf("%s is shown twice", day)
			}
			seen[day], _ = pair[1].(string)
		}
		if off, _ := b.eval(`document.querySelector('#older').disabled`).(bool); off {
			break
		}
		last = last.AddDate(0, 0, -len(list))
		b.click("#older")
	}
	for day := range days {
		name := begin.AddDate(0, 0, day).Format("01-02")
		if want := fmt.Sprint(20 * (day + 1)); strings.ReplaceAll(seen[name], ",", "") != want {
			t.Errorf("%s has %q events, want %s", name, seen[name], want)
		}
	}
	b.clean()
}

// TestBrowserSaysWhatIsPending: a request that is not decided is told so, and a slow answer to what was typed before is not shown.
func TestBrowserSaysWhatIsPending(t *testing.T) {
	b := newBrowser(t, 1280, 900, func(c *Config) { c.Limits.DecideTimeout = 20 * time.Millisecond })
	b.until(`document.querySelectorAll('#registry-table tbody tr').length >= 20`)
	b.eval(`window.setTimeout = ((wait) => (f, ms) => wait(f, ms === 1000 ? 30 : ms))(window.setTimeout); 0`)
	b.registry.mu.Lock()
	b.registry.slow = true
	b.registry.mu.Unlock()
	b.write("#create-registration", "RA-1")
	b.click("#create-button")
	b.until(`!document.querySelector('#create-button').disabled && !document.querySelector('#create-fault').textContent.startsWith('Creating')`)
	if got := b.text("#create-fault"); !strings.Contains(got, "is asked for; the registry has not decided yet") {
		t.Errorf("the form says %q", got)
	}
	b.eval(`window.came = new Promise((tell) => { window.fetch = ((ask) => async (url, o) => {
		const answer = await ask(url, o);
		if (String(url).endsWith('prefix=N1')) { window.asked = true; await window.typed; setTimeout(() => setTimeout(() => tell(true))); }
		return answer;
	})(window.fetch); }); window.typed = new Promise((go) => { window.go = go; }); 0`)
	b.write("#registry-prefix", "N1")
	b.until(`window.asked`)
	b.write("#registry-prefix", "0")
	b.until(`document.querySelectorAll('#registry-table tbody tr').length === 3`) // N101UA, N104UA, N107UA
	b.run(chromedp.Evaluate(`window.go(), window.came`, nil, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if got := b.eval(`document.querySelectorAll('#registry-table tbody tr').length`); got != 3.0 {
		t.Errorf("%v rows are shown for N10, want 3", got)
	}
}

// TestBrowserReadsLetters: a dead letter can be read, with its reason and its bytes, by keyboard.
func TestBrowserReadsLetters(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.until(`document.querySelectorAll('#letter-list details').length === 4`)
	b.focus(`#letter-list details summary`)
	b.run(chromedp.KeyEvent("\r"))
	b.until(`document.querySelector('#letter-list details').open`)
	if got := b.text("#letter-list details pre"); !strings.Contains(got, "00 01 ff de ad be ef") || !strings.Contains(got, "not JSON") {
		t.Errorf("bytes are shown as %q", got)
	}
	b.focus("#tab-dead")
	b.run(chromedp.KeyEvent(kb.ArrowRight))
	b.until(`document.querySelectorAll('#letter-list details').length === 9`)
	if got := b.eval(`document.activeElement.id`); got != "tab-late" {
		t.Errorf("focus is on %v", got)
	}
	b.screenshot("page-letters")
	b.clean()
}

// TestBrowserComesBack: the stream is taken up again after it broke.
func TestBrowserComesBack(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.until(`document.querySelector('#link').dataset.state === 'up'`)
	b.api.stream.mu.Lock()
	for l := range b.api.stream.listeners {
		b.api.stream.drop(l)
	}
	b.api.stream.mu.Unlock()
	b.until(`document.querySelector('#link').dataset.state === 'down' || window.seen`)
	b.more(900)
	b.until(counted + ` >= 880`)
	b.until(`document.querySelector('#link').dataset.state === 'up'`)
	b.clean()
}

// TestBrowserKey: with keys the page asks for one and keeps what it shows to itself until then.
func TestBrowserKey(t *testing.T) {
	b := newBrowser(t, 1280, 900, func(c *Config) {
		c.Keys = []Key{{Name: "reader", SHA256: Hash("s3cret"), Scopes: []Scope{ScopeRead, ScopeWrite}}}
	})
	b.until(`!document.querySelector('#key').hidden`)
	b.write("#key-input", "s3cret\r")
	b.more(500)
	b.until(counted + ` >= 490`)
	b.clean()
}

// TestBrowserDocs: the reference shows every operation and can try one.
func TestBrowserDocs(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.run(chromedp.Navigate(b.url + "/docs"))
	b.until(`document.querySelectorAll('.operation').length >= 10`)
	b.click("#list-views details.try summary")
	b.click("#list-views details.try button")
	b.until(`document.querySelector('#list-views details.try pre').textContent.startsWith('200')`)
	b.screenshot("docs")
	b.clean()
}

// TestBrowserAccessible: what a screen reader and a keyboard need: names for all controls, one h1, text that stands out
// from its ground in both themes.
func TestBrowserAccessible(t *testing.T) {
	b := newBrowser(t, 1280, 900)
	b.more(2000)
	b.until(`document.querySelectorAll('#timeline rect.window').length >= 3 && document.querySelectorAll('#registry-table tr').length > 20`)
	for _, page := range []string{"/", "/docs"} {
		if page != "/" {
			b.run(chromedp.Navigate(b.url + page))
			b.until(`document.querySelectorAll('.operation').length >= 10`)
		}
		for _, theme := range []string{"light", "dark"} {
			b.eval(`document.documentElement.dataset.theme = '` + theme + `'; 0`)
			if got, _ := b.eval(accessibility).([]any); len(got) > 0 {
				t.Errorf("%s in %s: %v", page, theme, got)
			}
		}
	}
}

// accessibility lists what is wrong in a page: nameless controls, headings, weak contrast (WCAG AA).
const accessibility = `(() => {
  for (const a of document.getAnimations()) a.cancel(); // a row that has just changed is on its way from one colour to another
  const faults = [];
  const shown = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 1;
  for (const e of document.querySelectorAll('button, input, select, a, summary, textarea, [role=tab], meter, progress')) {
    if (!shown(e)) continue;
    const name = e.getAttribute('aria-label') || e.textContent.trim() || [...(e.labels ?? [])].map((l) => l.textContent.trim()).join('');
    if (!name) faults.push('no name: ' + e.outerHTML.slice(0, 120));
  }
  for (const e of document.querySelectorAll('[aria-labelledby], [aria-controls], [aria-describedby]')) {
    for (const a of ['aria-labelledby', 'aria-controls', 'aria-describedby']) {
      for (const id of (e.getAttribute(a) ?? '').split(' ').filter(Boolean)) if (!document.getElementById(id)) faults.push('no element ' + id);
    }
  }
  if (document.querySelectorAll('h1').length !== 1) faults.push('h1: ' + document.querySelectorAll('h1').length);
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => c.slice(0, 3).map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }).reduce((n, v, i) => n + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 200) return c; } return [255, 255, 255, 255]; };
  const seen = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !shown(e) || e.closest('svg, .hidden, .skip, :disabled')) continue;
    const [a, z] = [light(rgba(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, z) + .05) / (Math.min(a, z) + .05);
    const line = 'contrast ' + ratio.toFixed(1) + ' of ' + e.tagName + '.' + e.className;
    if (ratio < 4.5 && !seen.has(line)) { seen.add(line); faults.push(line + ': ' + e.textContent.trim().slice(0, 30)); }
  }
  return faults;
})()`
