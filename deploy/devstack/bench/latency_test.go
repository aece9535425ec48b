package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A count of n says that the first n events are in; each is recorded once, from when it was to be sent.
func TestTracker(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	tr := NewTracker(at(10))
	for ms := range 100 {
		tr.Meant("A", 0, at(ms))
	}
	tr.Meant("A", 3_600_000, at(100)) // another window
	tr.Meant("B", 0, at(100))
	s := tr.Stage()
	s.Seen("A", 0, 50, at(60))
	s.Seen("A", 0, 50, at(9000)) // again: nothing new
	s.Seen("A", 0, 40, at(9000)) // a stale repeat
	s.Seen("C", 0, 9, at(9000))  // not ours
	if d := s.Delays("x", 0); d.Events != 40 || d.Max < 50 || d.Max > 50.1 || d.P50 < 30 || d.P50 > 31 {
		t.Errorf("%+v, want 40 events, those meant from 10 to 49 ms and seen at 60", d)
	}
	if s.All() {
		t.Error("all are said to be seen")
	}
	s.Seen("A", 0, 100, at(200))
	s.Seen("A", 3_600_000, 1, at(200))
	s.Seen("B", 0, 7, at(200)) // more than we sent: somebody else's
	if !s.All() {
		t.Error("not all are said to be seen")
	}
	if d := s.Delays("x", 0); d.Events != 92 || tr.Stage().All() {
		t.Errorf("%+v, want 92 events; and another stage to have seen none", d)
	}
}

// Events are sent at the rate and all of them come out.
func TestPace(t *testing.T) {
	brokers := broker(t)
	if err := CreateTopics(t.Context(), brokers, 2, "in"); err != nil {
		t.Fatal(err)
	}
	tr := NewTracker(time.Time{})
	began := time.Now()
	sent, err := Pace{Brokers: brokers, Topic: "in", Partitions: 2, Rate: 2000, Duration: 500 * time.Millisecond, Keys: 10, Churn: 100 * time.Millisecond, Tracker: tr}.Run(t.Context())
	if err != nil || sent != 1000 {
		t.Fatalf("%d events sent, error %v; want 1000", sent, err)
	}
	if took := time.Since(began); took < 490*time.Millisecond {
		t.Errorf("sent in %v: faster than asked for", took)
	}
	if n, err := records(t.Context(), brokers, "in"); err != nil || n != 1000 {
		t.Errorf("%d records, error %v", n, err)
	}
	if tr.events != 1000 || len(tr.meant) < 40 {
		t.Errorf("%d events of %d registrations: want 1000 of about 50, ten at a time", tr.events, len(tr.meant))
	}
}

func TestPaceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Pace{Brokers: []string{"127.0.0.1:1"}, Topic: "in", Partitions: 1}).Run(ctx); err == nil {
		t.Error("no error")
	}
}

// A peer that ends by itself is told of with its last words.
func TestPeerThatFails(t *testing.T) {
	p := Peers{Shape: small(), Brokers: broker(t), Peers: []Peer{{Name: "broken", Command: func(ctx context.Context, _ Assignment) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, "sh", "-c", "echo no such class >&2; exit 3"), nil
	}}}}
	_, err := p.Measure(t.Context(), t.Output())
	if err == nil || !strings.Contains(err.Error(), "no such class") || !strings.Contains(err.Error(), "run broken") {
		t.Errorf("error %v, want one that tells what broken said", err)
	}
}

func TestPeersNeedBrokers(t *testing.T) {
	if _, err := (Peers{Shape: small()}).Measure(t.Context(), t.Output()); err == nil {
		t.Error("no error without brokers")
	}
}

func TestPeersTable(t *testing.T) {
	r := PeersResult{Runs: []PeerResult{
		{Name: "flink", Events: 1000, Seconds: 4, CPU: 8, FirstResult: 6, Verdict: Verdict{Windows: 5}},
		{Name: "flink", Events: 1000, Seconds: 2, CPU: 8, FirstResult: 6, Verdict: Verdict{Windows: 5}},
		{Name: "flink", Events: 1000, Seconds: 1, CPU: 8, FirstResult: 6, Verdict: Verdict{Windows: 5, Wrong: 2}},
	}}
	var b strings.Builder
	if err := r.Table(&b); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(strings.Split(b.String(), "\n")[2]); fmt.Sprint(got) != "[flink 500 8000.00 0 6.00 0 5 of 5]" {
		t.Errorf("line %q", got)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "2 of 5 windows are wrong") {
		t.Errorf("error %v", err)
	}
}

func TestFirstEvent(t *testing.T) {
	f := &firstEvent{}
	_, _ = f.Write([]byte("starting\n"))
	if !f.seen().IsZero() {
		t.Error("seen before it came")
	}
	_, _ = f.Write([]byte("first event\n"))
	at := f.seen()
	_, _ = f.Write([]byte("first event\n"))
	if at.IsZero() || f.seen() != at {
		t.Error("the first of several lines counts")
	}
}
