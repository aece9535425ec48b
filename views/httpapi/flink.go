package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// FlinkSource tells the operations port what runs in this process, in the words of Flink's REST interface. It must be
// safe for concurrent use.
type FlinkSource interface {
	Flink(ctx context.Context) (FlinkState, error)
}

// FlinkState is what watches of a Flink cluster ask for, from real state.
type FlinkState struct {
	Version string // shown as flink-version; say what this is, such as "klgstream-1.2.3"
	Commit  string
	Now     time.Time
	Jobs    []FlinkJob
	Workers []FlinkWorker
}

// FlinkJobState is a job's state in Flink's words.
type FlinkJobState string

// The states a topology can be in.
const (
	FlinkInitializing FlinkJobState = "INITIALIZING" // recovering its table
	FlinkRunning      FlinkJobState = "RUNNING"
	FlinkRestarting   FlinkJobState = "RESTARTING" // between a failure and the next try
	FlinkFailing      FlinkJobState = "FAILING"    // stopping because of a failure
	FlinkFailed       FlinkJobState = "FAILED"
	FlinkCanceled     FlinkJobState = "CANCELED" // stopped by its operator
	FlinkFinished     FlinkJobState = "FINISHED"
)

// FlinkJob is one topology.
type FlinkJob struct {
	Name       string // the group's name; its identity is a hash of it, the same on every replica
	State      FlinkJobState
	Started    time.Time
	Updated    time.Time // of the last change of State
	Ended      time.Time // zero while it has not
	Partitions int       // of the input topic: its maximal parallelism
	Vertices   []FlinkVertex
	Metrics    map[string]string // by Flink's name, such as numRestarts
}

// FlinkVertex is one step of a topology: a topic read, the fold, the outputs.
type FlinkVertex struct {
	Name         string
	Subtasks     map[FlinkTaskState]int // partitions by state
	ReadRecords  int64
	ReadBytes    int64
	WriteRecords int64
	WriteBytes   int64
	Idle, Busy   time.Duration // since the start
	Blocked      time.Duration // waiting for the broker's acknowledgements
}

// FlinkTaskState is the state of one partition's task in Flink's words.
type FlinkTaskState string

// The states a partition's task can be in.
const (
	FlinkTaskInitializing FlinkTaskState = "INITIALIZING"
	FlinkTaskRunning      FlinkTaskState = "RUNNING"
	FlinkTaskFailed       FlinkTaskState = "FAILED"
)

// FlinkWorker is one process.
type FlinkWorker struct {
	Name        string // host name, or whatever tells replicas apart
	Slots, Free int    // partitions it can work on at once, and how many more than it does
	CPUs        int
	Memory      int64 // physical, in bytes
	Heap        int64 // in use
	FreeMemory  int64
}

// flinkTaskStates is every state Flink lists, in its order.
var flinkTaskStates = []string{"CREATED", "SCHEDULED", "DEPLOYING", "RUNNING", "FINISHED", "CANCELING", "CANCELED", "FAILED", "RECONCILING", "INITIALIZING"}

// FlinkHandler answers what watched a Flink cluster's REST port: /overview, /config, /jobs, /jobs/overview, /jobs/{id},
// /jobs/{id}/metrics and /taskmanagers, with or without the prefix /v1. It only reads.
func FlinkHandler(source FlinkSource) http.Handler {
	mux := http.NewServeMux()
	f := flink{source}
	for path, answer := range map[string]func(FlinkState, *http.Request) (any, int){
		"/overview":          f.overview,
		"/config":            f.config,
		"/jobs":              f.jobs,
		"/jobs/overview":     f.jobsOverview,
		"/jobs/{id}":         f.job,
		"/jobs/{id}/metrics": f.jobMetrics,
		"/taskmanagers":      f.workers,
	} {
		mux.HandleFunc("GET "+path, f.serve(answer))
		mux.HandleFunc("GET /v1"+path, f.serve(answer))
	}
	return mux
}

type flink struct{ source FlinkSource }

// object is a JSON object whose names Flink chose.
type object = map[string]any

func (f flink) serve(answer func(FlinkState, *http.Request) (any, int)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		state, err := f.source.Flink(ctx)
		body, status := any(object{"errors": []string{"state is not available"}}), http.StatusServiceUnavailable
		if err == nil {
			body, status = answer(state, r)
		}
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
}

func (flink) overview(s FlinkState, _ *http.Request) (any, int) {
	count := map[FlinkJobState]int{}
	for _, j := range s.Jobs {
		count[j.State]++
	}
	slots, free := 0, 0
	for _, w := range s.Workers {
		slots += w.Slots
		free += w.Free
	}
	return object{
		"taskmanagers": len(s.Workers), "taskmanagers-blocked": 0, "slots-total": slots, "slots-available": free, "slots-free-and-blocked": 0,
		// Flink counts every job that has not ended as running.
		"jobs-running":  count[FlinkRunning] + count[FlinkInitializing] + count[FlinkRestarting] + count[FlinkFailing],
		"jobs-finished": count[FlinkFinished], "jobs-cancelled": count[FlinkCanceled], "jobs-failed": count[FlinkFailed],
		"flink-version": s.Version, "flink-commit": s.Commit,
	}, http.StatusOK
}

func (flink) config(s FlinkState, _ *http.Request) (any, int) {
	return object{
		"refresh-interval": 3000, "timezone-name": "Coordinated Universal Time", "timezone-offset": 0,
		"flink-version": s.Version, "flink-revision": s.Commit,
		"features": object{"web-submit": false, "web-cancel": false, "web-rescale": false, "web-history": false},
	}, http.StatusOK
}

func (flink) jobs(s FlinkState, _ *http.Request) (any, int) {
	list := make([]object, len(s.Jobs))
	for i, j := range s.Jobs {
		list[i] = object{"id": flinkID("job", j.Name), "status": j.State}
	}
	return object{"jobs": list}, http.StatusOK
}

func (flink) jobsOverview(s FlinkState, _ *http.Request) (any, int) {
	list := make([]object, len(s.Jobs))
	for i := range s.Jobs {
		j := &s.Jobs[i]
		tasks := j.tasks("")
		total := 0
		for _, n := range tasks {
			total += n
		}
		tasks["total"] = total
		list[i] = object{
			"jid": flinkID("job", j.Name), "name": j.Name, "state": j.State, "job-type": "STREAMING",
			"start-time": j.Started.UnixMilli(), "end-time": j.end(), "duration": j.duration(s.Now), "last-modification": j.Updated.UnixMilli(),
			"tasks": tasks, "pending-operators": 0,
		}
	}
	return object{"jobs": list}, http.StatusOK
}

// tasks counts the job's tasks by state, in lower case as /jobs/overview has them, of one vertex or of all.
func (j *FlinkJob) tasks(vertex string) map[string]int {
	count := map[string]int{}
	for _, s := range flinkTaskStates {
		count[strings.ToLower(s)] = 0
	}
	for _, v := range j.Vertices {
		if vertex != "" && v.Name != vertex {
			continue
		}
		for s, n := range v.Subtasks {
			count[strings.ToLower(string(s))] += n
		}
	}
	return count
}

func (j *FlinkJob) end() int64 {
	if j.Ended.IsZero() {
		return -1
	}
	return j.Ended.UnixMilli()
}

func (j *FlinkJob) duration(now time.Time) int64 {
	if !j.Ended.IsZero() {
		now = j.Ended
	}
	return now.Sub(j.Started).Milliseconds()
}

func findJob(s FlinkState, r *http.Request) *FlinkJob {
	i := slices.IndexFunc(s.Jobs, func(j FlinkJob) bool { return flinkID("job", j.Name) == r.PathValue("id") })
	if i < 0 {
		return nil
	}
	return &s.Jobs[i]
}

func noJob(r *http.Request) (any, int) {
	return object{"errors": []string{"Job " + clip(r.PathValue("id"), 64) + " not found"}}, http.StatusNotFound
}

func (flink) job(s FlinkState, r *http.Request) (any, int) {
	j := findJob(s, r)
	if j == nil {
		return noJob(r)
	}
	vertices, nodes, status := make([]object, len(j.Vertices)), make([]object, len(j.Vertices)), map[string]int{}
	for _, state := range flinkTaskStates {
		status[state] = 0
	}
	for i := range j.Vertices {
		v := &j.Vertices[i]
		vertices[i] = j.vertex(v, s.Now)
		nodes[i] = object{"id": flinkID(j.Name, v.Name), "parallelism": v.parallelism(), "operator": "", "operator_strategy": "", "description": v.Name, "optimizer_properties": object{}}
		if i > 0 {
			nodes[i]["inputs"] = []object{{"num": 0, "id": flinkID(j.Name, j.Vertices[i-1].Name), "ship_strategy": "HASH", "exchange": "pipelined_bounded"}}
		}
		status[v.state()]++
	}
	plan := object{"jid": flinkID("job", j.Name), "name": j.Name, "type": "STREAMING", "nodes": nodes}
	return object{
		"jid": flinkID("job", j.Name), "name": j.Name, "isStoppable": false, "state": j.State, "job-type": "STREAMING",
		"start-time": j.Started.UnixMilli(), "end-time": j.end(), "duration": j.duration(s.Now), "maxParallelism": j.Partitions, "now": s.Now.UnixMilli(),
		"timestamps": j.timestamps(), "vertices": vertices, "status-counts": status, "plan": plan, "stream-graph": nil, "pending-operators": 0,
	}, http.StatusOK
}

// timestamps has when the job last went into each state, 0 for never. The state before the current one is not kept.
func (j *FlinkJob) timestamps() map[string]int64 {
	at := map[string]int64{}
	for _, s := range []string{"INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING", "SUSPENDED", "RECONCILING"} {
		at[s] = 0
	}
	at["INITIALIZING"], at["CREATED"] = j.Started.UnixMilli(), j.Started.UnixMilli()
	at[string(j.State)] = j.Updated.UnixMilli()
	return at
}

func (v *FlinkVertex) parallelism() int {
	total := 0
	for _, n := range v.Subtasks {
		total += n
	}
	return total
}

// state is the worst state of the vertex's tasks.
func (v *FlinkVertex) state() string {
	for _, s := range []FlinkTaskState{FlinkTaskFailed, FlinkTaskInitializing, FlinkTaskRunning} {
		if v.Subtasks[s] > 0 {
			return string(s)
		}
	}
	return "CREATED"
}

func (j *FlinkJob) vertex(v *FlinkVertex, now time.Time) object {
	tasks := map[string]int{}
	for _, s := range flinkTaskStates {
		tasks[s] = v.Subtasks[FlinkTaskState(s)]
	}
	return object{
		"id": flinkID(j.Name, v.Name), "slotSharingGroupId": flinkID("slots", j.Name), "name": v.Name, "maxParallelism": j.Partitions, "parallelism": v.parallelism(), "status": v.state(),
		"start-time": j.Started.UnixMilli(), "end-time": j.end(), "duration": j.duration(now), "tasks": tasks,
		"metrics": object{
			"read-bytes": v.ReadBytes, "read-bytes-complete": true, "write-bytes": v.WriteBytes, "write-bytes-complete": true,
			"read-records": v.ReadRecords, "read-records-complete": true, "write-records": v.WriteRecords, "write-records-complete": true,
			"accumulated-backpressured-time": v.Blocked.Milliseconds(), "accumulated-idle-time": v.Idle.Milliseconds(), "accumulated-busy-time": float64(v.Busy.Milliseconds()),
		},
	}
}

// jobMetrics lists the names of a job's metrics, or with ?get=a,b their values.
func (flink) jobMetrics(s FlinkState, r *http.Request) (any, int) {
	j := findJob(s, r)
	if j == nil {
		return noJob(r)
	}
	list := []object{}
	if get := r.URL.Query().Get("get"); get != "" {
		for name := range strings.SplitSeq(get, ",") {
			if value, ok := j.Metrics[name]; ok {
				list = append(list, object{"id": name, "value": value})
			}
		}
		return list, http.StatusOK
	}
	names := make([]string, 0, len(j.Metrics))
	for name := range j.Metrics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, object{"id": name})
	}
	return list, http.StatusOK
}

func (flink) workers(s FlinkState, _ *http.Request) (any, int) {
	list := make([]object, len(s.Workers))
	for i := range s.Workers {
		list[i] = s.Workers[i].object()
	}
	return object{"taskmanagers": list}, http.StatusOK
}

const mebi = 1 << 20

func (w *FlinkWorker) object() object {
	resource := func(slots int) object {
		cpu, heap := 0.0, int64(0)
		if w.Slots > 0 {
			cpu, heap = float64(w.CPUs)*float64(slots)/float64(w.Slots), w.Heap/mebi*int64(slots)/int64(w.Slots)
		}
		return object{"cpuCores": cpu, "taskHeapMemory": heap, "taskOffHeapMemory": 0, "managedMemory": 0, "networkMemory": 0, "extendedResources": object{}}
	}
	return object{
		"id": flinkID("worker", w.Name), "path": w.Name, "dataPort": -1, "jmxPort": -1, "timeSinceLastHeartbeat": 0,
		"slotsNumber": w.Slots, "freeSlots": w.Free, "totalResource": resource(w.Slots), "freeResource": resource(w.Free),
		"hardware": object{"cpuCores": w.CPUs, "physicalMemory": w.Memory, "freeMemory": w.FreeMemory, "managedMemory": 0},
		"memoryConfiguration": object{
			"frameworkHeap": 0, "taskHeap": w.Heap, "frameworkOffHeap": 0, "taskOffHeap": 0, "networkMemory": 0, "managedMemory": 0,
			"jvmMetaspace": 0, "jvmOverhead": 0, "totalFlinkMemory": w.Heap, "totalProcessMemory": w.Heap,
		},
		"blocked": false,
	}
}

// flinkID is an identity of 32 hexadecimal digits, as Flink's are, that every replica computes alike.
func flinkID(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return hex.EncodeToString(sum[:16])
}
