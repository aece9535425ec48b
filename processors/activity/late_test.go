package activity_test

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
)

// Of one source in file order, what is late is known event by event: the same as in Flink with a watermark after each event.
func TestLateFlights(t *testing.T) {
	t.Parallel()
	for name, lateness := range map[string]time.Duration{"late_bound5m_lateness0": 0, "late_bound5m_lateness10m": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			brokers := brokerOf(t, 1)
			var ms []*sarama.ProducerMessage
			for _, v := range flights(t) {
				ms = append(ms, &sarama.ProducerMessage{Topic: activity.Input, Value: sarama.ByteEncoder(v)})
			}
			if err := producer(t, brokers).SendMessages(ms); err != nil {
				t.Fatal(err)
			}
			run(t, brokers, engine.Config{Bound: 5 * time.Minute, Idle: engine.IdleHold}, activity.Config{AllowedLateness: lateness})
			want := lateLines(t, name)
			tailN(t, brokers, 1, activity.Late, func(m *sarama.ConsumerMessage) bool {
				var headers []codecs.Header
				for _, h := range m.Headers {
					headers = append(headers, codecs.Header{Key: string(h.Key), Value: h.Value})
				}
				l, err := codecs.ParseLetter(m.Key, m.Value, headers)
				if err != nil {
					t.Fatal(err)
				}
				if !want[l.Offset+1] || l.Reason != engine.ReasonLate {
					t.Errorf("line %d is late: %s", l.Offset+1, l.Detail)
				}
				delete(want, l.Offset+1)
				return len(want) == 0
			})
			compareN(t, brokers, 1, expected(t, name+".csv.gz", "tumbling:1h"))
		})
	}
}

// lateLines are the numbers of the lines that are late, from 1.
func lateLines(t *testing.T, name string) map[int64]bool {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(unzip(t, "../window/testdata/expected-w1/"+name+".events.csv.gz"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[int64]bool)
	for _, r := range rows[1:] {
		n, err := strconv.ParseInt(r[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = true
	}
	return out
}
