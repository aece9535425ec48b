package engine

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a processor shows Prometheus. Outcomes of events are counted per checkpoint, not per event.
type metrics struct {
	events      *prometheus.CounterVec
	watermark   *prometheus.GaugeVec
	lag         *prometheus.GaugeVec
	loopLag     *prometheus.GaugeVec
	keys        *prometheus.GaugeVec
	decoded     *prometheus.GaugeVec
	unwritten   *prometheus.GaugeVec
	state       *prometheus.GaugeVec
	eventLag    *prometheus.GaugeVec
	recovery    *prometheus.GaugeVec
	offset      *prometheus.GaugeVec
	records     *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	dirty       prometheus.Histogram
	checkpoint  prometheus.Histogram
	size        prometheus.Histogram
	interval    prometheus.Histogram
	stall       prometheus.Histogram
	checkpoints *prometheus.CounterVec
	rebalances  prometheus.Counter
	failures    prometheus.Counter
	recovered   prometheus.Counter
	overwritten prometheus.Counter
	repeated    prometheus.Counter
}

// newMetrics registers them.
func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "klgstream"
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Name: name, Help: help}, []string{"partition"})
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Name: name, Help: help, NativeHistogramBucketFactor: 1.2, Buckets: buckets})
	}
	count := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help})
	}
	m := &metrics{
		events: vec("events_total", "Events by what became of them: counted, late, dead, fenced (delivered again, already counted), rekeyed (passed on to the partition of their key), skipped (none of this job's).",
			"partition", "outcome"),
		watermark:   gauge("watermark_seconds", "The partition's watermark as seconds since the epoch."),
		lag:         gauge("input_lag_records", "Records of the input topic not folded yet."),
		loopLag:     gauge("loop_lag_records", "Records of the loop topic not folded yet: events on their way to the partition of their key."),
		keys:        gauge("table_keys", "Keys in the partition's group table."),
		records:     vec("written_records_total", "Records acknowledged, by kind: table, loop, output, late, dead.", "kind"),
		bytes:       vec("written_bytes_total", "Bytes of records acknowledged, before compression.", "kind"),
		decoded:     gauge("table_decoded_keys", "Keys whose state is decoded: in use lately, or not written yet."),
		unwritten:   gauge("dirty_keys", "Keys of the partition that have changed and wait for a checkpoint, when the last one ended; --max-dirty bounds them."),
		state:       gauge("table_bytes", "Bytes of the partition's states as records; those of decoded keys at the mean size of what was last written."),
		eventLag:    gauge("event_time_lag_seconds", "How far the partition's watermark was behind the clock at its last checkpoint."),
		recovery:    gauge("recovery_remaining_records", "Offsets of the changelog that recovery has still to read; 0 when it is through."),
		offset:      gauge("table_offset", "Offset of the last record of its changelog that the partition's table holds, or, with a hot standby, the copy of another replica's."),
		dirty:       histogram("checkpoint_keys", "Changed keys in a partition's part of a checkpoint.", prometheus.ExponentialBuckets(1, 8, 7)...),
		checkpoint:  histogram("checkpoint_duration_seconds", "Time of a checkpoint from cut to commit.", prometheus.ExponentialBuckets(0.001, 2, 14)...),
		size:        histogram("checkpoint_bytes", "Bytes of all records of a checkpoint, before compression.", prometheus.ExponentialBuckets(1024, 4, 10)...),
		interval:    histogram("checkpoint_interval_seconds", "Time from the start of one checkpoint to that of the next one that has something to write.", prometheus.ExponentialBuckets(0.01, 2, 12)...),
		stall:       histogram("rebalance_stall_seconds", "Time without folding around a rebalance: from the end of a generation, or the start of a run, until the next one's partitions are recovered.", prometheus.ExponentialBuckets(0.01, 2, 14)...),
		checkpoints: vec("checkpoints_total", "Checkpoints by outcome: committed, deferred (written, the next one commits), failed (the run ends and is started again from the log).", "outcome"),
		rebalances:  count("rebalances_total", "Generations of the consumer group this replica took part in."),
		failures:    count("run_failures_total", "Runs that ended with an error and were started again from the log."),
		recovered:   count("recovered_records_total", "Records of changelogs that were read before the assigned partitions could be folded; a hot standby has read them already."),
		overwritten: count("foreign_table_records_total", "Records of a predecessor found in the own changelog after a takeover and written over."),
		repeated:    count("foreign_results_total", "Results that were written once more after a takeover, because a predecessor's had arrived behind them."),
	}
	for _, outcome := range []string{"committed", "deferred", "failed"} {
		m.checkpoints.WithLabelValues(outcome)
	}
	reg.MustRegister(m.events, m.watermark, m.lag, m.loopLag, m.keys, m.decoded, m.unwritten, m.state, m.eventLag, m.recovery, m.offset, m.records, m.bytes,
		m.dirty, m.checkpoint, m.size, m.interval, m.stall, m.checkpoints, m.rebalances, m.failures, m.recovered, m.overwritten, m.repeated)
	return m
}

// checkpointed notes a checkpoint that is over; last is when the one before began, zero if there was none.
func (m *metrics) checkpointed(c *Checkpointed, last time.Time) {
	m.checkpoint.Observe(c.Ended.Sub(c.Began).Seconds())
	m.size.Observe(float64(c.Bytes))
	if !last.IsZero() {
		m.interval.Observe(c.Began.Sub(last).Seconds())
	}
	switch {
	case c.Err != nil:
		m.checkpoints.WithLabelValues("failed").Inc()
	case c.Committed:
		m.checkpoints.WithLabelValues("committed").Inc()
	default:
		m.checkpoints.WithLabelValues("deferred").Inc()
	}
}

// partitionMetrics is one partition's part.
type partitionMetrics struct {
	all                                             *metrics
	counted, late, dead, fenced, rekeyed, skipped   prometheus.Counter
	watermark, lag, keys, decoded, unwritten, state prometheus.Gauge
	eventLag, recovery, offset, loopLag             prometheus.Gauge
}

func (m *metrics) partition(id int32) *partitionMetrics {
	p := strconv.Itoa(int(id))
	outcome := func(o string) prometheus.Counter { return m.events.WithLabelValues(p, o) }
	return &partitionMetrics{
		all: m, counted: outcome("counted"), late: outcome("late"), dead: outcome("dead"), fenced: outcome("fenced"),
		rekeyed: outcome("rekeyed"), skipped: outcome("skipped"), watermark: m.watermark.WithLabelValues(p), lag: m.lag.WithLabelValues(p), loopLag: m.loopLag.WithLabelValues(p), keys: m.keys.WithLabelValues(p),
		decoded: m.decoded.WithLabelValues(p), unwritten: m.unwritten.WithLabelValues(p), state: m.state.WithLabelValues(p), eventLag: m.eventLag.WithLabelValues(p), recovery: m.recovery.WithLabelValues(p),
		offset: m.offset.WithLabelValues(p),
	}
}

// leave shows nothing of a partition that another replica has now.
func (m *partitionMetrics) leave() {
	for _, g := range []prometheus.Gauge{m.lag, m.loopLag, m.keys, m.decoded, m.unwritten, m.state, m.eventLag, m.recovery} {
		g.Set(0)
	}
}

// acknowledged publishes what a checkpoint made durable.
func (m *partitionMetrics) acknowledged(o outcomes, s *spools) {
	m.counted.Add(float64(o.counted))
	m.late.Add(float64(o.late))
	m.dead.Add(float64(o.dead))
	m.fenced.Add(float64(o.fenced))
	m.rekeyed.Add(float64(o.rekeyed))
	m.skipped.Add(float64(o.skipped))
	m.wrote("table", &s.table)
	m.wrote("output", &s.out)
	m.wrote("late", &s.late)
	m.wrote("dead", &s.dead)
	for _, l := range s.loop {
		m.wrote("loop", l)
	}
}

// wrote counts acknowledged records.
func (m *partitionMetrics) wrote(kind string, s *spool) {
	m.all.records.WithLabelValues(kind).Add(float64(len(s.records)))
	m.all.bytes.WithLabelValues(kind).Add(float64(s.bytes))
}

// outcomes counts events by what became of them between two cuts.
type outcomes struct{ counted, late, dead, fenced, rekeyed, forgotten, skipped int }
