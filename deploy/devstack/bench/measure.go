package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Measurement is what one mode took.
type Measurement struct {
	Mode      string   `json:"mode"`
	Round     int      `json:"round"`
	Events    int64    `json:"events"`
	Seconds   float64  `json:"seconds"`
	CPU       float64  `json:"cpu_seconds"`
	PeakRSS   int64    `json:"peak_rss_bytes"`
	Mallocs   uint64   `json:"mallocs"`
	Changelog int      `json:"changelog_records,omitempty"`
	Verdict   *Verdict `json:"verdict,omitempty"`
}

// Rate is events per second.
func (m Measurement) Rate() float64 { return float64(m.Events) / m.Seconds }

// CPUPerMillion is CPU seconds per million events, of the process under measurement alone.
func (m Measurement) CPUPerMillion() float64 { return m.CPU / float64(m.Events) * 1e6 }

// MallocsPerEvent is allocations per event.
func (m Measurement) MallocsPerEvent() float64 { return float64(m.Mallocs) / float64(m.Events) }

// task is what a child process is told to measure.
type task struct {
	Mode    string
	Job     job
	Profile string // where to write CPU and heap profiles; "" for none
}

// Child runs one measurement in this process and writes it as JSON: peak memory and CPU time are then of that mode alone.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	run := modeOf(t.Mode)
	if run == nil {
		return fmt.Errorf("measure: unknown mode %q", t.Mode)
	}
	var err error
	if t.Job.ends, err = endOffsets(ctx, t.Job.Brokers, t.Job.Input); err != nil {
		return err
	}
	for _, end := range t.Job.ends {
		t.Job.total += end
	}
	finish, err := t.profile()
	if err != nil {
		return err
	}
	m, err := t.measure(ctx, run)
	if err = errors.Join(err, finish()); err != nil {
		return fmt.Errorf("measure %s: %w", t.Mode, err)
	}
	return json.NewEncoder(out).Encode(m)
}

func (t *task) measure(ctx context.Context, run mode) (Measurement, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := CPUTime(), time.Now()
	done, err := run(ctx, t.Job)
	if err != nil {
		return Measurement{}, err
	}
	m := Measurement{Mode: t.Mode, Events: t.Job.total, Seconds: done.Sub(began).Seconds(), CPU: (CPUTime() - cpu).Seconds()}
	runtime.ReadMemStats(&after)
	m.Mallocs, m.PeakRSS = after.Mallocs-before.Mallocs, peakRSS()
	return m, nil
}

// profile starts profiling, if asked for; what it returns ends it.
func (t *task) profile() (finish func() error, err error) {
	if t.Profile == "" {
		return func() error { return nil }, nil
	}
	cpu, err := os.Create(t.Profile + ".cpu.pprof")
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(err, cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		heap, err := os.Create(t.Profile + ".heap.pprof")
		if err != nil {
			return errors.Join(fmt.Errorf("profile: %w", err), cpu.Close())
		}
		return errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(heap, 0), heap.Close())
	}, nil
}

// CPUTime is user and system time of this process.
func CPUTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS is the largest resident size of this process, in bytes; 0 where the kernel does not tell.
func peakRSS() int64 {
	n, _ := Resident("self", "VmHWM:")
	return n
}

// Resident reads a size in bytes from a process's status: VmHWM: is its largest resident size so far, VmRSS: the one now.
// False where the kernel does not tell.
func Resident(pid, field string) (int64, bool) {
	f, err := os.Open("/proc/" + pid + "/status")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), field); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}

// measure runs a task in a child process: this program's own `bench child`.
func measure(ctx context.Context, t task) (Measurement, error) {
	in, err := json.Marshal(t)
	if err != nil {
		return Measurement{}, err
	}
	cmd, err := Self(ctx, "bench", "child")
	if err != nil {
		return Measurement{}, err
	}
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(in)), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return Measurement{}, fmt.Errorf("measure %s: %w", t.Mode, err)
	}
	var m Measurement
	if err := json.Unmarshal(out, &m); err != nil {
		return m, fmt.Errorf("measure %s: %q: %w", t.Mode, out, err)
	}
	return m, nil
}
