package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the API's own. Routes are the mux's patterns, so labels are bounded whatever clients ask for.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	events   *prometheus.CounterVec
	group    prometheus.Histogram
	streams  prometheus.Gauge
}

// newMetrics registers the metrics; with no registerer they are kept and never shown.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "klgstream_http_requests_total", Help: "HTTP requests answered, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "klgstream_http_request_duration_seconds", Help: "Time from a request's headers to the end of its answer; streams end with their client.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"route"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "klgstream_http_events_total", Help: "Events posted, by outcome: accepted, refused (faulty), failed (not acknowledged), repeated (known idempotency key).",
		}, []string{"outcome"}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "klgstream_http_publish_events", Help: "Events in one publish call: how well concurrent requests share.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "klgstream_http_streams", Help: "Clients listening to the event stream.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.duration), reg.Register(m.events), reg.Register(m.group), reg.Register(m.streams))
}

func (m *metrics) observe(r *http.Request, status int, took time.Duration) {
	route := r.Pattern
	if _, path, ok := strings.Cut(route, " "); ok {
		route = path
	}
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(route, method(r.Method), strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

// method bounds the label: a client can make up any method.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return m
	}
	return "other"
}
