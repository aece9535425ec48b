package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Measurement is what one mode took.
type Measurement struct {
	Mode      string   `json:"mode"`
	Events    int64    `json:"events"`
	Seconds   float64  `json:"seconds"`
	CPU       float64  `json:"cpu_seconds"`
	PeakRSS   int64    `json:"peak_rss_bytes"`
	Mallocs   uint64   `json:"mallocs"`
	Verdict   *Verdict `json:"verdict,omitempty"`
	Changelog int64    `json:"changelog_records,omitempty"`
}

// Rate is events per second.
func (m Measurement) Rate() float64 { return float64(m.Events) / m.Seconds }

// CPUPerMillion is CPU seconds per million events, of the process under measurement alone.
func (m Measurement) CPUPerMillion() float64 { return m.CPU / float64(m.Events) * 1e6 }

// task is what a child process is told to measure.
type task struct {
	Mode string
	Job  job
}

// Child runs one measurement in this process and writes it as JSON: peak memory and CPU time are then of that mode alone.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	run, ok := modes[t.Mode]
	if !ok {
		return fmt.Errorf("measure: unknown mode %q", t.Mode)
	}
	var err error
	if t.Job.ends, err = endOffsets(ctx, t.Job.Brokers, t.Job.Input); err != nil {
		return err
	}
	for _, end := range t.Job.ends {
		t.Job.total += end
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := cpuTime(), time.Now()
	if err := run(ctx, t.Job); err != nil {
		return fmt.Errorf("measure %s: %w", t.Mode, err)
	}
	m := Measurement{Mode: t.Mode, Events: t.Job.total, Seconds: time.Since(began).Seconds(), CPU: (cpuTime() - cpu).Seconds()}
	runtime.ReadMemStats(&after)
	m.Mallocs, m.PeakRSS = after.Mallocs-before.Mallocs, peakRSS()
	return json.NewEncoder(out).Encode(m)
}

// cpuTime is user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS is the largest resident size of this process, in bytes; 0 where the kernel does not tell.
func peakRSS() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// measure runs a task in a child process: this program's own `bench child`.
func measure(ctx context.Context, t task) (Measurement, error) {
	exe, err := os.Executable()
	if err != nil {
		return Measurement{}, fmt.Errorf("measure %s: %w", t.Mode, err)
	}
	in, err := json.Marshal(t)
	if err != nil {
		return Measurement{}, err
	}
	cmd := exec.CommandContext(ctx, exe, "bench", "child")
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
