package engine

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// twoPartitions is a run that has not begun, of a job with two partitions.
func twoPartitions(t *testing.T) *run[tick, tally] {
	t.Helper()
	rig := newRig(t)
	return &run[tick, tally]{
		owner: &Processor{config: rig.config, metrics: newMetrics(prometheus.NewRegistry())}, config: &rig.config, topics: &rig.topics, count: 2,
		job:        &Job[tick, tally]{Input: "in", New: func() Topology[tick, tally] { return tickTopology{new(int64)} }},
		partitions: map[int32]*partition[tick, tally]{},
	}
}

// While changelogs are read it is told how much of them is left.
func TestRecoveringIsCounted(t *testing.T) {
	t.Parallel()
	r := twoPartitions(t)
	one, other := r.partition(0), r.partition(1)
	one.recovering(100)
	other.recovering(1000)
	problem := &recovering[tick, tally]{[]*partition[tick, tally]{one, other}}
	if got := problem.Error(); got != "recovering: 2 of 2 partitions have 1100 records of their changelogs to read" {
		t.Error(got)
	}
	one.table = 99
	if got := problem.Error(); got != "recovering: 1 of 2 partitions have 1000 records of their changelogs to read" {
		t.Error(got)
	}
}

// A processor is stuck when no checkpoint ends, or brokers will not give out a partition; not when there is no generation.
func TestStuck(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1e12)
	p := &Processor{config: Config{Now: func() time.Time { return now }, CommitInterval: time.Second}}
	for _, c := range []struct {
		alive  time.Time
		unread error
		want   string
	}{
		{time.Time{}, nil, ""},
		{now, nil, ""},
		{now.Add(-stuckAfter - time.Second), nil, ""},
		{now.Add(-stuckAfter - 2*time.Second), nil, "no checkpoint has come to its end for 12s"},
		{now, errNotClaimed, errNotClaimed.Error()},
	} {
		p.beat(c.alive, 1, c.unread)
		if err := p.Ready(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("alive at %v: %v, want %q", c.alive, err, c.want)
		}
	}
}

// What cannot be read is named until it has been read for a while.
func TestUnread(t *testing.T) {
	t.Parallel()
	r := twoPartitions(t)
	one, other := r.partition(0), r.partition(1)
	s := &session[tick, tally]{partitions: []*partition[tick, tally]{one, other}}
	now := r.config.Now()
	if err := r.unread(s, now); err != nil {
		t.Error(err)
	}
	other.trouble(now)
	if err := r.unread(s, now.Add(time.Second)); err == nil || !strings.Contains(err.Error(), "partitions [1]") {
		t.Error(err)
	}
	if err := r.unread(s, now.Add(stuckAfter)); err != nil {
		t.Error(err)
	}
}

// A member without partitions is ready, and says that there is nothing for it.
func TestNote(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1e12)
	p := &Processor{}
	for assigned, want := range []string{"without partitions", "", ""} {
		p.beat(now, assigned, nil)
		if got := p.Note(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("with %d partitions: %q", assigned, got)
		}
	}
}

// What waits in the loop is told apart from what waits in the input.
func TestLagOfTheLoop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(position{input: 3, loop: 5, clock: clock{watermark: math.MinInt64}})
	r.p.claim, r.p.loopClaim = &fakeClaim{end: 10}, &fakeClaim{end: 105}
	r.p.show()
	if input, loop := testutil.ToFloat64(r.p.metrics.lag), testutil.ToFloat64(r.p.metrics.loopLag); input != 7 || loop != 100 {
		t.Errorf("lag %v of the input and %v of the loop, want 7 and 100", input, loop)
	}
	r.p.metrics.leave()
	if loop := testutil.ToFloat64(r.p.metrics.loopLag); loop != 0 {
		t.Errorf("lag %v of a partition that is another's", loop)
	}
}
