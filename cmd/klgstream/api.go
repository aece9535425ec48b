package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/views"
	"klgstream.dev/views/httpapi"
)

// apiCmd serves the HTTP API and the page.
type apiCmd struct {
	Kafka   `group:"kafka"`
	Names   `group:"names"`
	Store   `group:"store"`
	HTTP    `group:"http"`
	Windows `group:"meaning"`
	APIOps  `group:"ops"`
}

func (c *apiCmd) check() error {
	return checkAll(&c.Kafka, &c.Names, &c.Store, &c.HTTP, &c.Windows, &c.APIOps)
}

// Run serves until ctx ends. What it waits for before, brokers and store, /readyz tells.
func (c *apiCmd) Run(ctx context.Context, a *app) error {
	store, err := c.open(ctx) // what is wrong with a view's file is told at once
	if err != nil {
		return err
	}
	defer store.Close()
	l, err := listen(ctx, "api-ops-addr", c.APIOpsAddr)
	if err != nil {
		return err
	}
	o := newOps(a.log)
	o.watch("topics", &o.topics)
	o.watch("store", pinged{store})
	// A store that answers may be waiting for its schema, or for another's migration of it.
	answers := gate{lacks: errors.New("not answered yet: the store's schema is looked at first")}
	o.watch("requests", &answers)
	operations := "http://" + l.Addr().String()
	a.log.Info("api starts", "operations", operations)
	return a.role(ctx, o.serveOn(l), func(ctx context.Context) error {
		if err := o.awaitTopics(ctx, a, c.Kafka, c.Names); err != nil {
			return err
		}
		if err := a.awaitStore(ctx, store); err != nil {
			return err
		}
		return c.answer(ctx, a, store, o, &answers, operations)
	})
}

// awaitStore waits for the store, and brings it to its schema.
func (a *app) awaitStore(ctx context.Context, store views.Store) error {
	for pause := topicsPause; ; pause = min(2*pause, topicsMaxPause) {
		err := store.Migrate(ctx)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%w (set --store-url or RISINGWAVE_URL)", err)
		if ctx.Err() != nil || !views.Retryable(err) {
			return err
		}
		a.log.Warn("wait for the store", "error", err, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("wait for the store: %w", err)
		}
	}
}

// answer serves what people and programs ask, and opens the gate when they can.
func (c *apiCmd) answer(ctx context.Context, a *app, store views.Store, o *ops, answers *gate, operations string) error {
	p, err := newPublisher(c.Kafka, c.Input)
	if err != nil {
		return err
	}
	defer p.Close()
	flow, err := newPipeline(c.Kafka, c.Names, nil)
	if err != nil {
		return err
	}
	defer flow.Close()
	tables, err := newLiveTables(a, c.Kafka, c.Names, &c.Windows)
	if err != nil {
		return err
	}
	api, err := newAPI(a, c.HTTP, &c.Windows, store, p, flow, tables, o.registry)
	if err != nil {
		return err
	}
	l, err := listen(ctx, "http-addr", c.HTTPAddr)
	if err != nil {
		return err
	}
	answers.wait(nil)
	a.log.Info("api", "brokers", c.Brokers, "store", maskURL(c.StoreURL), "address", c.url(l), "operations", operations)
	return together(ctx, append(tables.parts(), c.serve(a, api, l), api.Run)...)
}

func newAPI(a *app, h HTTP, w *Windows, store views.Store, p httpapi.Publisher, flow httpapi.Pipeline, tables *liveTables, reg prometheus.Registerer) (*httpapi.API, error) {
	config, err := h.api()
	if err != nil {
		return nil, err
	}
	config.Store, config.Publisher, config.Pipeline = store, p, flow
	tables.serve(a, &config)
	config.Zone, config.Version = w.location(), version()
	config.Now, config.Logger, config.Registerer = a.now, a.log, reg
	return httpapi.New(config)
}

// serve serves the API on l, by HTTPS if there is a certificate.
func (h *HTTP) serve(a *app, api *httpapi.API, l net.Listener) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		s := api.Server()
		if h.TLSCert != "" {
			c := &servedCertificate{cert: h.TLSCert, key: h.TLSKey, log: a.log}
			s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.current}
		}
		return serveHTTP(ctx, l, s)
	}
}

// pinged makes a store's readiness of whether it answers.
type pinged struct{ store views.Store }

// Ready implements readiness.
func (p pinged) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	return p.store.Ping(ctx)
}
