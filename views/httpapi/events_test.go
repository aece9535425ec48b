package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	eventsURL = "/api/v1/streaming/events"
	snake     = `{"event_type":"created","aircraft_id":123,"registration_number":" ra-12345 ","timestamp":"2026-02-08T17:18:31.123456","extra":{"x":[1]}}`
	camel     = `{"eventType":"created","aircraftId":123,"registrationNumber":"N14228","timestamp":"2026-02-08T14:18:31.123Z"}`
)

func TestPostEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := want(t, r.do("POST", eventsURL, "\n"+snake+"\n"), http.StatusAccepted)
	if body["accepted"] != 1.0 {
		t.Errorf("answer is %v", body)
	}
	got := r.publisher.published()
	if len(got) != 1 || got[0].Key != "RA-12345" || string(got[0].Value) != snake {
		t.Errorf("published %q %q", got[0].Key, got[0].Value)
	}
}

func TestPostBatchKeepsOrderAndBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := want(t, r.do("POST", eventsURL, "["+snake+", "+camel+"]"), http.StatusAccepted)
	if body["accepted"] != 2.0 {
		t.Errorf("answer is %v", body)
	}
	got := r.publisher.published()
	if len(got) != 2 || string(got[0].Value) != snake || string(got[1].Value) != camel || got[1].Key != "N14228" {
		t.Errorf("published %q", got)
	}
}

func TestPostListsEveryFault(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad := "[" + snake + `,{"event_type":"","registration_number":7,"timestamp":"yesterday"},` + camel + `,{"eventType":"x","timestamp":1},17]`
	body := want(t, r.do("POST", eventsURL, bad), http.StatusUnprocessableEntity)
	faults := places(body)
	for _, prefix := range []string{
		"body[1].event_type: empty", "body[1].registration_number: wrong_type", "body[1].timestamp: bad_timestamp",
		"body[3].registration_number: missing", "body[4]: ",
	} {
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, prefix) }) {
			t.Errorf("no fault %q among %q", prefix, faults)
		}
	}
	if len(faults) != 5 {
		t.Errorf("faults are %q", faults)
	}
	if n := len(r.publisher.published()); n != 0 {
		t.Errorf("%d events of a refused batch were published", n)
	}
}

func TestPostBoundsTheListOfFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := want(t, r.do("POST", eventsURL, "["+strings.Repeat("{},", 999)+"{}]"), http.StatusUnprocessableEntity)
	faults := places(body)
	if len(faults) != maxFaults+1 || !strings.Contains(faults[maxFaults], "more faults") {
		t.Errorf("%d faults, the last is %q", len(faults), faults[len(faults)-1])
	}
}

func TestPostRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
	}{
		{name: "nothing", body: " ", status: http.StatusBadRequest},
		{name: "open array", body: "[" + snake, status: http.StatusBadRequest},
		{name: "no event", body: "[]", status: http.StatusUnprocessableEntity},
		{name: "truncated event", body: snake[:40], status: http.StatusUnprocessableEntity},
		{name: "invalid UTF-8", body: strings.Replace(snake, "created", "\xff", 1), status: http.StatusUnprocessableEntity},
		{name: "deep", body: strings.Replace(snake, "[1]", strings.Repeat("[", 500)+strings.Repeat("]", 500), 1), status: http.StatusUnprocessableEntity},
		{name: "too large", body: `{"x":"` + strings.Repeat("x", 9<<20) + `"}`, status: http.StatusRequestEntityTooLarge},
		{name: "too many", body: "[" + strings.Repeat("1,", 20_000) + "1]", status: http.StatusUnprocessableEntity},
		{name: "form", body: "a=b", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: http.StatusUnsupportedMediaType},
		{name: "other origin", body: snake, headers: []string{"Sec-Fetch-Site", "cross-site"}, status: http.StatusForbidden},
		{name: "rebound name", body: snake, headers: []string{"Host", "evil.example.com"}, status: http.StatusMisdirectedRequest},
		{name: "long idempotency key", body: snake, headers: []string{"Idempotency-Key", strings.Repeat("k", 256)}, status: http.StatusUnprocessableEntity},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			want(t, r.do("POST", eventsURL, c.body, c.headers...), c.status)
			if n := len(r.publisher.published()); n != 0 {
				t.Errorf("%d events were published", n)
			}
			want(t, r.do("POST", eventsURL, snake), http.StatusAccepted) // nothing is left held
		})
	}
}

// TestPostAnswersAfterAcknowledgement is H1.
func TestPostAnswersAfterAcknowledgement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		acknowledge := make(chan struct{})
		r := newRig(t)
		r.publisher.gate = func(context.Context, []Event) error { <-acknowledge; return nil }
		answered := false
		go func() { want(t, r.do("POST", eventsURL, snake), http.StatusAccepted); answered = true }()
		synctest.Wait()
		if answered {
			t.Fatal("answered before the broker acknowledged")
		}
		close(acknowledge)
		synctest.Wait()
		if !answered {
			t.Fatal("not answered after the broker acknowledged")
		}
	})
}

func TestPostWhenBrokerFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publisher.gate = func(context.Context, []Event) error { return errors.New("no leader") }
	w := r.do("POST", eventsURL, snake)
	want(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "no leader") {
		t.Errorf("answer is %v %s", w.Header(), w.Body)
	}
}

func TestPostWhenBrokerIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.publisher.gate = func(ctx context.Context, _ []Event) error { <-ctx.Done(); return ctx.Err() }
		want(t, r.do("POST", eventsURL, snake), http.StatusServiceUnavailable)
		time.Sleep(publishLimit * r.api.limits.PublishTimeout) //nolint:forbidigo // the bubble's clock jumps; the call has ended then
	})
}

// TestGroupCommit: while two calls wait for the broker, all others gather in one.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t)
		r.publisher.gate = func(context.Context, []Event) error { <-release; return nil }
		const clients = 100
		var done sync.WaitGroup
		for range clients {
			done.Go(func() { want(t, r.do("POST", eventsURL, snake), http.StatusAccepted) })
		}
		synctest.Wait()
		close(release)
		done.Wait()
		if n := len(r.publisher.published()); n != clients {
			t.Errorf("%d events published, want %d", n, clients)
		}
		if r.publisher.calls != 3 {
			t.Errorf("%d publish calls for %d requests, want 3", r.publisher.calls, clients)
		}
	})
}

// TestGroupCommitKeepsGroupsBounded: a group has no more events than a batch may have, and none waits for ever.
func TestGroupCommitKeepsGroupsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		largest := 0
		var mu sync.Mutex
		r := newRig(t, func(c *Config) { c.Limits.BatchEvents = 10 })
		r.publisher.gate = func(_ context.Context, events []Event) error {
			mu.Lock()
			largest = max(largest, len(events))
			mu.Unlock()
			<-release
			return nil
		}
		var done sync.WaitGroup
		for range 30 {
			done.Go(func() { want(t, r.do("POST", eventsURL, "["+snake+","+snake+","+snake+"]"), http.StatusAccepted) })
		}
		synctest.Wait()
		close(release)
		done.Wait()
		if n := len(r.publisher.published()); n != 90 || largest > 10 {
			t.Errorf("%d events published, largest call %d", n, largest)
		}
	})
}

// TestGroupCommitRefusesWhenFull: what waits for the broker is bounded.
func TestGroupCommitRefusesWhenFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, func(c *Config) { c.Limits.BatchEvents = 1 })
		r.publisher.gate = func(context.Context, []Event) error { <-release; return nil }
		codes := make(chan int, 30)
		for range 30 {
			go func() { codes <- r.do("POST", eventsURL, snake).Code }()
		}
		synctest.Wait()
		close(release)
		count := map[int]int{}
		for range 30 {
			count[<-codes]++
		}
		if count[202] != 18 || count[503] != 12 || len(r.publisher.published()) != 18 {
			t.Errorf("answers are %v, published %d", count, len(r.publisher.published()))
		}
	})
}

// TestClientThatLeaves: one that leaves while its events wait changes nothing, for others or for its own events.
func TestClientThatLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		publisher := &fakePublisher{gate: func(ctx context.Context, _ []Event) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		c := &committer{publisher: publisher, timeout: time.Minute, limit: time.Hour, flights: 1, events: 100}
		gone, leave := context.WithCancel(t.Context())
		results := make(chan error, 3)
		for range 3 { // the first leads, the others wait
			go func() { results <- c.publish(gone, &post{events: []Event{{Key: "A"}}, done: make(chan error, 1)}) }()
			synctest.Wait()
		}
		leave()
		close(release)
		for range 3 {
			if err := <-results; err != nil {
				t.Fatalf("publish: %v", err)
			}
		}
		if n := len(publisher.published()); n != 3 {
			t.Errorf("%d events published", n)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k1"), http.StatusAccepted)
	w := r.do("POST", eventsURL, snake, "Idempotency-Key", "k1")
	if again := want(t, w, http.StatusAccepted); again["accepted"] != first["accepted"] || w.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeat is answered %v", again)
	}
	want(t, r.do("POST", eventsURL, camel, "Idempotency-Key", "k1"), http.StatusUnprocessableEntity)
	if n := len(r.publisher.published()); n != 1 {
		t.Errorf("%d events published", n)
	}
	r.clock.move(2 * time.Hour)
	want(t, r.do("POST", eventsURL, camel, "Idempotency-Key", "k1"), http.StatusAccepted)
}

func TestIdempotencyKeyOfFailureIsFree(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want(t, r.do("POST", eventsURL, "{}", "Idempotency-Key", "k"), http.StatusUnprocessableEntity)
	r.publisher.gate = func(context.Context, []Event) error { return errors.New("away") }
	want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusServiceUnavailable)
	r.publisher.gate = nil
	want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusAccepted)
}

// The broker is away for longer than a client waits, and then takes what was given to it: a repeat with the same key is told to
// wait, and then that its events are there. Nothing is published twice, and the body's bytes count until then.
func TestIdempotencyKeyOutlivesTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		back := make(chan struct{})
		r.publisher.gate = func(ctx context.Context, _ []Event) error {
			select {
			case <-back:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusServiceUnavailable)
		want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusConflict)
		if r.api.bodies.TryAcquire(r.api.limits.BodiesInFlight) {
			t.Error("bytes that the publisher holds are counted as free")
		}
		close(back)
		synctest.Wait()
		w := r.do("POST", eventsURL, snake, "Idempotency-Key", "k")
		if want(t, w, http.StatusAccepted); w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("answer is %v", w.Header())
		}
		if n := len(r.publisher.published()); n != 1 {
			t.Errorf("%d events are published, want 1", n)
		}
		if !r.api.bodies.TryAcquire(r.api.limits.BodiesInFlight) {
			t.Error("bytes are held for ever")
		}
	})
}

// TestWaitingEventsAreTakenBack: what was not even given to the publisher in time is not published later, and the client is told so.
func TestWaitingEventsAreTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		back := make(chan struct{})
		r.publisher.gate = func(context.Context, []Event) error { <-back; return nil }
		var done sync.WaitGroup
		for range 2 { // both flights
			done.Go(func() { want(t, r.do("POST", eventsURL, snake), http.StatusServiceUnavailable) })
			synctest.Wait()
		}
		body := want(t, r.do("POST", eventsURL, camel), http.StatusServiceUnavailable)
		if text, _ := body["detail"].(string); !strings.Contains(text, "nothing was published") {
			t.Errorf("answer is %v", body)
		}
		done.Wait()
		close(back)
		synctest.Wait()
		if n := len(r.publisher.published()); n != 2 {
			t.Errorf("%d events are published, want 2", n)
		}
	})
}

func TestIdempotencyKeyUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t)
		r.publisher.gate = func(context.Context, []Event) error { <-release; return nil }
		go func() { want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusAccepted) }()
		synctest.Wait()
		want(t, r.do("POST", eventsURL, snake, "Idempotency-Key", "k"), http.StatusConflict)
		close(release)
		synctest.Wait()
	})
}

func TestIdempotencyIsBounded(t *testing.T) {
	t.Parallel()
	clock := newClock()
	i := newIdempotency(time.Hour, 3, clock.now)
	_, under := i.begin("c", "under way", nil)
	for n := range 10 {
		v, a := i.begin("c", strconv.Itoa(n), nil)
		if v != verdictFirst {
			t.Fatalf("key %d: verdict %v", n, v)
		}
		i.settle(a, true, n)
	}
	if len(i.known) != 3 || i.order.Len() != 3 {
		t.Errorf("%d keys known", len(i.known))
	}
	if v, _ := i.begin("c", "under way", nil); v != verdictBusy {
		t.Errorf("a request under way was forgotten: %v", v)
	}
	if v, a := i.begin("c", "9", nil); v != verdictRepeat || a.answer != 9 {
		t.Errorf("the newest key was forgotten: %v", v)
	}
	if v, _ := i.begin("other client", "9", nil); v != verdictFirst {
		t.Errorf("keys of two clients are mixed up: %v", v)
	}
	clock.move(2 * time.Hour)
	if v, _ := i.begin("c", "under way", nil); v != verdictBusy || len(i.known) != 2 { // and the other client's
		t.Errorf("after its time a request under way is %v, %d keys known", v, len(i.known))
	}
	i.settle(under, false, nil)
	for n := range 3 {
		i.begin("c", fmt.Sprint("stuck", n), nil)
	}
	if v, _ := i.begin("c", "one more", nil); v != verdictFull {
		t.Errorf("verdict is %v, want full", v)
	}
}

// BenchmarkPostEvent is one event per request through the whole handler, with a broker that answers at once.
func BenchmarkPostEvent(b *testing.B) {
	for _, batch := range []int{1, 500} {
		b.Run(strconv.Itoa(batch), func(b *testing.B) {
			api, err := New(Config{Store: sampleStore(), Publisher: nothing{}, Now: newClock().now})
			if err != nil {
				b.Fatal(err)
			}
			body := []byte(camel)
			if batch > 1 {
				body = []byte("[" + strings.Repeat(camel+",", batch-1) + camel + "]")
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://localhost"+eventsURL, bytes.NewReader(body))
				req.RemoteAddr = "127.0.0.1:1"
				w := &blank{header: http.Header{}}
				if api.ServeHTTP(w, req); w.status != http.StatusAccepted {
					b.Fatal(w.status)
				}
			}
		})
	}
}

type nothing struct{}

func (nothing) Publish(context.Context, []Event) error { return nil }

type blank struct {
	header http.Header
	status int
}

func (b *blank) Header() http.Header         { return b.header }
func (b *blank) Write(p []byte) (int, error) { return len(p), nil }
func (b *blank) WriteHeader(status int)      { b.status = status }

// TestCodedBodies: a body that is packed is not taken for one that is not.
func TestCodedBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for coding, status := range map[string]int{"": 202, "identity": 202, "gzip": 415, "br, identity": 415, "zstd": 415} {
		body := want(t, r.do("POST", eventsURL, snake, "Content-Encoding", coding), status)
		if status == 415 && (len(places(body)) != 1 || !strings.HasPrefix(places(body)[0], "header.Content-Encoding: ")) {
			t.Errorf("%q: %v", coding, body)
		}
	}
}
