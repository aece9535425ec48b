package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/sink"
)

func TestTracing(t *testing.T) {
	t.Parallel()
	kept := tracetest.NewInMemoryExporter()
	tr, provider := tracingTo(sdktrace.NewSimpleSpanProcessor(kept))
	began := time.UnixMilli(1_700_000_000_000)
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began.Add(7 * time.Millisecond), Partitions: 2, Keys: 3, Records: 6, Bytes: 700, Committed: true})
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began})
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began, Err: errors.New("broken")})
	tr.written()(sink.Written{Topic: "t", Partition: 4, Offset: 17, Rows: 5, Began: began, Ended: began.Add(time.Second)})
	tr.written()(sink.Written{Topic: "t", Began: began, Ended: began, Err: errors.New("away")})
	var got []string
	for _, s := range kept.GetSpans() {
		line := fmt.Sprint(s.Name, " ", s.EndTime.Sub(s.StartTime))
		if s.Status.Code == codes.Error {
			line += " error " + s.Status.Description
		}
		for _, a := range s.Attributes {
			line += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
		}
		got = append(got, line)
	}
	want := []string{
		"checkpoint 7ms messaging.consumer.group.name=g klgstream.partitions=2 klgstream.keys=3 klgstream.records=6 klgstream.bytes=700 klgstream.outcome=committed",
		"checkpoint 0s messaging.consumer.group.name=g klgstream.partitions=0 klgstream.keys=0 klgstream.records=0 klgstream.bytes=0 klgstream.outcome=deferred",
		"checkpoint 0s error broken messaging.consumer.group.name=g klgstream.partitions=0 klgstream.keys=0 klgstream.records=0 klgstream.bytes=0 klgstream.outcome=failed",
		"sink batch 1s messaging.destination.name=t messaging.destination.partition.id=4 messaging.kafka.offset=17 klgstream.rows=5 klgstream.outcome=written",
		"sink batch 0s error away messaging.destination.name=t messaging.destination.partition.id=0 messaging.kafka.offset=0 klgstream.rows=0 klgstream.outcome=failed",
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Without an address there are no spans, and nobody is asked to make any.
func TestTracingOff(t *testing.T) {
	t.Parallel()
	a := &app{environment: newOutside().environment}
	tr, end, err := newTracing(t.Context(), a)
	if err != nil || tr.checkpointed() != nil || tr.written() != nil {
		t.Errorf("it traces, %v", err)
	}
	end()
}

// The whole flow under a collector: spans of checkpoints and of the sink's batches arrive, in OTLP.
func TestTracingReachesACollector(t *testing.T) {
	t.Parallel()
	got := make(chan *tracepb.TracesData, 100)
	collects := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData
		if err = errors.Join(err, proto.Unmarshal(body, &data)); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s: %v", r.Header, err)
		}
		got <- &data
	}))
	t.Cleanup(collects.Close)
	p := launch(t, "dev", "--broker-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--ops-url=http://127.0.0.1:0", "--trace-url="+collects.URL+"/v1/traces")
	p.await("all through|published .* = counted")
	if code := p.end(); code != exitOK { // the end sends what is left
		t.Fatalf("exit code %d", code)
	}
	names := map[string]int{}
	for close(got); ; {
		data, ok := <-got
		if !ok {
			break
		}
		for _, r := range data.GetResourceSpans() {
			for _, s := range r.GetScopeSpans() {
				for _, span := range s.GetSpans() {
					names[span.GetName()]++
				}
			}
		}
	}
	if names["checkpoint"] == 0 || names["sink batch"] == 0 || len(names) != 2 {
		t.Errorf("spans %v", names)
	}
}

// A collector that is away costs spans and a warning, nothing else.
func TestTracingWithoutCollector(t *testing.T) {
	t.Parallel()
	var told []error
	c := &spanCollector{url: "http://127.0.0.1:1/v1/traces", client: &http.Client{}, report: func(err error) { told = append(told, err) }}
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	spans := []*tracepb.ResourceSpans{{}}
	if c.UploadTraces(t.Context(), spans) == nil {
		t.Error("spans were sent to nobody")
	}
	c.url = refuses.URL
	if err := c.UploadTraces(t.Context(), spans); err == nil || !strings.Contains(err.Error(), "404") || len(told) != 2 {
		t.Errorf("got %v, told %v", err, told)
	}
	for _, bad := range []string{"localhost:4318", "ftp://x/y", "http://"} {
		if checkTraceURL(bad) == nil {
			t.Errorf("%q is taken as a collector", bad)
		}
	}
}
