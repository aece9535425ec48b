package chaos

import (
	"io"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"
)

func setting(name string, def uint64) uint64 {
	if v, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return v
	}
	return def
}

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	if path := os.Getenv("KLGSTREAM_CHAOS_LOG"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// TestCampaign is the promise, measured: faults strike, and every window is right.
func TestCampaign(t *testing.T) {
	seed := setting("KLGSTREAM_CHAOS_SEED", uint64(time.Now().UnixNano()%1_000_000))
	faults := int(setting("KLGSTREAM_CHAOS_FAULTS", 20))
	t.Logf("KLGSTREAM_CHAOS_SEED=%d KLGSTREAM_CHAOS_FAULTS=%d", seed, faults)
	b := &Bench{Log: logger(t), Now: time.Now}
	t.Cleanup(b.Wait)
	s, err := Campaign{Seed: seed, Faults: faults, Out: t.Output(), ShrinkRuns: int(setting("KLGSTREAM_CHAOS_SHRINK", 40))}.Run(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Failed != nil {
		t.Fatal(s.Describe())
	}
}
