package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

const pipelineURL = "/api/v1/streaming/pipeline"

func TestPipelineRates(t *testing.T) {
	t.Parallel()
	c := newClock()
	source := &fakePipeline{status: sampleStatus()}
	g := newGauge(source, c.now)
	first, err := g.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in := first.Topics[0]
	if in.InRate != 0 || in.Lag != 15 || in.Records != 105 || in.Watermark == nil || *in.Watermark != "2013-01-01T10:00:00.000Z" {
		t.Errorf("first picture of the input is %+v", in)
	}
	if in.Partitions[1].Committed != nil || in.Partitions[1].Watermark != nil || first.Outcomes.Rekeyed.Total != nil {
		t.Errorf("what is unknown is shown: %+v %+v", in.Partitions[1], first.Outcomes.Rekeyed)
	}

	c.move(100 * time.Millisecond)
	if _, err := g.read(t.Context()); err != nil || source.asked != 1 {
		t.Errorf("a fresh picture was taken again: %d, %v", source.asked, err)
	}

	next := sampleStatus()
	next.Topics[0].Partitions[0].End, next.Topics[0].Partitions[0].Committed, next.Totals.Counted = 300, 190, 188
	source.set(next, nil)
	c.move(1900 * time.Millisecond)
	second, err := g.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := second.Topics[0].Partitions[0]; p.InRate != 100 || p.OutRate != 50 || second.Topics[0].InRate != 100 || second.Outcomes.Counted.Rate != 50 {
		t.Errorf("rates are %+v %+v", p, second.Outcomes.Counted)
	}
}

// TestPipelineRatesForget: a rate is over the last seconds, not since the start, and never negative.
func TestPipelineRatesForget(t *testing.T) {
	t.Parallel()
	c := newClock()
	source := &fakePipeline{status: sampleStatus()}
	g := newGauge(source, c.now)
	status := sampleStatus()
	for i := range 20 {
		if i < 10 {
			status.Totals.Counted += 1000
		}
		source.set(status, nil)
		if _, err := g.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.move(time.Second)
	}
	if rate := g.last.Outcomes.Counted.Rate; rate != 0 {
		t.Errorf("rate is %v ten seconds after the last event", rate)
	}
	if len(g.samples) > 7 {
		t.Errorf("%d samples kept", len(g.samples))
	}
	status.Totals.Counted = 3 // started anew
	source.set(status, nil)
	if p, err := g.read(t.Context()); err != nil || p.Outcomes.Counted.Rate < 0 || math.IsNaN(p.Outcomes.Counted.Rate) {
		t.Errorf("rate is %v after a restart, %v", p.Outcomes.Counted.Rate, err)
	}
}

func TestPipelineRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := want(t, r.do("GET", pipelineURL, ""), http.StatusOK)
	if topics, _ := body["topics"].([]any); len(topics) != 3 {
		t.Errorf("topics are %v", body["topics"])
	}
	r.clock.move(time.Second)
	r.pipeline.set(Status{}, errors.New("no broker"))
	want(t, r.do("GET", pipelineURL, ""), http.StatusServiceUnavailable)
	without := newRig(t, func(c *Config) { c.Pipeline = nil })
	want(t, without.do("GET", pipelineURL, ""), http.StatusServiceUnavailable)
	want(t, without.do("GET", "/api/v1/streaming/health", ""), http.StatusOK)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	broken := errors.New("schema registry is away")
	var fault error
	r := newRig(t, func(c *Config) {
		c.Checks = []Check{{Name: "extra", Probe: func(context.Context) error { return fault }}}
	})
	body := want(t, r.do("GET", "/api/v1/streaming/health", ""), http.StatusOK)
	if body["status"] != "ok" || body["lag"] != 15.0 || body["watermark"] != "2013-01-01T10:00:00.000Z" || body["version"] != "1.2.3" {
		t.Errorf("health is %v", body)
	}
	if checks, _ := body["checks"].([]any); len(checks) != 3 {
		t.Errorf("checks are %v", body["checks"])
	}

	fault = broken
	w := r.do("GET", "/api/v1/streaming/health", "")
	if w.Code != http.StatusServiceUnavailable || !contains(w.Body.String(), `"failing"`, broken.Error()) {
		t.Errorf("health is %d %s", w.Code, w.Body)
	}
	fault = nil
	r.store.failWith(errors.New("disk full"))
	if w := r.do("GET", "/api/v1/streaming/health", ""); w.Code != http.StatusServiceUnavailable || !contains(w.Body.String(), "disk full") {
		t.Errorf("health is %d %s", w.Code, w.Body)
	}
}

// TestStuckBroker: a broker that neither answers nor hangs up keeps nobody waiting longer than the others, and is asked by one at a
// time. When it goes on, so does everything.
func TestStuckBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.pipeline.stuck = make(chan struct{})
		for range 3 {
			began := time.Now()
			w := r.do("GET", "/api/v1/streaming/health", "")
			var body struct {
				Checks []struct{ Name, Status string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusServiceUnavailable {
				t.Fatalf("health is answered %d %s", w.Code, w.Body)
			}
			if took := time.Since(began); took > checkTimeout {
				t.Errorf("health took %v", took)
			}
			if c := body.Checks; len(c) != 2 || c[0].Status != "ok" || c[1].Status != "failing" {
				t.Errorf("checks are %v", c)
			}
			want(t, r.do("GET", pipelineURL, ""), http.StatusServiceUnavailable)
		}
		close(r.pipeline.stuck)
		synctest.Wait()
		want(t, r.do("GET", "/api/v1/streaming/health", ""), http.StatusOK)
		want(t, r.do("GET", pipelineURL, ""), http.StatusOK)
		if r.pipeline.asked != 1 {
			t.Errorf("the broker was asked %d times", r.pipeline.asked)
		}
	})
}
