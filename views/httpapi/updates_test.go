package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"klgstream.dev/views"
)

const updatesURL = "/api/v1/streaming/updates"

// served starts a real server for the rig.
func (r *rig) served() string {
	r.t.Helper()
	server := httptest.NewUnstartedServer(r.api)
	server.Config = r.api.Server()
	server.Start()
	r.t.Cleanup(func() { r.api.stream.close(); server.Close() })
	return server.URL
}

// stream is a client of the event stream.
type stream struct {
	t    *testing.T
	body *bufio.Reader
	end  func()
}

func (r *rig) listen(url string) *stream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+updatesURL, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cancel(); _ = answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("stream is answered %d %v", answer.StatusCode, answer.Header)
	}
	return &stream{r.t, bufio.NewReader(answer.Body), cancel}
}

// next reads the next event. A comment has the name ":".
func (s *stream) next() (name string, data map[string]any) {
	s.t.Helper()
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("read stream: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == ":":
			return ":", nil
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[len("data: "):]), &data); err != nil {
				s.t.Fatalf("event %s: %v", name, err)
			}
		case line == "" && name != "":
			return name, data
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pump := r.api.newPump()
	pump.turn(t.Context())
	if r.pipeline.asked != 0 {
		t.Error("the pipeline was asked while nobody listened")
	}
	url := r.served()
	first := r.listen(url)
	pump.turn(t.Context())

	name, data := first.next()
	if topics, _ := data["topics"].([]any); name != "pipeline" || len(topics) != 3 {
		t.Fatalf("first event is %s %v", name, data)
	}
	name, data = first.next()
	if name != "rows" || data["view"] != "aircraft_stats" || data["whole"] != true || len(registrations(data)) != 3 {
		t.Fatalf("second event is %s %v", name, data)
	}
	if name, data = first.next(); name != "rows" || data["view"] != "aircraft_windows" {
		t.Fatalf("third event is %s %v", name, data)
	}

	// Nothing changed: nothing is sent. Then one row does, and only that one is.
	r.clock.move(time.Second)
	pump.turn(t.Context())
	r.store.set("aircraft_stats",
		[]any{"N14228", int64(13), instant("2013-01-01T10:00:00Z"), instant("2013-01-03T10:00:00Z")},
		[]any{"N24211", int64(7), instant("2013-01-01T11:00:00Z"), instant("2013-01-02T11:00:00Z")},
		[]any{"N619AA", int64(3), instant("2013-01-01T12:00:00Z"), instant("2013-01-02T12:00:00Z")})
	r.clock.move(time.Second)
	pump.turn(t.Context())
	name, data = first.next()
	if got := registrations(data); name != "rows" || data["whole"] != false || len(got) != 1 || got[0] != "N14228" {
		t.Fatalf("change is sent as %s %v", name, data)
	}

	// Who comes later gets the whole picture at once, without anything being asked for it.
	asked := r.pipeline.asked
	late := r.listen(url)
	if name, _ = late.next(); name != "pipeline" {
		t.Errorf("late listener first gets %s", name)
	}
	if name, data = late.next(); name != "rows" || data["whole"] != true || len(registrations(data)) != 3 {
		t.Errorf("late listener gets %s %v", name, data)
	}
	if r.pipeline.asked != asked {
		t.Error("a listener made the pipeline be asked")
	}

	// A row that is gone makes the next frame a whole one.
	r.store.set("aircraft_stats", []any{"N14228", int64(13), instant("2013-01-01T10:00:00Z"), instant("2013-01-03T10:00:00Z")})
	r.clock.move(time.Second)
	pump.turn(t.Context())
	if name, data = first.next(); name != "rows" || data["whole"] != true || len(registrations(data)) != 1 {
		t.Errorf("after rows went: %s %v", name, data)
	}

	r.clock.move(heartbeat)
	pump.turn(t.Context())
	if name, data = first.next(); name != ":" {
		t.Errorf("heartbeat is %s %v", name, data)
	}
}

// TestStreamGoesOnAfterFailures: a store or broker that is away is logged once and ends no stream.
func TestStreamGoesOnAfterFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pump := r.api.newPump()
	s := r.listen(r.served())
	r.store.failWith(errors.New("away"))
	r.pipeline.set(Status{}, errors.New("away"))
	pump.turn(t.Context())
	if !pump.failed["pipeline"] || !pump.failed["aircraft_stats"] {
		t.Errorf("failures noticed: %v", pump.failed)
	}
	r.store.failWith(nil)
	r.pipeline.set(sampleStatus(), nil)
	r.clock.move(time.Second)
	pump.turn(t.Context())
	if name, _ := s.next(); name != "pipeline" || pump.failed["pipeline"] {
		t.Errorf("after the failure comes %s, failing %v", name, pump.failed)
	}
}

// slowStore needs a second for each answer.
type slowStore struct {
	*fakeStore
	clock *clock
	asked int
}

func (s *slowStore) Query(ctx context.Context, q views.Query) (views.Result, error) {
	s.asked++
	s.clock.move(time.Second)
	return s.fakeStore.Query(ctx, q)
}

// TestFeedsDoNotBurdenTheStore: the feeds are asked so rarely that answering takes at most a tenth of the time.
func TestFeedsDoNotBurdenTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slow := &slowStore{fakeStore: r.store, clock: r.clock}
	r.api.cfg.Store = slow
	pump := r.api.newPump()
	if l, _ := r.api.stream.join(); l == nil {
		t.Fatal("no room")
	}
	start := r.clock.now()
	for range 300 {
		pump.turn(t.Context())
		r.clock.move(100 * time.Millisecond)
	}
	if spent, all := time.Duration(slow.asked)*time.Second, r.clock.now().Sub(start); spent > all/8 {
		t.Errorf("%v of %v spent in the store", spent, all)
	}
	if slow.asked < 4 {
		t.Errorf("asked %d times", slow.asked)
	}
}

// TestSlowListenerIsCutOff is H4: it costs the others nothing.
func TestSlowListenerIsCutOff(t *testing.T) {
	t.Parallel()
	b := newBroadcaster(10, newTestMetrics(t).streams)
	slow, _ := b.join()
	quick, _ := b.join()
	for i := range backlog + 5 {
		b.send("k", []byte(fmt.Sprint(i)), nil)
		if got := string(<-quick.frames); got != fmt.Sprint(i) {
			t.Fatalf("the quick one got %q, want %d", got, i)
		}
	}
	n := 0
	for range slow.frames {
		n++
	}
	if n != backlog || b.count() != 1 {
		t.Errorf("the slow one got %d frames, %d listeners are left", n, b.count())
	}
	b.leave(slow)
	b.leave(quick)
	b.leave(quick)
	if b.count() != 0 {
		t.Errorf("%d listeners are left", b.count())
	}
}

func newTestMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Limits.Streams, c.Limits.Requests = 2, 1 })
	url := r.served()
	one := r.listen(url)
	r.listen(url)
	want(t, r.do("GET", updatesURL, ""), http.StatusServiceUnavailable)
	want(t, r.do("GET", viewsURL, ""), http.StatusOK) // streams are not requests in flight
	one.end()
	for r.api.stream.count() == 2 {
		runtime.Gosched()
	}
	r.listen(url)
}

// TestStreamsOfOneClient: one client does not get all the streams there are.
func TestStreamsOfOneClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Limits.Streams = 4 })
	url := r.served()
	one := r.listen(url)
	r.listen(url)
	r.listen(url)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+updatesURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "of this client") {
		t.Errorf("a fourth is answered %d %s", answer.StatusCode, text)
	}
	if other, _ := r.api.stream.join(); other == nil {
		t.Error("there is none for others")
	}
	one.end()
	for r.api.stream.count() == 4 {
		runtime.Gosched()
	}
	r.listen(url)
}

// TestRunEndsStreams: when Run ends, so do the streams, and none begins.
func TestRunEndsStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.api.Run(ctx) }()
		l, _ := r.api.stream.join()
		synctest.Wait()
		if len(l.frames) != 3 {
			t.Errorf("%d frames at the start", len(l.frames))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		for range l.frames {
		}
		if l, _ := r.api.stream.join(); l != nil {
			t.Error("a stream began after the end")
		}
	})
}

// TestThousandStreams: a thousand clients cost less than 50 MB.
func TestThousandStreams(t *testing.T) {
	const clients = 1000
	r := newRig(t)
	address := strings.TrimPrefix(r.served(), "http://")
	before := memory()
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = dial(t, address)
		if _, err := io.WriteString(conns[i], "GET "+updatesURL+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for r.api.stream.count() < clients {
		runtime.Gosched()
	}
	pump := r.api.newPump()
	for range 3 {
		pump.turn(t.Context())
		r.clock.move(time.Second)
	}
	small := make([]byte, 1)
	for _, c := range conns {
		if _, err := io.ReadFull(c, small); err != nil {
			t.Fatal(err)
		}
	}
	used := memory() - before
	t.Logf("%d streams use %.1f MB", clients, float64(used)/1e6)
	if used > 50e6 {
		t.Errorf("%d streams use %.1f MB", clients, float64(used)/1e6)
	}
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A row that is gone is taken off the clients' pages too, when another has come in its place: the rows are as many as before.
func TestRowsThatAreGoneLeaveTheStream(t *testing.T) {
	t.Parallel()
	f := &feed{query: views.Query{View: "v"}}
	key := []string{"name"}
	result := func(names ...string) views.Result {
		r := views.Result{View: "v", Columns: []views.Column{{Name: "name", Type: views.Text}}}
		for _, name := range names {
			r.Rows = append(r.Rows, []any{name})
		}
		return r
	}
	shown := map[string]bool{}
	for _, now := range [][]string{{"a", "b"}, {"a", "c"}, {"a", "c", "d"}, {"d"}} {
		changed, _, err := f.changes(key, result(now...))
		if err != nil {
			t.Fatal(err)
		}
		var message struct {
			Whole bool
			Rows  []struct{ Name string }
		}
		_, data, _ := strings.Cut(string(changed), "data: ")
		if err := json.Unmarshal([]byte(data), &message); err != nil {
			t.Fatal(err)
		}
		if message.Whole {
			clear(shown)
		}
		for _, row := range message.Rows {
			shown[row.Name] = true
		}
		if got := slices.Sorted(maps.Keys(shown)); !slices.Equal(got, now) {
			t.Errorf("a client shows %v, there are %v", got, now)
		}
	}
}

// A HEAD of the stream is answered and done: the connection takes the next request, and no stream is open.
func TestHeadOfTheStreamEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	url := r.served()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
	for _, ask := range [][2]string{{http.MethodHead, updatesURL}, {http.MethodGet, "/openapi.json"}} {
		req, err := http.NewRequestWithContext(t.Context(), ask[0], url+ask[1], nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("status %d", answer.StatusCode)
		}
	}
	if n := r.api.stream.count(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}
