package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/sink"
)

// collect is a collector that reads requests with OpenTelemetry's own messages. It returns each span as a line, once closed.
func collect(t *testing.T) (url string, spans func() []string) {
	t.Helper()
	var lines []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData
		if err = errors.Join(err, protojson.Unmarshal(body, &data)); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", r.Header, err)
		}
		for _, rs := range data.GetResourceSpans() {
			if a := rs.GetResource().GetAttributes()[0]; a.GetKey() != "service.name" || a.GetValue().GetStringValue() != "klgstream" {
				t.Errorf("resource %v", rs.GetResource())
			}
			for _, s := range rs.GetScopeSpans()[0].GetSpans() {
				line := fmt.Sprint(s.GetName(), " ", time.Duration(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano()))
				if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					line += " error " + s.GetStatus().GetMessage()
				}
				for _, a := range s.GetAttributes() {
					line += fmt.Sprintf(" %s=%s", a.GetKey(), valueOf(a.GetValue()))
				}
				lines = append(lines, line)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1/traces", func() []string { s.Close(); return lines }
}

func valueOf(v *commonpb.AnyValue) string {
	if _, ok := v.GetValue().(*commonpb.AnyValue_IntValue); ok {
		return fmt.Sprint(v.GetIntValue())
	}
	return strconv.Quote(v.GetStringValue())
}

func TestTracing(t *testing.T) {
	t.Parallel()
	url, spans := collect(t)
	tr, end := newTracing(t.Context(), &app{log: slog.New(slog.DiscardHandler), global: Global{TraceURL: url}})
	began := time.UnixMilli(1_700_000_000_000)
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began.Add(7 * time.Millisecond), Partitions: 2, Keys: 3, Records: 6, Bytes: 700, Committed: true})
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began})
	tr.checkpointed()(engine.Checkpointed{Group: "g", Began: began, Ended: began, Err: errors.New("broken")})
	tr.written()(sink.Written{Topic: "t", Partition: 4, Offset: 17, Rows: 5, Began: began, Ended: began.Add(time.Second)})
	tr.written()(sink.Written{Topic: "t", Began: began, Ended: began, Err: errors.New("away")})
	end()
	want := []string{
		`checkpoint 7ms messaging.consumer.group.name="g" klgstream.partitions=2 klgstream.keys=3 klgstream.records=6 klgstream.bytes=700 klgstream.outcome="committed"`,
		`checkpoint 0s messaging.consumer.group.name="g" klgstream.partitions=0 klgstream.keys=0 klgstream.records=0 klgstream.bytes=0 klgstream.outcome="deferred"`,
		`checkpoint 0s error broken messaging.consumer.group.name="g" klgstream.partitions=0 klgstream.keys=0 klgstream.records=0 klgstream.bytes=0 klgstream.outcome="failed"`,
		`sink batch 1s messaging.destination.name="t" messaging.destination.partition.id="4" messaging.kafka.offset=17 klgstream.rows=5 klgstream.outcome="written"`,
		`sink batch 0s error away messaging.destination.name="t" messaging.destination.partition.id="0" messaging.kafka.offset=0 klgstream.rows=0 klgstream.outcome="failed"`,
	}
	if got := spans(); !slices.Equal(got, want) {
		t.Errorf("spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Without an address there are no spans, and nobody is asked to make any.
func TestTracingOff(t *testing.T) {
	t.Parallel()
	tr, end := newTracing(t.Context(), &app{})
	if tr.checkpointed() != nil || tr.written() != nil {
		t.Error("it traces")
	}
	end()
}

// The whole flow under a collector: there are spans of checkpoints and of the sink's batches, and of nothing else.
func TestTracingReachesACollector(t *testing.T) {
	t.Parallel()
	url, spans := collect(t)
	p := launch(t, "dev", "--broker-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--ops-url=http://127.0.0.1:0", "--trace-url="+url)
	p.await("all through|published .* = counted")
	if code := p.end(); code != exitOK { // the end sends what is left
		t.Fatalf("exit code %d", code)
	}
	names := map[string]int{}
	for _, line := range spans() {
		name, _, _ := strings.Cut(line, " ")
		names[name]++
	}
	if names["checkpoint"] == 0 || names["sink"] == 0 || len(names) != 2 {
		t.Errorf("spans %v", names)
	}
}

// A collector that is away, or too slow, costs spans and a warning, nothing else.
func TestTracingWithoutCollector(t *testing.T) {
	t.Parallel()
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	for url, says := range map[string]string{"http://127.0.0.1:1/v1/traces": "refused", refuses.URL: "404"} {
		said := &strings.Builder{}
		tr, end := newTracing(t.Context(), &app{log: slog.New(slog.NewTextHandler(said, nil)), global: Global{TraceURL: url}})
		tr.written()(sink.Written{})
		end()
		if got := said.String(); !strings.Contains(got, "spans=1") || !strings.Contains(got, says) {
			t.Errorf("%s: said %q", url, got)
		}
	}
	full := &spanCollector{spans: make(chan span, 1)}
	full.put(span{})
	if full.put(span{}); full.lost.Load() != 1 {
		t.Errorf("%d spans are lost, want 1", full.lost.Load())
	}
	for _, bad := range []string{"localhost:4318", "ftp://x/y", "http://"} {
		if checkTraceURL(bad) == nil {
			t.Errorf("%q is taken as a collector", bad)
		}
	}
}
