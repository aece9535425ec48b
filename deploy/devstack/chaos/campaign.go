package chaos

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Campaign is round after round until enough faults have struck.
type Campaign struct {
	// Seed is where all rounds follow from.
	Seed uint64
	// Faults is how many are to strike in all.
	Faults int
	// PerRound is how many strike in one round. Default 20.
	PerRound int
	// Draw makes a round. Default NewRound.
	Draw func(seed uint64, faults int) Round
	// ShrinkRuns is how many runs may be spent on finding the smallest failing schedule. Default 0, none.
	ShrinkRuns int
	// GoOn goes on after a round that failed, without shrinking it. Default false.
	GoOn bool
	// Out takes one line a round. Default none.
	Out io.Writer
}

// Summary is what came of a campaign.
type Summary struct {
	Reports []Report
	// Failed is the first round that failed, nil if none did; Shrunk is the smallest schedule that failed too.
	Failed *Report
	Shrunk Schedule
}

// Faults is how many faults struck.
func (s *Summary) Faults() int {
	n := 0
	for i := range s.Reports {
		n += s.Reports[i].Struck
	}
	return n
}

// Run runs the campaign until it is done or a round fails.
func (c Campaign) Run(ctx context.Context, b *Bench) (Summary, error) {
	if c.PerRound == 0 {
		c.PerRound = 20
	}
	if c.Draw == nil {
		c.Draw = NewRound
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	var s Summary
	for n := uint64(0); s.Faults() < c.Faults; n++ {
		seed := c.Seed + n
		r := c.Draw(seed, min(c.PerRound, c.Faults-s.Faults()))
		report, err := b.Run(ctx, r)
		if err != nil {
			return s, fmt.Errorf("run round of seed %d: %w", seed, err)
		}
		s.Reports = append(s.Reports, report)
		fmt.Fprintf(c.Out, "seed %d %s: %d faults, %d events, %d windows, %d results, %d late, %d dead, %.1fs: %s\n", seed, r.Workload.Mode, report.Struck,
			report.Published, report.Windows, report.Records, report.Late, report.Dead, report.Took.Seconds(), verdict(&report))
		if report.Failed() && s.Failed == nil {
			s.Failed = &report
		}
		if report.Failed() && c.GoOn {
			fmt.Fprintf(c.Out, "%sschedule:\n%s\n", &report, r.Schedule)
		} else if report.Failed() {
			s.Shrunk, err = c.shrink(ctx, b, r)
			return s, err
		}
	}
	return s, nil
}

func verdict(r *Report) string {
	if r.Failed() {
		return "FAILED"
	}
	return "exact"
}

// Describe is a failure as a person needs it: the report, the smallest schedule, and how to run it again.
func (s *Summary) Describe() string {
	if s.Failed == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nschedule:\n%s\n", s.Failed, s.Failed.Round.Schedule)
	if len(s.Shrunk) > 0 && len(s.Shrunk) < len(s.Failed.Round.Schedule) {
		fmt.Fprintf(&b, "\nsmallest failing schedule:\n%s\n", s.Shrunk)
	}
	fmt.Fprintf(&b, "\nreplay with KLGSTREAM_CHAOS_SEED=%d KLGSTREAM_CHAOS_FAULTS=%d\n", s.Failed.Round.Workload.Seed, len(s.Failed.Round.Schedule))
	return b.String()
}

// shrink leaves faults out as long as the round still fails: halves first, then smaller parts, then one by one.
func (c Campaign) shrink(ctx context.Context, b *Bench, r Round) (Schedule, error) {
	runs := c.ShrinkRuns
	best := r.Schedule
	for part := max(1, len(best)/2); runs > 0; {
		smaller := false
		for at := 0; at < len(best) && runs > 0; runs-- {
			try := append(append(Schedule(nil), best[:at]...), best[min(at+part, len(best)):]...)
			report, err := b.Run(ctx, Round{r.Workload, try})
			if err != nil {
				return best, fmt.Errorf("shrink: %w", err)
			}
			if report.Failed() {
				best, smaller = try, true
				fmt.Fprintf(c.Out, "still fails with %d faults\n", len(best))
			} else {
				at += part
			}
		}
		if part == 1 && !smaller {
			break
		}
		part = max(1, part/2)
	}
	return best, nil
}
