package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hostile is a raw connection to a server with short time-outs.
func hostileRig(t *testing.T) (*rig, string) {
	t.Helper()
	r := newRig(t, func(c *Config) {
		c.Limits.HeaderTimeout, c.Limits.ReadTimeout, c.Limits.HeaderBytes = 200*time.Millisecond, 400*time.Millisecond, 4096
		c.Limits.BodyBytes = 1 << 16
	})
	return r, strings.TrimPrefix(r.served(), "http://")
}

// exchangeRaw sends bytes as they are and returns the status line of the answer, "" if the server just hangs up.
func exchangeRaw(t *testing.T, address, request string, closeWrite bool) string {
	t.Helper()
	c := dial(t, address)
	if _, err := io.WriteString(c, request); err != nil {
		return ""
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok && closeWrite {
		_ = half.CloseWrite()
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.Status[:3]
}

// TestHostileClients: nothing a client does to the protocol gets an event published that was not sent whole, holds
// anything for ever, or keeps others from being served.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	r, address := hostileRig(t)
	post := func(headers, body string) string {
		return "POST " + eventsURL + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers + "\r\n" + body
	}
	for _, c := range []struct {
		name, request string
		closeWrite    bool
		status        string // "" hangs up
	}{
		{"headers that never end", "GET / HTTP/1.1\r\nHost: localhost\r\nX: y", false, ""},
		{"nothing at all", "", false, ""},
		{"body that never comes", post("Content-Length: 100\r\n", "{"), false, "400"},
		{"half of the body, then the end", post(fmt.Sprintf("Content-Length: %d\r\n", len(snake)+1), snake), true, "400"},
		{"whole body, then half closed", post(fmt.Sprintf("Content-Length: %d\r\n", len(camel)), camel), true, "202"},
		{"large headers", "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("y", 20_000) + "\r\n\r\n", false, "431"},
		{"announced too large", post("Content-Length: 9999999999\r\n", ""), false, "413"},
		{"chunked too large", post("Transfer-Encoding: chunked\r\n", "20000\r\n"+strings.Repeat(" ", 0x20000)+"\r\n0\r\n\r\n"), false, "413"},
		{"chunks", post("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(camel), camel)), false, "202"},
		{"whole event in chunks that do not end", post("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n", len(camel), camel)), true, "400"},
		{"whole event in half a chunk", post("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s", len(camel)+1, camel)), true, "400"},
		{"whole event of half a length", post(fmt.Sprintf("Content-Length: %d\r\n", len(camel)+1), camel), true, "400"},
		{"bad chunk", post("Transfer-Encoding: chunked\r\n", "zz\r\n"), false, "400"},
		{"two lengths", post("Content-Length: 1\r\nContent-Length: 2\r\n", "{}"), false, "400"},
		{"length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), false, "422"},
		{"negative length", post("Content-Length: -1\r\n", ""), false, "400"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", false, "400"},
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", false, "400"},
		{"no such method", "GIVE /api/v1/streaming/views HTTP/1.1\r\nHost: localhost\r\n\r\n", false, "405"},
		{"NUL in the path", "GET /api/v1/streaming/views/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", false, "404"},
		{"long path", "GET /" + strings.Repeat("a", 3000) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", false, "404"},
		{"up and away", "GET /page/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", false, "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := exchangeRaw(t, address, c.request, c.closeWrite); got != c.status {
				t.Errorf("answered %q, want %q", got, c.status)
			}
		})
	}
	if got := r.publisher.published(); len(got) != 2 || string(got[0].Value) != camel {
		t.Errorf("published %q", got)
	}
	if n := r.api.flying.Load(); n != 0 {
		t.Errorf("%d requests are still in flight", n)
	}
	if !r.api.bodies.TryAcquire(r.api.limits.BodiesInFlight) {
		t.Error("memory is still set aside for bodies")
	}
}

// TestManySlowClients: a crowd of clients that send nothing does not keep an honest one waiting.
func TestManySlowClients(t *testing.T) {
	t.Parallel()
	r, address := hostileRig(t)
	for range 300 {
		c := dial(t, address)
		_, _ = io.WriteString(c, "POST "+eventsURL+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
	}
	if got := exchangeRaw(t, address, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", eventsURL, len(camel), camel), false); got != "202" {
		t.Errorf("answered %q", got)
	}
	if n := len(r.publisher.published()); n != 1 {
		t.Errorf("%d events published", n)
	}
}

// slowPost begins to post a body that says it has so many bytes, or does not say, and sends no more than a beginning of it until the
// test has ended.
func (r *rig) slowPost(address string, length int64, sent string) {
	r.t.Helper()
	pipe, rest := io.Pipe()
	begun := make(chan struct{})
	req := httptest.NewRequestWithContext(r.t.Context(), "POST", "http://localhost:8080"+eventsURL, io.MultiReader(strings.NewReader(sent), &signal{Reader: pipe, begun: begun}))
	req.RemoteAddr, req.ContentLength = address, length
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r.api.ServeHTTP(httptest.NewRecorder(), req)
	}()
	r.t.Cleanup(func() { _ = rest.Close(); <-answered })
	select {
	case <-begun:
	case <-answered:
		r.t.Error("it was answered at once")
	}
}

// signal tells when it is read first.
type signal struct {
	io.Reader
	begun chan struct{}
	once  sync.Once
}

func (s *signal) Read(b []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	return s.Reader.Read(b)
}

// TestAnnouncedBytesTakeNoRoom: who says that much will come, or that it will not say how much, has to send it before it takes room from
// others.
func TestAnnouncedBytesTakeNoRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 200 {
		r.slowPost(fmt.Sprintf("192.0.2.%d:1", i), []int64{-1, 8 << 20}[i%2], "[")
	}
	want(t, r.do("POST", eventsURL, camel), http.StatusAccepted)
	many := "[" + strings.Repeat(camel+",\n", 7000) + camel + "]"
	if len(many) < 5*firstRoom {
		t.Fatalf("%d bytes are too few to tell", len(many))
	}
	want(t, r.do("POST", eventsURL, many), http.StatusAccepted)
	whole := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost:8080"+eventsURL, io.MultiReader(strings.NewReader(many)))
	whole.ContentLength = -1
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, whole)
	want(t, w, http.StatusAccepted)
	if got := r.publisher.published(); len(got) != 1+2*7001 || string(got[14002].Value) != camel {
		t.Errorf("%d events are published", len(got))
	}
}

// TestOneClientLeavesRoom: however many requests one client has under way, others are answered, and it is told why it is not.
func TestOneClientLeavesRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, keyed, func(c *Config) { c.Limits.Requests = 40 })
	open := newRig(t, func(c *Config) { c.Limits.Requests = 40 })
	for range 30 {
		open.slowPost("192.0.2.1:1", 100, "{")
	}
	if body := want(t, open.from("192.0.2.1:2", ""), 503); !strings.Contains(fmt.Sprint(body), "of this client") {
		t.Errorf("it is told %v", body)
	}
	for i := range 20 {
		want(t, open.from(fmt.Sprintf("192.0.2.2:%d", i), ""), 200)
	}
	if n := len(open.api.crowd.of); n != 1 {
		t.Errorf("%d clients are counted", n)
	}
	for range 40 {
		want(t, r.from("192.0.2.1:1", "read me"), 200)
	}
	if n := len(r.api.crowd.of); n != 0 {
		t.Errorf("%d clients are counted", n)
	}
}

// TestStreamOutlivesTheReadTimeout: the time-outs that end slow requests do not end a stream.
func TestStreamOutlivesTheReadTimeout(t *testing.T) {
	t.Parallel()
	r, address := hostileRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := r.listen("http://" + address)
	// A connection that is opened now and sends nothing is ended by the header time-out; two of them one after the other
	// take longer than a whole request may.
	for range 3 {
		if got := exchangeRaw(t, address, "GET / HTTP/1.1\r\nHost: localhost\r\nX: y", false); got != "" {
			t.Fatalf("answered %q", got)
		}
	}
	r.api.newPump().turn(ctx)
	if name, _ := s.next(); name != "pipeline" {
		t.Errorf("the stream says %s", name)
	}
}
