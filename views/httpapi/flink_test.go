package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

type fakeFlink struct {
	state FlinkState
	err   error
}

func (f fakeFlink) Flink(context.Context) (FlinkState, error) { return f.state, f.err }

func sampleFlink() FlinkState {
	start := instant("2026-01-01T00:00:00Z")
	return FlinkState{
		Version: "klgstream-1.2.3", Commit: "abc1234", Now: start.Add(time.Hour),
		Jobs: []FlinkJob{
			{
				Name: "aircraft-activity", State: FlinkRunning, Started: start, Updated: start.Add(time.Second), Partitions: 4,
				Vertices: []FlinkVertex{
					{Name: "aircraft-events", Subtasks: map[FlinkTaskState]int{FlinkTaskRunning: 4}, ReadRecords: 100, ReadBytes: 13_000},
					{Name: "windows", Subtasks: map[FlinkTaskState]int{FlinkTaskRunning: 3, FlinkTaskInitializing: 1}, ReadRecords: 100, WriteRecords: 60, Busy: time.Second},
				},
				Metrics: map[string]string{"numRestarts": "2", "lastCheckpointDuration": "12"},
			},
			{Name: "aircraft-registry", State: FlinkRestarting, Started: start, Updated: start, Partitions: 4},
			{Name: "old", State: FlinkFailed, Started: start, Updated: start, Ended: start.Add(time.Minute)},
		},
		Workers: []FlinkWorker{{Name: "host-1", Slots: 8, Free: 0, CPUs: 2, Memory: 8 << 30, Heap: 64 << 20, FreeMemory: 1 << 30}},
	}
}

func askFlink(t *testing.T, source FlinkSource, target string, status int) any {
	t.Helper()
	w := httptest.NewRecorder()
	FlinkHandler(source).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	if w.Code != status {
		t.Fatalf("%s is answered %d, want %d: %s", target, w.Code, status, w.Body)
	}
	var body any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	return body
}

// at walks into a JSON value: names of members, or "0" for the first element.
func at(body any, path string) any {
	for step := range strings.SplitSeq(path, ".") {
		switch v := body.(type) {
		case map[string]any:
			body = v[step]
		case []any:
			body = v[int(step[0]-'0')]
		}
	}
	return body
}

const (
	taskFields     = "total created scheduled deploying running finished canceling canceled failed reconciling initializing"
	stateFields    = "CREATED SCHEDULED DEPLOYING RUNNING FINISHED CANCELING CANCELED FAILED RECONCILING INITIALIZING"
	resourceFields = "cpuCores taskHeapMemory taskOffHeapMemory managedMemory networkMemory extendedResources"
)

// TestFlinkFields holds the answers against the field lists Flink publishes for its REST interface (1.x and 2.x).
func TestFlinkFields(t *testing.T) {
	t.Parallel()
	source := fakeFlink{state: sampleFlink()}
	job := "/jobs/" + flinkID("job", "aircraft-activity")
	for _, c := range []struct{ target, path, fields string }{
		{"/overview", "", "taskmanagers taskmanagers-blocked slots-total slots-available slots-free-and-blocked jobs-running jobs-finished jobs-cancelled jobs-failed flink-version flink-commit"},
		{"/config", "", "refresh-interval timezone-name timezone-offset flink-version flink-revision features"},
		{"/jobs", "jobs.0", "id status"},
		{"/jobs/overview", "jobs.0", "jid name state job-type start-time end-time duration last-modification tasks pending-operators"},
		{"/jobs/overview", "jobs.0.tasks", taskFields},
		{job, "", "jid name isStoppable state job-type start-time end-time duration maxParallelism now timestamps vertices status-counts plan stream-graph pending-operators"},
		{job, "timestamps", "INITIALIZING CREATED RUNNING FAILING FAILED CANCELLING CANCELED FINISHED RESTARTING SUSPENDED RECONCILING"},
		{job, "status-counts", stateFields},
		{job, "vertices.0", "id slotSharingGroupId name maxParallelism parallelism status start-time end-time duration tasks metrics"},
		{job, "vertices.0.tasks", stateFields},
		{job, "vertices.0.metrics", "read-bytes read-bytes-complete write-bytes write-bytes-complete read-records read-records-complete write-records write-records-complete accumulated-backpressured-time accumulated-idle-time accumulated-busy-time"},
		{job, "plan", "jid name type nodes"},
		{job, "plan.nodes.1", "id parallelism operator operator_strategy description optimizer_properties inputs"},
		{"/taskmanagers", "taskmanagers.0", "id path dataPort jmxPort timeSinceLastHeartbeat slotsNumber freeSlots totalResource freeResource hardware memoryConfiguration blocked"},
		{"/taskmanagers", "taskmanagers.0.totalResource", resourceFields},
		{"/taskmanagers", "taskmanagers.0.freeResource", resourceFields},
		{"/taskmanagers", "taskmanagers.0.hardware", "cpuCores physicalMemory freeMemory managedMemory"},
		{"/taskmanagers", "taskmanagers.0.memoryConfiguration", "frameworkHeap taskHeap frameworkOffHeap taskOffHeap networkMemory managedMemory jvmMetaspace jvmOverhead totalFlinkMemory totalProcessMemory"},
	} {
		for _, prefix := range []string{"", "/v1"} {
			body := askFlink(t, source, prefix+c.target, http.StatusOK)
			if c.path != "" {
				body = at(body, c.path)
			}
			got, _ := body.(map[string]any)
			if want := slices.Sorted(slices.Values(strings.Fields(c.fields))); !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
				t.Errorf("%s %s has %v, want %v", c.target, c.path, slices.Sorted(maps.Keys(got)), want)
			}
		}
	}
}

func TestFlinkValues(t *testing.T) {
	t.Parallel()
	source := fakeFlink{state: sampleFlink()}
	job := "/jobs/" + flinkID("job", "aircraft-activity")
	for _, c := range []struct {
		target, path string
		want         any
	}{
		{"/overview", "jobs-running", 2.0},
		{"/overview", "jobs-failed", 1.0},
		{"/overview", "slots-total", 8.0},
		{"/overview", "flink-version", "klgstream-1.2.3"},
		{"/jobs/overview", "jobs.0.state", "RUNNING"},
		{"/jobs/overview", "jobs.0.end-time", -1.0},
		{"/jobs/overview", "jobs.0.duration", 3_600_000.0},
		{"/jobs/overview", "jobs.0.tasks.running", 7.0},
		{"/jobs/overview", "jobs.0.tasks.total", 8.0},
		{"/jobs/overview", "jobs.2.duration", 60_000.0},
		{job, "name", "aircraft-activity"},
		{job, "vertices.0.metrics.read-records", 100.0},
		{job, "vertices.1.status", "INITIALIZING"},
		{job, "vertices.1.parallelism", 4.0},
		{job, "status-counts.RUNNING", 1.0},
		{job, "timestamps.FAILED", 0.0},
		{job + "/metrics", "0.id", "lastCheckpointDuration"},
		{job + "/metrics?get=numRestarts,nope", "0.value", "2"},
		{"/taskmanagers", "taskmanagers.0.hardware.cpuCores", 2.0},
	} {
		if got := at(askFlink(t, source, c.target, http.StatusOK), c.path); got != c.want {
			t.Errorf("%s %s is %v, want %v", c.target, c.path, got, c.want)
		}
	}
	if id := flinkID("job", "aircraft-activity"); len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("id is %q", id)
	}
	if list, ok := askFlink(t, fakeFlink{}, "/jobs/overview", http.StatusOK).(map[string]any)["jobs"].([]any); !ok || len(list) != 0 {
		t.Errorf("no job is answered %v", list)
	}
}

func TestFlinkRefuses(t *testing.T) {
	t.Parallel()
	source := fakeFlink{state: sampleFlink()}
	for _, target := range []string{"/jobs/nope", "/jobs/nope/metrics"} {
		if errs, _ := at(askFlink(t, source, target, http.StatusNotFound), "errors").([]any); len(errs) != 1 {
			t.Errorf("%s: errors are %v", target, errs)
		}
	}
	askFlink(t, fakeFlink{err: errors.New("recovering")}, "/overview", http.StatusServiceUnavailable)
	w := httptest.NewRecorder()
	FlinkHandler(source).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "/jobs/x", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a change is answered %d", w.Code)
	}
}
