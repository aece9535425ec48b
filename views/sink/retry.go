package sink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"klgstream.dev/views"
)

// insist does something until it succeeds, fails for good, or ctx ends. Meanwhile Ready says what at keeps it.
func (s *Sink) insist(ctx context.Context, at partition, what string, do func(context.Context) error) error {
	defer s.mend(at)
	for failures := 0; ; failures++ {
		err := s.attempt(ctx, do)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = fmt.Errorf("%s: %w", what, err)
		if !views.Retryable(err) {
			return err
		}
		s.metrics.retries.Inc()
		s.fail(at, fmt.Sprintf("sink %s (attempt %d)", err, failures+1))
		s.log.Warn("try again", "what", what, "attempt", failures+1, "error", err)
		if err := s.pause(ctx, failures); err != nil {
			return err
		}
	}
}

// attempt does it once, within the write timeout.
func (s *Sink) attempt(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.WriteTimeout)
	defer cancel()
	return do(ctx)
}

// pause waits before the next attempt after so many failures.
func (s *Sink) pause(ctx context.Context, failures int) error {
	timer := time.NewTimer(backoff(s.config.RetryMin, s.config.RetryMax, failures, rand.Float64()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff doubles from least to most with each failure, less up to half of it; random is in [0, 1).
func backoff(least, most time.Duration, failures int, random float64) time.Duration {
	pause := most
	if failures < 62 && least <= most>>failures {
		pause = least << failures
	}
	return pause - time.Duration(random/2*float64(pause))
}
