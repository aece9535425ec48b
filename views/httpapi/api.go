package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sync/semaphore"

	"klgstream.dev/views"
)

// API is the HTTP handler. Run must be running for the event stream to move; everything else works without.
type API struct {
	cfg     Config
	limits  Limits
	secrets []secret
	hosts   hosts
	log     *slog.Logger
	metrics *metrics

	mux      *http.ServeMux
	origin   *http.CrossOriginProtection
	spec     []byte
	throttle *throttle
	guesses  *guesses
	bodies   *semaphore.Weighted
	answers  *semaphore.Weighted
	flying   atomic.Int64 // requests in flight, streams not counted
	crowd    *crowd       // the same by client
	watchers *crowd       // streams by client

	intakes sync.Pool // of *intake
	commit  *committer
	repeat  *idempotency
	slow    *slowAnswers
	gauge   *gauge
	stream  *broadcaster
}

var _ http.Handler = (*API)(nil)

// New builds the API. The error names every fault of the configuration.
func New(cfg Config) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the API: %w", err)
	}
	def(&cfg.Version, "dev")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("configure the API: %w", err)
	}
	limits := cfg.Limits.withDefaults()
	a := &API{
		cfg: cfg, limits: limits, log: cfg.Logger, metrics: m,
		secrets:  newSecrets(cfg.Keys),
		hosts:    newHosts(cfg.Hosts, len(cfg.Keys) > 0),
		mux:      http.NewServeMux(),
		origin:   http.NewCrossOriginProtection(),
		throttle: newThrottle(&limits, cfg.Now),
		guesses:  newGuesses(cfg.Logger, cfg.Now),
		crowd:    newCrowd(limits.Requests),
		watchers: newCrowd(limits.Streams),
		bodies:   semaphore.NewWeighted(limits.BodiesInFlight),
		answers:  semaphore.NewWeighted(limits.AnswersInFlight),
		commit:   &committer{publisher: cfg.Publisher, timeout: limits.PublishTimeout, limit: publishLimit * limits.PublishTimeout, flights: 2, events: limits.BatchEvents, size: m.group},
		repeat:   newIdempotency(limits.IdempotencyTTL, limits.IdempotencyMax, cfg.Now),
		slow:     newSlowAnswers(limits.QueryTimeout, cfg.Now),
		gauge:    newGauge(cfg.Pipeline, cfg.Now),
	}
	a.stream = newBroadcaster(limits.Streams, m.streams)
	if err := a.routes(); err != nil {
		return nil, fmt.Errorf("configure the API: %w", err)
	}
	return a, nil
}

// Server returns an http.Server with every time-out and limit set. The caller listens, and shuts it down.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler:           a,
		ReadHeaderTimeout: a.limits.HeaderTimeout,
		ReadTimeout:       a.limits.ReadTimeout,
		// The answer may wait for the request, the broker and the registry before it is written.
		WriteTimeout:   a.limits.ReadTimeout + a.limits.PublishTimeout + a.limits.DecideTimeout + a.limits.WriteTimeout,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: a.limits.HeaderBytes,
		ErrorLog:       slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// huma's own reading of Accept can panic on a hostile header, and all but views has one form: keep it away from there.
	x := &exchange{ResponseWriter: w, request: r, proxies: a.cfg.Proxies, accept: r.Header.Get("Accept")}
	r.Header.Del("Accept")
	start := a.cfg.Now()
	setCommonHeaders(w.Header())
	if r.TLS != nil {
		w.Header()["Strict-Transport-Security"] = strictTransport
	}
	defer func() {
		a.recovered(x, recover())
		a.metrics.observe(r, x.status, a.cfg.Now().Sub(start))
	}()
	if !a.admit(x, r) {
		return
	}
	defer a.leave(x)
	a.mux.ServeHTTP(x, r)
}

// admit refuses what must not reach a handler, and counts the rest as in flight.
func (a *API) admit(x *exchange, r *http.Request) bool {
	if !a.hosts.allow(r.Host) {
		writeProblem(x, problem(http.StatusMisdirectedRequest, "this server is not known by the name in the Host header; its operator may add it with --allowed-host"))
		return false
	}
	if err := a.origin.Check(r); err != nil {
		writeProblem(x, problem(http.StatusForbidden, "a page of another origin sent this request"))
		return false
	}
	if !a.authorise(x, r) {
		return false
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		writeProblem(x, problem(http.StatusUnsupportedMediaType, "send the body as it is, without Content-Encoding", fault("header.Content-Encoding", "must be identity, or left out", clip(coding, maxEcho))))
		return false
	}
	if wait, ok := a.throttle.allow(x); !ok {
		writeProblem(x, busy(x, http.StatusTooManyRequests, wait, "too many requests from this client"))
		return false
	}
	return a.enter(x)
}

// enter counts a request as in flight, or refuses it.
func (a *API) enter(x *exchange) bool {
	x.counted = x.client()
	if !a.crowd.enter(x.counted) {
		writeProblem(x, busy(x, http.StatusServiceUnavailable, time.Second, "too many requests of this client at once"))
		return false
	}
	if a.flying.Add(1) > int64(a.limits.Requests) {
		a.leave(x)
		writeProblem(x, busy(x, http.StatusServiceUnavailable, time.Second, "too many requests at once"))
		return false
	}
	return true
}

func (a *API) leave(x *exchange) {
	if !x.streaming {
		a.crowd.leave(x.counted)
		a.flying.Add(-1)
	}
}

// recovered keeps one handler's panic from the others. http.ErrAbortHandler, and a client that went away while it was
// written to, end the connection without a word.
func (a *API) recovered(x *exchange, fault any) {
	if fault == nil {
		return
	}
	err, _ := fault.(error)
	if errors.Is(err, http.ErrAbortHandler) || x.request.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	a.log.Error("http handler panicked", "route", x.request.Pattern, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
	if x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	writeProblem(x, problem(http.StatusInternalServerError, "unexpected fault: see the log"))
}

// routes builds the mux and the OpenAPI document.
func (a *API) routes() error {
	api := humago.New(a.mux, a.openAPI())
	a.routeEvents(api)
	a.routeViews(api)
	a.routePipeline(api)
	a.routeAircraft(api)
	a.routeUpdates(api)
	spec, err := json.Marshal(api.OpenAPI())
	if err != nil {
		return fmt.Errorf("encode OpenAPI document: %w", err)
	}
	a.spec = spec
	a.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(a.spec)
	})
	return a.routePage()
}

// openAPI is the head of the API's description. huma's own routes for it are off: they fetch from elsewhere and race.
func (a *API) openAPI() huma.Config {
	cfg := huma.DefaultConfig("klgstream", a.cfg.Version)
	cfg.Info.Description = "Aircraft events in, window counts out."
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "", "", ""
	cfg.CreateHooks = nil
	cfg.Transformers = []huma.Transformer{brief}
	cfg.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	cfg.Tags = []*huma.Tag{
		{Name: "events", Description: "Sending events"},
		{Name: "views", Description: "Asking for results"},
		{Name: "pipeline", Description: "How far the processing is"},
		{Name: "aircraft", Description: "The aircraft registry"},
	}
	if len(a.secrets) > 0 {
		cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {Type: "http", Scheme: "bearer", Description: "API key"}}
		cfg.Security = []map[string][]string{{"key": {}}}
	}
	return cfg
}

// find returns the description of a view.
func (a *API) find(ctx context.Context, name string) (views.View, error) {
	list, err := a.cfg.Store.Views(ctx)
	if err != nil {
		return views.View{}, err
	}
	return views.Find(list, name)
}
