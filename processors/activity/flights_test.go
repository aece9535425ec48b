package activity_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
)

const partitions = 4

// broker is a cluster with the job's topics.
func broker(t *testing.T) []string {
	t.Helper()
	return brokerOf(t, partitions)
}

// brokerOf is one whose topics have n partitions.
func brokerOf(t *testing.T, n int32) []string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "5000000"}),
		kfake.SeedTopics(n, activity.Input, activity.Output, activity.Late, activity.Dead, activity.Group+"-table", activity.Group+"-loop"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// producer writes to the partitions it is told.
func producer(t *testing.T, brokers []string) sarama.SyncProducer {
	t.Helper()
	c := sarama.NewConfig()
	c.Producer.MaxMessageBytes = 4 << 20
	c.Version = sarama.V2_8_0_0
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	p, err := sarama.NewSyncProducer(brokers, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// publish sends values in order, spread over the partitions, and waits until all are acknowledged.
func publish(t *testing.T, brokers []string, values [][]byte) {
	t.Helper()
	var ms []*sarama.ProducerMessage
	for i, v := range values {
		ms = append(ms, &sarama.ProducerMessage{Topic: activity.Input, Partition: int32(i % partitions), Value: sarama.ByteEncoder(v)})
	}
	if err := producer(t, brokers).SendMessages(ms); err != nil {
		t.Fatal(err)
	}
}

// run processes until the test ends or the returned function is called.
func run(t *testing.T, brokers []string, c engine.Config, a activity.Config) (stop func()) {
	t.Helper()
	job, err := activity.New(a)
	if err != nil {
		t.Fatal(err)
	}
	c.Brokers, c.Now = brokers, time.Now
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	p, err := engine.New(c, job)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// window is what a result says, by its key.
type window struct {
	end, count, revision int64
	final, withdrawn     bool
}

// tail reads a topic from its start until enough says so.
func tail(t *testing.T, brokers []string, topic string, enough func(m *sarama.ConsumerMessage) bool) {
	t.Helper()
	tailN(t, brokers, partitions, topic, enough)
}

func tailN(t *testing.T, brokers []string, n int32, topic string, enough func(m *sarama.ConsumerMessage) bool) {
	t.Helper()
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	consumer, err := sarama.NewConsumer(brokers, c)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	merged := make(chan *sarama.ConsumerMessage)
	for p := range n {
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.AsyncClose()
		go func() {
			for m := range pc.Messages() {
				select {
				case merged <- m:
				case <-t.Context().Done():
				}
			}
		}()
	}
	for m := range merged {
		if enough(m) {
			return
		}
	}
}

func flights(t *testing.T) [][]byte {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(unzip(t, "../../deploy/devstack/flights-2013-w1.jsonl.gz")), []byte("\n"))
	return lines
}

func unzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// expected reads what Flink counts, by window key.
func expected(t *testing.T, file, definition string) map[string][2]int64 {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(unzip(t, filepath.Join("../window/testdata/expected-w1", file)))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][2]int64, len(rows))
	for _, r := range rows[1:] {
		end, _ := strconv.ParseInt(r[2], 10, 64)
		count, _ := strconv.ParseInt(r[3], 10, 64)
		start, _ := strconv.ParseInt(r[1], 10, 64)
		kind, _, _ := strings.Cut(definition, ":")
		w := codecs.Window{Registration: r[0], Definition: definition, Kind: kind, Start: start, End: end}
		out[string(w.AppendKey(nil))] = [2]int64{end, count}
	}
	return out
}

// TestFlights counts a week of flights, published without keys, in every kind of window at once, and compares every
// window with what Flink counts.
func TestFlights(t *testing.T) {
	kinds := map[string]string{
		"tumbling:1h":                  "tumbling_1h.csv.gz",
		"hopping:24h/1h":               "hopping_24h_1h.csv.gz",
		"cumulating:1h/1d":             "cumulate_1h_1d.csv.gz",
		"session:30m":                  "session_30m.csv.gz",
		"tumbling:1d@America/New_York": "tumbling_1d_new_york.csv.gz",
	}
	for definition, file := range kinds {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			brokers := broker(t)
			publish(t, brokers, flights(t))
			run(t, brokers, engine.Config{Bound: 24 * time.Hour, Idle: engine.IdleHold}, activity.Config{Windows: []string{definition}})
			want := expected(t, file, definition)
			compare(t, brokers, want)
		})
	}
}

// compare reads results until they are the wanted ones; a result beyond them fails at once.
func compare(t *testing.T, brokers []string, want map[string][2]int64) {
	t.Helper()
	compareN(t, brokers, partitions, want)
}

func compareN(t *testing.T, brokers []string, n int32, want map[string][2]int64) {
	t.Helper()
	got := make(map[string]window)
	right := 0
	tailN(t, brokers, n, activity.Output, func(m *sarama.ConsumerMessage) bool {
		var w codecs.Window
		if err := w.UnmarshalJSON(m.Value); err != nil {
			t.Fatal(err)
		}
		key := string(m.Key)
		old, seen := got[key]
		if seen && w.Revision < old.revision {
			return false
		}
		ok := func(w window) bool {
			e, known := want[key]
			return known && !w.withdrawn && e == [2]int64{w.end, w.count}
		}
		now := window{w.End, w.Count, w.Revision, w.Final, w.Withdrawn}
		if seen && ok(old) {
			right--
		}
		if ok(now) {
			right++
		}
		got[key] = now
		return right == len(want)
	})
	var extra []string
	for key, w := range got {
		if _, ok := want[key]; !ok && !w.withdrawn {
			extra = append(extra, key)
		}
	}
	if sort.Strings(extra); len(extra) > 0 {
		t.Errorf("%d windows that Flink does not have, the first %s", len(extra), extra[0])
	}
}
