//go:build demo

package httpapi

import (
	"errors"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// TestDemo serves the made-up pipeline for a person or a tool to look at, until it is interrupted. It is
// built only when asked for: KLGSTREAM_DEMO_ADDR=127.0.0.1:8090 go test -tags demo ./views/httpapi -run TestDemo -timeout 0
func TestDemo(t *testing.T) {
	address := os.Getenv("KLGSTREAM_DEMO_ADDR")
	if address == "" {
		t.Fatal("KLGSTREAM_DEMO_ADDR must name an address")
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &browser{t: t}
	var registry *fakeRegistry
	b.demo = newDemo(newRig(t, withRegistry(&registry), func(c *Config) { c.Live = lockedLive{&b.mu, demoLive{&b.demo}} }), registry)
	server := b.api.Server()
	server.Addr = address
	go func() { _ = b.api.Run(ctx) }()
	go func() {
		for tick := time.NewTicker(time.Second); ctx.Err() == nil; <-tick.C {
			b.more(40)
		}
	}()
	go func() { <-ctx.Done(); _ = server.Close() }()
	t.Logf("http://%s", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		t.Fatal(err)
	}
}
