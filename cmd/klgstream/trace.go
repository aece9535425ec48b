package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/sink"
)

// tracing makes spans of what processors and sinks tell. The zero value makes none, and costs nothing.
type tracing struct{ tracer trace.Tracer }

// newTracing sends spans to a collector until end is called; without an address it makes none.
func newTracing(ctx context.Context, a *app) (t tracing, end func(), err error) {
	if a.global.TraceURL == "" {
		return tracing{}, func() {}, nil
	}
	exporter, err := otlptrace.New(ctx, &spanCollector{url: a.global.TraceURL, client: &http.Client{Timeout: collectorPatience}, report: func(err error) {
		a.log.Warn("spans are lost", "collector", maskURL(a.global.TraceURL), "error", err)
	}})
	if err != nil {
		return tracing{}, nil, fmt.Errorf("start tracing: %w", err)
	}
	t, provider := tracingTo(sdktrace.NewBatchSpanProcessor(exporter))
	return t, func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), collectorPatience)
		defer cancel()
		_ = provider.Shutdown(patience) // what it could not send is reported
	}, nil
}

// collectorPatience is how long the collector may take for one request.
const collectorPatience = 5 * time.Second

// tracingTo makes spans for a span processor.
func tracingTo(p sdktrace.SpanProcessor) (tracing, *sdktrace.TracerProvider) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "klgstream"), attribute.String("service.version", version()),
	)))
	return tracing{provider.Tracer("klgstream.dev")}, provider
}

// checkpointed makes the spans of checkpoints; nil without tracing.
func (t tracing) checkpointed() func(engine.Checkpointed) {
	if t.tracer == nil {
		return nil
	}
	return func(c engine.Checkpointed) {
		outcome := "committed"
		if !c.Committed {
			outcome = "deferred"
		}
		t.span("checkpoint", trace.SpanKindInternal, c.Began, c.Ended, outcome, c.Err,
			attribute.String("messaging.consumer.group.name", c.Group), attribute.Int("klgstream.partitions", c.Partitions),
			attribute.Int("klgstream.keys", c.Keys), attribute.Int("klgstream.records", c.Records), attribute.Int("klgstream.bytes", c.Bytes))
	}
}

// written makes the spans of the sink's batches; nil without tracing.
func (t tracing) written() func(sink.Written) {
	if t.tracer == nil {
		return nil
	}
	return func(w sink.Written) {
		t.span("sink batch", trace.SpanKindClient, w.Began, w.Ended, "written", w.Err,
			attribute.String("messaging.destination.name", w.Topic), attribute.Int("messaging.destination.partition.id", int(w.Partition)),
			attribute.Int64("messaging.kafka.offset", w.Offset), attribute.Int("klgstream.rows", w.Rows))
	}
}

// span is one span, told when it is over.
func (t tracing) span(name string, kind trace.SpanKind, began, ended time.Time, outcome string, err error, about ...attribute.KeyValue) {
	_, span := t.tracer.Start(context.Background(), name, trace.WithTimestamp(began), trace.WithSpanKind(kind), trace.WithAttributes(about...))
	if err != nil {
		outcome = "failed"
		span.SetStatus(codes.Error, err.Error())
	}
	span.SetAttributes(attribute.String("klgstream.outcome", outcome))
	span.End(trace.WithTimestamp(ended))
}

// spanCollector speaks OTLP over HTTP. The exporter's own client would bring all of gRPC into the binary for this one request.
type spanCollector struct {
	url    string
	client *http.Client
	report func(error)
}

// Start implements otlptrace.Client.
func (*spanCollector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *spanCollector) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. Spans that cannot be sent are lost: nothing waits for a collector.
func (c *spanCollector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	err := c.post(ctx, spans)
	if err != nil {
		c.report(err)
	}
	return err
}

func (c *spanCollector) post(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans}) // ExportTraceServiceRequest by another name
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := c.client.Do(req)
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
		return errors.New("--trace-url: must be a collector's URL for traces, for example http://localhost:4318/v1/traces")
	}
	return nil
}
