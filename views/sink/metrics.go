package sink

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/views"
)

// metrics is what a sink measures.
type metrics struct {
	batches  *prometheus.CounterVec // by outcome
	rows     *prometheus.CounterVec // by table
	refused  *prometheus.CounterVec // by fate
	retries  prometheus.Counter
	errors   prometheus.Counter
	duration prometheus.Histogram
	delay    *prometheus.HistogramVec // by topic
	lag      *prometheus.GaugeVec     // by topic and partition
}

// newMetrics makes the metrics and registers them; sinks of one process may share a registry only under labels of their own
// (prometheus.WrapRegistererWith).
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "klgstream_sink_batches_total", Help: "Writes into the store, by outcome: written, failed (tried again), refused (for good).",
		}, []string{"outcome"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "klgstream_sink_rows_total", Help: "Rows made durable, by table; a row delivered again counts again.",
		}, []string{"table"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "klgstream_sink_refused_records_total", Help: "Records that are no row, by fate: dead_lettered, or left on the dead-letter topic.",
		}, []string{"fate"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "klgstream_sink_retries_total", Help: "Attempts that failed and were made again.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "klgstream_sink_group_errors_total", Help: "Errors of the consumer group, failed offset commits among them.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "klgstream_sink_write_duration_seconds", Help: "Time of a write into the store, whatever its outcome.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16), NativeHistogramBucketFactor: 1.1,
		}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "klgstream_sink_row_delay_seconds", Help: "Time from a record's timestamp to its row being durable, for the oldest record of each batch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 19), NativeHistogramBucketFactor: 1.1,
		}, []string{"topic"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "klgstream_sink_lag_records", Help: "Records of the partition that are not durable rows yet.",
		}, []string{"topic", "partition"}),
	}
	for _, outcome := range []string{"written", "failed", "refused"} {
		m.batches.WithLabelValues(outcome)
	}
	for _, table := range []string{"windows", "late_events", "dead_letters"} {
		m.rows.WithLabelValues(table)
	}
	for _, fate := range []string{"dead_lettered", "left"} {
		m.refused.WithLabelValues(fate)
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.batches, m.rows, m.refused, m.retries, m.errors, m.duration, m.delay, m.lag} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// write counts one write.
func (m *metrics) write(b views.Batch, took time.Duration, err error) {
	m.duration.Observe(took.Seconds())
	switch {
	case err == nil:
		m.batches.WithLabelValues("written").Inc()
		m.rows.WithLabelValues("windows").Add(float64(len(b.Windows)))
		m.rows.WithLabelValues("late_events").Add(float64(len(b.Late)))
		m.rows.WithLabelValues("dead_letters").Add(float64(len(b.Dead)))
	case views.Retryable(err):
		m.batches.WithLabelValues("failed").Inc()
	default:
		m.batches.WithLabelValues("refused").Inc()
	}
}
