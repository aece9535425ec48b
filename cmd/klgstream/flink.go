package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/httpapi"
)

// flinkView tells who watched a Flink cluster what this process runs.
type flinkView struct {
	app        *app
	processors []*engine.Processor
	counters   prometheus.Gatherer
}

// Flink implements httpapi.FlinkSource.
func (f *flinkView) Flink(context.Context) (httpapi.FlinkState, error) {
	counts, err := f.count()
	if err != nil {
		return httpapi.FlinkState{}, err
	}
	s := httpapi.FlinkState{Version: "klgstream-" + version(), Commit: commit(), Now: f.app.now()}
	slots := 0
	for _, p := range f.processors {
		job := flinkJob(p.Status(), counts[p.Status().Group])
		slots += job.Partitions
		s.Jobs = append(s.Jobs, job)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	s.Workers = []httpapi.FlinkWorker{{
		Name: "klgstream", Slots: slots, CPUs: runtime.NumCPU(), Memory: int64(mem.Sys), Heap: int64(mem.HeapAlloc), FreeMemory: int64(mem.HeapIdle),
	}}
	return s, nil
}

// flinkCounts are a group's counters.
type flinkCounts struct {
	partitions             map[string]bool
	read, written          int64
	writtenBytes, restarts int64
}

// count reads the processors' own metrics.
func (f *flinkView) count() (map[string]flinkCounts, error) {
	families, err := f.counters.Gather()
	if err != nil {
		return nil, err
	}
	out := map[string]flinkCounts{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			group := label(m, "group")
			c := out[group]
			if c.partitions == nil {
				c.partitions = map[string]bool{}
			}
			n := int64(m.GetCounter().GetValue())
			switch family.GetName() {
			case "klgstream_events_total":
				c.partitions[label(m, "partition")] = true
				c.read += n
			case "klgstream_written_records_total":
				c.written += n
			case "klgstream_written_bytes_total":
				c.writtenBytes += n
			case "klgstream_run_failures_total":
				c.restarts += n
			}
			out[group] = c
		}
	}
	return out, nil
}

func flinkJob(s engine.Status, c flinkCounts) httpapi.FlinkJob {
	state, task := httpapi.FlinkRunning, httpapi.FlinkTaskRunning
	if s.Problem != nil {
		state, task = httpapi.FlinkInitializing, httpapi.FlinkTaskInitializing
		if s.Restarts > 0 {
			state = httpapi.FlinkRestarting
		}
	}
	n := len(c.partitions)
	return httpapi.FlinkJob{
		Name: s.Group, State: state, Started: s.Started, Updated: s.Changed, Partitions: n,
		Vertices: []httpapi.FlinkVertex{{
			Name: s.Group, Subtasks: map[httpapi.FlinkTaskState]int{task: n},
			ReadRecords: c.read, WriteRecords: c.written, WriteBytes: c.writtenBytes,
		}},
		Metrics: map[string]string{"numRestarts": strconv.FormatInt(c.restarts, 10)},
	}
}

// commit is what this program was built of; empty if the build does not tell.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return strings.TrimPrefix(revision(info), "-")
}
