package chaos

import (
	"fmt"
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
	return slog.New(slog.DiscardHandler)
}

// dump is where a failed round's topics go, if anywhere.
func dump(t *testing.T) io.Writer {
	t.Helper()
	path := os.Getenv("KLGSTREAM_CHAOS_DUMP")
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestCampaign is the promise, measured: faults strike, and every window is right.
func TestCampaign(t *testing.T) {
	seed := setting("KLGSTREAM_CHAOS_SEED", FreshSeed(time.Now()))
	if text := os.Getenv("KLGSTREAM_CHAOS_SCHEDULE"); text != "" {
		replay(t, seed, text)
		return
	}
	faults := int(setting("KLGSTREAM_CHAOS_FAULTS", 20))
	t.Logf("KLGSTREAM_CHAOS_SEED=%d KLGSTREAM_CHAOS_FAULTS=%d", seed, faults)
	b := &Bench{Log: logger(t), Now: time.Now, Dump: dump(t)}
	t.Cleanup(b.Wait)
	s, err := Campaign{Seed: seed, Faults: faults, Out: t.Output(), ShrinkRuns: int(setting("KLGSTREAM_CHAOS_SHRINK", 40)), GoOn: setting("KLGSTREAM_CHAOS_GO_ON", 0) == 1}.Run(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", Table(s.Reports))
	if s.Failed != nil {
		t.Fatal(s.Describe())
	}
}

// TestSeedsThatFailed runs the rounds that once found something, and what they found.
func TestSeedsThatFailed(t *testing.T) {
	for seed, found := range map[uint64]string{
		5:       "a late event that a crashed run left was neither counted nor late",
		19:      "a partition that had read nothing told the others not to wait for it",
		50_009:  "windows that closed while a checkpoint was written came out again with fewer events",
		184_089: "a paused member was told that the group rebalances, took itself for an owner, and one revision had two contents",
		234_711: "of two who were gone one had left an older result behind the other's newer one",
		582_531: "the truth was read twice where the leader of an emptied log was new, and the events that were there once seemed lost",
	} {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			b := &Bench{Log: logger(t), Now: time.Now}
			t.Cleanup(b.Wait)
			report, err := b.Run(t.Context(), NewRound(seed, 20))
			if err != nil {
				t.Fatal(err)
			}
			if report.Failed() {
				t.Fatalf("once: %s\n%s", found, &report)
			}
		})
	}
}

// replay runs the workload of a seed under a schedule given as text.
func replay(t *testing.T, seed uint64, text string) {
	t.Helper()
	schedule, err := ParseSchedule(text)
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench{Log: logger(t), Now: time.Now, Patience: 20 * time.Second, Dump: dump(t)}
	t.Cleanup(b.Wait)
	r := NewRound(seed, int(setting("KLGSTREAM_CHAOS_FAULTS", 20)))
	r.Schedule = schedule
	for range setting("KLGSTREAM_CHAOS_TRIES", 1) {
		report, err := b.Run(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if report.Failed() {
			t.Fatal(report.String())
		}
		t.Log(report.String())
	}
}

// Faults that come seldom by the seed come all here: retention behind the group, an end of the table that nobody can read, a storm of
// rebalances, each followed by restarts with nothing; with copies of all tables and without.
func TestSeldomFaults(t *testing.T) {
	t.Parallel()
	for _, standby := range []bool{false, true} {
		t.Run(fmt.Sprintf("standby %v", standby), func(t *testing.T) {
			t.Parallel()
			w := NewWorkload(firstWider+1, 12)
			w.Mode, w.Partitions, w.Replicas, w.DataDir, w.Standby, w.RekeyOff, w.Keys, w.PerStep = Ordered, 3, 2, false, standby, false, 20, 60
			w.reshape()
			schedule, err := ParseSchedule(`
				1 retention slot=-1; 2 table-tail slot=-1; 3 table-tail slot=-1 partition=1; 3 table-tail slot=-1 partition=2; 3 restart-all
				5 rebalance-storm slot=-1 hold=1s; 6 retention slot=-1; 6 kill; 7 retention slot=-1; 8 table-tail slot=-1 partition=1
				9 kill slot=1; 10 rebalance-storm slot=-1 hold=500ms; 10 stop; 11 retention slot=-1; 11 restart-all`)
			if err != nil {
				t.Fatal(err)
			}
			b := &Bench{Log: logger(t), Now: time.Now, Dump: dump(t)}
			t.Cleanup(b.Wait)
			report, err := b.Run(t.Context(), Round{w, schedule})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d records were deleted behind the group\n%s", report.Retained, &report)
			if report.Failed() || report.Retained == 0 {
				t.Fail()
			}
		})
	}
}
