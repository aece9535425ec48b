package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// checkTimeout is how long the health route waits for one dependency.
const checkTimeout = 3 * time.Second

// health is the answer of the health route.
type health struct {
	Status    string       `json:"status" enum:"ok,failing"`
	Version   string       `json:"version"`
	Lag       *int64       `json:"lag" nullable:"true" doc:"Records of the input topic that are not processed yet"`
	Watermark *string      `json:"watermark" format:"date-time" nullable:"true" doc:"Event time the processing has passed"`
	Checks    []dependency `json:"checks" nullable:"false" doc:"Every dependency"`
}

// dependency is one dependency's health.
type dependency struct {
	Name    string  `json:"name"`
	Status  string  `json:"status" enum:"ok,failing"`
	Latency float64 `json:"latency_seconds" doc:"How long it took to answer"`
	Error   string  `json:"error,omitempty"`
}

type healthOutput struct {
	Status       int
	CacheControl string `header:"Cache-Control"`
	Body         health
}

type pipelineOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         picture
}

func (a *API) routePipeline(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/api/v1/streaming/health",
		Summary: "Health of the pipeline", Description: "Asks every dependency; 503 if one does not answer.",
		Tags: []string{"pipeline"}, Errors: a.commonErrors(),
		Responses: map[string]*huma.Response{"503": {Description: "A dependency does not answer", Content: jsonContent(api, health{})}},
	}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) { return a.health(ctx), nil })
	huma.Register(api, huma.Operation{
		OperationID: "get-pipeline", Method: http.MethodGet, Path: "/api/v1/streaming/pipeline",
		Summary: "State of the pipeline", Description: "Positions, lag, watermark and rates of every topic and partition, and events by outcome.",
		Tags: []string{"pipeline"}, Errors: a.commonErrors(),
	}, func(ctx context.Context, _ *struct{}) (*pipelineOutput, error) { return a.pipeline(ctx) })
}

func (a *API) pipeline(ctx context.Context) (*pipelineOutput, error) {
	if a.cfg.Pipeline == nil {
		return nil, unavailable("this process does not watch the pipeline")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	p, err := a.gauge.read(ctx)
	if err != nil {
		a.log.Warn("read pipeline", "error", err)
		return nil, unavailable("the broker does not answer")
	}
	return &pipelineOutput{CacheControl: "no-store", Body: p}, nil
}

// health asks all dependencies at once. What they are does not depend on whether the client still listens.
func (a *API) health(ctx context.Context) *healthOutput {
	ctx = context.WithoutCancel(ctx)
	h := health{Status: "ok", Version: a.cfg.Version}
	checks := []Check{{Name: a.cfg.Store.Name(), Probe: a.cfg.Store.Ping}}
	if a.cfg.Pipeline != nil {
		checks = append(checks, Check{Name: "broker", Probe: func(ctx context.Context) error {
			p, err := a.gauge.read(ctx)
			h.Lag, h.Watermark = inputLag(p)
			return err
		}})
	}
	checks = append(checks, a.cfg.Checks...)
	h.Checks = make([]dependency, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() { h.Checks[i] = a.probe(ctx, c) })
	}
	wait.Wait()
	status := http.StatusOK
	for _, c := range h.Checks {
		if c.Status != "ok" {
			h.Status, status = "failing", http.StatusServiceUnavailable
		}
	}
	return &healthOutput{Status: status, CacheControl: "no-store", Body: h}
}

func (a *API) probe(ctx context.Context, c Check) dependency {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	start := a.cfg.Now()
	err := c.try(ctx)
	h := dependency{Name: c.Name, Status: "ok", Latency: a.cfg.Now().Sub(start).Seconds()}
	if err != nil {
		h.Status, h.Error = "failing", clip(err.Error(), 300)
	}
	return h
}

// try is a probe whose panic is a failure: it runs in a goroutine nobody else would catch it in.
func (c *Check) try(ctx context.Context) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("check panicked: %v", fault)
		}
	}()
	return c.Probe(ctx)
}

// inputLag is the lag of the input topic and the watermark of its reader.
func inputLag(p picture) (*int64, *string) {
	for i := range p.Topics {
		if p.Topics[i].Role == RoleInput {
			return &p.Topics[i].Lag, p.Topics[i].Watermark
		}
	}
	return nil, nil
}

// clip bounds text that came from elsewhere, and keeps it to valid UTF-8.
func clip(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
