package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/sink"
)

// tracing makes OpenTelemetry spans of what processors and sinks tell. The zero value makes none, and costs nothing.
//
// Every span is a trace of its own and over when it is told, so this is one JSON request; OpenTelemetry's SDK would add more than a
// megabyte to the binary for it.
type tracing struct{ to *spanCollector }

// newTracing sends spans to a collector until end is called; without an address it makes none.
func newTracing(ctx context.Context, a *app) (t tracing, end func()) {
	if a.global.TraceURL == "" {
		return tracing{}, func() {}
	}
	c := &spanCollector{url: a.global.TraceURL, log: a.log, spans: make(chan span, spanQueue), stop: make(chan struct{}), done: make(chan struct{})}
	go c.run(context.WithoutCancel(ctx))
	return tracing{c}, func() {
		close(c.stop)
		<-c.done
	}
}

const (
	spanQueue = 4096            // what waits for a slow collector; more is lost
	spanBatch = 512             // at most in one request
	spanPause = 5 * time.Second // at most between a span's end and its request
	// collectorPatience is how long the collector may take for one request.
	collectorPatience = 5 * time.Second
)

// checkpointed makes the spans of checkpoints; nil without tracing.
func (t tracing) checkpointed() func(engine.Checkpointed) {
	if t.to == nil {
		return nil
	}
	return func(c engine.Checkpointed) {
		outcome := "committed"
		if !c.Committed {
			outcome = "deferred"
		}
		t.to.put(newSpan("checkpoint", kindInternal, c.Began, c.Ended, outcome, c.Err, wording("messaging.consumer.group.name", c.Group),
			quantity("klgstream.partitions", c.Partitions), quantity("klgstream.keys", c.Keys), quantity("klgstream.records", c.Records), quantity("klgstream.bytes", c.Bytes)))
	}
}

// written makes the spans of the sink's batches; nil without tracing.
func (t tracing) written() func(sink.Written) {
	if t.to == nil {
		return nil
	}
	return func(w sink.Written) {
		t.to.put(newSpan("sink batch", kindClient, w.Began, w.Ended, "written", w.Err, wording("messaging.destination.name", w.Topic),
			wording("messaging.destination.partition.id", strconv.Itoa(int(w.Partition))), quantity("messaging.kafka.offset", w.Offset), quantity("klgstream.rows", w.Rows)))
	}
}

// span is a Span of OTLP in its JSON: identifiers in hexadecimal, 64-bit numbers as text.
type span struct {
	TraceID    string      `json:"traceId"`
	SpanID     string      `json:"spanId"`
	Name       string      `json:"name"`
	Kind       int         `json:"kind"`
	Start      string      `json:"startTimeUnixNano"`
	End        string      `json:"endTimeUnixNano"`
	Attributes []attribute `json:"attributes"`
	Status     *spanStatus `json:"status,omitempty"`
}

type spanStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
}

type attribute struct {
	Key   string `json:"key"`
	Value struct {
		Text   *string `json:"stringValue,omitempty"`
		Number *string `json:"intValue,omitempty"`
	} `json:"value"`
}

// OTLP's numbers.
const (
	kindInternal = 1
	kindClient   = 3
	statusError  = 2
)

func wording(key, value string) (a attribute) {
	a.Key, a.Value.Text = key, &value
	return a
}

func quantity[T int | int64](key string, value T) (a attribute) {
	digits := strconv.FormatInt(int64(value), 10)
	a.Key, a.Value.Number = key, &digits
	return a
}

func newSpan(name string, kind int, began, ended time.Time, outcome string, err error, about ...attribute) span {
	s := span{
		TraceID: fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()|1), SpanID: fmt.Sprintf("%016x", rand.Uint64()|1), // all zeros are no identifier
		Name: name, Kind: kind, Start: strconv.FormatInt(began.UnixNano(), 10), End: strconv.FormatInt(ended.UnixNano(), 10),
	}
	if err != nil {
		outcome, s.Status = "failed", &spanStatus{statusError, err.Error()}
	}
	s.Attributes = append(about, wording("klgstream.outcome", outcome))
	return s
}

// spanCollector sends spans in batches, by OTLP over HTTP.
type spanCollector struct {
	url        string
	log        *slog.Logger
	spans      chan span
	lost       atomic.Int64
	stop, done chan struct{}
}

// put leaves a span to be sent; nothing waits for a collector.
func (c *spanCollector) put(s span) {
	select {
	case c.spans <- s:
	default:
		c.lost.Add(1)
	}
}

// run sends until stop is closed, then what is left.
func (c *spanCollector) run(ctx context.Context) {
	defer close(c.done)
	tick := time.NewTicker(spanPause)
	defer tick.Stop()
	var batch []span
	for {
		select {
		case s := <-c.spans:
			if batch = append(batch, s); len(batch) < spanBatch {
				continue
			}
		case <-tick.C:
		case <-c.stop:
			for len(c.spans) > 0 {
				batch = append(batch, <-c.spans)
			}
			c.send(ctx, batch)
			return
		}
		c.send(ctx, batch)
		batch = batch[:0]
	}
}

// send sends a batch, or says that it is lost.
func (c *spanCollector) send(ctx context.Context, batch []span) {
	lost := c.lost.Swap(0)
	var err error
	if len(batch) > 0 {
		if err = c.post(ctx, batch); err != nil {
			lost += int64(len(batch))
		}
	}
	if lost > 0 {
		c.log.Warn("spans are lost", "collector", maskURL(c.url), "spans", lost, "error", err)
	}
}

func (c *spanCollector) post(ctx context.Context, batch []span) error {
	ctx, cancel := context.WithTimeout(ctx, collectorPatience)
	defer cancel()
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": []attribute{wording("service.name", "klgstream"), wording("service.version", version())}},
		"scopeSpans": []any{map[string]any{"scope": map[string]any{"name": "klgstream.dev"}, "spans": batch}},
	}}})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return errors.Join(fmt.Errorf("send spans: the collector answers %s", resp.Status), err)
	}
	return err
}

// checkTraceURL allows what a collector can be reached by.
func checkTraceURL(text string) error {
	if text == "" {
		return nil
	}
	if u, err := url.Parse(text); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("--trace-url: %q must be a collector's URL for traces, for example http://localhost:4318/v1/traces", maskURL(text))
	}
	return nil
}
