package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

	accepted, refused, failed, repeated prometheus.Counter // of events

	mu    sync.RWMutex
	known map[answered]seen // bounded: patterns of the mux, methods of the API, codes
}

// answered tells kinds of answers apart.
type answered struct {
	pattern, method string
	status          int
}

// seen is where a kind of answer is counted.
type seen struct {
	requests prometheus.Counter
	duration prometheus.Observer
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
	m.known = map[answered]seen{}
	m.accepted, m.refused = m.events.WithLabelValues("accepted"), m.events.WithLabelValues("refused")
	m.failed, m.repeated = m.events.WithLabelValues("failed"), m.events.WithLabelValues("repeated")
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.duration), reg.Register(m.events), reg.Register(m.group), reg.Register(m.streams))
}

func (m *metrics) observe(r *http.Request, status int, took time.Duration) {
	s := m.of(answered{r.Pattern, method(r.Method), status})
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
}

func (m *metrics) of(a answered) seen {
	m.mu.RLock()
	s, ok := m.known[a]
	m.mu.RUnlock()
	if ok {
		return s
	}
	route := a.pattern
	if _, path, ok := strings.Cut(route, " "); ok {
		route = path
	}
	if route == "" {
		route = "none"
	}
	s = seen{m.requests.WithLabelValues(route, a.method, strconv.Itoa(a.status)), m.duration.WithLabelValues(route)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[a] = s
	return s
}

// method bounds the label: a client can make up any method.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return m
	}
	return "other"
}
