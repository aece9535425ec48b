package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is a part of a role that can tell why it cannot do its work now.
type readiness interface{ Ready() error }

// noted is a part that may have something to say although it can do its work.
type noted interface{ Note() string }

// gate is a part of a role that waits for something at its start, and is ready once it is there.
type gate struct {
	mu    sync.Mutex
	lacks error
}

// wait notes what is missing; nil opens the gate for good.
func (g *gate) wait(lacks error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lacks = lacks
}

// Ready implements readiness.
func (g *gate) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lacks
}

// ops is the operations listener of a role: metrics, health, profiles. Only operators should reach it.
type ops struct {
	registry *prometheus.Registry
	log      *slog.Logger
	checks   []opsCheck
	topics   gate         // of the role's start, if it waits for topics
	flink    http.Handler // what watched a Flink cluster; nil in roles without processors
}

type opsCheck struct {
	name string
	part readiness
}

// newOps makes a listener with a registry of its own, which holds the process's metrics and the build.
func newOps(log *slog.Logger) *ops {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "klgstream_build_info", Help: "Always 1; the label is the version.", ConstLabels: prometheus.Labels{"version": version()},
	})
	build.Set(1)
	o := &ops{registry: prometheus.NewRegistry(), log: log, topics: gate{lacks: errors.New("not looked at yet")}}
	o.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return o
}

// watch makes /readyz and klgstream_ready depend on a part. All parts are named before the listener runs.
func (o *ops) watch(name string, part readiness) {
	o.checks = append(o.checks, opsCheck{name, part})
	o.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "klgstream_ready", Help: "1 while the part can do its work, else 0; /readyz says what is missing.", ConstLabels: prometheus.Labels{"part": name},
	}, func() float64 {
		if part.Ready() != nil {
			return 0
		}
		return 1
	}))
}

// awaitTopics makes /readyz tell what the role waits for at its start.
func (o *ops) awaitTopics(ctx context.Context, a *app, k Kafka, n Names) error {
	return a.awaitTopics(ctx, k, n, o.topics.wait)
}

// handler serves what operators ask.
func (o *ops) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{Registry: o.registry, EnableOpenMetrics: true}))
	if o.flink != nil {
		mux.Handle("GET /", o.flink)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", o.ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return mux
}

// ready answers 200 when every part can do its work, else 503; either way with each part's state.
func (o *ops) ready(w http.ResponseWriter, _ *http.Request) {
	states, code := map[string]string{}, http.StatusOK
	for _, c := range o.checks {
		states[c.name] = "ready"
		if n, ok := c.part.(noted); ok && n.Note() != "" {
			states[c.name] += ", " + n.Note()
		}
		if err := c.part.Ready(); err != nil {
			states[c.name], code = err.Error(), http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(states) // the client is gone if it fails
}

// serveOn answers on l until ctx ends, then lets requests under way finish.
func (o *ops) serveOn(l net.Listener) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		return serveHTTP(ctx, l, &http.Server{Handler: o.handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelDebug)})
	}
}

// farewell is how long requests under way may take after the end was asked for.
const farewell = 5 * time.Second

// serveHTTP runs a server until ctx ends; by HTTPS if it has a TLS configuration.
func serveHTTP(ctx context.Context, l net.Listener, s *http.Server) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		err := s.Shutdown(patience)
		if err != nil {
			err = errors.Join(err, s.Close())
		}
		stopped <- err
	})
	serve := s.Serve
	if s.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	err := serve(l)
	if stop() { // it ended by itself
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving %s: %w", l.Addr(), err)
	}
	return nil
}

// listen opens an address of the settings.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q (choose another with --%s): %w", addr, flag, err)
	}
	return l, nil
}
